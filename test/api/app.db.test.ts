import { once } from 'node:events';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { serve } from '@hono/node-server';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createApi } from '../../src/api/index.ts';
import { Database } from '../../src/ledger/index.ts';
import { type AnyJson, Installation, PLAN_PAYLOAD, PROBE, RUN_CODE } from '../stage0/installation.ts';
import { trustedKeys } from '../support/keys.ts';
import { ALICE, BOB } from '../support/spans.ts';
import { asAlice, asBob, authenticatorOf, expectProblem, openApi } from './http.ts';

const BODY_BYTES_MAX = 1024 * 1024;

let installation: Installation;
let app: ReturnType<typeof createApi>;
beforeAll(async () => {
  installation = await Installation.create();
  await installation.seed((content) => {
    content.throttle.tenants = { bolt: { per_tenant_daily_exec_limit: 1 } };
  });
  app = openApi(installation);
});
afterAll(() => installation?.close());

const get = (path: string, headers: Record<string, string> = asAlice) => app.request(path, { headers });
const post = (path: string, body: unknown, headers: Record<string, string> = asAlice) =>
  app.request(path, { method: 'POST', headers, body: typeof body === 'string' ? body : JSON.stringify(body) });

const bodyOf = (response: Response): Promise<AnyJson> => response.json();

describe('every route but /health', () => {
  const id = '00000000-0000-4000-8000-0000000000aa';
  const routes: [string, string][] = [
    ['POST', '/boot'],
    ['POST', '/api/boot'],
    ['GET', `/api/spans/${id}`],
    ['GET', `/api/spans/${id}/versions`],
    ['GET', `/api/spans/${id}/verify`],
    ['GET', '/api/me'],
    ['GET', '/api/spans'],
    ['POST', '/api/spans'],
    ['GET', '/api/timeline'],
    ['POST', '/api/execute'],
    ['GET', '/api/requests'],
    ['GET', `/api/requests/${id}`],
    ['POST', '/api/requests/cancel'],
    ['POST', '/api/requests/redrive'],
    ['GET', '/no/such/route'],
  ];

  it.each(routes)('answers 401 without a token, and with one nobody was given: %s %s', async (method, path) => {
    const count = await installation.count();
    const body = method === 'POST' ? JSON.stringify(PLAN_PAYLOAD) : null;
    const request = (headers: Record<string, string>) => app.request(path, { method, headers, body });
    for (const headers of [
      {},
      { Authorization: 'Basic YWxpY2U6' },
      { Authorization: 'token-of-alice' },
      { Authorization: 'Bearer ' },
      { Authorization: 'Bearer a b' },
    ]) {
      const response = await request(headers as Record<string, string>);
      expect(response.headers.get('WWW-Authenticate')).toBe('Bearer');
      await expectProblem(response, 401, 'TOKEN_MISSING');
    }
    await expectProblem(request({ Authorization: 'Bearer token-of-alicf' }), 401, 'TOKEN_INVALID');
    expect(await installation.count()).toBe(count);
  });
});

describe('GET /health', () => {
  it('says without a token that the database answers', async () => {
    const response = await get('/health', {});
    expect([response.status, await response.json()]).toEqual([200, { status: 'ok', database: 'reachable' }]);
  });

  it('answers 503 when the database does not, and says nothing of where it is', async () => {
    const url = 'postgres://nobody:secret@127.0.0.1:1/none';
    const gone = new Database({ url, applicationName: 'test' });
    const broken = createApi({
      stage0: installation.container({ database: gone }),
      trustedKeys,
      authenticator: authenticatorOf(() => ALICE),
    });
    try {
      const problem = await expectProblem(broken.request('/health'), 503, 'DATABASE_UNAVAILABLE');
      expect(JSON.stringify(problem)).not.toMatch(/127\.0\.0\.1|secret|nobody/);
    } finally {
      await gone.close();
    }
  });
});

describe('GET /api/me', () => {
  it('says whom the token speaks for', async () => {
    expect(await bodyOf(await get('/api/me', asBob))).toEqual({ user_id: BOB.userId, tenant_id: BOB.tenantId });
  });
});

describe('POST /boot', () => {
  it.each(['/boot', '/api/boot'])('boots for the caller, at %s', async (path) => {
    const response = await post(path, { boot_function_id: RUN_CODE, input: { code: 'return input + 1', input: 1 } });
    const answer = await bodyOf(response);
    expect([response.status, answer]).toMatchObject([200, { ok: true, status: 'complete', output: { result: 2 } }]);
    expect(await installation.span(answer.boot_event_id)).toMatchObject({
      owner_id: ALICE.userId,
      tenant_id: ALICE.tenantId,
    });
  });

  it('takes the identity from the token alone, whatever the body says', async () => {
    for (const said of [
      { user_id: BOB.userId, tenant_id: BOB.tenantId },
      { user_id: 7, tenant_id: null },
    ]) {
      const answer = await bodyOf(await post('/boot', { boot_function_id: PROBE, input: { probe: 'env' }, ...said }));
      expect(answer.output.env).toMatchObject({ user_id: ALICE.userId, tenant_id: ALICE.tenantId });
      expect(await installation.span(answer.execution_id)).toMatchObject({
        owner_id: ALICE.userId,
        tenant_id: ALICE.tenantId,
      });
    }
  });

  it('answers 200 with ok: false for a kernel that ran and failed', async () => {
    const response = await post('/boot', { boot_function_id: PROBE, input: { probe: 'throwsHere' } });
    expect([response.status, await response.json()]).toMatchObject([
      200,
      { ok: false, status: 'error', error: { code: 'ON_PURPOSE' } },
    ]);
  });

  it.each<[string, string, string, string | undefined]>([
    ['no JSON', '{"boot_function_id":', 'JSON_INVALID', undefined],
    ['nothing', '', 'JSON_INVALID', undefined],
    ['a list', '[]', 'FIELD_INVALID', undefined],
    ['no id', '{}', 'FIELD_MISSING', 'boot_function_id'],
    ['an id that is no UUID', '{"boot_function_id":"run_code"}', 'FIELD_INVALID', 'boot_function_id'],
    ['an unknown field', JSON.stringify({ boot_function_id: RUN_CODE, scopes: ['*'] }), 'FIELD_UNKNOWN', 'scopes'],
    [
      'an input no span can hold',
      JSON.stringify({ boot_function_id: RUN_CODE, input: 'a\0b' }),
      'VALUE_NOT_STORABLE',
      'input',
    ],
    [
      'an input nested 200,000 deep',
      `{"boot_function_id":"${RUN_CODE}","input":${'['.repeat(200_000)}${']'.repeat(200_000)}}`,
      'VALUE_NOT_STORABLE',
      `input${'[0]'.repeat(64)}`,
    ],
  ])('answers 400 to a body with %s, and writes nothing', async (_what, body, code, field) => {
    const count = await installation.count();
    await expectProblem(post('/boot', body), 400, code, field);
    expect(await installation.count()).toBe(count);
  });

  it('answers 413 to a body of more than 1 MB, and takes one of exactly that', async () => {
    const body = (bytes: number) => {
      const frame = { boot_function_id: RUN_CODE, input: '' };
      return JSON.stringify({ ...frame, input: 'x'.repeat(bytes - JSON.stringify(frame).length) });
    };
    const count = await installation.count();
    const sized = (bytes: number) => post('/boot', body(bytes), { ...asAlice, 'Content-Length': String(bytes) });
    await expectProblem(sized(BODY_BYTES_MAX + 1), 413, 'BODY_TOO_LARGE');
    await expectProblem(post('/boot', body(BODY_BYTES_MAX + 1)), 413, 'BODY_TOO_LARGE');
    // It may come in, and then is more than a span holds with all its other columns.
    await expectProblem(sized(BODY_BYTES_MAX), 413, 'SPAN_TOO_LARGE');
    expect(await installation.count()).toBe(count);
  });

  it('answers 403 and 404 to a kernel that may not boot, or that nobody knows', async () => {
    const { id } = await installation.appendFunction('return 1');
    await expectProblem(post('/boot', { boot_function_id: id }), 403, 'KERNEL_NOT_ALLOWED');
    await expectProblem(
      post('/boot', { boot_function_id: '00000000-0000-4000-8000-00000000dead' }),
      404,
      'KERNEL_NOT_FOUND',
    );
  });

  it('answers 429 when the day is used up', async () => {
    const request = { boot_function_id: RUN_CODE, input: { code: 'return 1' } };
    expect((await post('/boot', request, asBob)).status).toBe(200);
    await expectProblem(post('/boot', request, asBob), 429, 'QUOTA_EXCEEDED');
  });

  it('answers 409 to an idempotency_key that was used with another input', async () => {
    const request = { boot_function_id: PROBE, input: { probe: 'answer', value: 1 }, idempotency_key: 'http' };
    const first = await (await post('/boot', request)).json();
    expect(await (await post('/boot', request)).json()).toEqual(first);
    await expectProblem(post('/boot', { ...request, input: null }), 409, 'IDEMPOTENCY_KEY_REUSED', 'idempotency_key');
  });

  it('answers 409 to a kernel that does not prove itself', async () => {
    const altered = await Installation.create(installation.sandbox);
    try {
      await altered.seed();
      await altered.tamper(`update ledger.universal_registry set name = 'x' where id = $1`, [RUN_CODE]);
      const api = createApi({ stage0: altered.stage0, trustedKeys, authenticator: authenticatorOf(() => ALICE) });
      const body = JSON.stringify({ boot_function_id: RUN_CODE });
      await expectProblem(api.request('/boot', { method: 'POST', headers: asAlice, body }), 409, 'HASH_MISMATCH');
    } finally {
      await altered.close();
    }
  });

  it('tells a fault of ours as a bare 500, and the log why', async () => {
    const broken = createApi({
      stage0: installation.stage0,
      trustedKeys,
      authenticator: authenticatorOf(() => {
        throw new Error('the password is hunter2');
      }),
    });
    const response = await broken.request('/boot', { method: 'POST', headers: asAlice, body: '{}' });
    const text = await response.text();
    expect([response.status, JSON.parse(text).code]).toEqual([500, 'INTERNAL']);
    expect(text).not.toContain('hunter2');
    expect(JSON.stringify(installation.logged)).toContain('hunter2');
  });
});

describe('GET /api/spans/{id}', () => {
  it('shows the newest version to who may see it', async () => {
    const { id } = await installation.appendFunction('return 1', { visibility: 'tenant' });
    await installation.appendFunction('return 2', { id });
    const response = await get(`/api/spans/${id}`);
    expect([response.status, await response.json()]).toMatchObject([
      200,
      { id, seq: 1, code: 'return 2', owner_id: ALICE.userId },
    ]);
    const alan = await get(`/api/spans/${id}`, { Authorization: 'Bearer token-of-alan' });
    expect([alan.status, (await bodyOf(alan)).seq]).toEqual([200, 1]);
  });

  it('shows public spans to everybody', async () => {
    expect(await (await get(`/api/spans/${RUN_CODE}`, asBob)).json()).toMatchObject({
      id: RUN_CODE,
      name: 'run_code_kernel',
    });
  });

  it.each(['', '/verify'])(
    "answers 404 for another's span as for one that does not exist: /api/spans/{id}%s",
    async (suffix) => {
      const { id: inTenant } = await installation.appendFunction('return 1', { visibility: 'tenant' });
      const { id: hidden } = await installation.appendFunction('return 1');
      const none = '00000000-0000-4000-8000-00000000dead';
      const problems = [];
      for (const [id, headers] of [
        [inTenant, asBob],
        [hidden, asBob],
        [hidden, { Authorization: 'Bearer token-of-alan' }],
        [none, asAlice],
      ] as [string, Record<string, string>][]) {
        const problem = await expectProblem(get(`/api/spans/${id}${suffix}`, headers), 404, 'SPAN_NOT_FOUND', 'id');
        problems.push(problem.detail?.replace(id, '…'));
      }
      expect(new Set(problems).size).toBe(1);
    },
  );

  it.each(['not-a-uuid', '%00', RUN_CODE.toUpperCase().replace('4000', 'ABCD'), `${RUN_CODE}%0a`])(
    'answers 400 for what is no id: %s',
    async (id) => {
      await expectProblem(get(`/api/spans/${id}`), 400, 'FIELD_INVALID', 'id');
    },
  );
});

describe('GET /api/spans/{id}/verify', () => {
  it('proves every version of a span', async () => {
    const { id } = await installation.appendFunction('return 1');
    const second = await installation.appendFunction('return 2', { id });
    const answer = await bodyOf(await get(`/api/spans/${id}/verify`));
    expect(answer).toMatchObject({
      id,
      ok: true,
      versions: [
        { seq: 0, ok: true },
        { seq: 1, ok: true, curr_hash: second.curr_hash },
      ],
      problems: [],
    });
  });

  it.each<[string, string, object]>([
    [
      'hash',
      `update ledger.universal_registry set name = 'altered' where id = $1 and seq = 1`,
      { seq: 1, class: 'hash' },
    ],
    [
      'signature',
      `update ledger.universal_registry set signature = repeat('a', 128) where id = $1 and seq = 1`,
      { seq: 1, class: 'signature' },
    ],
    [
      'chain',
      `update ledger.universal_registry set prev_hash = repeat('a', 64) where id = $1 and seq = 1`,
      { seq: 1, class: 'chain' },
    ],
    ['missing', 'delete from ledger.universal_registry where id = $1 and seq = 1', { seq: 1, class: 'missing' }],
    [
      'missing, the first',
      'delete from ledger.universal_registry where id = $1 and seq = 0',
      { seq: 0, class: 'missing' },
    ],
  ])('says which class when a superuser touched the row: %s', async (_what, sql, problem) => {
    const { id } = await installation.appendFunction('return 1');
    await installation.appendFunction('return 2', { id });
    await installation.appendFunction('return 3', { id });
    await installation.tamper(sql, [id]);
    const answer = await bodyOf(await get(`/api/spans/${id}/verify`));
    expect(answer).toMatchObject({ id, ok: false });
    expect(answer.problems).toContainEqual(expect.objectContaining({ id, ...problem }));
  });
});

describe('a route that is not there', () => {
  it.each([
    ['GET', '/'],
    ['GET', '/boot'],
    ['DELETE', `/api/spans/${RUN_CODE}`],
    ['PUT', '/api/spans'],
    ['GET', '/api/requests/cancel/now'],
  ])('answers 404 as a problem: %s %s', async (method, path) => {
    await expectProblem(app.request(path, { method, headers: asAlice }), 404, 'ROUTE_NOT_FOUND');
  });
});

describe('over a real socket', () => {
  let server: Server;
  let url: string;
  beforeAll(async () => {
    server = serve({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' }) as Server;
    await once(server, 'listening');
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  afterAll(() => server?.close());

  it('boots, and proves the execution that it answers', async () => {
    const body = JSON.stringify({ boot_function_id: RUN_CODE });
    const answer = await bodyOf(await fetch(`${url}/boot`, { method: 'POST', headers: asAlice, body }));
    expect(answer).toMatchObject({ ok: true, output: { result: 42 } });
    const proof = await (await fetch(`${url}/api/spans/${answer.execution_id}/verify`, { headers: asAlice })).json();
    expect(proof).toMatchObject({ ok: true, versions: [{ seq: 0, ok: true }], problems: [] });
  });

  it('answers 413 to a body without a length that goes on and on', async () => {
    const chunk = new TextEncoder().encode('x'.repeat(256 * 1024));
    let sent = 0;
    const body = new ReadableStream({
      pull(controller) {
        if (sent++ === 8) controller.close();
        else controller.enqueue(chunk);
      },
    });
    const response = await fetch(`${url}/boot`, {
      method: 'POST',
      headers: asAlice,
      body,
      duplex: 'half',
    } as RequestInit);
    await expectProblem(response as unknown as Response, 413, 'BODY_TOO_LARGE');
  });

  it('refuses a large body before it reads it when there is no token', async () => {
    const response = await fetch(`${url}/boot`, { method: 'POST', body: 'x'.repeat(2 * BODY_BYTES_MAX) });
    await expectProblem(response as unknown as Response, 401, 'TOKEN_MISSING');
  });
});
