import type { Context, MiddlewareHandler } from 'hono';
import { matchedRoutes } from 'hono/route';
import { AccessError } from '../errors.ts';
import { type Authenticator, kernelScope, readCaller, requireScope, type Tickets } from '../identity/index.ts';
import type { Identity } from '../ledger/index.ts';
import { readManifest, type Stage0 } from '../stage0/index.ts';
import type { Variables } from './input.ts';

/** Where the scope is that of the kernel that is named. */
const BY_KERNEL = Symbol();

/** What each route takes. A route that is not here is refused to everybody. */
const SCOPE_OF_ROUTE: Record<string, string | typeof BY_KERNEL> = {
  'GET /api/me': 'spans:read',
  'GET /api/manifest': 'spans:read',
  'GET /api/metrics': 'spans:read',
  'GET /api/spans': 'spans:read',
  'GET /api/spans/:id': 'spans:read',
  'GET /api/spans/:id/versions': 'spans:read',
  'GET /api/spans/:id/verify': 'spans:read',
  'GET /api/timeline': 'spans:read',
  'GET /api/timeline/stream': 'spans:read',
  'GET /ws': 'spans:read',
  'POST /api/tickets': 'spans:read',
  'POST /api/spans': 'spans:append',
  'POST /api/execute': 'execute',
  'GET /api/requests': 'requests:read',
  'GET /api/requests/:id': 'requests:read',
  'POST /api/requests/cancel': 'requests:manage',
  'POST /api/requests/redrive': 'requests:manage',
  'GET /api/tokens': 'tokens:manage',
  'POST /api/tokens': 'tokens:manage',
  'POST /api/tokens/:id/revoke': 'tokens:manage',
  'POST /boot': BY_KERNEL,
  'POST /api/boot': BY_KERNEL,
};

/** What a ticket opens. */
const TICKET_PATHS: ReadonlySet<string> = new Set(['/api/timeline/stream', '/ws']);

/** Who calls: by the header alone, or by a ticket where a browser can send no header. */
export function authentication(authenticator: Authenticator, tickets: Tickets): MiddlewareHandler<Variables> {
  return async (c, next) => {
    const ticket = TICKET_PATHS.has(c.req.path) ? c.req.query('ticket') : undefined;
    const caller = await readCaller(authenticator, tickets, c.req.header('Authorization'), ticket);
    c.set('caller', caller);
    c.set('identity', caller.identity);
    await next();
  };
}

/** Whether the caller may use the route at all; what it lets him see is decided by the database. */
export const authorization: MiddlewareHandler<Variables> = async (c, next) => {
  for (const { method, path } of matchedRoutes(c)) {
    if (method === 'ALL') continue; // what stands before the routes, as this does
    const scope = SCOPE_OF_ROUTE[`${method} ${path}`];
    if (scope === undefined) throw new AccessError('SCOPE_MISSING', 'there is no scope for this route');
    if (scope !== BY_KERNEL) requireScope(c.get('caller'), scope);
  }
  await next();
};

/**
 * Whether the caller may boot this kernel: any, or that of the manifest's name.
 *
 * @throws {AccessError} `SCOPE_MISSING`
 */
export async function requireKernelScope(
  stage0: Stage0,
  { identity, scopes }: { identity: Identity; scopes: readonly string[] },
  kernelId: string,
): Promise<void> {
  const isByName = scopes.some((scope) => scope.startsWith('kernel:'));
  const names = isByName ? await kernelNames(stage0, identity, kernelId) : [];
  const scope = names.map(kernelScope).find((named) => scopes.includes(named));
  if (scope === undefined) requireScope({ scopes }, 'boot');
}

async function kernelNames(stage0: Stage0, identity: Identity, kernelId: string): Promise<string[]> {
  const { content } = await readManifest(stage0, identity);
  const { kernels } = content as { kernels: Record<string, string> };
  return Object.keys(kernels).filter((name) => kernels[name]?.toLowerCase() === kernelId);
}

interface Surroundings {
  incoming?: { socket?: { remoteAddress?: string } };
  event?: { requestContext?: { identity?: { sourceIp?: string } } };
}

/** The address that a call came from: of the connection, or as API Gateway says it. What a header says is not asked. */
export function sourceOf(c: Context): string {
  const { incoming, event } = (c.env ?? {}) as Surroundings;
  return event?.requestContext?.identity?.sourceIp ?? incoming?.socket?.remoteAddress ?? 'unknown';
}
