import type { StoredSpan } from '../../span/index.ts';
import { attempt, emptyState, loading, type View } from './app.ts';
import { h, put } from './dom.ts';
import { bytesText, durationText, statusChip, timeAgo } from './format.ts';
import { durationPlot, percentile } from './plot.ts';

/** So many executions are drawn and listed: the newest. */
const EXECUTIONS_MAX = 300;
/** A burst of new ones is drawn once. */
const REDRAW_MS = 500;

const KINDS = {
  functions: { title: 'Functions', holds: ({ did }: StoredSpan) => did === 'ran_function' },
  boots: { title: 'Kernel boots', holds: ({ did }: StoredSpan) => did !== 'ran_function' },
  all: { title: 'All', holds: () => true },
};
type Kind = keyof typeof KINDS;

/** How long things took: a plot, and the table of the same. */
export const executionsView: View = (app) => {
  const body = h('div', { class: 'stack' }, loading());
  let kind: Kind = (app.query.get('show') as Kind) in KINDS ? (app.query.get('show') as Kind) : 'functions';
  let all: StoredSpan[] = [];

  const radios = (Object.keys(KINDS) as Kind[]).map((value, i) =>
    h(
      'label',
      {},
      h('input', { type: 'radio', name: 'show', value, checked: value === kind, 'data-filter': i === 0 }),
      KINDS[value].title,
    ),
  );
  const choose = (event: Event) => {
    kind = (event.target as HTMLInputElement).value as Kind;
    app.replaceQuery({ show: kind });
    draw();
  };

  let drawn = new AbortController();
  const draw = () => {
    drawn.abort();
    drawn = new AbortController();
    const spans = all.filter(KINDS[kind].holds);
    if (spans.length === 0) {
      put(
        body,
        emptyState('Nothing has run yet.', h('a', { href: '#/run' }, 'Run a function'), ' to see how long it takes.'),
      );
      return;
    }
    const open = (span: StoredSpan) => {
      location.hash = `#/span/${span.id}`;
    };
    put(
      body,
      figures(spans),
      h('div', { class: 'card' }, durationPlot(spans, open, AbortSignal.any([drawn.signal, app.signal]))),
      table(spans),
    );
  };

  const load = async () => {
    const { position } = await app.client.timeline('end');
    all = (await app.client.spans({ entity_type: 'execution', limit: EXECUTIONS_MAX })).spans;
    if (app.signal.aborted) return;
    draw();
    app.restoreFocus(body);
    let isPlanned = false;
    const stream = {
      filter: { entity_type: 'execution' },
      after: position,
      signal: app.signal,
      onCaughtUp: () => app.showConnection('live'),
      onAway: () => app.showConnection('away'),
    };
    for await (const { span } of app.client.stream(stream)) {
      if (all.some(({ id, seq }) => id === span.id && seq >= span.seq)) continue;
      all = [span, ...all.filter(({ id }) => id !== span.id)].slice(0, EXECUTIONS_MAX);
      if (isPlanned) continue;
      isPlanned = true;
      setTimeout(() => {
        isPlanned = false;
        // A table is not drawn anew under who walks in it.
        if (!app.signal.aborted && !body.contains(document.activeElement)) draw();
      }, REDRAW_MS);
    }
  };
  void attempt(app, body, load);

  return h(
    'section',
    {},
    h('h1', {}, 'Executions'),
    h(
      'fieldset',
      { class: 'segments', change: choose },
      h('legend', { class: 'hidden' }, 'Which executions'),
      ...radios,
    ),
    body,
  );
};

function figures(spans: StoredSpan[]): HTMLElement {
  const durations = spans.map(({ duration_ms }) => duration_ms ?? 0).toSorted((a, b) => a - b);
  const failed = spans.filter(({ status }) => status !== 'complete').length;
  const figure = (title: string, value: string) =>
    h('div', { class: 'figure' }, h('dt', {}, title), h('dd', {}, value));
  return h(
    'dl',
    { class: 'figures' },
    figure('executions', String(spans.length)),
    figure('median', durationText(percentile(durations, 0.5))),
    figure('p95', durationText(percentile(durations, 0.95))),
    figure('did not complete', failed === 0 ? 'none' : `${failed} (${Math.round((100 * failed) / spans.length)} %)`),
  );
}

function table(spans: StoredSpan[]): HTMLElement {
  const rows = spans.map((span) =>
    h(
      'tr',
      {},
      h(
        'td',
        {},
        h('a', { href: `#/span/${span.id}`, 'data-row': true }, span.name ?? (span.did ?? 'ran').replaceAll('_', ' ')),
      ),
      h('td', {}, statusChip(span.status)),
      h('td', { class: 'number' }, durationText(span.duration_ms ?? 0)),
      h('td', { class: 'number wide' }, span.queue_ms == null ? '' : durationText(span.queue_ms)),
      h('td', { class: 'number wide' }, span.memory_bytes == null ? '' : bytesText(span.memory_bytes)),
      h('td', { class: 'number' }, timeAgo(span.at)),
    ),
  );
  return h(
    'table',
    { class: 'card' },
    h('caption', { class: 'hidden' }, 'Executions, newest first'),
    h(
      'thead',
      {},
      h(
        'tr',
        {},
        h('th', { scope: 'col' }, 'What ran'),
        h('th', { scope: 'col' }, 'Status'),
        h('th', { scope: 'col', class: 'number' }, 'Took'),
        h('th', { scope: 'col', class: 'number wide' }, 'Waited'),
        h('th', { scope: 'col', class: 'number wide' }, 'Memory'),
        h('th', { scope: 'col', class: 'number' }, 'When'),
      ),
    ),
    h('tbody', {}, ...rows),
  );
}
