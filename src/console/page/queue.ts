import type { Metrics, RequestFilter, RequestView } from '../../client/index.ts';
import { errorText } from '../../errors.ts';
import type { StoredSpan } from '../../span/index.ts';
import { type App, attempt, confirmed, emptyState, loading, pause, type View } from './app.ts';
import { h, put } from './dom.ts';
import { durationText, shortId, statusChip, timeAgo } from './format.ts';

const REFRESH_MS = 2_000;
const REQUESTS_MAX = 100;
const STATES = {
  ready: 'due, wait for a worker',
  delayed: 'wait for their time',
  leased: 'run now',
  dead: 'given up',
} as const;
type State = keyof typeof STATES;

/** What waits, what runs and what was given up; and what answers to it. */
export const queueView: View = (app) => {
  const depths = h('div', { class: 'figures', role: 'group', 'aria-label': 'Queue by state' });
  const list = h('div', {}, loading());
  const notice = h('p', { class: 'notice', role: 'status', hidden: true });
  const policies = h('div', {}, loading());
  let chosen = (app.query.get('state') ?? '') as State | '';

  const say = (text: string) => {
    notice.textContent = text;
    notice.hidden = false;
  };
  const choose = (state: State) => {
    chosen = chosen === state ? '' : state;
    app.replaceQuery(chosen === '' ? {} : { state: chosen });
    void attempt(app, list, refresh);
  };

  const refresh = async () => {
    const filter: RequestFilter = chosen === '' ? {} : { state: chosen };
    const [page, { queue }] = await Promise.all([
      app.client.requests({ ...filter, limit: REQUESTS_MAX }),
      app.client.metrics(1),
    ]);
    if (app.signal.aborted) return;
    const focused = depths.contains(document.activeElement)
      ? (document.activeElement as HTMLElement).dataset.state
      : null;
    put(depths, ...(Object.keys(STATES) as State[]).map((state) => depth(state, queue, chosen === state, choose)));
    if (focused != null) depths.querySelector<HTMLElement>(`[data-state="${focused}"]`)?.focus();
    // Not under who is about to press one of its buttons.
    if (list.contains(document.activeElement)) return;
    put(
      list,
      page.requests.length === 0
        ? nothing(chosen)
        : requestTable(page.requests, (how, request) => change(how, request)),
    );
  };

  const change = async (how: 'cancel' | 'redrive', request: RequestView) => {
    const name = request.name ?? shortId(request.function_id);
    const question =
      how === 'cancel'
        ? `Cancel this request to run ${name}? It will not run.`
        : `Let this request to run ${name} begin again?`;
    if (!(await confirmed(question, how === 'cancel' ? 'Cancel request' : 'Begin again'))) return;
    await attempt(app, list, async () => {
      const { changed, unchanged } = await app.client[how]({ ids: [request.id] });
      const done = how === 'cancel' ? 'is cancelled' : 'begins again';
      say(changed.length === 1 ? `The request to run ${name} ${done}.` : `Nothing changed: ${unchanged[0]?.reason}.`);
      (document.activeElement as HTMLElement | null)?.blur();
      await refresh();
    });
  };

  void attempt(app, list, async () => {
    await refresh();
    app.restoreFocus(list);
    app.showConnection('live');
    for (await pause(REFRESH_MS, app.signal); !app.signal.aborted; await pause(REFRESH_MS, app.signal)) await refresh();
  });
  void attempt(app, policies, () => showPolicies(app, policies));

  return h(
    'section',
    {},
    h('h1', {}, 'Queue'),
    depths,
    notice,
    list,
    h('h2', { class: 'section-title' }, 'Policies'),
    policies,
  );
};

function depth(state: State, queue: Metrics['queue'], isChosen: boolean, choose: (state: State) => void): HTMLElement {
  return h(
    'button',
    {
      type: 'button',
      class: 'figure',
      'aria-pressed': String(isChosen),
      'data-state': state,
      'data-filter': state === 'ready',
      click: () => choose(state),
    },
    h('span', { class: 'label' }, state),
    h('b', {}, queue[state]),
    h(
      'span',
      { class: 'dim' },
      state === 'ready' && queue.oldest_due_ms !== null
        ? `the first waits for ${durationText(queue.oldest_due_ms)}`
        : STATES[state],
    ),
  );
}

function nothing(state: State | ''): HTMLElement {
  if (state !== '') return emptyState(`Nothing is ${state}.`, 'Press the same again to see all requests.');
  return emptyState(
    'Nobody has asked for a run yet.',
    h('a', { href: '#/run' }, 'Run a function'),
    ', or deploy one with a schedule.',
  );
}

function requestTable(
  requests: RequestView[],
  change: (how: 'cancel' | 'redrive', request: RequestView) => void,
): HTMLElement {
  const action = (how: 'cancel' | 'redrive', title: string, request: RequestView) =>
    h(
      'button',
      {
        type: 'button',
        'aria-label': `${title} ${request.name ?? shortId(request.id)}`,
        click: () => change(how, request),
      },
      title,
    );
  const rows = requests.flatMap((request) => [
    h(
      'tr',
      {},
      h(
        'td',
        {},
        h('a', { href: `#/span/${request.id}`, 'data-row': true }, request.name ?? shortId(request.function_id)),
      ),
      h('td', {}, statusChip(request.state ?? request.status)),
      h(
        'td',
        { class: 'number wide' },
        `${request.attempt}${request.max_attempts === null ? '' : ` of ${request.max_attempts}`}`,
      ),
      h('td', { class: 'number wide' }, timeAgo(request.created_at)),
      h(
        'td',
        { class: 'number' },
        (request.state === 'ready' || request.state === 'delayed') && action('cancel', 'Cancel', request),
        request.state === 'dead' && action('redrive', 'Redrive', request),
      ),
    ),
    ...(request.error === null
      ? []
      : [h('tr', { class: 'more-of-it' }, h('td', { colspan: 5, class: 'error-text' }, errorText(request.error)))]),
  ]);
  return h(
    'table',
    { class: 'card' },
    h('caption', { class: 'hidden' }, 'Requests, newest first'),
    h(
      'thead',
      {},
      h(
        'tr',
        {},
        h('th', { scope: 'col' }, 'Function'),
        h('th', { scope: 'col' }, 'State'),
        h('th', { scope: 'col', class: 'number wide' }, 'Attempt'),
        h('th', { scope: 'col', class: 'number wide' }, 'Asked'),
        h('th', { scope: 'col' }, h('span', { class: 'hidden' }, 'Actions')),
      ),
    ),
    h('tbody', {}, ...rows),
  );
}

async function showPolicies(app: App, place: Element): Promise<void> {
  const [policies, errors] = await Promise.all([
    app.client.spans({ entity_type: 'policy', limit: REQUESTS_MAX }),
    app.client.spans({ entity_type: 'policy_error', limit: REQUESTS_MAX }),
  ]);
  if (policies.spans.length === 0) {
    put(
      place,
      emptyState(
        'There are no policies.',
        'A policy is code that answers to new spans: ',
        h('code', {}, 'npx loglineos policy deploy'),
        '.',
      ),
    );
    return;
  }
  const rows = policies.spans.map((policy) =>
    policyRow(
      policy,
      errors.spans.filter(({ parent_id }) => parent_id === policy.id),
    ),
  );
  put(place, h('ul', { class: 'rows policies' }, ...rows));
}

function policyRow(policy: StoredSpan, errors: StoredSpan[]): HTMLElement {
  const { match } = (policy.content ?? {}) as { match?: Record<string, unknown> };
  const wants = Object.entries(match ?? {}).map(([column, values]) => `${column} ${[values].flat().join(' or ')}`);
  const [last] = errors;
  return h(
    'li',
    {},
    h(
      'a',
      { href: `#/span/${policy.id}`, 'data-row': true },
      h('b', {}, policy.name ?? shortId(policy.id)),
      h('span', { class: 'dim' }, policy.description ?? (wants.length === 0 ? 'all spans' : wants.join(', '))),
      h('span', { class: 'dim' }, policy.tenant_id === 'system' ? 'of the system' : `of ${policy.owner_id}`),
      statusChip(policy.status),
    ),
    last !== undefined &&
      h(
        'p',
        { class: 'error-text' },
        h('a', { href: `#/span/${last.id}` }, (last.error as { message?: string } | null)?.message ?? 'failed'),
        ' ',
        timeAgo(last.at),
      ),
  );
}
