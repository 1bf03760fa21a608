import { Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import { AccessError, InputError } from '../errors.ts';
import type { Identity } from '../ledger/index.ts';
import type { TrustedKeys } from '../span/index.ts';
import { boot, parseBootRequest, type Stage0 } from '../stage0/index.ts';
import { readJson, type Variables } from './input.ts';
import { problemResponse } from './problem.ts';
import { requestRoutes } from './requests.ts';
import { spanRoutes } from './spans.ts';

/** A body may be as large as a span. */
export const BODY_BYTES_MAX = 1024 * 1024;

export interface ApiOptions {
  stage0: Stage0;
  trustedKeys: TrustedKeys;
  /** Who a bearer token speaks for; null for a token nobody was given. */
  authenticate: (token: string) => Promise<Identity | null>;
}

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

  app.get('/api/me', (c) => {
    const { userId, tenantId } = c.get('identity');
    return c.json({ user_id: userId, tenant_id: tenantId });
  });

  app.on('POST', ['/boot', '/api/boot'], async (c) => {
    const request = parseBootRequest(await readJson(c), c.get('identity'));
    return c.json(await boot(stage0, request));
  });

  app.route('/api', spanRoutes(stage0, trustedKeys));
  app.route('/api', requestRoutes(stage0));
  return app;
}
