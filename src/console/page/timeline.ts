import type { SpanQuery } from '../../client/index.ts';
import type { StoredSpan } from '../../span/index.ts';
import { type App, attempt, emptyState, loading } from './app.ts';
import { field, h, put } from './dom.ts';
import { sentence, shortId, statusChip, timeAgo } from './format.ts';

/** So many rows stay; older ones leave, and can be asked for again. */
const ROWS_MAX = 500;
const PAGE = 100;
const FILTER_DELAY_MS = 250;

const FILTERS = [
  { name: 'entity_type', label: 'Type', example: 'execution' },
  { name: 'status', label: 'Status', example: 'complete' },
  { name: 'name', label: 'Name', example: 'order' },
  { name: 'trace_id', label: 'Trace', example: 'id of a trace' },
] as const;

const TYPES = ['execution', 'boot_event', 'request', 'function', 'policy', 'policy_error', 'metric', 'manifest'];
const STATUSES = ['active', 'scheduled', 'complete', 'error', 'timeout', 'dead', 'cancelled'];

/** What happens, newest first, as it happens. */
export function timelineView(app: App): HTMLElement {
  const list = h('ol', { class: 'rows', 'aria-label': 'Spans, newest first' });
  const more = h('div', { class: 'more' });
  const pauseButton = h('button', { type: 'button', 'aria-pressed': 'false', 'data-key': 'p' });
  const state = { paused: false, held: [] as StoredSpan[], shown: new Set<string>() };
  let filtered = new AbortController();

  const inputs = FILTERS.map(({ name, label, example }, i) => {
    const input = h('input', {
      name,
      type: 'search',
      placeholder: example,
      list: name === 'entity_type' ? 'types' : name === 'status' ? 'statuses' : null,
      autocomplete: 'off',
      spellcheck: 'false',
      value: app.query.get(name),
      'data-filter': i === 0,
    });
    return { name, input, element: field(label, input) };
  });
  const query = (): SpanQuery =>
    Object.fromEntries(inputs.map(({ name, input }) => [name, input.value.trim()]).filter(([, value]) => value !== ''));

  const show = (spans: StoredSpan[], where: 'top' | 'bottom') => {
    const isNew = (span: StoredSpan) => !state.shown.has(keyOf(span));
    const fresh = spans.filter(isNew);
    for (const span of fresh) state.shown.add(keyOf(span));
    const rows = fresh.map((span) => row(span, where === 'top'));
    if (where === 'top') list.prepend(...rows.reverse());
    else list.append(...rows);
    while (list.childElementCount > ROWS_MAX && where === 'top') {
      state.shown.delete((list.lastElementChild as HTMLElement).dataset.span as string);
      list.lastElementChild?.remove();
    }
  };

  const setPaused = (paused: boolean) => {
    state.paused = paused;
    pauseButton.setAttribute('aria-pressed', String(paused));
    if (!paused) show(state.held.splice(0), 'top');
    pauseButton.textContent = paused ? 'Go on' : 'Pause';
    app.showConnection(paused ? 'paused' : 'live');
  };
  pauseButton.addEventListener('click', () => setPaused(!state.paused));

  const load = async () => {
    filtered.abort();
    filtered = new AbortController();
    const signal = AbortSignal.any([filtered.signal, app.signal]);
    const asked = query();
    app.replaceQuery(asked as Record<string, string>);
    put(list);
    put(more, loading());
    state.shown.clear();
    state.held.length = 0;
    pauseButton.textContent = state.paused ? 'Go on' : 'Pause';
    // First where it ends, then what is there: what comes between is seen twice and shown once.
    const { position } = await app.client.timeline('end');
    const page = await app.client.spans({ ...asked, limit: PAGE });
    if (signal.aborted) return;
    show(page.spans, 'bottom');
    offerOlder(page.before, asked, signal);
    app.restoreFocus(list);
    void attempt(app, more, () => goOn(asked, position, signal));
  };

  const goOn = async (asked: SpanQuery, position: string, signal: AbortSignal) => {
    const connected = (connection: 'live' | 'away') => () => {
      if (!signal.aborted) app.showConnection(state.paused ? 'paused' : connection);
    };
    const stream = { filter: asked, after: position, signal, onCaughtUp: connected('live'), onAway: connected('away') };
    for await (const { span } of app.client.stream(stream)) {
      if (signal.aborted) return;
      if (state.paused) {
        if (state.shown.has(keyOf(span))) continue; // paused while the first page was on its way
        state.held.push(span);
        if (state.held.length > ROWS_MAX) state.held.shift();
        pauseButton.textContent = `Go on, ${state.held.length} new`;
      } else {
        if (list.childElementCount === 0) put(more);
        show([span], 'top');
        app.announce(`New: ${sentence(span).textContent}`);
      }
    }
  };

  const offerOlder = (before: string | null, asked: SpanQuery, signal: AbortSignal) => {
    if (list.childElementCount === 0) {
      put(more, nothing(asked));
      return;
    }
    if (before === null) {
      put(more, h('p', { class: 'end' }, 'That is where it begins.'));
      return;
    }
    if (list.childElementCount >= ROWS_MAX) {
      put(more, h('p', { class: 'end' }, `${ROWS_MAX} are shown. A filter finds what is older.`));
      return;
    }
    const older = async () => {
      const page = await app.client.spans({ ...asked, limit: PAGE }, before);
      if (signal.aborted) return;
      show(page.spans, 'bottom');
      offerOlder(page.before, asked, signal);
    };
    put(more, h('button', { type: 'button', click: () => attempt(app, more, older) }, 'Show older'));
  };

  let timer: ReturnType<typeof setTimeout> | undefined;
  const reload = () => void attempt(app, more, load);
  const changed = () => {
    clearTimeout(timer);
    timer = setTimeout(reload, FILTER_DELAY_MS);
  };
  const clear = () => {
    for (const { input } of inputs) input.value = '';
    reload();
  };
  reload();

  return h(
    'section',
    {},
    h('h1', {}, 'Timeline'),
    h(
      'form',
      { class: 'filters', role: 'search', input: changed, submit: (event: Event) => event.preventDefault() },
      ...inputs.map(({ element }) => element),
      h('div', { class: 'actions' }, h('button', { type: 'button', click: clear }, 'Clear'), pauseButton),
      options('types', TYPES),
      options('statuses', STATUSES),
    ),
    list,
    more,
  );
}

function keyOf({ id, seq }: StoredSpan): string {
  return `${id} ${seq}`;
}

function row(span: StoredSpan, isNew: boolean): HTMLElement {
  return h(
    'li',
    { 'data-span': keyOf(span), class: isNew ? 'new' : null },
    h(
      'a',
      { href: `#/span/${span.id}`, 'data-row': true },
      timeAgo(span.at),
      h('span', { class: 'type' }, span.entity_type),
      sentence(span),
      statusChip(span.status),
      h('code', { class: 'id' }, shortId(span.id), span.seq > 0 && h('small', {}, ` v${span.seq}`)),
    ),
  );
}

function nothing(asked: SpanQuery): HTMLElement {
  if (Object.keys(asked).length > 0) {
    return emptyState(
      'Nothing matches.',
      'A filter wants the whole word. Clear one, or wait: what comes is shown here.',
    );
  }
  return emptyState(
    'Nothing has happened yet.',
    'All that the system does becomes a span. ',
    h('a', { href: '#/run' }, 'Run a function'),
    ' and watch it appear.',
  );
}

function options(id: string, values: string[]): HTMLElement {
  return h('datalist', { id }, ...values.map((value) => h('option', { value })));
}
