import type { RequestView } from '../../client/index.ts';
import { errorText, InputError } from '../../errors.ts';
import { type Json, parseJson, type StoredSpan, SYSTEM_ID } from '../../span/index.ts';
import { type App, attempt, pause, type View } from './app.ts';
import { field, h, put } from './dom.ts';
import { durationText, pretty, shortId, statusChip } from './format.ts';

const RUN_CODE_KERNEL_ID = '00000000-0000-4000-8000-000000000001';
const FUNCTIONS_MAX = 200;
const POLL_MS = { first: 100, last: 1_000 };
const ENDS: readonly string[] = ['complete', 'dead', 'cancelled'];
const SAMPLE = `export default function (input) {
  const { price = 10, count = 1 } = input ?? {};
  return { total: price * count };
}
`;
const SAMPLE_INPUT = '{ "price": 20, "count": 3 }';

/** Run a function, kept or written here, and watch what becomes of it. */
export const runView: View = (app) => {
  const choice = h('select', { name: 'function', 'data-filter': true }, h('option', { value: '' }, 'New code'));
  const code = h('textarea', { name: 'code', rows: 12, spellcheck: 'false', autocapitalize: 'off' });
  const input = h('textarea', { name: 'input', rows: 4, spellcheck: 'false', autocapitalize: 'off' });
  const name = h('input', { name: 'name', placeholder: 'order', autocomplete: 'off', maxlength: 200 });
  const button = h('button', { class: 'primary' }, 'Run');
  const problem = h('p', { class: 'error-text', role: 'alert', hidden: true });
  const outcome = h('div', { 'aria-live': 'polite' }, hint());
  const keep = h(
    'div',
    { class: 'keep' },
    field('Keep it as', name),
    h('button', { type: 'button', click: () => attempt(app, outcome, save) }, 'Save function'),
  );
  code.value = SAMPLE;
  input.value = SAMPLE_INPUT;
  const functions = new Map<string, StoredSpan>();

  const complain = (text: string, field: HTMLElement) => {
    problem.textContent = text;
    problem.hidden = false;
    field.setAttribute('aria-invalid', 'true');
    field.focus();
  };
  const forgive = () => {
    problem.hidden = true;
    for (const field of [code, input, name]) field.removeAttribute('aria-invalid');
  };

  const choose = () => {
    const fn = functions.get(choice.value);
    code.readOnly = fn !== undefined;
    code.value = fn?.code ?? SAMPLE;
    keep.hidden = fn !== undefined;
    if (fn?.input != null) input.value = pretty(fn.input);
    app.replaceQuery(fn === undefined ? {} : { function: fn.id });
  };
  choice.addEventListener('change', choose);

  const loadFunctions = async (chosen: string | null) => {
    const { spans } = await app.client.spans({ entity_type: 'function', limit: FUNCTIONS_MAX });
    functions.clear();
    for (const span of spans)
      if (span.tenant_id !== SYSTEM_ID && span.status !== 'retired') functions.set(span.id, span);
    put(
      choice,
      h('option', { value: '' }, 'New code'),
      ...[...functions.values()].map(({ id, name }) =>
        h('option', { value: id, selected: id === chosen }, name ?? shortId(id)),
      ),
    );
    if (chosen !== null && functions.has(chosen)) choose();
  };

  const save = async () => {
    forgive();
    if (name.value.trim() === '') return complain('Say what it is to be called.', name);
    const before = [...functions.values()].find(
      (fn) => fn.name === name.value.trim() && fn.owner_id === app.me.user_id && fn.tenant_id === app.me.tenant_id,
    );
    const saved = await app.client.append({
      ...(before === undefined ? {} : { id: before.id, seq: before.seq + 1 }),
      entity_type: 'function',
      did: 'deployed',
      status: 'active',
      name: name.value.trim(),
      visibility: before?.visibility ?? 'private',
      code: code.value,
      language: 'javascript',
    });
    await loadFunctions(saved.id);
    put(
      outcome,
      h(
        'p',
        { class: 'notice' },
        `${name.value.trim()} is kept, version ${saved.seq}. `,
        h('a', { href: `#/span/${saved.id}` }, 'Look at it'),
      ),
    );
  };

  const run = async () => {
    const fn = functions.get(choice.value);
    const value = readInput(input.value);
    const begun = performance.now();
    if (fn === undefined) await runOnce(app, outcome, code.value, value);
    else await runFunction(app, outcome, fn, value, begun);
  };

  const submit = async (event: Event) => {
    event.preventDefault();
    if (button.disabled) return;
    forgive();
    try {
      readInput(input.value);
    } catch (error) {
      return complain((error as Error).message, input);
    }
    button.disabled = true;
    put(outcome, h('p', { class: 'loading' }, 'Asking…'));
    await attempt(app, outcome, run);
    button.disabled = false;
  };

  const form = h(
    'form',
    {
      class: 'card form',
      submit,
      keydown: (event: KeyboardEvent) => {
        if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) form.requestSubmit();
      },
    },
    field('Function', choice),
    field('Code', code),
    field('Input, as JSON', input),
    problem,
    h('div', { class: 'actions' }, button, h('span', { class: 'dim' }, 'or Ctrl + Enter')),
    keep,
  );
  void attempt(app, outcome, () => loadFunctions(app.query.get('function')));
  return h('section', {}, h('h1', {}, 'Run'), h('div', { class: 'columns even' }, form, outcome));
};

function hint(): HTMLElement {
  return h(
    'div',
    { class: 'empty-state' },
    h('p', { class: 'empty-title' }, 'A function gets JSON and answers JSON.'),
    h('p', {}, 'It sees no network, no file and no clock beyond JavaScript’s own. What it did is signed, and stays.'),
  );
}

function readInput(text: string): Json {
  if (text.trim() === '') return null;
  try {
    return parseJson(text) as Json;
  } catch (cause) {
    throw new InputError('JSON_INVALID', `The input is not JSON: ${(cause as Error).message}`, {
      field: 'input',
      cause,
    });
  }
}

/** Code that nobody keeps goes straight to the kernel that runs code. */
async function runOnce(app: App, outcome: Element, code: string, input: Json): Promise<void> {
  const answer = await app.client.boot(RUN_CODE_KERNEL_ID, { code, input });
  const result = answer.output as {
    execution_id: string;
    status: string;
    result: Json;
    error: { message: string; code: string } | null;
  } | null;
  put(
    outcome,
    ending({
      status: result?.status ?? answer.status,
      tookMs: answer.duration_ms,
      output: result?.result ?? null,
      error: result?.error ?? answer.error,
      links: { 'The execution': result?.execution_id, 'The boot': answer.boot_event_id },
    }),
  );
}

/** A function that is kept goes through the queue; what becomes of the request is shown step by step. */
async function runFunction(app: App, outcome: Element, fn: StoredSpan, input: Json, begun: number): Promise<void> {
  const { request_id } = await app.client.execute({ span_id: fn.id, input });
  let said = '';
  for (let wait = POLL_MS.first; !app.signal.aborted; wait = Math.min(wait * 1.5, POLL_MS.last)) {
    const request = await app.client.request(request_id);
    const isEnd = ENDS.includes(request.status);
    const now = `${request.status} ${request.state} ${request.attempt}`;
    // Only what is new: it is read aloud.
    if (now !== said) put(outcome, progress(request), isEnd && requestEnding(request, performance.now() - begun));
    if (isEnd) return;
    said = now;
    await pause(wait, app.signal);
  }
}

function progress(request: RequestView): HTMLElement {
  const step = (title: string, at: string | null, detail?: string | null) =>
    h(
      'li',
      { class: at === null ? 'todo' : 'good' },
      title,
      detail != null && h('span', { class: 'dim' }, ` ${detail}`),
    );
  const isEnd = ENDS.includes(request.status);
  return h(
    'ol',
    { class: 'steps' },
    step('Asked', request.created_at, shortId(request.id)),
    step(
      request.state === 'leased' ? 'Running' : 'Ran',
      request.started_at,
      request.attempt > 1 ? `attempt ${request.attempt}` : null,
    ),
    step(isEnd ? `Ended: ${request.status}` : 'Ends', isEnd ? request.finished_at : null),
  );
}

function requestEnding(request: RequestView, tookMs: number): HTMLElement {
  return ending({
    status: request.status,
    tookMs,
    output: request.output,
    error: request.error,
    links: { 'The request': request.id, 'The execution': request.execution_ids.at(-1) },
  });
}

interface Ending {
  status: string;
  tookMs: number;
  output: Json;
  error: RequestView['error'];
  links: Record<string, string | undefined>;
}

function ending({ status, tookMs, output, error, links }: Ending): HTMLElement {
  return h(
    'section',
    { class: 'card payload result' },
    h('h2', {}, error === null ? 'Result' : 'It failed'),
    h('p', { class: 'facts' }, statusChip(status), h('span', {}, durationText(tookMs))),
    error === null
      ? h('pre', { tabindex: 0, 'aria-label': 'result' }, pretty(output))
      : h('p', { class: 'error-text' }, errorText(error)),
    h(
      'p',
      { class: 'facts' },
      ...Object.entries(links).map(
        ([title, id]) =>
          id !== undefined && h('a', { href: `#/span/${id}`, 'data-row': true }, `${title}, and its proof`),
      ),
    ),
  );
}
