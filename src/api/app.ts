import { OpenAPIHono } from '@hono/zod-openapi';
import type { MiddlewareHandler } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import { cors } from 'hono/cors';
import { AccessError, InputError } from '../errors.ts';
import { type Authenticator, createTickets, Denials } from '../identity/index.ts';
import type { TrustedKeys } from '../span/index.ts';
import type { Stage0 } from '../stage0/index.ts';
import type { TimelineHub } from '../timeline/index.ts';
import { authentication, authorization, sourceOf } from './access.ts';
import { type ConsoleFiles, consoleRoutes } from './console.ts';
import { docsRoutes } from './docs.ts';
import type { Variables } from './input.ts';
import { problemResponse } from './problem.ts';
import { requestRoutes } from './requests.ts';
import { spanRoutes } from './spans.ts';
import { describedStream, socketRoutes, streamRoutes } from './stream.ts';
import { healthRoutes, systemRoutes } from './system.ts';
import { tokenRoutes } from './tokens.ts';

/** A body may be as large as a span. */
export const BODY_BYTES_MAX = 1024 * 1024;

/** Counts what arrives. */
const countBody = bodyLimit({
  maxSize: BODY_BYTES_MAX,
  onError: () => {
    throw new InputError('BODY_TOO_LARGE', `a body may have ${BODY_BYTES_MAX} bytes`);
  },
});

/** A length that is said is kept by HTTP itself. To count would make a stream of every body, a tenth of an append's time. */
const limitBody: MiddlewareHandler = (c, next) => {
  const length = c.req.header('Content-Length');
  const isKept = length !== undefined && c.req.header('Transfer-Encoding') === undefined;
  return isKept && Number(length) <= BODY_BYTES_MAX ? next() : countBody(c, next);
};

/** What a host passes to the app, as `env`, if it is frozen after its answer: it waits for what is still to be written. */
export interface Host {
  waitUntil?: (work: Promise<unknown>) => void;
}

const CORS = {
  allowMethods: ['GET', 'POST'],
  allowHeaders: ['Authorization', 'Content-Type', 'Idempotency-Key', 'Last-Event-ID'],
  maxAge: 600,
};

export interface ApiOptions {
  stage0: Stage0;
  trustedKeys: TrustedKeys;
  authenticator: Authenticator;
  /** Where the timeline can be watched live; without it, it cannot. */
  timeline?: TimelineHub;
  /** Who counts refusals, if the host makes more than one app. */
  denials?: Denials;
  /** The files of the console; without them there is none. */
  consoleFiles?: () => Promise<ConsoleFiles>;
  /** Origins whose pages may ask and read, for instance `https://console.example`; none if not said. */
  corsOrigins?: string[];
}

/** The HTTP routes. Every one but `/health` needs a token, with a scope for it, and the identity comes from the token alone. */
export function createApi({
  stage0,
  trustedKeys,
  authenticator,
  timeline,
  denials = new Denials(stage0),
  consoleFiles,
  corsOrigins = [],
}: ApiOptions): OpenAPIHono<Variables> {
  const app = new OpenAPIHono<Variables>();

  const tickets = createTickets(stage0.tenantMasterKey, authenticator, stage0.now);
  app.onError((error, c) => {
    if (error instanceof AccessError) {
      const written = denials.record(error.code, sourceOf(c), c.get('caller'));
      (c.env as Host | undefined)?.waitUntil?.(written);
    }
    return problemResponse(c, error, stage0.log);
  });
  app.notFound((c) => {
    const error = new InputError('ROUTE_NOT_FOUND', `there is no ${c.req.method} ${c.req.path}`);
    return problemResponse(c, error, stage0.log);
  });

  app.use(async (c, next) => {
    await next();
    c.header('X-Content-Type-Options', 'nosniff');
    if (!c.res.headers.has('Cache-Control')) c.header('Cache-Control', 'no-store');
  });
  // Before a token is asked for: a browser's first question comes without one. No credentials: no route knows a cookie.
  if (corsOrigins.length > 0) app.use(cors({ ...CORS, origin: corsOrigins }));

  app.route('/', healthRoutes(stage0));
  app.route('/', docsRoutes(app));
  if (consoleFiles !== undefined) app.route('/console', consoleRoutes(consoleFiles));

  app.use(authentication(authenticator, tickets));
  app.use(authorization);
  app.use(limitBody);

  app.route('/', systemRoutes(stage0));
  app.route('/api', spanRoutes(stage0, trustedKeys));
  app.route('/api', requestRoutes(stage0));
  if (timeline === undefined) app.route('/api', describedStream());
  else app.route('/api', streamRoutes(timeline)).route('/', socketRoutes());
  app.route('/api', tokenRoutes(stage0, tickets));
  return app;
}
