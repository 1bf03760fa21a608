import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createApiToken } from '../../src/identity/index.ts';
import { TimelineHub } from '../../src/timeline/index.ts';
import { type Caller, expectProblem } from '../api/http.ts';
import { type AnyJson, Installation, PROBE, RUN_CODE } from '../stage0/installation.ts';
import { ALICE, BOB } from '../support/spans.ts';
import { authenticatorOf, callerOf, LOCAL_TOKEN, openApi } from './support.ts';

const ID = '00000000-0000-4000-8000-0000000000aa';
/** What needs no token: it says nothing of anybody. */
const PUBLIC = ['GET /health', 'GET /openapi.json', 'GET /docs', 'GET /console/:name?'];
/** What each route takes: said here again, so that no change of it goes unnoticed. */
const ROUTES: [string, string][] = [
  ['GET /api/me', 'spans:read'],
  ['GET /api/manifest', 'spans:read'],
  ['GET /api/metrics', 'spans:read'],
  ['GET /api/spans', 'spans:read'],
  ['GET /api/spans/:id', 'spans:read'],
  ['GET /api/spans/:id/versions', 'spans:read'],
  ['GET /api/spans/:id/verify', 'spans:read'],
  ['GET /api/timeline', 'spans:read'],
  ['GET /api/timeline/stream', 'spans:read'],
  ['GET /ws', 'spans:read'],
  ['POST /api/tickets', 'spans:read'],
  ['POST /api/spans', 'spans:append'],
  ['POST /api/execute', 'execute'],
  ['GET /api/requests', 'requests:read'],
  ['GET /api/requests/:id', 'requests:read'],
  ['POST /api/requests/cancel', 'requests:manage'],
  ['POST /api/requests/redrive', 'requests:manage'],
  ['GET /api/tokens', 'tokens:manage'],
  ['POST /api/tokens', 'tokens:manage'],
  ['POST /api/tokens/:id/revoke', 'tokens:manage'],
  ['POST /boot', 'boot'],
  ['POST /api/boot', 'boot'],
];
const SCOPES = ['spans:read', 'spans:append', 'execute', 'requests:read', 'requests:manage', 'boot', 'tokens:manage'];

let installation: Installation;
let timeline: TimelineHub;
let api: ReturnType<typeof openApi>;
const holders = new Map<string, Caller>();
beforeAll(async () => {
  installation = await Installation.create();
  await installation.seed();
  const { database, now, log } = installation.stage0;
  timeline = new TimelineHub({
    database,
    authenticator: authenticatorOf(installation.stage0),
    listen: () => async () => {},
    now,
    log,
  });
  api = openApi(installation.stage0, { timeline, consoleFiles: async () => new Map() });
  for (const scope of SCOPES) holders.set(scope, await holderOf([scope]));
});
afterAll(async () => {
  await timeline?.stop();
  await installation?.close();
});

/** Alice, with a token of these scopes. */
async function holderOf(scopes: string[]): Promise<Caller> {
  const { token } = await createApiToken(installation.stage0, callerOf(ALICE), { name: scopes.join(), scopes });
  return api.as(token);
}

function ask(caller: Caller, route: string): Promise<Response> {
  const [method, path = ''] = route.split(' ');
  return caller.request(path.replace(':id', ID), method === 'POST' ? { boot_function_id: ID } : undefined);
}

/** Whatever else is wrong with it. */
async function expectAllowed(response: Response, what: string): Promise<void> {
  if (response.ok) return response.body?.cancel(); // a stream has no end
  const { status, code } = (await response.json()) as AnyJson;
  expect(status, what).not.toBe(401);
  expect(code, what).not.toBe('SCOPE_MISSING');
}

describe('every route', () => {
  it('has a scope, or is one of those that need none', () => {
    const routes = api.app.routes
      .filter(({ method }) => method !== 'ALL')
      .map(({ method, path }) => `${method} ${path}`);
    expect(new Set(routes)).toEqual(new Set([...PUBLIC, ...ROUTES.map(([route]) => route)]));
    // What stands before all routes: nothing that answers hides among it.
    const others = api.app.routes.filter(({ method }) => method === 'ALL').map(({ path }) => path);
    expect(new Set(others)).toEqual(new Set(['/*']));
  });

  it.each(ROUTES)('%s is for %s alone', async (route, scope) => {
    for (const [own, caller] of holders) {
      const response = await ask(caller, route);
      if (own === scope) await expectAllowed(response, `${route} with ${own}`);
      else expect((await expectProblem(response, 403, 'SCOPE_MISSING')).detail).toContain(scope);
    }
    await expectAllowed(await ask(api.as(LOCAL_TOKEN), route), `${route} with everything`);
  });

  it('is refused to everybody while it has none', async () => {
    const { app, as } = openApi(installation.stage0);
    app.get('/api/forgotten', (c) => c.text('here'));
    await expectProblem(as(LOCAL_TOKEN).request('/api/forgotten'), 403, 'SCOPE_MISSING');
    await expectProblem(as(LOCAL_TOKEN).request('/api/nothing'), 404, 'ROUTE_NOT_FOUND');
    expect((await app.request('/api/me', { method: 'HEAD' })).status).toBe(401);
    const { token } = await createApiToken(installation.stage0, callerOf(ALICE), { name: 'x', scopes: ['execute'] });
    const headers = { Authorization: `Bearer ${token}` };
    expect((await app.request('/api/me', { method: 'HEAD', headers })).status).toBe(403);
  });
});

describe('what runs by itself', () => {
  it.each([
    ['a function on a schedule', { entity_type: 'function', status: 'scheduled', code: 'return 1' }],
    [
      'a policy at work',
      { entity_type: 'policy', status: 'active', code: 'export default function on() { return [] }' },
    ],
  ])('is appended by who may execute, %s for one', async (_, span) => {
    const appender = await holderOf(['spans:append']);
    await expectProblem(appender.request('/api/spans', { spans: [span] }), 403, 'SCOPE_MISSING');
    await appender.post('/api/spans', { ...span, status: 'draft' }, 201);
    await (await holderOf(['spans:append', 'execute'])).post('/api/spans', span, 201);
  });
});

describe('a kernel', () => {
  const boots = (caller: Caller, id: string) => caller.request('/boot', { boot_function_id: id, input: null });

  it('is booted by who has its scope, or that of all, or everything', async () => {
    for (const scopes of [
      ['kernel:run_code_kernel:invoke'],
      ['boot'],
      ['*'],
      ['execute', 'kernel:run_code_kernel:invoke'],
    ]) {
      expect((await boots(await holderOf(scopes), RUN_CODE)).status, scopes.join()).toBe(200);
    }
    expect((await boots(await holderOf(['kernel:run_code_kernel:invoke']), RUN_CODE.toUpperCase())).status).toBe(200);
  });

  it('is refused to who has the scope of another one, and nothing of it runs', async () => {
    const count = await installation.count();
    const other = await holderOf(['kernel:run_code_kernel:invoke']);
    for (const id of [PROBE, ID, '5a0e4b6d-7d9f-4c52-9a53-0c1f6f0a2b11']) {
      await expectProblem(boots(other, id), 403, 'SCOPE_MISSING');
    }
    await expectProblem(boots(await holderOf(['execute']), RUN_CODE), 403, 'SCOPE_MISSING');
    expect(await installation.spans("entity_type = 'boot_event' and metadata->>'kernel_id' = $1", [PROBE])).toEqual([]);
    expect((await installation.count()) - count).toBe(2); // the two tokens
  });

  it('cannot say who may come in, nor who was refused', async () => {
    for (const entity_type of ['api_token', 'access_denied']) {
      const error = await installation.failedProbe({ probe: 'append', span: { entity_type, status: 'active' } });
      expect(error).toMatchObject({ code: 'ENTITY_TYPE_RESERVED' });
    }
  });
});

describe('an identity in the body', () => {
  it('is ignored, or refused: the token alone says who calls', async () => {
    const alice = await holderOf(['*']);
    const said = { user_id: BOB.userId, tenant_id: BOB.tenantId };
    const booted = await alice.post('/boot', { boot_function_id: PROBE, input: { probe: 'env' }, ...said });
    expect(booted.output.env).toMatchObject({ user_id: ALICE.userId, tenant_id: ALICE.tenantId });
    const appended = (more: object) => alice.request('/api/spans', { entity_type: 'note', ...more });
    await expectProblem(appended({ owner_id: BOB.userId }), 403, 'NOT_YOUR_SPAN', 'owner_id');
    await expectProblem(appended({ tenant_id: BOB.tenantId }), 403, 'NOT_YOUR_SPAN', 'tenant_id');
    const { id } = (await (await appended({})).json()) as AnyJson;
    expect(await installation.span(id)).toMatchObject({ owner_id: ALICE.userId, tenant_id: ALICE.tenantId });
    for (const path of ['/api/tokens', '/api/execute']) {
      await expectProblem(
        alice.request(path, { name: 'x', scopes: ['boot'], span_id: id, ...said }),
        400,
        'FIELD_UNKNOWN',
        path === '/api/tokens' ? 'span_id' : 'name',
      );
    }
  });
});

describe('a ticket', () => {
  it('is no bearer token, and no token of any other route', async () => {
    const alice = await holderOf(['*']);
    const { ticket, expires_at } = await alice.post('/api/tickets', {}, 201);
    expect(Date.parse(expires_at) - Date.now()).toBeGreaterThan(20_000);
    await expectProblem(api.as(ticket).request('/api/me'), 401, 'TOKEN_INVALID');
    for (const path of ['/api/me', '/api/timeline', '/api/spans']) {
      await expectProblem(api.app.request(`${path}?ticket=${ticket}`), 401, 'TOKEN_MISSING');
    }
  });

  it('opens the stream, for what its caller may', async () => {
    const { app } = openApi(installation.stage0);
    app.get('/api/timeline/stream', (c) => c.json(c.get('caller')));
    const open = (ticket: string) => app.request(`/api/timeline/stream?ticket=${encodeURIComponent(ticket)}`);
    const { ticket } = await (await holderOf(['spans:read'])).post('/api/tickets', {}, 201);
    expect(await (await open(ticket)).json()).toMatchObject({ identity: ALICE, scopes: ['spans:read'] });
    await expectProblem(open(`${ticket}x`), 401, 'TICKET_INVALID');
    await expectProblem(open(''), 401, 'TICKET_INVALID');
    const { token } = await createApiToken(installation.stage0, callerOf(ALICE), { name: 'x', scopes: ['spans:read'] });
    await expectProblem(open(token), 401, 'TICKET_INVALID');
  });
});
