import { setImmediate as pause } from 'node:timers/promises';
import { OpenAPIHono, type z } from '@hono/zod-openapi';
import {
  type Identity,
  listSpans,
  readLatestVersions,
  readTimeline,
  readTimelineEnd,
  readVersion,
  readVersionsFrom,
  type SpanFilter,
  TIMELINE_START,
} from '../ledger/index.ts';
import { type Problem, type Span, type StoredSpan, type TrustedKeys, verifyVersion } from '../span/index.ts';
import type { Stage0 } from '../stage0/index.ts';
import { Turnstile } from '../turnstile.ts';
import { append } from './append.ts';
import { spanNotFound, type Variables } from './input.ts';
import { addRoute } from './openapi.ts';
import {
  AppendAnswer,
  AppendBody,
  EXAMPLE_FUNCTION_ID,
  EXAMPLE_HASH,
  EXAMPLE_POSITION,
  EXAMPLE_SPAN,
  ProofSchema,
  type SpanFilterQuery,
  SpanPageSchema,
  SpanParams,
  SpanQuerySchema,
  SpanSchema,
  TimelinePageSchema,
  TimelineQuerySchema,
  VersionsQuerySchema,
  VersionsSchema,
} from './schemas.ts';

/** Spans: append, find, read, prove; and the timeline. */
export function spanRoutes(stage0: Stage0, trustedKeys: TrustedKeys): OpenAPIHono<Variables> {
  const app = new OpenAPIHono<Variables>();
  const proofs = new Turnstile(PROOFS);

  addRoute(
    app,
    {
      method: 'post',
      path: '/spans',
      operationId: 'appendSpans',
      summary: 'Append a span, or a batch of them',
      description: 'All or none. A function, a policy and whatever else is kept are spans too.',
      tag: 'Spans',
      // Each column is checked as it is hashed, by the table that the schema is made of.
      body: { schema: AppendBody, examples: APPEND_EXAMPLES, read: (body) => body as Span & { entity_type: string } },
      isIdempotent: true,
      status: 201,
      answer: AppendAnswer,
      example: { id: EXAMPLE_FUNCTION_ID, seq: 0, curr_hash: EXAMPLE_HASH },
      problems: [409],
    },
    ({ body }, c) => append(stage0, c.get('caller'), body, c.req.header('Idempotency-Key')),
  );

  addRoute(
    app,
    {
      method: 'get',
      path: '/spans',
      operationId: 'listSpans',
      summary: 'Newest versions of spans, newest first',
      description: 'For people who look. A program that must not miss a span reads the timeline.',
      tag: 'Spans',
      query: SpanQuerySchema,
      status: 200,
      answer: SpanPageSchema,
      example: { spans: [EXAMPLE_SPAN], before: null },
    },
    ({ query: { before, limit, ...query } }, c) =>
      listSpans(stage0.database, c.get('identity'), filterOf(query), before ?? null, limit),
  );

  addRoute(
    app,
    {
      method: 'get',
      path: '/spans/{id}',
      operationId: 'readSpan',
      summary: 'The newest version of a span',
      tag: 'Spans',
      params: SpanParams,
      status: 200,
      answer: SpanSchema,
      example: EXAMPLE_SPAN,
      problems: [404],
    },
    ({ params: { id } }, c) => requireSpan(stage0, c.get('identity'), id),
  );

  addRoute(
    app,
    {
      method: 'get',
      path: '/spans/{id}/versions',
      operationId: 'readSpanVersions',
      summary: 'The versions of a span, oldest first',
      tag: 'Spans',
      params: SpanParams,
      query: VersionsQuerySchema,
      status: 200,
      answer: VersionsSchema,
      example: { id: EXAMPLE_SPAN.id, versions: [EXAMPLE_SPAN], next: null },
      problems: [404],
    },
    async ({ params: { id }, query: { after, limit } }, c) => {
      const identity = c.get('identity');
      const from = after === undefined ? 0 : after + 1;
      const page = await readVersionsFrom(stage0.database, identity, id, from, limit);
      if (page.versions.length === 0) await requireSpan(stage0, identity, id);
      return { id, ...page };
    },
  );

  addRoute(
    app,
    {
      method: 'get',
      path: '/spans/{id}/verify',
      operationId: 'verifySpan',
      summary: 'The proof of a span: every version hashed anew, its signature, key and chain checked',
      description: 'By pages, as the versions: the first of a page is linked to the last of the page before.',
      tag: 'Spans',
      params: SpanParams,
      query: VersionsQuerySchema,
      status: 200,
      answer: ProofSchema,
      example: {
        id: EXAMPLE_SPAN.id,
        ok: true,
        versions: [{ ...proofPart(EXAMPLE_SPAN), ok: true }],
        problems: [],
        next: null,
      },
      problems: [404],
    },
    async ({ params: { id }, query: { after, limit } }, c) => {
      const identity = c.get('identity');
      return proofs.pass(identity.tenantId, async () => {
        const from = after === undefined ? 0 : after + 1;
        const { versions, next } = await readVersionsFrom(stage0.database, identity, id, from, limit);
        if (versions.length === 0) await requireSpan(stage0, identity, id);
        // What the first one is linked to is read by itself: as a row of the page it could fill it alone.
        const isLinked = after !== undefined && versions.length > 0;
        const before = isLinked ? await readVersion(stage0.database, identity, id, after) : undefined;
        return { id, ...(await prove(versions, before, trustedKeys, stage0)), next };
      });
    },
  );

  addRoute(
    app,
    {
      method: 'get',
      path: '/timeline',
      operationId: 'readTimeline',
      summary: 'What was appended after a position, in order',
      description:
        'Who goes on from `position` misses no span and sees none twice. With a filter a page may hold few spans, or ' +
        'none, and still move its position.',
      tag: 'Timeline',
      query: TimelineQuerySchema,
      status: 200,
      answer: TimelinePageSchema,
      example: { spans: [EXAMPLE_SPAN], position: EXAMPLE_POSITION },
    },
    async ({ query: { after, limit, ...query } }, c) => {
      const identity = c.get('identity');
      return after === 'end'
        ? { spans: [], position: await readTimelineEnd(stage0.database, identity) }
        : readTimeline(stage0.database, identity, after ?? TIMELINE_START, limit, filterOf(query));
    },
  );

  return app;
}

/** The filter of lists, of the timeline and of its streams. */
export function filterOf({ owner, ...columns }: SpanFilterQuery): SpanFilter {
  return { ...columns, owner_id: owner };
}

const APPEND_EXAMPLES = {
  function: {
    entity_type: 'function',
    name: 'order',
    status: 'active',
    code: 'return { total: input.price * input.count };',
  },
  note: {
    entity_type: 'note',
    did: 'wrote',
    this: 'a note',
    content: { text: 'Call back on Monday.' },
    tags: ['sales'],
  },
  batch: {
    spans: [
      { entity_type: 'note', name: 'first' },
      { entity_type: 'note', name: 'second', visibility: 'tenant' },
    ],
  },
} satisfies Record<string, unknown>;

async function requireSpan({ database }: Stage0, identity: Identity, id: string): Promise<StoredSpan> {
  const span = (await readLatestVersions(database, identity, [id])).get(id);
  if (span === undefined) throw spanNotFound(id);
  return span;
}

/** Proofs under way; others wait, tenants by turns. */
const PROOFS = 2;
/** Other requests wait no longer than this for each of them. */
const PROVING_MS = 10;

async function prove(
  versions: StoredSpan[],
  before: StoredSpan | undefined,
  keys: TrustedKeys,
  { scheme }: Stage0,
): Promise<Omit<z.infer<typeof ProofSchema>, 'id' | 'next'>> {
  const problems: Problem[] = [];
  const proofs = [];
  let pausedAt = performance.now();
  for (const [i, version] of versions.entries()) {
    const found = verifyVersion(version, i === 0 ? before : versions[i - 1], keys, scheme);
    // One that is missing before it has a place of its own.
    proofs.push({ ...proofPart(version), ok: found.every(({ seq }) => seq !== version.seq) });
    problems.push(...found);
    if (performance.now() - pausedAt < PROVING_MS) continue;
    await pause();
    pausedAt = performance.now();
  }
  return { ok: problems.length === 0, versions: proofs, problems };
}

function proofPart({ seq, curr_hash, signature, public_key }: StoredSpan) {
  return { seq, curr_hash, signature, public_key };
}
