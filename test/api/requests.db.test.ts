import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  appendSpans,
  type ClaimedRequest,
  claimRequests,
  closeRequests,
  type Identity,
  type SpanDraft,
  sealDraft,
} from '../../src/ledger/index.ts';
import { type AnyJson, Installation, RUN_CODE } from '../stage0/installation.ts';
import { ALICE, contextOf, nextVersion } from '../support/spans.ts';
import { asAlan, asAlice, asBob, asOtherAlice, Caller, expectProblem, openApi } from './http.ts';

let installation: Installation;
let alice: Caller;
let alan: Caller;
let bob: Caller;
let otherAlice: Caller;
let fn: string;
beforeAll(async () => {
  installation = await Installation.create();
  await installation.seed();
  const app = openApi(installation);
  alice = new Caller(app, asAlice);
  alan = new Caller(app, asAlan);
  bob = new Caller(app, asBob);
  otherAlice = new Caller(app, asOtherAlice);
});
afterAll(() => installation?.close());
beforeEach(async () => {
  fn = (await alice.post('/api/spans', { entity_type: 'function', name: 'sum', code: 'return 1' }, 201)).id;
});

const execute = async (more: object = {}, caller = alice): Promise<string> =>
  (await caller.post('/api/execute', { span_id: fn, ...more }, 202)).request_id;
const read = (id: string, caller = alice): Promise<AnyJson> => caller.get(`/api/requests/${id}`);
const change = (how: 'cancel' | 'redrive', body: object, caller = alice): Promise<AnyJson> =>
  caller.post(`/api/requests/${how}`, body);

const LIMITS = { daily: 1_000_000, concurrency: 1_000_000, tenants: {} };

/** A worker's hand on everything that is due. */
function claimAll(now = new Date()): Promise<ClaimedRequest[]> {
  return claimRequests(installation.stage0.database, { now, limit: 1_000, leaseMs: 60_000, limits: LIMITS });
}

/** How a request ends, as a worker says it without a claim. */
async function end(id: string, status: string, identity: Identity = ALICE): Promise<void> {
  const { name, parent_id, related_to, metadata } = (await installation.spans('id = $1', [id])).at(-1);
  const draft: SpanDraft = { id, entity_type: 'request', name, parent_id, related_to, metadata, status, attempt: 3 };
  await appendSpans(
    installation.stage0.database,
    [{ ...draft, error: { code: 'THREW', message: 'x' } }],
    contextOf(identity),
  );
}

describe('POST /api/execute', () => {
  it('answers 202 and leaves a request that waits, in the name of the caller', async () => {
    const body = {
      span_id: fn,
      input: { a: 1 },
      priority: 5,
      max_attempts: 2,
      timeout_ms: 50,
      retry: { backoff_ms: 10 },
    };
    const answer = await alice.post('/api/execute', body, 202);
    expect(answer).toEqual({ request_id: expect.any(String), status: 'scheduled' });
    expect(await installation.span(answer.request_id)).toMatchObject({
      entity_type: 'request',
      who: ALICE.userId,
      owner_id: ALICE.userId,
      tenant_id: ALICE.tenantId,
      visibility: 'private',
      metadata: { timeout_ms: 50, retry: { backoff_ms: 10 } },
    });
    const request = await read(answer.request_id);
    expect(request).toEqual({
      id: answer.request_id,
      function_id: fn,
      name: 'sum',
      status: 'scheduled',
      state: 'ready',
      priority: 5,
      attempt: 0,
      max_attempts: 2,
      scheduled_at: null,
      created_at: expect.stringMatching(/^\d{4}-.*Z$/),
      started_at: null,
      finished_at: null,
      input: { a: 1 },
      output: null,
      error: null,
      execution_ids: [],
      idempotency_key: null,
      trace_id: expect.stringMatching(/^[0-9a-f]{32}$/),
      position: expect.stringMatching(/^[0-9a-f]{32}$/),
    });
  });

  it('puts it off, by a time or by an instant', async () => {
    const byTime = await read(await execute({ delay_ms: 3_600_000 }));
    expect(byTime).toMatchObject({ state: 'delayed' });
    expect(Date.parse(byTime.scheduled_at) - Date.parse(byTime.created_at)).toBe(3_600_000);
    const byInstant = await read(await execute({ scheduled_at: '2030-01-01T01:00:00+01:00' }));
    expect(byInstant).toMatchObject({ state: 'delayed', scheduled_at: '2030-01-01T00:00:00.000Z' });
    expect(await read(await execute({ scheduled_at: '2020-01-01T00:00Z' }))).toMatchObject({ state: 'ready' });
  });

  it.each<[string, object, number, string, string | undefined]>([
    ['no function', { span_id: undefined }, 400, 'FIELD_MISSING', 'span_id'],
    ['a function that is nowhere', { span_id: randomUUID() }, 404, 'SPAN_NOT_FOUND', 'span_id'],
    ['a manifest', { span_id: '00000000-0000-4000-8000-0000000000aa' }, 400, 'NOT_A_FUNCTION', 'span_id'],
    [
      'both a delay and an instant',
      { delay_ms: 1, scheduled_at: '2030-01-01T00:00:00Z' },
      400,
      'FIELD_INVALID',
      'delay_ms',
    ],
    ['a delay beyond the calendar', { delay_ms: 9e15 }, 400, 'FIELD_INVALID', 'delay_ms'],
    ['a delay into the past', { delay_ms: -1 }, 400, 'FIELD_INVALID', 'delay_ms'],
    ['an instant without an offset', { scheduled_at: '2030-01-01T00:00:00' }, 400, 'FIELD_INVALID', 'scheduled_at'],
    ['an instant that is none', { scheduled_at: '2030-13-01T00:00:00Z' }, 400, 'FIELD_INVALID', 'scheduled_at'],
    ['a priority that is no whole number', { priority: 1.5 }, 400, 'FIELD_INVALID', 'priority'],
    ['a priority beyond 32 bits', { priority: 3e9 }, 400, 'TYPE_MISMATCH', 'priority'],
    ['no attempt at all', { max_attempts: 0 }, 400, 'FIELD_INVALID', 'max_attempts'],
    ['no time at all', { timeout_ms: 0 }, 400, 'FIELD_INVALID', 'timeout_ms'],
    ['terms that nobody knows', { retry: { factor: 2 } }, 400, 'FIELD_UNKNOWN', 'retry.factor'],
    ['a force without a signature', { force: true }, 400, 'FIELD_INVALID', 'force'],
    ['an input that no span can hold', { input: 'a\0b' }, 400, 'VALUE_NOT_STORABLE', 'input'],
    [
      'an input like that, with a key',
      { input: { a: 2 ** 60 }, idempotency_key: 'k' },
      400,
      'VALUE_NOT_STORABLE',
      'input.a',
    ],
    ['an empty key', { idempotency_key: '' }, 400, 'FIELD_INVALID', 'idempotency_key'],
    ['an owner', { owner_id: 'bob' }, 400, 'FIELD_UNKNOWN', 'owner_id'],
  ])('refuses %s, and writes nothing', async (_what, more, status, code, field) => {
    const count = await installation.count();
    await expectProblem(alice.request('/api/execute', { span_id: fn, ...more }), status, code, field);
    expect(await installation.count()).toBe(count);
  });

  it('refuses functions that are not visible, have no code, or are retired', async () => {
    const body = { span_id: fn };
    await expectProblem(bob.request('/api/execute', body), 404, 'SPAN_NOT_FOUND', 'span_id');
    await expectProblem(alan.request('/api/execute', body), 404, 'SPAN_NOT_FOUND', 'span_id');
    await alice.post('/api/spans', { id: fn, entity_type: 'function', code: 'return 1', status: 'retired' }, 201);
    await expectProblem(alice.request('/api/execute', body), 400, 'FUNCTION_RETIRED', 'span_id');
    await alice.post('/api/spans', { id: fn, entity_type: 'function' }, 201);
    await expectProblem(alice.request('/api/execute', body), 400, 'NOT_A_FUNCTION', 'span_id');
  });

  it("lets a tenant's function be run by another of the tenant, as himself", async () => {
    const shared = { entity_type: 'function', code: 'return 2', visibility: 'tenant' };
    const { id } = await alice.post('/api/spans', shared, 201);
    const request = await execute({ span_id: id }, alan);
    expect(await installation.span(request)).toMatchObject({ owner_id: 'alan', parent_id: id });
    await expectProblem(alice.request(`/api/requests/${request}`), 404, 'REQUEST_NOT_FOUND', 'id');
  });
});

describe('an idempotency key', () => {
  it.each([1, 2, 3, 4, 5])('makes one request of 20 calls at the same moment: %i', async (round) => {
    const count = await installation.count();
    const body = { input: [1], idempotency_key: `race ${round}` };
    const ids = await Promise.all(Array.from({ length: 20 }, () => execute(body)));
    expect(new Set(ids).size).toBe(1);
    expect(await installation.count()).toBe(count + 1);
  });

  it('answers the same when it comes later, in the header as well, also when all is over and the function is gone', async () => {
    const first = await execute({ idempotency_key: 'later', delay_ms: 5 });
    const body = { span_id: fn, delay_ms: 5 };
    const headers = { 'Idempotency-Key': 'later' };
    expect(await alice.post('/api/execute', body, 202, headers)).toEqual({ request_id: first, status: 'scheduled' });
    await end(first, 'complete');
    await alice.post('/api/spans', { id: fn, entity_type: 'function', code: 'return 1', status: 'retired' }, 201);
    const count = await installation.count();
    expect(await alice.post('/api/execute', body, 202, headers)).toEqual({ request_id: first, status: 'complete' });
    expect(await installation.count()).toBe(count);
  });

  it.each<[string, object]>([
    ['input', { input: 2 }],
    ['priority', { priority: 1 }],
    ['delay', { delay_ms: 7 }],
    ['terms', { timeout_ms: 7 }],
  ])('is refused for another %s', async (what, more) => {
    const key = { idempotency_key: `reused ${what}` };
    await execute({ input: 1, ...key });
    const count = await installation.count();
    const again = alice.request('/api/execute', { span_id: fn, input: 1, ...key, ...more });
    await expectProblem(again, 409, 'IDEMPOTENCY_KEY_REUSED', 'idempotency_key');
    expect(await installation.count()).toBe(count);
  });

  it('is refused when header and body say two', async () => {
    const answer = alice.request('/api/execute', { span_id: fn, idempotency_key: 'a' }, { 'Idempotency-Key': 'b' });
    await expectProblem(answer, 400, 'FIELD_INVALID', 'idempotency_key');
  });

  it('belongs to the caller: the same key of another is another request', async () => {
    const shared = { entity_type: 'function', code: 'return 2', visibility: 'tenant' };
    const { id: span_id } = await alice.post('/api/spans', shared, 201);
    const { id: bobs } = await bob.post('/api/spans', shared, 201);
    const key = { idempotency_key: 'shared' };
    const ids = [
      await execute({ span_id, ...key }),
      await execute({ span_id, ...key }, alan),
      await execute({ span_id: bobs, ...key }, bob),
      await execute({ span_id: bobs, ...key }, otherAlice),
    ];
    expect(new Set(ids).size).toBe(4);
  });
});

describe('GET /api/requests', () => {
  const ids = async (query: string, caller = alice) =>
    (await caller.get(`/api/requests?function_id=${fn}&${query}`)).requests.map(({ id }: AnyJson) => id);

  it('shows how each stands, and lists by state and by status, newest first', async () => {
    const [ready, delayed, leased, dead, complete, failed] = [
      await execute({ priority: -1 }),
      await execute({ delay_ms: 60_000 }),
      await execute(),
      await execute(),
      await execute(),
      await execute(),
    ] as [string, string, string, string, string, string];
    await end(dead, 'dead');
    await end(complete, 'complete');
    await end(failed, 'error');
    const claimed = claimRequests(installation.stage0.database, {
      now: new Date(),
      limit: 1_000,
      leaseMs: 60_000,
      limits: { ...LIMITS, concurrency: 1_000 },
    });
    expect((await claimed).map(({ request }) => request.id)).toContain(leased);
    // All that is due was claimed: give two of them back.
    await installation.admin.query(`update ledger.request_queue set state = 'ready' where request_id = any($1)`, [
      [ready, failed],
    ]);

    expect(await ids('state=ready')).toEqual([failed, ready]);
    expect(await ids('state=delayed')).toEqual([delayed]);
    expect(await ids('state=leased')).toEqual([leased]);
    expect(await ids('state=dead')).toEqual([dead]);
    expect(await ids('status=scheduled')).toEqual([leased, delayed, ready]);
    expect(await ids('status=error')).toEqual([failed]);
    expect(await ids('status=dead')).toEqual([dead]);
    expect(await ids('status=complete')).toEqual([complete]);
    expect(await ids('status=scheduled&state=ready')).toEqual([ready]);
    expect(await ids('')).toEqual([failed, complete, dead, leased, delayed, ready]);
    expect(await read(leased)).toMatchObject({ status: 'scheduled', state: 'leased' });
    expect(await read(dead)).toMatchObject({ status: 'dead', state: 'dead', attempt: 3, error: { code: 'THREW' } });
    expect(await read(complete)).toMatchObject({ status: 'complete', state: null });
    await change('cancel', { filter: { function_id: fn } });
  });

  it.each(['status=scheduled', ''])('pages without missing or repeating one, by %j', async (query) => {
    const all = [];
    for (let i = 0; i < 7; i++) all.unshift(await execute({ delay_ms: 60_000 }));
    const found: string[] = [];
    let before: string | null = '';
    while (before !== null) {
      const more: string = before === '' ? '' : `&before=${before}`;
      const page: AnyJson = await alice.get(`/api/requests?function_id=${fn}&limit=3&${query}${more}`);
      found.push(...page.requests.map(({ id }: AnyJson) => id));
      before = page.before;
      expect(found.length).toBeLessThan(10);
    }
    expect(found).toEqual(all);
  });

  it.each<[string, () => Caller]>([
    ['another tenant', () => bob],
    ['another owner of the tenant', () => alan],
    ['another of the same name', () => otherAlice],
  ])('shows none to %s', async (_who, caller) => {
    const id = await execute();
    for (const query of ['state=ready', 'status=scheduled', '']) expect(await ids(query, caller())).toEqual([]);
    await expectProblem(caller().request(`/api/requests/${id}`), 404, 'REQUEST_NOT_FOUND', 'id');
    const other = await change('cancel', { filter: {} }, caller());
    expect([...other.changed, ...other.unchanged.map((one: AnyJson) => one.id)]).not.toContain(id);
    const unchanged = [{ id, reason: 'REQUEST_NOT_FOUND' }];
    expect(await change('cancel', { ids: [id] }, caller())).toEqual({ changed: [], unchanged, before: null });
    expect(await read(id)).toMatchObject({ status: 'scheduled', state: 'ready' });
  });

  it.each([
    ['state=waiting', 'FIELD_INVALID', 'state'],
    ['status=open', 'FIELD_INVALID', 'status'],
    ['function_id=sum', 'FIELD_INVALID', 'function_id'],
    ['owner=bob', 'FIELD_UNKNOWN', 'owner'],
  ])('refuses %s', async (query, code, field) => {
    await expectProblem(alice.request(`/api/requests?${query}`), 400, code, field);
  });

  it('answers 404 for a span that is no request', async () => {
    await expectProblem(alice.request(`/api/requests/${RUN_CODE}`), 404, 'REQUEST_NOT_FOUND', 'id');
  });
});

describe('POST /api/requests/cancel', () => {
  it('takes requests out of the queue, wherever they wait, by a version of their owner', async () => {
    const [ready, delayed, failed] = [
      await execute({ input: 1 }),
      await execute({ delay_ms: 60_000 }),
      await execute(),
    ];
    await end(failed, 'error');
    expect(await change('cancel', { ids: [ready, delayed, failed, ready] })).toEqual({
      changed: [ready, delayed, failed],
      unchanged: [],
      before: null,
    });
    expect(await read(ready)).toMatchObject({
      status: 'cancelled',
      state: null,
      input: 1,
      finished_at: expect.any(String),
    });
    const versions = await installation.spans('id = $1', [ready]);
    expect(versions.at(-1)).toMatchObject({
      seq: 1,
      who: ALICE.userId,
      did: 'cancelled',
      prev_hash: versions[0].curr_hash,
    });
    expect(await alice.get(`/api/spans/${ready}/verify`)).toMatchObject({ ok: true });
    expect((await claimAll()).map(({ request }) => request.id)).not.toContain(ready);
  });

  it('says of each other why not', async () => {
    const [complete, dead, cancelled, gone] = [await execute(), await execute(), await execute(), randomUUID()];
    await end(complete, 'complete');
    await end(dead, 'dead');
    await change('cancel', { ids: [cancelled] });
    const count = await installation.count();
    expect(await change('cancel', { ids: [complete, dead, cancelled, gone, fn] })).toEqual({
      changed: [],
      unchanged: [
        { id: complete, reason: 'REQUEST_CLOSED' },
        { id: dead, reason: 'REQUEST_CLOSED' },
        { id: cancelled, reason: 'REQUEST_CLOSED' },
        { id: gone, reason: 'REQUEST_NOT_FOUND' },
        { id: fn, reason: 'REQUEST_NOT_FOUND' },
      ],
      before: null,
    });
    expect(await installation.count()).toBe(count);
  });

  it('wins over a worker that has the request: its result is refused as a whole', async () => {
    const id = await execute();
    const claim = (await claimAll()).find(({ request }) => request.id === id) as ClaimedRequest;
    expect(await change('cancel', { ids: [id] })).toMatchObject({ changed: [id] });
    const count = await installation.count();
    const { position: _position, tx_id: _txId, ...before } = claim.request;
    const late = [
      sealDraft({ entity_type: 'execution', parent_id: fn, caused_by: id }, contextOf(ALICE)),
      JSON.stringify(nextVersion(before, { status: 'complete' })),
    ];
    const claims = [{ requestId: id, fence: claim.fence }];
    expect(await closeRequests(installation.stage0.database, ALICE, claims, late)).toEqual([id]);
    expect(await installation.count()).toBe(count);
    expect(await read(id)).toMatchObject({ status: 'cancelled' });
  });

  it('waits for a worker that is closing the request, and then sees what it wrote', async () => {
    const id = await execute();
    const { request, fence } = (await claimAll()).find((claim) => claim.request.id === id) as ClaimedRequest;
    const { position: _position, tx_id: _txId, ...before } = request;
    // An administrator, because only he may say who is the victim if the two wait for each other: the worker, at once.
    const worker = await installation.ledger.connect('admin');
    await worker.query(`begin; set local deadlock_timeout = '10ms'; set local role loglineos_app`);
    await worker.query(`select set_config('app.user_id', 'alice', true), set_config('app.tenant_id', 'acme', true)`);
    await worker.query('select ledger.hold_requests($1, $2)', [[id], [fence]]);
    const cancelling = change('cancel', { ids: [id] });
    const isWaiting = `select count(*)::int as n from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`;
    await expect.poll(async () => (await installation.admin.query(isWaiting)).rows[0].n).toBe(1);
    const rows = JSON.stringify([nextVersion(before, { status: 'complete' })]);
    await worker.query(`select ledger.append('alice', 'acme', $1)`, [rows]);
    await worker.query('commit');
    const unchanged = [{ id, reason: 'REQUEST_CLOSED' }];
    expect(await cancelling).toEqual({ changed: [], unchanged, before: null });
    expect(await read(id)).toMatchObject({ status: 'complete', state: null });
  });

  it('cancels what matches, at most as many as it is told', async () => {
    const all = [await execute(), await execute({ delay_ms: 60_000 }), await execute(), await execute()];
    await end(all[3] as string, 'dead');
    const other = await alice.post('/api/spans', { entity_type: 'function', code: 'return 1' }, 201);
    const kept = await execute({ span_id: other.id });
    const filter = { function_id: fn };
    expect(await change('cancel', { filter: { ...filter, state: 'delayed' } })).toMatchObject({ changed: [all[1]] });
    expect(await change('cancel', { filter, limit: 1 })).toMatchObject({ changed: [all[2]] });
    expect(await change('cancel', { filter })).toEqual({ changed: [all[0]], unchanged: [], before: null });
    expect(await read(kept)).toMatchObject({ status: 'scheduled' });
    expect(await read(all[3] as string)).toMatchObject({ status: 'dead' });
  });

  it.each<[string, object, string, string | undefined]>([
    ['nothing', {}, 'FIELD_MISSING', 'filter'],
    ['both', { ids: [RUN_CODE], filter: {} }, 'FIELD_UNKNOWN', 'filter'],
    ['no ids', { ids: [] }, 'BATCH_SIZE', 'ids'],
    ['too many', { ids: Array.from({ length: 1001 }, () => randomUUID()) }, 'BATCH_SIZE', 'ids'],
    ['too many by a filter', { filter: {}, limit: 1001 }, 'BATCH_SIZE', 'limit'],
    ['a filter that nobody knows', { filter: { functionid: RUN_CODE } }, 'FIELD_UNKNOWN', 'filter.functionid'],
    ['an id that is none', { ids: ['x'] }, 'FIELD_INVALID', 'ids.0'],
  ])('refuses %s', async (_what, body, code, field) => {
    for (const how of ['cancel', 'redrive']) {
      await expectProblem(alice.request(`/api/requests/${how}`, body), 400, code, field);
    }
  });

  it('leaves one version when 20 calls come at the same moment', async () => {
    const ids = await Promise.all(Array.from({ length: 5 }, () => execute()));
    const answers = await Promise.all(Array.from({ length: 20 }, () => change('cancel', { ids: ids.toReversed() })));
    expect(answers.flatMap(({ changed }) => changed).sort()).toEqual(ids.toSorted());
    const reasons = answers.flatMap(({ unchanged }) => unchanged.map(({ reason }: AnyJson) => reason));
    expect(new Set(reasons)).toEqual(new Set(['REQUEST_CLOSED']));
  });
});

describe('POST /api/requests/redrive', () => {
  it('lets the dead begin again, with all their attempts, at the end of the queue', async () => {
    const [id, waiting] = [await execute({ input: 7, max_attempts: 1 }), await execute()];
    await end(id, 'dead');
    expect(await change('redrive', { ids: [id, waiting] })).toEqual({
      changed: [id],
      unchanged: [{ id: waiting, reason: 'REQUEST_NOT_DEAD' }],
      before: null,
    });
    expect(await read(id)).toMatchObject({
      status: 'scheduled',
      state: 'ready',
      attempt: 0,
      error: null,
      scheduled_at: null,
      finished_at: null,
    });
    const claimed = (await claimAll()).map(({ request }) => request.id);
    expect(claimed.filter((one) => [id, waiting].includes(one))).toEqual([waiting, id]);
  });

  it('takes what matches', async () => {
    const [dead, waiting] = [await execute(), await execute()];
    await end(dead, 'dead');
    const changes = await change('redrive', { filter: { function_id: fn } });
    expect(changes).toEqual({ changed: [dead], unchanged: [], before: null });
    expect(await change('redrive', { filter: { function_id: fn, status: 'dead' } })).toEqual({
      changed: [],
      unchanged: [],
      before: null,
    });
    expect(await read(waiting)).toMatchObject({ status: 'scheduled' });
  });

  it('goes through all that match, page by page, and meets none twice that is dead again', async () => {
    const ids: string[] = [];
    for (let i = 0; i < 3; i++) ids.push(await execute());
    for (const id of ids) await end(id, 'dead');
    const redriven: string[] = [];
    let before = null;
    do {
      const changes = await change('redrive', { filter: { function_id: fn }, before, limit: 2 });
      for (const id of changes.changed) await end(id, 'dead');
      redriven.push(...changes.changed);
      before = changes.before;
    } while (before !== null);
    expect(redriven).toEqual(ids.toReversed());
  });
});

describe('with 100,000 requests that wait', () => {
  const COUNT = 100_000;
  let busy: string;
  beforeAll(async () => {
    busy = (await alice.post('/api/spans', { entity_type: 'function', code: 'return 1' }, 201)).id;
    await installation.admin.query(
      `insert into ledger.universal_registry
         (id, seq, entity_type, who, at, owner_id, tenant_id, visibility, status, parent_id, curr_hash, signature, public_key)
       select gen_random_uuid(), 0, 'request', 'alice', now(), 'alice', 'acme', 'private', 'scheduled', $1,
              repeat('ab', 32), repeat('ab', 64), repeat('ab', 32)
         from generate_series(1, $2)`,
      [busy, COUNT],
    );
    await installation.admin.query('analyze ledger.universal_registry, ledger.request_queue');
  }, 120_000);

  async function timed<T>(call: () => Promise<T>): Promise<{ answer: T; ms: number }> {
    const startedAt = performance.now();
    const answer = await call();
    return { answer, ms: performance.now() - startedAt };
  }

  /** Generous: a machine that is busy with something else must not fail it, a scan for each row must. */
  async function expectQuick<T>(what: string, call: () => Promise<T>): Promise<T> {
    const scan = () => installation.admin.query('select from ledger.universal_registry where name = $1', ['nobody']);
    const { ms: scanMs } = await timed(scan);
    const { answer, ms } = await timed(call);
    expect(ms, `ms for ${what}`).toBeLessThan(1_000 + 20 * scanMs);
    return answer;
  }

  it('finds, lists, asks for, cancels and redrives quickly', async () => {
    const id = await expectQuick('execute', () => execute({ delay_ms: 60_000 }));
    const dead = await execute();
    await end(dead, 'dead');
    const queries: [string, string[]][] = [
      [`function_id=${fn}&state=delayed`, [id]],
      [`function_id=${fn}&status=scheduled`, [id]],
      [`function_id=${fn}`, [dead, id]],
      ['status=complete&limit=1', []],
      ['state=dead&limit=1', [dead]],
      ['status=error&limit=1', []],
    ];
    for (const [query, ids] of queries) {
      const { requests } = await expectQuick(query, () => alice.get(`/api/requests?${query}`));
      if (ids.length > 0) expect(requests.map((request: AnyJson) => request.id)).toEqual(ids);
    }
    await expectQuick('one request', () => read(id));
    await expectQuick('redrive', () => change('redrive', { filter: { function_id: fn } }));
    const cancelled = await expectQuick('cancel', () =>
      change('cancel', { filter: { function_id: busy }, limit: 200 }),
    );
    expect(cancelled.changed).toHaveLength(200);
    const page = await expectQuick('spans', () => alice.get('/api/spans?entity_type=function&name=sum&owner=alice'));
    expect(page.spans[0].id).toBe(fn);
    await expectQuick('the newest spans', () => alice.get('/api/spans?limit=10'));
  });
});
