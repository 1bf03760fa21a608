import { Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import { AccessError, InputError } from '../errors.ts';
import { type Identity, readLatestVersions, readVersions } from '../ledger/index.ts';
import { isUuid, parseJson, type StoredSpan, type TrustedKeys, verifyVersions } from '../span/index.ts';
import { boot, parseBootRequest, type Stage0 } from '../stage0/index.ts';
import { problemResponse } from './problem.ts';

/** A body may be as large as a span. */
export const BODY_BYTES_MAX = 1024 * 1024;

export interface ApiOptions {
  stage0: Stage0;
  trustedKeys: TrustedKeys;
  /** Who a bearer token speaks for; null for a token nobody was given. */
  authenticate: (token: string) => Promise<Identity | null>;
}

type Variables = { Variables: { identity: Identity } };

/** The HTTP routes. Every one but `/health` needs a token, and the identity comes from the token alone. */
export function createApi({ stage0, trustedKeys, authenticate }: ApiOptions): Hono<Variables> {
  const app = new Hono<Variables>();

  app.onError((error, c) => problemResponse(c, error, stage0.log));
  app.notFound((c) => {
    const error = new InputError('ROUTE_NOT_FOUND', `there is no ${c.req.method} ${c.req.path}`);
    return problemResponse(c, error, stage0.log);
  });

  app.get('/health', async (c) => {
    await stage0.database.query({ text: 'select 1' });
    return c.json({ status: 'ok', database: 'reachable' });
  });

  app.use(async (c, next) => {
    const token = /^Bearer ([\x21-\x7e]+)$/.exec(c.req.header('Authorization') ?? '')?.[1];
    if (token === undefined)
      throw new AccessError('TOKEN_MISSING', 'expected the header Authorization: Bearer <token>');
    const identity = await authenticate(token);
    if (identity === null) throw new AccessError('TOKEN_INVALID', 'this token is not known');
    c.set('identity', identity);
    await next();
  });

  app.use(
    bodyLimit({
      maxSize: BODY_BYTES_MAX,
      onError: () => {
        throw new InputError('BODY_TOO_LARGE', `a body may have ${BODY_BYTES_MAX} bytes`);
      },
    }),
  );

  app.on('POST', ['/boot', '/api/boot'], async (c) => {
    const request = parseBootRequest(parseBody(await c.req.arrayBuffer()), c.get('identity'));
    return c.json(await boot(stage0, request));
  });

  app.get('/api/spans/:id', async (c) => {
    const id = requireId(c.req.param('id'));
    const span = (await readLatestVersions(stage0.database, c.get('identity'), [id])).get(id);
    if (span === undefined) throw notFound(id);
    return c.json(span);
  });

  app.get('/api/spans/:id/verify', async (c) => {
    const versions = await requireVersions(stage0, c.get('identity'), c.req.param('id'));
    const problems = verifyVersions(versions, trustedKeys, stage0.scheme);
    const proofs = versions.map(({ seq, curr_hash, signature, public_key }) => {
      const own = problems.filter((problem) => problem.seq === seq);
      return { seq, curr_hash, signature, public_key, ok: own.length === 0 };
    });
    return c.json({ id: versions[0]?.id, ok: problems.length === 0, versions: proofs, problems });
  });

  return app;
}

function parseBody(body: ArrayBuffer): unknown {
  try {
    return parseJson(new TextDecoder('utf-8', { fatal: true }).decode(body));
  } catch {
    throw new InputError('JSON_INVALID', 'the body is not JSON in UTF-8');
  }
}

async function requireVersions(stage0: Stage0, identity: Identity, id: string): Promise<StoredSpan[]> {
  const versions = await readVersions(stage0.database, identity, requireId(id));
  if (versions.length === 0) throw notFound(id);
  return versions;
}

function requireId(id: string): string {
  if (!isUuid(id)) throw new InputError('FIELD_INVALID', 'id: expected a UUID in lower case', { field: 'id' });
  return id;
}

function notFound(id: string): InputError {
  return new InputError('SPAN_NOT_FOUND', `no span ${id} is visible to you`, { field: 'id' });
}
