/**
 * The console: one page over the HTTP routes, with no more rights than the token that is shown to it.
 *
 * The token comes by the address (`#token=…`, which no server sees) or by the form, and lives in this tab alone. What
 * spans say is somebody's word: it becomes text and nothing else.
 */
import { Client } from '../../client/index.ts';
import { type App, friendlyText, type View } from './app.ts';
import { field, h, put } from './dom.ts';
import { executionsView } from './executions.ts';
import { refreshTimes } from './format.ts';
import { queueView } from './queue.ts';
import { runView } from './run.ts';
import { spanView } from './span.ts';
import { timelineView } from './timeline.ts';

const TOKEN = 'loglineos.token';
const TIMES_MS = 5_000;
/** A reader is told of what comes at most this often. */
const ANNOUNCE_MS = 8_000;

const VIEWS: Record<string, { title: string; view: View }> = {
  timeline: { title: 'Timeline', view: timelineView },
  executions: { title: 'Executions', view: executionsView },
  queue: { title: 'Queue', view: queueView },
  run: { title: 'Run', view: runView },
};
const KEYS: [string, string][] = [
  ['1 – 4', 'Timeline, Executions, Queue, Run'],
  ['/', 'to the filter'],
  ['j  k', 'down and up in a list'],
  ['Enter', 'open'],
  ['Esc', 'out of a field; back'],
  ['p', 'pause the timeline, and go on'],
  ['← →', 'from dot to dot in the plot'],
  ['?', 'this list'],
];

const main = element('main');
const nav = element('nav');
const account = element('account');
const connection = element('connection');
const announcer = element('announcer');
const url = location.origin + location.pathname.replace(/\/console\/?$/, '');

let session: { client: Client; me: App['me'] } | null = null;
let shown = new AbortController();
let [address, before] = ['', ''];
let announcedAt = 0;

function element(id: string): HTMLElement {
  return document.getElementById(id) as HTMLElement;
}

/** A token in the address is taken out of it before anything else happens, so that it is in no link and no history. */
function takeToken(): void {
  const token = /^#token=(.+)$/.exec(location.hash)?.[1];
  if (token === undefined) return;
  sessionStorage.setItem(TOKEN, decoded(token));
  history.replaceState(null, '', `${location.pathname}#/timeline`);
  session = null;
}

/** What an address says; as it stands when it says it badly. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

async function show(): Promise<void> {
  takeToken();
  shown.abort();
  shown = new AbortController();
  const { signal } = shown;
  const token = sessionStorage.getItem(TOKEN);
  if (session === null) {
    if (token === null) return showForm();
    try {
      await signIn(token);
    } catch (error) {
      return showForm(friendlyText(error));
    }
    if (signal.aborted) return;
  }
  [before, address] = [address, location.hash];
  const [path = '', query = ''] = location.hash.replace(/^#\/?/, '').split('?');
  const [name = '', ...rest] = path.split('/').map(decoded);
  const view = name === 'span' ? spanView : (VIEWS[name]?.view ?? timelineView);
  const title = name === 'span' ? 'Span' : (VIEWS[name]?.title ?? 'Timeline');
  document.title = `${title} · LogLineOS`;
  showNav(name in VIEWS || name === 'span' ? name : 'timeline');
  showConnection('idle');
  const app = { ...(session as NonNullable<typeof session>), path: rest, query: new URLSearchParams(query), signal };
  put(main, view({ ...app, announce, showConnection, replaceQuery, restoreFocus, signOut }));
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
}

async function signIn(token: string): Promise<void> {
  const client = new Client({ url, token });
  session = { client, me: await client.me() };
  sessionStorage.setItem(TOKEN, token);
  put(
    account,
    h('span', { class: 'who' }, `${session.me.user_id} · ${session.me.tenant_id}`),
    h('button', { type: 'button', class: 'quiet', click: () => signOut() }, 'Sign out'),
  );
}

function signOut(why?: string): void {
  sessionStorage.removeItem(TOKEN);
  session = null;
  shown.abort();
  showForm(why);
}

function showForm(why?: string): void {
  put(nav);
  put(account);
  showConnection('idle');
  document.title = 'LogLineOS';
  const input = h('input', {
    type: 'password',
    name: 'token',
    autocomplete: 'off',
    required: true,
    spellcheck: 'false',
  });
  const problem = h('p', { class: 'error-text', role: 'alert', hidden: why === undefined }, why);
  const submit = async (event: Event) => {
    event.preventDefault();
    try {
      await signIn(input.value.trim());
      await show();
    } catch (error) {
      problem.textContent = friendlyText(error);
      problem.hidden = false;
      input.select();
    }
  };
  put(
    main,
    h(
      'form',
      { class: 'card form sign-in', submit },
      h('h1', {}, 'Who are you?'),
      h('p', { class: 'dim' }, 'The start of LogLineOS prints a token, and an address that holds it.'),
      field('Token', input),
      problem,
      h('div', { class: 'actions' }, h('button', { class: 'primary' }, 'Open the console')),
      h('p', { class: 'dim' }, 'It stays in this tab, and is forgotten with it.'),
    ),
  );
  input.focus();
}

function showNav(current: string): void {
  put(
    nav,
    ...Object.entries(VIEWS).map(([name, { title }]) =>
      h('a', { href: `#/${name}`, 'aria-current': name === current ? 'page' : null }, title),
    ),
  );
}

function showConnection(state: 'live' | 'away' | 'paused' | 'idle'): void {
  connection.className = `connection ${state}`;
  const text = { live: 'live', away: 'no answer, trying again', paused: 'paused', idle: '' }[state];
  if (connection.textContent !== text) connection.textContent = text;
}

function announce(text: string): void {
  if (Date.now() - announcedAt < ANNOUNCE_MS) return;
  announcedAt = Date.now();
  announcer.textContent = text;
}

function replaceQuery(query: Record<string, string>): void {
  const [path] = location.hash.split('?');
  const search = new URLSearchParams(query).toString();
  address = `${path || '#/timeline'}${search === '' ? '' : `?${search}`}`;
  history.replaceState(null, '', address);
}

function restoreFocus(rows: ParentNode): void {
  const row = [...rows.querySelectorAll<HTMLAnchorElement>('a[data-row]')].find((link) => link.hash === before);
  row?.focus();
}

/** From row to row; from outside to the first. */
function step(by: 1 | -1): void {
  const rows = [...main.querySelectorAll<HTMLElement>('a[data-row]')];
  const at = rows.indexOf(document.activeElement as HTMLElement);
  const next = rows[at === -1 ? 0 : Math.max(0, Math.min(rows.length - 1, at + by))];
  next?.focus();
  next?.scrollIntoView({ block: 'nearest' });
}

function showKeys(): void {
  const dialog = h(
    'dialog',
    { 'aria-label': 'Keys' },
    h('h2', {}, 'Keys'),
    h('dl', { class: 'keys' }, ...KEYS.flatMap(([key, what]) => [h('dt', {}, h('kbd', {}, key)), h('dd', {}, what)])),
    h('form', { method: 'dialog', class: 'actions' }, h('button', {}, 'Close')),
  );
  dialog.addEventListener('close', () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

function onKey(event: KeyboardEvent): void {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]') !== null) return;
  const target = event.target as HTMLElement;
  const isTyping = target.matches('textarea, select, input:not([type=radio])');
  if (event.key === 'Escape') {
    if (isTyping) target.blur();
    else if (before !== '' && location.hash.startsWith('#/span/')) history.back();
    else if (location.hash.startsWith('#/span/')) location.hash = '#/timeline';
    return;
  }
  if (isTyping || session === null) return;
  const actions: Record<string, () => void> = {
    '/': () => main.querySelector<HTMLElement>('[data-filter]')?.focus(),
    j: () => step(1),
    k: () => step(-1),
    p: () => main.querySelector<HTMLElement>('[data-key=p]')?.click(),
    '?': showKeys,
    ...Object.fromEntries(Object.keys(VIEWS).map((name, i) => [String(i + 1), () => go(name)])),
  };
  const action = actions[event.key];
  if (action === undefined) return;
  event.preventDefault();
  action();
}

function go(name: string): void {
  location.hash = `#/${name}`;
}

addEventListener('hashchange', () => void show());
addEventListener('keydown', onKey);
element('show-keys').addEventListener('click', showKeys);
setInterval(() => refreshTimes(main), TIMES_MS);
void show();
