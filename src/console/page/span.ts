import { COLUMN_TYPES, type ColumnName, isUuid, type StoredSpan } from '../../span/index.ts';
import { type App, attempt, loading, type View } from './app.ts';
import { type Child, h, put } from './dom.ts';
import { durationText, pretty, sentence, shortId, statusChip, timeAgo } from './format.ts';
import { isProved, proveVersions, type VersionProof } from './proof.ts';

const FOLLOWERS = 20;
/** Versions that are shown and proved at a time: a browser proves some hundred a second. */
const VERSIONS = 200;
/** Versions of which the server says at a time what it finds. */
const PROOFS_MAX = 1_000;

/** The columns of a span as a person looks for them. What has a place of its own on the page is not among them. */
const GROUPS: Record<string, readonly ColumnName[]> = {
  Sentence: ['who', 'did', 'this', 'at', 'confirmed_by', 'if_ok', 'if_doubt', 'if_not', 'name', 'description', 'tags'],
  Access: ['owner_id', 'tenant_id', 'visibility', 'app_id', 'device_id', 'session_id'],
  Lifecycle: [
    'status',
    'is_deleted',
    'priority',
    'attempt',
    'max_attempts',
    'idempotency_key',
    'scheduled_at',
    'started_at',
    'finished_at',
    'expires_at',
  ],
  Measure: [
    'duration_ms',
    'queue_ms',
    'cpu_ms',
    'memory_bytes',
    'metric_name',
    'metric_value',
    'metric_unit',
    'score',
    'confidence',
    'cost_micros',
  ],
  Model: ['model', 'prompt_family', 'compiled_hash', 'tokens_in', 'tokens_out', 'tool_use_count'],
  Memory: ['memory_layer', 'memory_type', 'sensitivity'],
  Code: ['language', 'runtime', 'schema_id'],
};
const PAYLOADS = ['error', 'output', 'input', 'content', 'code', 'metadata'] as const;
const RELATIONS: Partial<Record<ColumnName, string>> = {
  parent_id: 'Parent',
  caused_by: 'Caused by',
  provider_id: 'Provider',
  related_to: 'Related to',
};

/** One span: what it says, what it belongs to, and its proof, made here. */
export const spanView: View = (app) => {
  const id = app.path[0] ?? '';
  const section = h('section', {}, h('h1', {}, 'Span'), loading());
  const load = async () => {
    const newest = await app.client.span(id);
    const wanted = app.query.get('version') ?? '';
    const chain = await readChain(app, newest, /^\d{1,9}$/.test(wanted) ? Number(wanted) : newest.seq);
    const shown = chain.versions.find(({ seq }) => String(seq) === wanted) ?? chain.versions.at(-1);
    if (shown === undefined || app.signal.aborted) return;
    const proof = h('section', { class: 'card proof', 'aria-labelledby': 'proof' }, loading());
    const followers = h('section', { class: 'card' }, loading());
    put(
      section,
      heading(shown, newest),
      h(
        'div',
        { class: 'columns' },
        h('div', { class: 'stack' }, ...payloads(shown), ...fields(shown)),
        h('div', { class: 'stack' }, proof, relations(shown), followers),
      ),
    );
    void attempt(app, proof, () => showProof(app, proof, chain, shown));
    void attempt(app, followers, () => showFollowers(app, followers, id));
  };
  void attempt(app, section, load);
  return section;
};

/** Versions of one span that follow each other, and where they stand among all. */
interface Chain {
  versions: StoredSpan[];
  /** The version before them; undefined where they begin with the first. */
  after: number | undefined;
  newest: number;
}

/** The wanted version, and those before it as far as they are shown together. */
async function readChain(app: App, { id, seq: newest }: StoredSpan, wanted: number): Promise<Chain> {
  const limit = newest < VERSIONS ? undefined : VERSIONS;
  const end = Math.min(wanted, newest);
  let after = end < VERSIONS ? undefined : end - VERSIONS;
  for (;;) {
    const { versions, next } = await app.client.versions(id, { after, limit });
    if (next === null || next >= end) return { versions, after, newest };
    after = next; // large ones fill a page before
  }
}

function heading(span: StoredSpan, newest: StoredSpan): HTMLElement {
  const copy = h('button', { type: 'button', class: 'quiet' }, 'Copy id');
  copy.addEventListener('click', async () => {
    await navigator.clipboard.writeText(span.id);
    copy.textContent = 'Copied';
  });
  return h(
    'header',
    { class: 'span-head' },
    h('p', { class: 'crumb' }, h('a', { href: '#/timeline' }, 'Timeline'), ` / ${span.entity_type}`),
    h('h1', {}, sentence(span)),
    h(
      'p',
      { class: 'facts' },
      statusChip(span.status),
      timeAgo(span.at),
      span.duration_ms != null && h('span', {}, `took ${durationText(span.duration_ms)}`),
      h('span', {}, newest.seq === 0 ? 'one version' : `version ${span.seq} of 0–${newest.seq}`),
      h('code', { class: 'break' }, span.id),
      copy,
    ),
    span.seq !== newest.seq &&
      h(
        'p',
        { class: 'notice' },
        'This is an older version. ',
        h('a', { href: `#/span/${span.id}` }, 'Show the newest'),
      ),
  );
}

function payloads(span: StoredSpan): HTMLElement[] {
  return PAYLOADS.filter((name) => span[name] != null && pretty(span[name]) !== '{}').map((name) =>
    h(
      'section',
      { class: `card payload ${name}` },
      h('h2', {}, name),
      h('pre', { tabindex: 0, 'aria-label': name }, name === 'code' ? (span.code as string) : pretty(span[name])),
    ),
  );
}

function fields(span: StoredSpan): HTMLElement[] {
  return Object.entries(GROUPS).flatMap(([title, names]) => {
    const said = names.filter((name) => span[name] != null);
    return said.length === 0
      ? []
      : [
          h(
            'section',
            { class: 'card' },
            h('h2', {}, title),
            facts(said.map((name) => [name, fieldValue(span, name)])),
          ),
        ];
  });
}

function fieldValue(span: StoredSpan, name: ColumnName): Child {
  const value = span[name];
  if (COLUMN_TYPES[name] === 'timestamptz') return h('time', { datetime: value as string }, value as string);
  if (Array.isArray(value)) return value.join(', ');
  return String(value);
}

function facts(pairs: [string, Child][]): HTMLElement {
  return h('dl', {}, ...pairs.flatMap(([name, value]) => [h('dt', {}, name), h('dd', {}, value)]));
}

function relations(span: StoredSpan): HTMLElement {
  const pairs = Object.entries(RELATIONS).flatMap(([name, title]): [string, Child][] => {
    const value = span[name as ColumnName];
    const ids = value == null ? [] : ([value].flat() as string[]);
    return ids.map((id) => [title, spanLink(id)]);
  });
  const subject = /^\w+:(.+)$/.exec(span.this ?? '')?.[1];
  if (isUuid(subject) && subject !== span.parent_id) pairs.unshift(['About', spanLink(subject)]);
  if (span.trace_id != null) {
    const href = `#/timeline?trace_id=${encodeURIComponent(span.trace_id)}`;
    pairs.push(['Trace', h('a', { href }, shortId(span.trace_id))]);
  }
  return h(
    'section',
    { class: 'card' },
    h('h2', {}, 'Relations'),
    pairs.length === 0 ? h('p', { class: 'dim' }, 'It stands alone.') : facts(pairs),
  );
}

function spanLink(id: string, text = shortId(id)): HTMLElement {
  return h('a', { href: `#/span/${encodeURIComponent(id)}`, title: id }, h('code', {}, text));
}

async function showFollowers(app: App, place: Element, id: string): Promise<void> {
  const [caused, children] = await Promise.all([
    app.client.spans({ caused_by: id, limit: FOLLOWERS }),
    app.client.spans({ parent_id: id, limit: FOLLOWERS }),
  ]);
  const all = new Map([...caused.spans, ...children.spans].map((span) => [span.id, span]));
  const rows = [...all.values()]
    .sort((a, b) => a.at.localeCompare(b.at))
    .map((span) =>
      h('li', {}, h('a', { href: `#/span/${span.id}`, 'data-row': true }, sentence(span), statusChip(span.status))),
    );
  put(
    place,
    h('h2', {}, 'What followed'),
    rows.length === 0 ? h('p', { class: 'dim' }, 'Nothing yet.') : h('ol', { class: 'rows small' }, ...rows),
  );
}

async function showProof(app: App, place: HTMLElement, chain: Chain, shown: StoredSpan): Promise<void> {
  const { versions, after, newest } = chain;
  const first = after === undefined ? 0 : after + 1;
  const last = versions.at(-1)?.seq ?? first;
  const proofs: VersionProof[] = [];
  for await (const proof of proveVersions(versions, first)) proofs.push(proof);
  const own = proofs.find(({ span }) => span.seq === shown.seq) as VersionProof;
  const isBroken = !proofs.every(isProved);
  const verdict = h('h2', { id: 'proof', role: 'status' });
  const conclude = (isGood: boolean, text: string) => {
    place.classList.toggle('good', isGood);
    place.classList.toggle('bad', !isGood);
    put(verdict, text);
  };
  conclude(!isBroken, isBroken ? 'Broken: this does not prove itself' : 'Proved in this browser');
  const key = h('li', { class: 'todo' });
  put(
    place,
    verdict,
    h(
      'ol',
      { class: 'checks' },
      check(
        own.hash,
        `BLAKE3 of ${new TextEncoder().encode(own.text ?? '').length} canonical bytes`,
        own.span.curr_hash,
      ),
      check(own.signature, 'Ed25519 signature over the hash', own.span.signature),
      check(
        own.chain,
        own.span.seq === 0 ? 'The first of its chain' : 'Linked to the version before',
        own.span.prev_hash,
      ),
      key,
    ),
    h(
      'h3',
      {},
      proofs.length === 1 ? 'One version' : `${proofs.length} versions, each holds the hash of the one before`,
    ),
    h(
      'ol',
      { class: 'chain' },
      last < newest && others(shown.id, Math.min(last + VERSIONS, newest), 'Later versions'),
      ...proofs.map((proof) => link(proof, shown)).reverse(),
      after !== undefined && others(shown.id, after, 'Earlier versions'),
    ),
    own.text !== null &&
      h(
        'details',
        {},
        h('summary', {}, 'The canonical bytes'),
        h('p', { class: 'dim' }, 'What was hashed: RFC 8785 of all that the version says. BLAKE3 of it is the hash.'),
        h('pre', { tabindex: 0, 'aria-label': 'canonical bytes' }, own.text),
      ),
  );

  put(key, 'Asking the server whether it trusts the key…');
  await attempt(app, key, async () => {
    const [server, manifest] = await Promise.all([
      app.client.verify(shown.id, { after, limit: Math.min(last - first + 1, PROOFS_MAX) }), // missing ones too
      app.client.manifest(),
    ]);
    // Of what its answer does not name, the server has said nothing.
    const named = new Set(server.versions.map(({ seq }) => seq));
    const isKnown = named.has(shown.seq);
    const isRefused = server.problems.some((problem) => problem.seq === shown.seq && problem.class === 'key');
    const isTrusted = isKnown && !isRefused;
    const isRoot = shown.public_key === manifest.public_key;
    const title = isTrusted ? `Key, trusted here${isRoot ? ': it governs the installation' : ''}` : 'Key';
    const problem = isKnown
      ? 'The installation does not trust it for such a span.'
      : 'Whether the installation trusts it is not known.';
    key.replaceWith(check(isTrusted ? null : problem, title, shown.public_key));
    if (isBroken && server.ok && versions.every(({ seq }) => named.has(seq)))
      conclude(false, 'Broken: changed on its way from the server');
    else if (!isBroken && !isTrusted)
      conclude(
        false,
        isKnown ? 'Signed by a key that is not trusted here' : 'Signed by a key of which nothing is known',
      );
  });
}

function check(problem: string | null, title: string, hex: string | null | undefined): HTMLElement {
  return h(
    'li',
    { class: problem === null ? 'good' : 'bad' },
    h('span', {}, title),
    hex != null && h('code', { class: 'break' }, hex),
    problem !== null && h('p', {}, problem),
  );
}

function others(id: string, seq: number, text: string): HTMLElement {
  return h('li', {}, h('a', { href: `#/span/${id}?version=${seq}` }, text));
}

function link(proof: VersionProof, shown: StoredSpan): HTMLElement {
  const { id, seq, did, at, curr_hash, status } = proof.span;
  return h(
    'li',
    { class: isProved(proof) ? 'good' : 'bad', 'aria-current': seq === shown.seq ? 'true' : null },
    h('a', { href: `#/span/${id}?version=${seq}` }, `v${seq} `, (did ?? status ?? '').replaceAll('_', ' ')),
    h('code', {}, curr_hash.slice(0, 12)),
    timeAgo(at),
  );
}
