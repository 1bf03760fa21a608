import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createApi } from '../../src/api/index.ts';
import { appendSpans, claimRequests, type Identity, type SpanDraft } from '../../src/ledger/index.ts';
import { MANIFEST_ID } from '../../src/stage0/index.ts';
import { type AnyJson, Installation, RUN_CODE } from '../stage0/installation.ts';
import { rootSigner, trustedKeys } from '../support/keys.ts';
import { ALICE, BOB, contextOf } from '../support/spans.ts';
import { asAlan, asAlice, asBob, asOtherAlice, authenticatorOf, Caller, expectProblem, openApi } from './http.ts';

let installation: Installation;
let app: ReturnType<typeof createApi>;
let alice: Caller;
let alan: Caller;
let bob: Caller;
let otherAlice: Caller;
beforeAll(async () => {
  installation = await Installation.create();
  await installation.seed();
  app = openApi(installation);
  [alice, alan, bob, otherAlice] = [asAlice, asAlan, asBob, asOtherAlice].map(
    (headers) => new Caller(app, headers),
  ) as [Caller, Caller, Caller, Caller];
});
afterAll(() => installation?.close());

const append = (identity: Identity, ...drafts: SpanDraft[]) =>
  appendSpans(installation.stage0.database, drafts, contextOf(identity));
const dayAgo = (days: number) => new Date(Date.now() - days * 86_400_000).toISOString();
const ran = (status: string, duration_ms: number, more: object = {}): SpanDraft => ({
  entity_type: 'execution',
  did: 'ran_function',
  status,
  duration_ms,
  at: dayAgo(0),
  ...more,
});

describe('GET /api/metrics', () => {
  it('is empty, and not an error, for who has run nothing', async () => {
    expect(await otherAlice.get('/api/metrics')).toEqual({
      from: `${dayAgo(6).slice(0, 10)}T00:00:00.000Z`,
      total: { count: 0, avg_duration_ms: null, p95_duration_ms: null },
      executions: [],
      queue: { ready: 0, delayed: 0, leased: 0, dead: 0, oldest_due_ms: null },
    });
  });

  it('counts function executions by day and status, and how long they took', async () => {
    const today = Array.from({ length: 20 }, (_, i) => ran('complete', (i + 1) * 10));
    await append(
      ALICE,
      ...today,
      ran('error', 7),
      ran('timeout', 100, { at: dayAgo(2) }),
      ran('complete', 1, { at: dayAgo(9) }),
      ran('complete', 999_999, { did: 'ran_kernel' }),
      { entity_type: 'note', did: 'ran_function', at: dayAgo(0) },
    );
    const of = (days: string, status: string, count: number, avg: number, p95: number) => ({
      day: days.slice(0, 10),
      status,
      count,
      avg_duration_ms: avg,
      p95_duration_ms: p95,
    });
    const now = dayAgo(0);
    const week = await alice.get('/api/metrics');
    expect(week.executions).toEqual([
      of(dayAgo(2), 'timeout', 1, 100, 100),
      of(now, 'complete', 20, 105, 190),
      of(now, 'error', 1, 7, 7),
    ]);
    expect(week.total).toEqual({ count: 22, avg_duration_ms: 100.3, p95_duration_ms: 190 });
    expect((await alice.get('/api/metrics?days=1')).total.count).toBe(21);
    expect((await alice.get('/api/metrics?days=31')).total.count).toBe(23);
    expect((await alice.get('/api/metrics?days=10')).executions[0]).toEqual(of(dayAgo(9), 'complete', 1, 1, 1));
  });

  it('counts a real run', async () => {
    const before = (await bob.get('/api/metrics')).total.count;
    await installation.runCode({ code: 'return 1' }, BOB);
    expect((await bob.get('/api/metrics')).total.count).toBe(before + 1);
  });

  it("counts what the caller may see: his own, his tenant's shared, and nothing of another tenant", async () => {
    const [alans, bobs] = [await alan.get('/api/metrics'), await bob.get('/api/metrics')];
    await append(ALICE, ran('complete', 1), ran('complete', 1, { visibility: 'tenant' }));
    expect((await alan.get('/api/metrics')).total.count).toBe(alans.total.count + 1);
    expect(await bob.get('/api/metrics')).toEqual(bobs);
    await append(BOB, ran('complete', 1, { visibility: 'tenant' }));
    expect((await alan.get('/api/metrics')).total.count).toBe(alans.total.count + 1);
    const seeder = installation.ledger.open('loglineos_seeder', { connectionsMax: 1 });
    await appendSpans(seeder, [ran('complete', 1, { visibility: 'public' })], contextOf(BOB));
    expect((await alan.get('/api/metrics')).total.count).toBe(alans.total.count + 1);
  });

  it("says how many requests of the tenant wait, whoever's they are, and how long the first has", async () => {
    const fn = { entity_type: 'function', code: 'return 1', visibility: 'tenant' };
    const { id: span_id } = await alice.post('/api/spans', fn, 201);
    const execute = (caller: Caller, more: object = {}) => caller.post('/api/execute', { span_id, ...more }, 202);
    const leased = await execute(alice);
    const limits = { daily: 1_000, concurrency: 1_000, tenants: {} };
    const claim = { now: new Date(), limit: 10, leaseMs: 60_000, limits };
    expect((await claimRequests(installation.stage0.database, claim)).map(({ request }) => request.id)).toEqual([
      leased.request_id,
    ]);
    await execute(alice, { delay_ms: 3_600_000 });
    await execute(alan);
    const dead = await execute(alice);
    const [{ name, parent_id }] = await installation.spans('id = $1', [dead.request_id]);
    await append(ALICE, { id: dead.request_id, entity_type: 'request', status: 'dead', name, parent_id });
    await append(ALICE, {
      entity_type: 'request',
      status: 'scheduled',
      parent_id: span_id,
      at: dayAgo(1),
      scheduled_at: dayAgo(1),
    });

    for (const caller of [alice, alan]) {
      const { queue } = await caller.get('/api/metrics');
      expect(queue).toEqual({ ready: 2, delayed: 1, leased: 1, dead: 1, oldest_due_ms: expect.any(Number) });
      expect(queue.oldest_due_ms).toBeGreaterThan(86_000_000);
      expect(queue.oldest_due_ms).toBeLessThan(86_500_000);
    }
    for (const caller of [bob, otherAlice]) {
      expect((await caller.get('/api/metrics')).queue).toEqual({
        ready: 0,
        delayed: 0,
        leased: 0,
        dead: 0,
        oldest_due_ms: null,
      });
    }
  });

  it('says that nothing is late while all of it waits for its time', async () => {
    const { id: span_id } = await bob.post('/api/spans', { entity_type: 'function', code: 'return 1' }, 201);
    await bob.post('/api/execute', { span_id, delay_ms: 3_600_000 }, 202);
    expect((await bob.get('/api/metrics')).queue).toMatchObject({ ready: 0, delayed: 1, oldest_due_ms: null });
  });

  it('tells a session without an identity nothing', async () => {
    const connection = await installation.ledger.connect('loglineos_app');
    expect((await connection.query('select * from ledger.tenant_queue()')).rows).toEqual([]);
    await connection.query(`select set_config('app.tenant_id', 'acme', false)`);
    expect((await connection.query('select * from ledger.tenant_queue()')).rows).toEqual([]);
  });

  it.each(['days=0', 'days=32', 'days=1.5', 'days=', 'days=a', 'days=1&days=2', 'days=%31e0'])(
    'refuses %s',
    async (query) => {
      await expectProblem(alice.request(`/api/metrics?${query}`), 400, 'FIELD_INVALID', 'days');
    },
  );

  it('refuses what it does not know', async () => {
    await expectProblem(alice.request('/api/metrics?day=1'), 400, 'FIELD_UNKNOWN', 'day');
    await expectProblem(alice.request('/api/metrics?__proto__=1'), 400, 'FIELD_UNKNOWN', '__proto__');
  });
});

describe('GET /api/manifest', () => {
  it('is the newest version, as it was proved, for everybody', async () => {
    const manifest = await alice.get('/api/manifest');
    expect(manifest).toMatchObject({
      id: MANIFEST_ID,
      seq: 0,
      public_key: rootSigner.publicKey,
      content: { kernels: { run_code_kernel: RUN_CODE }, throttle: { per_tenant_daily_exec_limit: 100 } },
    });
    expect(manifest.hash).toBe((await installation.span(MANIFEST_ID)).curr_hash);
    expect(Object.keys(manifest)).toEqual(['id', 'seq', 'hash', 'public_key', 'content']);
    expect(await bob.get('/api/manifest')).toEqual(manifest);
  });

  it('follows a new version at once, and is refused when it does not prove itself or nobody has seeded one', async () => {
    const other = await Installation.create(installation.sandbox);
    try {
      const caller = new Caller(openApi(other), asAlice);
      await expectProblem(caller.request('/api/manifest'), 403, 'MANIFEST_MISSING');
      await other.seed();
      const first = await caller.get('/api/manifest');
      await other.seed((content) => {
        content.throttle.per_tenant_daily_exec_limit = 7;
      });
      const second = await caller.get('/api/manifest');
      expect([second.seq, second.content.throttle.per_tenant_daily_exec_limit]).toEqual([first.seq + 1, 7]);
      await other.tamper(
        `update ledger.universal_registry set content = jsonb_set(content, '{policy,slow_ms}', '1') where id = $1 and seq = 1`,
        [MANIFEST_ID],
      );
      await expectProblem(caller.request('/api/manifest'), 409, 'HASH_MISMATCH');
    } finally {
      await other.close();
    }
  });
});

describe('time and visibility as filters', () => {
  it.each(['/api/spans', '/api/timeline'])('hold for %s', async (path) => {
    const trace_id = `filters of ${path}`;
    const note = (name: string, at: string, visibility: 'private' | 'tenant') => ({
      entity_type: 'note',
      name,
      at,
      visibility,
      trace_id,
    });
    await append(
      ALICE,
      note('a', '2026-01-01T00:00:00.000Z', 'private'),
      note('b', '2026-01-02T00:00:00.000Z', 'tenant'),
      note('c', '2026-01-03T00:00:00.000Z', 'private'),
    );
    const names = async (query: Record<string, string>) => {
      const { spans } = await alice.get(`${path}?${new URLSearchParams({ trace_id, ...query })}`);
      return spans.map(({ name }: AnyJson) => name).toSorted();
    };
    expect(await names({})).toEqual(['a', 'b', 'c']);
    expect(await names({ from: '2026-01-02T00:00:00Z' })).toEqual(['b', 'c']);
    expect(await names({ to: '2026-01-02T00:00:00Z' })).toEqual(['a']);
    expect(await names({ from: '2026-01-02T01:00:00+01:00', to: '2026-01-02T00:00:00.001Z' })).toEqual(['b']);
    expect(await names({ visibility: 'tenant' })).toEqual(['b']);
    expect(await names({ visibility: 'private', from: '2026-01-02T00:00:00Z' })).toEqual(['c']);
    for (const [name, value] of [
      ['from', 'yesterday'],
      ['from', '2026-01-01'],
      ['to', '2026-13-01T00:00:00Z'],
      ['to', '0000-01-01T00:00:00Z'],
      ['from', '9999-12-31T23:59:00-23:00'],
      ['visibility', 'mine'],
    ] as const) {
      const query = new URLSearchParams({ [name]: value });
      await expectProblem(alice.request(`${path}?${query}`), 400, 'FIELD_INVALID', name);
    }
  });
});

describe('headers', () => {
  it.each(['/health', '/docs', '/openapi.json', '/api/spans', '/api/spans/x', '/no/such'])(
    'of %s let nobody keep or guess at an answer',
    async (path) => {
      const { headers } = await alice.request(path);
      expect([headers.get('Cache-Control'), headers.get('X-Content-Type-Options')]).toEqual(['no-store', 'nosniff']);
    },
  );

  describe('for pages of other origins', () => {
    const ORIGIN = 'https://console.example';
    const open = (corsOrigins: string[]) =>
      createApi({
        stage0: installation.stage0,
        trustedKeys,
        authenticator: authenticatorOf((token) => (token === 'token-of-alice' ? ALICE : undefined)),
        corsOrigins,
      });
    const preflight = (api: typeof app, origin: string) =>
      api.request('/api/spans', {
        method: 'OPTIONS',
        headers: {
          Origin: origin,
          'Access-Control-Request-Method': 'POST',
          'Access-Control-Request-Headers': 'authorization,idempotency-key',
        },
      });
    const corsOf = ({ headers }: Response) =>
      Object.fromEntries([...headers].filter(([name]) => name.startsWith('access-control-')));

    it('are there for the exact origins that are configured, without a token, and allow no cookies', async () => {
      const api = open([ORIGIN]);
      const response = await preflight(api, ORIGIN);
      expect([response.status, corsOf(response)]).toEqual([
        204,
        {
          'access-control-allow-origin': ORIGIN,
          'access-control-allow-methods': 'GET,POST',
          'access-control-allow-headers': 'Authorization,Content-Type,Idempotency-Key,Last-Event-ID',
          'access-control-max-age': '600',
        },
      ]);
      for (const headers of [{ Origin: ORIGIN, ...asAlice }, { Origin: ORIGIN }]) {
        const answer = await api.request('/api/me', { headers });
        expect(corsOf(answer)).toEqual({ 'access-control-allow-origin': ORIGIN });
        expect(answer.headers.get('Vary')).toContain('Origin');
      }
    });

    it.each(['https://console.example.evil', 'http://console.example', 'https://console.example:8443', 'null', '*'])(
      'are not there for %s',
      async (origin) => {
        const api = open([ORIGIN]);
        expect(corsOf(await preflight(api, origin))).not.toHaveProperty('access-control-allow-origin');
        expect(corsOf(await api.request('/api/me', { headers: { Origin: origin, ...asAlice } }))).toEqual({});
      },
    );

    it('are not there at all unless they are configured', async () => {
      expect((await preflight(app, ORIGIN)).status).toBe(401);
      expect(corsOf(await app.request('/api/me', { headers: { Origin: ORIGIN, ...asAlice } }))).toEqual({});
    });
  });
});
