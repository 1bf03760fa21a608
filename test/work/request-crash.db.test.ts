import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { verifyLedger } from '../../src/ledger/index.ts';
import { nodeEd25519 } from '../../src/span/ed25519-node.ts';
import type { Program } from '../local/stack-process.ts';
import { type AnyJson, Installation } from '../stage0/installation.ts';
import { trustedKeys } from '../support/keys.ts';
import { ALICE, BOB } from '../support/spans.ts';
import { openRequests, requestRuns, startWorkerProcess, until } from '../worker/shifts.ts';

/** Of `request_worker_kernel`, and what may pass until somebody looks and begins. */
const LEASE_MS = 15_000;
const TAKEOVER_MS_MAX = LEASE_MS + 2_000;
const UNTIL_MS = 80_000;
const BUSY = (ms: number) => `const end = Date.now() + ${ms}; while (Date.now() < end); return input;`;

const opened: Installation[] = [];
const running = new Set<Program>();
afterAll(async () => {
  await Promise.all([...running].map((worker) => worker.kill('SIGKILL')));
  await Promise.all(opened.map((installation) => installation.close()));
});

async function open(): Promise<Installation> {
  const installation = await Installation.create();
  opened.push(installation);
  await installation.seed((content) => {
    content.throttle.per_tenant_daily_exec_limit = 1_000_000;
    content.throttle.per_tenant_concurrency = 1_000;
  });
  return installation;
}

function start(installation: Installation): Program {
  const worker = startWorkerProcess(installation, 'request-worker');
  running.add(worker);
  return worker;
}

async function end(worker: Program, signal: NodeJS.Signals) {
  const ended = await worker.kill(signal);
  running.delete(worker);
  return ended;
}

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * Each request is complete, once, by the one execution that its last version names; nothing ran twice that is recorded;
 * what is counted is what ran; and the ledger proves itself.
 */
async function expectAllEndedOnce(installation: Installation, ids: string[], tenantId: string): Promise<void> {
  const versions = await installation.spans(`id = any($1) and seq > 0`, [ids]);
  expect(versions.map(({ id }) => id).sort()).toEqual([...ids].sort());
  const executions = await installation.spans(`entity_type = 'execution' and caused_by = any($1)`, [ids]);
  const executionOf = new Map(executions.map((execution) => [execution.caused_by, execution]));
  expect(executions).toHaveLength(ids.length);
  for (const { id, status, related_to, attempt, output, input } of versions) {
    expect([status, attempt, related_to]).toEqual(['complete', 1, [executionOf.get(id)?.id]]);
    expect(output).toEqual(input);
  }
  expect(await openRequests(installation)).toBe(0);
  expect(await installation.usage(tenantId)).toBe(ids.length);
  const report = await verifyLedger(installation.ledger.open('loglineos_auditor'), trustedKeys, nodeEd25519);
  expect(report.problems).toEqual([]);
}

describe('workers that are killed', () => {
  let installation: Installation;
  beforeAll(async () => {
    installation = await open();
  });

  it('lose nothing of a thousand requests, and end none twice', async () => {
    const fn = await installation.appendFunction(BUSY(15));
    const inputs = Array.from({ length: 1_000 }, (_, n) => ({ input: { n } }));
    const ids = await requestRuns(installation, fn.id, ALICE, inputs);
    const workers = Array.from({ length: 4 }, () => start(installation));
    let killed = 0;
    for (let kill = 0; (await openRequests(installation)) > 200 && kill < 12; kill++) {
      await wait(2_000);
      const hadWork = await openRequests(installation, `state = 'leased'`);
      await end(workers.shift() as Program, 'SIGKILL');
      if (hadWork > 0) killed++;
      workers.push(start(installation));
    }
    await until(async () => (await openRequests(installation)) === 0, UNTIL_MS);
    expect(killed, 'killed in the middle of work').toBeGreaterThan(1);
    const { rows } = await installation.admin.query('select last_value::int as n from ledger.request_fence');
    expect(rows[0].n, 'claims, those of killed workers again').toBeGreaterThan(ids.length);
    await expectAllEndedOnce(installation, ids, ALICE.tenantId);
    const ended = await Promise.all(workers.map((worker) => end(worker, 'SIGTERM')));
    expect(ended.map(({ code }) => code)).toEqual([0, 0, 0, 0]);
  }, 120_000);
});

// Both mostly wait for a lease to run out: side by side.
describe.concurrent('a request whose worker is gone', () => {
  let installation: Installation;
  beforeAll(async () => {
    installation = await open();
  });

  it('is taken over when the lease has run out, and a worker that comes back is refused', async () => {
    const killed = start(installation);
    const [first] = await claimed(installation, BUSY(1_500), ALICE);
    await end(killed, 'SIGKILL');
    const killedAt = Date.now();
    const stopped = start(installation);
    const [second] = await claimed(installation, BUSY(1_500), BOB);
    stopped.child.kill('SIGSTOP');
    const stoppedAt = Date.now();

    const third = start(installation);
    const ids = [first, second] as string[];
    await until(async () => (await openRequests(installation)) === 0, UNTIL_MS);
    const executions = await installation.spans(`caused_by = any($1) and entity_type = 'execution'`, [ids]);
    const startOf = (id: string) => executions.find(({ caused_by }) => caused_by === id).started_at.getTime();
    expect(startOf(first as string) - killedAt).toBeLessThan(TAKEOVER_MS_MAX);
    expect(startOf(second as string) - stoppedAt).toBeLessThan(TAKEOVER_MS_MAX);
    // A claim holds for the lease, but for the time between its last heartbeat and the stop.
    expect(startOf(second as string) - stoppedAt).toBeGreaterThan(LEASE_MS / 2);

    const count = await installation.count();
    stopped.child.kill('SIGCONT');
    await wait(3_000);
    expect(await installation.count(), 'rows, after the late result').toBe(count);
    for (const [id, { tenantId }] of [
      [first, ALICE],
      [second, BOB],
    ] as [string, typeof ALICE][]) {
      await expectAllEndedOnce(installation, [id], tenantId);
    }

    await end(third, 'SIGTERM');
    const fn = await installation.appendFunction('return input', {}, BOB);
    await requestRuns(installation, fn.id, BOB, [{}]);
    await until(async () => (await openRequests(installation)) === 0, UNTIL_MS);
    const { code, stdout } = await end(stopped, 'SIGTERM');
    expect([code, stdout]).toEqual([0, '']);
  }, 120_000);
});

describe.concurrent('connections that break in the middle of work', () => {
  let installation: Installation;
  beforeAll(async () => {
    installation = await open();
  });

  it('lose nothing and end nothing twice', async () => {
    const fn = await installation.appendFunction(BUSY(2));
    const inputs = Array.from({ length: 300 }, (_, n) => ({ input: { n } }));
    const ids = await requestRuns(installation, fn.id, ALICE, inputs);
    const worker = start(installation);
    await until(async () => (await openRequests(installation, `state = 'leased'`)) > 0);
    let broken = 0;
    while ((await openRequests(installation, `state = 'ready'`)) > 0 && broken < 200) {
      const { rowCount } = await installation.admin.query(
        `select pg_terminate_backend(pid) from pg_stat_activity
          where application_name = 'test-worker' and datname = current_database() and state = 'active'`,
      );
      broken += rowCount ?? 0;
      await wait(40);
    }
    await until(async () => (await openRequests(installation)) === 0, UNTIL_MS);
    expect(broken).toBeGreaterThan(0);
    await expectAllEndedOnce(installation, ids, ALICE.tenantId);
    expect((await end(worker, 'SIGTERM')).code).toBe(0);
  }, 120_000);
});

/** A request that the only worker has begun to work on. */
async function claimed(installation: Installation, code: string, identity: AnyJson): Promise<string[]> {
  const fn = await installation.appendFunction(code, {}, identity);
  const ids = await requestRuns(installation, fn.id, identity, [{}]);
  await until(async () => (await openRequests(installation, `state = 'leased' and request_id = '${ids[0]}'`)) > 0);
  await wait(300);
  return ids;
}
