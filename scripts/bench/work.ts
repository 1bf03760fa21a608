import { randomUUID } from 'node:crypto';
import { Logger, type Runner, run as runGraphile } from 'graphile-worker';
import type pg from 'pg';
import {
  appendSpans,
  listenForWork,
  readQueueSnapshot,
  readTimeline,
  type SpanDraft,
  TIMELINE_START,
} from '../../src/ledger/index.ts';
import type { Stage0 } from '../../src/stage0/index.ts';
import { requestDraft } from '../../src/work/index.ts';
import { ROLES, type RoleName, workShift } from '../../src/worker/index.ts';
import { type Figure, median } from './figures.ts';
import { IDENTITY, plainPool } from './installation.ts';

const FUNCTION_ID = '00000000-0000-4000-8000-00000000be01';
const FUNCTION: SpanDraft = {
  id: FUNCTION_ID,
  seq: 0,
  entity_type: 'function',
  name: 'sum',
  code: 'return input.a + input.b',
  status: 'active',
};
const DRAIN_ROUNDS = 2;
const DRAIN_REQUESTS = 10_000;
const IDLE_REQUESTS = 60;
const POLICY_SPANS = 5_000;
const BATCH = 500;

/** The runtime loop: the queue against graphile-worker with its default settings, and policies over new spans. */
export async function benchWork(stage0: Stage0, adminUrl: string): Promise<Figure[]> {
  const pool = plainPool(adminUrl, 2);
  try {
    await append(stage0, [FUNCTION]);
    return [
      await benchDrain(stage0, adminUrl, pool),
      await benchIdle(stage0, adminUrl, pool),
      await benchPolicies(stage0),
    ];
  } finally {
    await pool.end();
  }
}

/**
 * (e) Requests drained end to end (claimed, run in the untrusted sandbox, a signed execution, a signed last version),
 * against jobs that do nothing, in turns on the same database.
 */
async function benchDrain(stage0: Stage0, adminUrl: string, pool: pg.Pool): Promise<Figure> {
  await drainRequests(stage0, adminUrl, pool, BATCH); // warm
  await drainJobs(adminUrl, pool, BATCH);
  let ours = 0;
  let theirs = 0;
  for (let round = 0; round < DRAIN_ROUNDS; round++) {
    ours += await drainRequests(stage0, adminUrl, pool, DRAIN_REQUESTS);
    theirs += await drainJobs(adminUrl, pool, DRAIN_REQUESTS);
  }
  const all = DRAIN_ROUNDS * DRAIN_REQUESTS * 1000;
  const [value, limit] = [all / ours, all / theirs];
  return { name: 'drain', value, unit: 'reqs/s', limit, ratio: value / limit };
}

/** By the key: otherwise each look would pass all that has gone from the front of the table. */
const ANY_REQUEST = 'select from ledger.request_queue order by request_id limit 1';

async function drainRequests(stage0: Stage0, adminUrl: string, pool: pg.Pool, count: number): Promise<number> {
  for (let i = 0; i < count; i += BATCH)
    await append(stage0, Array.from({ length: Math.min(BATCH, count - i) }, request));
  const started = performance.now();
  const stop = startRole(stage0, adminUrl, 'request-worker');
  while ((await pool.query(ANY_REQUEST)).rowCount !== 0) await sleep(50);
  const elapsed = performance.now() - started;
  await stop();
  return elapsed;
}

async function drainJobs(adminUrl: string, pool: pg.Pool, count: number): Promise<number> {
  const all = Promise.withResolvers<void>();
  let ended = 0;
  const onJob = () => {
    ended += 1;
    if (ended === count) all.resolve();
  };
  await (await startGraphile(adminUrl, onJob)).stop(); // its schema is there
  const text = `select graphile_worker.add_job('nothing', json_build_object('n', n)) from generate_series(1, $1) n`;
  await pool.query(text, [count]);
  const started = performance.now();
  const runner = await startGraphile(adminUrl, onJob);
  await all.promise;
  const elapsed = performance.now() - started;
  await runner.stop();
  return elapsed;
}

/** (f) From asking for one run to its last version, with nothing else to do; median, in ms. Smaller is better. */
async function benchIdle(stage0: Stage0, adminUrl: string, pool: pg.Pool): Promise<Figure> {
  const stop = startRole(stage0, adminUrl, 'request-worker');
  const ours: number[] = [];
  for (let i = 0; i < IDLE_REQUESTS; i++) {
    await sleep(50);
    const draft = request();
    const started = performance.now();
    await append(stage0, [draft]);
    const text = `select from ledger.universal_registry where id = $1 and status = 'complete'`;
    while ((await pool.query(text, [draft.id])).rowCount === 0) await sleep(1);
    ours.push(performance.now() - started);
  }
  await stop();

  let onJob = () => {};
  const runner = await startGraphile(adminUrl, () => onJob());
  const theirs: number[] = [];
  for (let i = 0; i < IDLE_REQUESTS; i++) {
    await sleep(50);
    const done = Promise.withResolvers<void>();
    onJob = done.resolve;
    const started = performance.now();
    await pool.query(`select graphile_worker.add_job('nothing')`);
    await done.promise;
    theirs.push(performance.now() - started);
  }
  await runner.stop();
  const [value, limit] = [median(ours), median(theirs)];
  return { name: 'execute_idle_p50', value, unit: 'ms', limit, ratio: value / limit };
}

/** (g) New spans that all system policies have seen and answered, against reading the same spans and doing nothing. */
async function benchPolicies(stage0: Stage0): Promise<Figure> {
  const spans = (): SpanDraft => ({
    entity_type: 'execution',
    did: 'ran_function',
    who: 'kernel:request_worker',
    status: 'complete',
    parent_id: FUNCTION_ID,
    duration_ms: 12,
    output: { sum: 42 },
  });
  await untilNoLag(stage0); // of what the queue left
  for (let i = 0; i < POLICY_SPANS; i += BATCH) await append(stage0, Array.from({ length: BATCH }, spans));
  const elapsed = await untilNoLag(stage0);
  const started = performance.now();
  let read = 0;
  for (let after = TIMELINE_START; ; ) {
    const page = await readTimeline(stage0.database, IDENTITY, after, 1_000);
    if (page.spans.length === 0) break;
    read += page.spans.length;
    after = page.position;
  }
  const value = (POLICY_SPANS * 1000) / elapsed;
  const limit = (read * 1000) / (performance.now() - started);
  return { name: 'policy_spans', value, unit: 'spans/s', limit, ratio: value / limit };
}

/** Let the agent work until every policy has seen everything; how long that took. */
async function untilNoLag(stage0: Stage0): Promise<number> {
  const started = performance.now();
  const stop = startRole(stage0, null, 'policy-agent');
  while ((await readQueueSnapshot(stage0.database, new Date())).policies.lag_spans > 0) await sleep(20);
  const elapsed = performance.now() - started;
  await stop();
  return elapsed;
}

function startRole(stage0: Stage0, listenUrl: string | null, name: RoleName): () => Promise<void> {
  const stop = new AbortController();
  const answer = workShift(stage0, ROLES[name], {
    endOfTime: new Date(Date.now() + 3_600_000),
    stop: stop.signal,
    onWork: (listener) => (listenUrl === null ? () => {} : listenForWork({ url: listenUrl }, listener)),
  });
  return async () => {
    stop.abort();
    const ended = await answer;
    if (ended?.ok !== true) throw new Error(`${name} failed: ${JSON.stringify(ended?.error)}`);
  };
}

function startGraphile(connectionString: string, onJob: () => void): Promise<Runner> {
  const logger = new Logger(() => () => {});
  return runGraphile({ connectionString, noHandleSignals: true, logger, taskList: { nothing: async () => onJob() } });
}

function request(): SpanDraft {
  return { ...requestDraft({ id: FUNCTION_ID }, { input: { a: 19, b: 23 } }), id: randomUUID(), seq: 0 };
}

async function append(stage0: Stage0, drafts: SpanDraft[]): Promise<void> {
  await appendSpans(stage0.database, drafts, { identity: IDENTITY, signer: stage0.signer, now: stage0.now });
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
