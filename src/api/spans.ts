import { Hono } from 'hono';
import type { Fields } from '../fields.ts';
import {
  type Identity,
  listSpans,
  readLatestVersions,
  readTimeline,
  readTimelineEnd,
  readVersions,
  type SpanFilter,
  TIMELINE_START,
} from '../ledger/index.ts';
import { type StoredSpan, type TrustedKeys, verifyVersions } from '../span/index.ts';
import type { Stage0 } from '../stage0/index.ts';
import { append } from './append.ts';
import {
  optionalUuid,
  queryFields,
  readBefore,
  readJson,
  readLimit,
  requireId,
  spanNotFound,
  TEXT,
  TEXT_EXPECTED,
  type Variables,
} from './input.ts';

/** Spans: append, find, read, prove; and the timeline. */
export function spanRoutes(stage0: Stage0, trustedKeys: TrustedKeys): Hono<Variables> {
  const app = new Hono<Variables>();

  app.post('/spans', async (c) => {
    const body = await readJson(c);
    return c.json(await append(stage0, c.get('identity'), body, c.req.header('Idempotency-Key')), 201);
  });

  app.get('/spans', async (c) => {
    const fields = queryFields(c);
    const filter = readFilter(fields);
    const [before, limit] = [readBefore(fields), readLimit(fields)];
    fields.end();
    return c.json(await listSpans(stage0.database, c.get('identity'), filter, before, limit));
  });

  app.get('/spans/:id', async (c) => {
    const id = requireId(c.req.param('id'));
    const span = (await readLatestVersions(stage0.database, c.get('identity'), [id])).get(id);
    if (span === undefined) throw spanNotFound(id);
    return c.json(span);
  });

  app.get('/spans/:id/versions', async (c) => {
    const versions = await requireVersions(stage0, c.get('identity'), c.req.param('id'));
    return c.json({ id: versions[0]?.id, versions });
  });

  app.get('/spans/:id/verify', async (c) => {
    const versions = await requireVersions(stage0, c.get('identity'), c.req.param('id'));
    const problems = verifyVersions(versions, trustedKeys, stage0.scheme);
    const proofs = versions.map(({ seq, curr_hash, signature, public_key }) => {
      const own = problems.filter((problem) => problem.seq === seq);
      return { seq, curr_hash, signature, public_key, ok: own.length === 0 };
    });
    return c.json({ id: versions[0]?.id, ok: problems.length === 0, versions: proofs, problems });
  });

  app.get('/timeline', async (c) => {
    const fields = queryFields(c);
    const identity = c.get('identity');
    const filter = readFilter(fields);
    const limit = readLimit(fields);
    const after = fields.optionalText('after', /^([0-9a-f]{32}|end)$/, 'the `position` of an earlier page, or `end`');
    fields.end();
    return after === 'end'
      ? c.json({ spans: [], position: await readTimelineEnd(stage0.database, identity) })
      : c.json(await readTimeline(stage0.database, identity, after ?? TIMELINE_START, limit, filter));
  });

  return app;
}

function readFilter(fields: Fields): SpanFilter {
  const text = (name: string) => fields.optionalText(name, TEXT, TEXT_EXPECTED);
  return {
    entity_type: text('entity_type'),
    status: text('status'),
    name: text('name'),
    parent_id: optionalUuid(fields, 'parent_id'),
    caused_by: optionalUuid(fields, 'caused_by'),
    trace_id: text('trace_id'),
    owner_id: text('owner'),
  };
}

async function requireVersions(stage0: Stage0, identity: Identity, id: string): Promise<StoredSpan[]> {
  const versions = await readVersions(stage0.database, identity, requireId(id));
  if (versions.length === 0) throw spanNotFound(id);
  return versions;
}
