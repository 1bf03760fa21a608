import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { putMetrics } from '../../src/aws/index.ts';
import { METRIC_NAMESPACE } from '../../src/lambda/emf.ts';
import {
  advancePolicy,
  appendSpans,
  claimRequests,
  type Database,
  readPolicyCursors,
  readQueueSnapshot,
  type SpanDraft,
} from '../../src/ledger/index.ts';
import { createPublisher, WorkCounters } from '../../src/work/index.ts';
import type { Chore } from '../../src/worker/index.ts';
import { MetricsEndpoint, serviceError } from '../aws/metrics-endpoint.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { ALICE, BOB, contextOf, draft } from '../support/spans.ts';

let testDatabase: TestDatabase;
let database: Database;
let endpoint: MetricsEndpoint;
beforeAll(async () => {
  testDatabase = await createTestDatabase();
  database = testDatabase.open('loglineos_app');
  endpoint = await MetricsEndpoint.start();
});
afterAll(async () => {
  await testDatabase?.close();
  await endpoint?.stop();
});
afterEach(() => {
  expect(endpoint.faults).toEqual([]);
  expect(endpoint.failures).toEqual([]);
});

const LIMITS = { daily: 100, concurrency: 10, tenants: {} };

/** Requests of two tenants, due so many ms from now. */
async function appendRequests(now: Date, dueInMs: number[], identity = ALICE): Promise<string[]> {
  const drafts = dueInMs.map((ms): SpanDraft => {
    const scheduled_at = new Date(now.getTime() + ms).toISOString();
    return draft({ entity_type: 'request', status: 'scheduled', parent_id: randomUUID(), scheduled_at });
  });
  return (await appendSpans(database, drafts, contextOf(identity))).map(({ id }) => id);
}

function policy(trigger: string): SpanDraft {
  const at = new Date().toISOString();
  return draft({ at, entity_type: 'policy', status: 'active', code: 'export default () => []', content: { trigger } });
}

describe('a snapshot of the work', () => {
  it('of an empty ledger is zeros, and nothing waits', async () => {
    expect(await readQueueSnapshot(database, new Date())).toEqual({
      queue: { ready: 0, delayed: 0, leased: 0, dead: 0, oldest_ready_ms: null },
      policies: { lag_spans: 0, lag_ms: 0, paused: 0 },
    });
  });

  it('counts the requests of all tenants by state, and says how long the oldest that is due has waited', async () => {
    const now = new Date();
    const [leased] = await appendRequests(now, [-90_000]);
    const claims = await claimRequests(database, { now, limit: 1, leaseMs: 60_000, limits: LIMITS });
    expect(claims.map(({ request }) => request.id)).toEqual([leased]);
    const [cancelled, dead] = (await appendRequests(now, [-80_000, -70_000])) as [string, string];
    await appendSpans(
      database,
      [
        draft({ id: cancelled, entity_type: 'request', status: 'cancelled', parent_id: randomUUID() }),
        draft({ id: dead, entity_type: 'request', status: 'dead', parent_id: randomUUID() }),
      ],
      contextOf(ALICE),
    );
    await appendRequests(now, [-5_000, -1_000, 60_000]);
    await appendRequests(now, [-45_000, 60_000, 120_000], BOB);
    expect((await readQueueSnapshot(database, now)).queue).toEqual({
      ready: 3,
      delayed: 3,
      leased: 1,
      dead: 1,
      oldest_ready_ms: 45_000,
    });
    expect((await readQueueSnapshot(database, new Date(now.getTime() + 500))).queue.oldest_ready_ms).toBe(45_500);
    // Leases are by the database's clock: one that is ahead ends none.
    expect((await readQueueSnapshot(database, new Date(now.getTime() + 90_000))).queue).toMatchObject({ leased: 1 });
  });

  it('says how many spans lie before the policy that is furthest behind, how old the first is, and who is paused', async () => {
    const spanAt = (ms: number) => draft({ at: new Date(ms).toISOString() });
    const now = Date.now();
    await appendSpans(database, [policy('span')], contextOf(ALICE));
    await appendSpans(database, [spanAt(now - 30_000), spanAt(now - 20_000)], contextOf(BOB));
    await appendSpans(database, [policy('span'), policy('day'), spanAt(now - 10_000)], contextOf(ALICE));
    // A span counts when no transaction on the server can still come before it; other tests have some open.
    await expect
      .poll(async () => (await readQueueSnapshot(database, new Date(now))).policies, { timeout: 10_000 })
      .toEqual({ lag_spans: 5, lag_ms: 30_000, paused: 0 });

    const cursor = (await readPolicyCursors(database, new Date())).find(({ trigger }) => trigger === 'day');
    if (cursor === undefined) throw new Error('no cursor of the policy that looks at days');
    await database.transaction(ALICE, (query) => advancePolicy(query, cursor, cursor.place, 3, new Date(now + 60_000)));
    expect((await readQueueSnapshot(database, new Date(now))).policies.paused).toBe(1);
    expect((await readQueueSnapshot(database, new Date(now + 60_001))).policies.paused).toBe(0);
  });
});

describe('a publisher', () => {
  const AT = new Date('2026-11-23T10:00:00Z');

  function publisher(more: { database?: Database } = {}) {
    const counters = new WorkCounters();
    const logged: Record<string, unknown>[] = [];
    const chore: Chore = createPublisher({
      role: 'request-worker',
      environment: 'test',
      database,
      counters,
      put: (metrics) => putMetrics(METRIC_NAMESPACE, metrics),
      now: () => AT,
      log: (entry) => logged.push(entry),
      ...more,
    });
    return { chore, counters, logged };
  }

  it('sends all of a role in one call: heartbeat, queue, policies and what was counted', async () => {
    const { queue, policies } = await readQueueSnapshot(database, AT);
    const { chore, counters, logged } = publisher();
    for (const ms of [20, 20, 300]) counters.executed('complete', ms);
    counters.executed('timeout', 60_000);
    counters.executed('not_run', 0);
    for (const status of ['complete', 'complete', 'error', 'dead', 'lost'] as const) counters.closed(status);
    const before = endpoint.puts.length;
    await chore.run();

    expect(endpoint.puts.length).toBe(before + 1);
    const put = endpoint.puts.at(-1);
    expect(put?.Namespace).toBe('LogLineOS');
    expect(new Set(put?.MetricData.map(({ Timestamp }) => Timestamp))).toEqual(new Set([AT.getTime() / 1000]));
    const { oldest_ready_ms, ...depths } = queue;
    const expected: [name: string, unit: string, series: Record<string, unknown>][] = [
      ['TickHeartbeat', 'Count', { 'test request-worker': 1 }],
      ['QueueDepth', 'Count', prefixed('test ', depths)],
      ['QueueOldestAge', 'Milliseconds', { test: Math.max(0, oldest_ready_ms ?? 0) }],
      ['PolicyLagSpans', 'Count', { test: policies.lag_spans }],
      ['PolicyLag', 'Milliseconds', { test: policies.lag_ms }],
      ['PoliciesPaused', 'Count', { test: policies.paused }],
      ['Executions', 'Count', prefixed('test request-worker ', { complete: 3, timeout: 1, not_run: 1 })],
      ['RequestsClosed', 'Count', prefixed('test request-worker ', { complete: 2, error: 1, dead: 1, lost: 1 })],
      ['ExecutionDuration', 'Milliseconds', { 'test request-worker': { 20.6: 2, 312: 1, 57300: 1 } }],
    ];
    for (const [name, unit, series] of expected) {
      expect(endpoint.last(name), name).toEqual(series);
      expect(new Set(put?.MetricData.filter(({ MetricName }) => MetricName === name).map(({ Unit }) => Unit))).toEqual(
        new Set([unit]),
      );
    }
    expect(new Set(put?.MetricData.map(({ MetricName }) => MetricName))).toEqual(
      new Set(expected.map(([name]) => name)),
    );
    expect(logged).toEqual([]);
  });

  it('tells CloudWatch no tenant, no owner and no id', async () => {
    expect((await readQueueSnapshot(database, AT)).queue.dead).toBeGreaterThan(0);
    await publisher().chore.run();
    const data = endpoint.puts.at(-1)?.MetricData ?? [];
    const names = new Set(data.flatMap(({ Dimensions }) => Dimensions.map(({ Name }) => Name)));
    expect([...names].sort()).toEqual(['Environment', 'Role', 'State']);
    expect(JSON.stringify(data)).not.toMatch(/acme|bolt|alice|[0-9a-f]{8}-/);
  });

  it('counts each execution once, and sends a heartbeat also when there was none', async () => {
    const { chore, counters } = publisher();
    counters.executed('complete', 20);
    await chore.run();
    expect(endpoint.last('Executions')).toEqual({ 'test request-worker complete': 1 });
    await chore.run();
    expect(endpoint.last('TickHeartbeat')).toEqual({ 'test request-worker': 1 });
    for (const name of ['Executions', 'ExecutionDuration', 'RequestsClosed']) expect(endpoint.last(name)).toEqual({});
  });

  it.each([
    ['throttled', serviceError(400, 'Throttling', 'Rate exceeded'), 'Throttling'],
    ['answered with a 500', serviceError(500, 'InternalServiceFault', 'oops'), 'InternalServiceFault'],
  ])('that is %s logs it, goes on, and sends with the next call what it had counted', async (_what, failure, name) => {
    const { chore, counters, logged } = publisher();
    counters.executed('complete', 20);
    counters.closed('complete');
    endpoint.failures.push(failure, failure);
    const before = endpoint.puts.length;
    await chore.run();
    expect(endpoint.puts.length).toBe(before);
    expect(logged).toEqual([
      {
        level: 'warn',
        message: 'metrics were not published',
        role: 'request-worker',
        error: `UpstreamError: CloudWatch took no metrics: ${name}`,
      },
    ]);

    counters.executed('complete', 20);
    counters.executed('error', 500);
    await chore.run();
    expect(endpoint.last('Executions')).toEqual(prefixed('test request-worker ', { complete: 2, error: 1 }));
    expect(endpoint.last('RequestsClosed')).toEqual({ 'test request-worker complete': 1 });
    expect(endpoint.last('ExecutionDuration')).toEqual({ 'test request-worker': { 20.6: 2, 491: 1 } });
    expect(logged).toHaveLength(1);
  });

  it('that cannot reach the database logs it and sends nothing, not even a heartbeat', async () => {
    const gone = testDatabase.open('loglineos_app', { url: 'postgres://nobody@127.0.0.1:1/nowhere' });
    const { chore, logged } = publisher({ database: gone });
    const before = endpoint.puts.length;
    await chore.run();
    expect(endpoint.puts.length).toBe(before);
    expect(logged).toMatchObject([{ level: 'warn', error: expect.stringContaining('no connection to the database') }]);
  });

  it('leaves what is counted during a call to the next one', async () => {
    const { chore, counters } = publisher();
    counters.executed('complete', 20);
    const running = chore.run();
    counters.executed('error', 20);
    await running;
    expect(endpoint.last('Executions')).toEqual({ 'test request-worker complete': 1 });
    await chore.run();
    expect(endpoint.last('Executions')).toEqual({ 'test request-worker error': 1 });
  });
});

function prefixed(prefix: string, series: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(series).map(([name, value]) => [`${prefix}${name}`, value]));
}
