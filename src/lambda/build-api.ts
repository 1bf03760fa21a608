import { Hono } from 'hono';
import type { createApi, Host } from '../api/index.ts';
import { problemResponse } from '../api/problem.ts';
import { type Authenticator, createAuthenticator } from '../identity/index.ts';
import type { Stage0 } from '../stage0/index.ts';
import { buildStage0 } from './build-stage0.ts';
import type { ApiConfig } from './config.ts';
import { logMetrics } from './emf.ts';
import { beginInvocation, type InvocationContext, log } from './log.ts';

/** Who says that a caller is one; it asks again whatever an authorizer in front of it found. */
export interface ApiParts {
  stage0: Stage0;
  authenticator: Authenticator;
}

/** The parts of one container, for the function of that name. */
export async function buildApiParts(
  config: ApiConfig,
  functionName: string,
  connectionsMax: number,
): Promise<ApiParts> {
  const stage0 = await buildStage0(config, functionName, 'kernel:0', connectionsMax);
  const { database, scheme, tenantMasterKey, now } = stage0;
  const { trustedKeys, jwt } = config;
  return { stage0, authenticator: createAuthenticator({ database, trustedKeys, scheme, tenantMasterKey, now, jwt }) };
}

/** What Hono's adapters hand over beside the request; each calls it differently. */
type LambdaEnv = { Bindings: { lambdaContext?: InvocationContext; context?: InvocationContext } };
type Api = Pick<ReturnType<typeof createApi>, 'fetch'>;

/**
 * An app for Hono's adapters: it has each request answered by the API of the container, and measured. What kept that from
 * being built is an answer too.
 */
export function lambdaApp(apiFor: (context: InvocationContext) => Promise<Api>): Hono<LambdaEnv> {
  const app = new Hono<LambdaEnv>();
  app.onError((error, c) => problemResponse(c, error, log));
  app.use(async (c, next) => {
    const startedAt = performance.now();
    const context = c.env.lambdaContext ?? c.env.context;
    if (context === undefined) throw new Error('no adapter handed over a context');
    beginInvocation(context);
    await next();
    const { status } = c.res;
    logMetrics(
      [
        { name: 'RequestDuration', unit: 'Milliseconds', value: performance.now() - startedAt },
        { name: 'RequestErrors', unit: 'Count', value: status >= 500 ? 1 : 0 },
        { name: 'RequestsRefused', unit: 'Count', value: status >= 400 && status < 500 ? 1 : 0 },
      ],
      [{ FunctionName: context.functionName }],
      // The path alone: a query may hold a ticket.
      { message: 'request', method: c.req.method, path: c.req.path, status },
    );
  });
  app.all('*', async (c) => {
    const api = await apiFor((c.env.lambdaContext ?? c.env.context) as InvocationContext);
    const pending: Promise<unknown>[] = [];
    const host: Host = { waitUntil: (work) => pending.push(work) };
    const response = await api.fetch(c.req.raw, { ...c.env, ...host });
    await Promise.all(pending);
    return response;
  });
  return app;
}
