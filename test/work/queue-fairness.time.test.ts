import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Identity } from '../../src/ledger/index.ts';
import type { RequestOptions } from '../../src/work/index.ts';
import { type AnyJson, Installation } from '../stage0/installation.ts';
import { openRequests, requestRuns, startRole, until, type WorkingRole } from '../worker/shifts.ts';

const WAIT_MS_MAX = 2_000;
const SLOW = 'const end = Date.now() + 1_000; while (Date.now() < end);';

let installation: Installation;
let workers: WorkingRole[] = [];
beforeAll(async () => {
  installation = await Installation.create();
  await installation.seed((content) => {
    content.throttle.per_tenant_daily_exec_limit = 1_000_000;
    content.throttle.tenants = {
      slow: { per_tenant_concurrency: 1_000 },
      slow2: { per_tenant_concurrency: 1_000 },
      few: { per_tenant_concurrency: 3 },
      one: { per_tenant_concurrency: 1 },
    };
  });
});
afterAll(() => installation?.close());
afterEach(async () => {
  await stop();
  await installation.admin.query('delete from ledger.request_queue');
});

const userOf = (tenantId: string): Identity => ({ userId: 'una', tenantId });
const openOf = (tenantId: string) => openRequests(installation, `tenant_id = '${tenantId}'`);

function start(count = 1): void {
  const { loglineos_app } = installation.ledger.urls;
  workers = Array.from({ length: count }, () =>
    startRole(installation.container(), 'request-worker', undefined, loglineos_app),
  );
}

async function stop(): Promise<AnyJson[]> {
  const stopping = workers;
  workers = [];
  return Promise.all(stopping.map((worker) => worker.stop()));
}

async function request(tenantId: string, code: string, options: RequestOptions[]): Promise<string[]> {
  const fn = await installation.appendFunction(code, {}, userOf(tenantId));
  return requestRuns(installation, fn.id, userOf(tenantId), options);
}

/** How long ten requests of a tenant take that come now. */
async function tenTake(tenantId: string): Promise<number> {
  const fn = await installation.appendFunction('return input.n', {}, userOf(tenantId));
  const askedAt = performance.now();
  await requestRuns(
    installation,
    fn.id,
    userOf(tenantId),
    Array.from({ length: 10 }, (_, n) => ({ input: { n } })),
  );
  await until(async () => (await openOf(tenantId)) === 0);
  return performance.now() - askedAt;
}

const executions = (tenantId: string) => installation.spans(`tenant_id = $1 and entity_type = 'execution'`, [tenantId]);

describe('a tenant with few requests', () => {
  it('does not wait for one with twenty thousand', async () => {
    await request('crowd', 'return 1', Array(20_000).fill({}));
    start();
    await until(async () => (await openOf('crowd')) < 19_000);
    expect(await tenTake('guest')).toBeLessThan(WAIT_MS_MAX);
    expect(await openOf('crowd'), 'still waiting').toBeGreaterThan(1_000);
  }, 90_000);

  it('does not wait for one whose functions are slow, however many of them are worked on', async () => {
    await request('slow', SLOW, Array(300).fill({}));
    start();
    await until(async () => (await executions('slow')).length > 0);
    expect(await tenTake('second guest')).toBeLessThan(WAIT_MS_MAX);
  });

  it('does not wait for two whose functions are slow', async () => {
    for (const tenant of ['slow', 'slow2']) await request(tenant, SLOW, Array(300).fill({}));
    start();
    await until(async () => (await executions('slow2')).length > 0);
    expect(await tenTake('third guest')).toBeLessThan(WAIT_MS_MAX);
  });
});

describe('the requests of a tenant', () => {
  it('are worked on at most as many at once as the manifest says, by four workers', async () => {
    await request('few', 'const end = Date.now() + 5; while (Date.now() < end);', Array(60).fill({}));
    await request('one', 'return 1', Array(20).fill({}));
    start(4);
    await until(async () => (await openOf('few')) + (await openOf('one')) === 0);
    expect([mostAtOnce(await executions('few')), mostAtOnce(await executions('one'))]).toEqual([3, 1]);
    const boots = await stop();
    expect(boots.every(({ ok }) => ok)).toBe(true);
  });

  it('run by priority, then first come, first served', async () => {
    const priorities = [0, 3, 0, -2, 3, 1];
    const ids = await request(
      'one',
      'return 1',
      priorities.map((priority) => ({ priority })),
    );
    start();
    await until(async () => (await openOf('one')) === 0);
    const ran = (await executions('one')).filter(({ caused_by }) => ids.includes(caused_by));
    ran.sort((a, b) => a.started_at - b.started_at);
    expect(ran.map(({ caused_by }) => ids.indexOf(caused_by))).toEqual([1, 4, 5, 0, 2, 3]);
  });

  it('do not run before their time', async () => {
    const dueAt = new Date(Date.now() + 1_500);
    const [id] = await request('timed', 'return 1', [{ scheduledAt: dueAt.toISOString() }]);
    start(2);
    await until(async () => (await openOf('timed')) === 0);
    const [execution] = await installation.spans('caused_by = $1', [id]);
    expect(execution.started_at.getTime()).toBeGreaterThanOrEqual(dueAt.getTime());
    expect(execution.queue_ms).toBeLessThan(WAIT_MS_MAX);
  });
});

/** The greatest number of executions that were going on at the same time. */
function mostAtOnce(executions: AnyJson[]): number {
  const changes = executions.flatMap(({ started_at, finished_at }) => [
    { at: started_at.getTime(), by: 1 },
    { at: finished_at.getTime(), by: -1 },
  ]);
  changes.sort((a, b) => a.at - b.at || a.by - b.by);
  let [now, most] = [0, 0];
  for (const { by } of changes) {
    now += by;
    most = Math.max(most, now);
  }
  return most;
}
