import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { appendSpans, rebuildDerived, verifyLedger } from '../../src/ledger/index.ts';
import { nodeEd25519 } from '../../src/span/ed25519-node.ts';
import { sealSpan } from '../../src/span/index.ts';
import { CANCEL, changeRequests, REDRIVE } from '../../src/work/request-admin.ts';
import { ROLES, workShift } from '../../src/worker/index.ts';
import { type AnyJson, Installation } from '../stage0/installation.ts';
import { runtimeSigner, strangerSigner, trustedKeys } from '../support/keys.ts';
import { ALICE, BOB, contextOf, hashable } from '../support/spans.ts';
import { openRequests, requestRuns, startRole, until, type WorkingRole, workUntil } from '../worker/shifts.ts';

const BUSY = (ms: number) => `const end = Date.now() + ${ms}; while (Date.now() < end); return input;`;

let installation: Installation;
let worker: WorkingRole | undefined;
beforeEach(async () => {
  installation = await Installation.create();
  await installation.seed((content) => {
    content.throttle.per_tenant_daily_exec_limit = 1_000_000;
  });
});
afterEach(async () => {
  await worker?.stop().catch(() => {});
  worker = undefined;
  await installation?.close();
});

const start = () => {
  worker = startRole(installation.container(), 'request-worker', undefined, installation.ledger.urls.loglineos_app);
  return worker;
};
const isQuiet = async () => (await openRequests(installation)) === 0;
const isLeased = async () => (await openRequests(installation, `state = 'leased'`)) > 0;
const executions = (ids: string[]) => installation.spans(`caused_by = any($1) and entity_type = 'execution'`, [ids]);
const versions = (id: string) => installation.spans('id = $1', [id]);
const statuses = async (id: string) => (await versions(id)).map(({ status }) => status);
const context = () => ({ ...contextOf(ALICE), now: () => new Date() });

/** Let versions of requests of which this is so take half a second each to be written. */
async function slowToWrite(condition: string): Promise<void> {
  await installation.admin.query(`
    create function delay() returns trigger language plpgsql as $$ begin perform pg_sleep(0.5); return new; end $$;
    create trigger delay before insert on ledger.universal_registry for each row
      when (new.entity_type = 'request' and ${condition}) execute function delay()`);
}

async function request(code: string, count = 1): Promise<string[]> {
  const fn = await installation.appendFunction(code);
  return requestRuns(
    installation,
    fn.id,
    ALICE,
    Array.from({ length: count }, (_, n) => ({ input: { n } })),
  );
}

/** Each request ended once, by one execution that its last version names. Answers the executions there are beside. */
async function expectEachEndedOnce(ids: string[]): Promise<AnyJson[]> {
  const ends = await installation.spans(`id = any($1) and status in ('complete', 'dead', 'cancelled')`, [ids]);
  expect(ends.map(({ id }) => id).sort()).toEqual([...ids].sort());
  expect(new Set(ends.map(({ status }) => status))).toEqual(new Set(['complete']));
  const ran = await executions(ids);
  const named = new Set(ends.flatMap(({ related_to }) => related_to));
  for (const { id, related_to } of ends) {
    const own = ran.filter((execution) => execution.caused_by === id);
    expect(own.map((execution) => execution.id)).toEqual(related_to);
    expect(own).toHaveLength(1);
  }
  return ran.filter(({ id }) => !named.has(id));
}

async function expectVerified(): Promise<void> {
  const report = await verifyLedger(installation.ledger.open('loglineos_auditor'), trustedKeys, nodeEd25519);
  expect(report.problems).toEqual([]);
}

describe('the request worker', () => {
  it('runs each request once, as its owner, and records what it ran and under which rules', async () => {
    const fn = await installation.appendFunction('return input.n * 2');
    const ids = await requestRuns(
      installation,
      fn.id,
      ALICE,
      Array.from({ length: 100 }, (_, n) => ({ input: { n }, visibility: n === 7 ? ('tenant' as const) : undefined })),
      { trace_id: 'a trace' },
    );
    const answer = await workUntil(installation.stage0, 'request-worker', isQuiet);
    expect(answer).toMatchObject({ ok: true, output: { claimed: 100, ended: { complete: 100 } } });
    expect(await expectEachEndedOnce(ids)).toEqual([]);

    const id = ids[7] as string;
    const [, end] = await versions(id);
    const [execution] = await executions([id]);
    const kernel = await installation.sealed(answer.function_id);
    const manifest = await installation.manifest();
    expect(end).toMatchObject({ owner_id: 'alice', tenant_id: 'acme', output: 14, attempt: 1, visibility: 'tenant' });
    expect(execution).toMatchObject({
      owner_id: 'alice',
      tenant_id: 'acme',
      visibility: 'tenant',
      who: 'kernel:request_worker',
      did: 'ran_function',
      parent_id: fn.id,
      caused_by: id,
      status: 'complete',
      input: { n: 7 },
      output: 14,
      attempt: 1,
      trace_id: 'a trace',
      queue_ms: expect.any(Number),
      metadata: {
        kernel_id: answer.function_id,
        kernel_hash: kernel.curr_hash,
        manifest_hash: manifest.curr_hash,
        boot_event_id: answer.boot_event_id,
        function_hash: fn.curr_hash,
        function_seq: 0,
        quota: { used: expect.any(Number), limit: 1_000_000 },
      },
    });
    expect(await installation.usage('acme')).toBe(100);
    await expectVerified();
  });

  it('keeps its claim for as long as it is heard of, however long a run takes', async () => {
    const id = '00000000-0000-4000-8000-00000000f003';
    const code = await readFile(new URL('../../ROW/kernels/request_worker.js', import.meta.url), 'utf8');
    const impatient = code.replace('reserve: RESERVE', 'reserve: RESERVE, lease_ms: 1_000');
    expect(impatient).not.toBe(code);
    await installation.seed(() => {}, [{ id, name: 'impatient_worker', code: impatient }]);
    const [run] = await request(BUSY(2_500));
    const stop = new AbortController();
    const options = { endOfTime: new Date(Date.now() + 600_000), stop: stop.signal };
    const shifts = [1, 2].map(() =>
      workShift(installation.container(), { ...ROLES['request-worker'], kernelId: id }, options),
    );
    await until(isQuiet);
    stop.abort();
    const answers = (await Promise.all(shifts)) as AnyJson[];
    expect(answers.map(({ output }) => output.claimed).sort()).toEqual([0, 1]);
    expect(await expectEachEndedOnce([run as string])).toEqual([]);
  });

  it('gives a request up that makes worker after worker vanish', async () => {
    const [id] = await request('return 1');
    await installation.admin.query('update ledger.request_queue set takeovers = 11');
    const answer = await workUntil(installation.stage0, 'request-worker', isQuiet);
    expect(answer.output).toEqual({ claimed: 1, ended: { dead: 1 } });
    expect((await versions(id as string)).at(-1)).toMatchObject({ status: 'dead', error: { code: 'LOST' } });
    expect(await executions([id as string])).toEqual([]);
  });

  it('whose kernel ends while it claims gives back what it gets then', async () => {
    const id = '00000000-0000-4000-8000-00000000f003';
    const code = `export default async function main(ctx) {
      void ctx.claim('requests', { limit: 5, lease_ms: 1_000 });
      await ctx.outcomes(300);
      throw new Error('on purpose');
    }`;
    await installation.seed(() => {}, [{ id, name: 'hasty_worker', code }]);
    await request('return 1', 2);
    await installation.admin.query('begin');
    await installation.admin.query(`select pg_advisory_xact_lock(hashtextextended('loglineos claim_requests', 0))`);
    const shift = workShift(
      installation.container(),
      { ...ROLES['request-worker'], kernelId: id },
      { endOfTime: new Date(Date.now() + 600_000) },
    );
    await Promise.race([shift, new Promise((resolve) => setTimeout(resolve, 1_500))]);
    await installation.admin.query('commit');
    await shift;
    const isBack = async () => (await openRequests(installation, `state = 'ready' and fence is not null`)) === 2;
    await until(isBack);
    expect(await openRequests(installation, `state = 'ready' and takeovers = 0`), 'at once').toBe(2);
  });

  it('keeps what it has claimed anew while the claim before is being closed', async () => {
    const id = '00000000-0000-4000-8000-00000000f003';
    const code = `export default async function main(ctx) {
      const { work } = await ctx.claim('requests', { limit: 2 });
      const [first, second] = work.map(({ request_id }) => request_id);
      const closing = ctx.complete([
        { request_id: first, status: 'released' },
        { request_id: second, status: 'dead', error: { code: 'SLOW', message: 'to write' } },
      ]);
      let again = [];
      while (again.length === 0) again = (await ctx.claim('requests', { limit: 1 })).work;
      await closing;
      await ctx.run([first]);
      const { outcomes } = await ctx.outcomes(5_000);
      return ctx.complete(outcomes.map(({ request_id, status }) => ({ request_id, status })));
    }`;
    await installation.seed(() => {}, [{ id, name: 'hasty_worker', code }]);
    await slowToWrite(`new.status = 'dead'`);
    const [first] = await request('return input.n', 2);
    const answer = await workShift(
      installation.container(),
      { ...ROLES['request-worker'], kernelId: id },
      { endOfTime: new Date(Date.now() + 600_000) },
    );
    expect(answer).toMatchObject({ ok: true, output: { done: 1, lost: [] } });
    expect(await expectEachEndedOnce([first as string])).toEqual([]);
  });

  it('goes on when what failed comes back before its neighbours of that time are closed', async () => {
    // A claim looks late enough to find Alice's request again, while Bob's is still being closed.
    await slowToWrite(`new.status = 'error' and new.tenant_id = 'bolt'`);
    await installation.admin.query(`
      alter function ledger.claim_requests(timestamptz, integer, integer, integer, date, jsonb) rename to claim_late;
      create function ledger.claim_requests(timestamptz, integer, integer, integer, date, jsonb)
      returns table (
        request_id uuid, fence bigint, takeovers integer, is_granted boolean, quota_used integer, quota_limit integer,
        bytes integer
      ) language plpgsql as $$
      begin perform pg_sleep(0.1); return query select * from ledger.claim_late($1, $2, $3, $4, $5, $6); end $$`);
    const options = { input: { until: Date.now() + 2_500 }, metadata: { retry: { backoff_ms: 0 } } };
    const ids: string[] = [];
    for (const owner of [ALICE, BOB]) {
      const fn = await installation.appendFunction('while (Date.now() < input.until); throw 1', {}, owner);
      ids.push(...(await requestRuns(installation, fn.id, owner, [options])));
    }
    start();
    await until(isQuiet);
    expect(await worker?.stop()).toMatchObject({ ok: true, output: { claimed: 6, ended: { error: 4, dead: 2 } } });
    expect(await executions(ids)).toHaveLength(6);
  });

  it('holds no more functions at once than it has room for, and runs all of them', async () => {
    // As many as there are in 24 MB, and one fetch of 8 more.
    const openMax = 25 + 8;
    const count = 45;
    const content = { text: 'x'.repeat(0.95 * 1024 * 1024) };
    const ids: string[] = [];
    for (let n = 0; n < count; n++) {
      const fn = await installation.appendFunction(`return ${n}`, { content });
      ids.push(...(await requestRuns(installation, fn.id, ALICE, [{}])));
    }
    await installation.admin.query(`
      create table public.gave_back (kept integer);
      create function count_kept() returns trigger language plpgsql security definer as $$
      begin insert into public.gave_back select count(*) from ledger.request_queue where state = 'leased'; return null; end $$;
      create trigger gave_back after update on ledger.request_queue for each row
        when (old.state = 'leased' and new.state = 'ready' and new.takeovers = old.takeovers)
        execute function count_kept()`);
    start();
    await until(isQuiet);
    const { rows } = await installation.admin.query('select kept from public.gave_back');
    expect(rows.length, 'claims that were given back').toBeGreaterThan(0);
    expect(Math.max(...rows.map(({ kept }) => kept))).toBeLessThanOrEqual(openMax);
    expect(await expectEachEndedOnce(ids)).toEqual([]);
    expect((await executions(ids)).map(({ output }) => output).sort((a, b) => a - b)).toEqual([...Array(count).keys()]);
    expect((await worker?.stop())?.output.ended).toEqual({ complete: count });
  });

  it('cannot be booted into the queue by anybody', async () => {
    await request('return 1');
    for (const identity of [ALICE, { userId: 'request-worker', tenantId: 'system' }]) {
      const answer = await installation.boot('00000000-0000-4000-8000-000000000003', null, identity);
      expect(answer).toMatchObject({ ok: false, status: 'error', error: { code: 'NO_SHIFT' } });
    }
    expect(await openRequests(installation, `state = 'ready'`)).toBe(1);
  });
});

describe('a request that its owner changes while it runs', () => {
  it('is cancelled, and what comes of the run is refused with nothing written', async () => {
    const [id] = await request(BUSY(600));
    start();
    await until(isLeased);
    const changes = await changeRequests(installation.stage0.database, context(), CANCEL, { ids: [id as string] });
    expect(changes).toEqual({ changed: [id], unchanged: [], before: null });
    await new Promise((resolve) => setTimeout(resolve, 900));
    const answer = await worker?.stop();
    expect(answer).toMatchObject({ ok: true, output: { claimed: 1, ended: { lost: 1 } } });
    expect(await statuses(id as string)).toEqual(['scheduled', 'cancelled']);
    expect(await executions([id as string])).toEqual([]);
  });

  it('is cancelled or complete and never both, when many are cancelled while many end', async () => {
    const ids = await request('return 1', 200);
    start();
    const changed: string[] = [];
    for (let i = 0; i < ids.length; i += 20) {
      const some = { ids: ids.slice(i, i + 20) };
      changed.push(...(await changeRequests(installation.stage0.database, context(), CANCEL, some)).changed);
    }
    await until(isQuiet);
    const answer = await worker?.stop();
    expect(answer).toMatchObject({ ok: true });
    const ends = await installation.spans(`id = any($1) and seq > 0`, [ids]);
    expect(ends).toHaveLength(ids.length);
    expect(
      ends
        .filter(({ status }) => status === 'cancelled')
        .map(({ id }) => id)
        .sort(),
    ).toEqual([...changed].sort());
    expect(await executions(changed)).toEqual([]);
    expect(await executions(ids)).toHaveLength(ids.length - changed.length);
    expect(installation.logged.filter(({ level }) => level === 'error')).toEqual([]);
  });

  it('at the very moment of its end is either, and not both', async () => {
    const [id] = await request(BUSY(200));
    await installation.admin.query('begin');
    start();
    await until(isLeased);
    await installation.admin.query('select from ledger.request_queue where request_id = $1 for update', [id]);
    await new Promise((resolve) => setTimeout(resolve, 800)); // the worker waits for us, to close it
    const version = { entity_type: 'request', id: id as string, seq: 1, parent_id: randomUUID(), status: 'cancelled' };
    const cancelled = appendSpans(installation.stage0.database, [version], context()).then(
      () => true,
      () => false,
    );
    await new Promise((resolve) => setTimeout(resolve, 100)); // and the owner has put his version in, and waits behind it
    await installation.admin.query('commit');
    const isCancelled = await cancelled;
    await until(isQuiet);
    await worker?.stop();
    expect(await statuses(id as string)).toEqual(['scheduled', isCancelled ? 'cancelled' : 'complete']);
    expect(await executions([id as string])).toHaveLength(isCancelled ? 0 : 1);
  });

  it('begins again after it was given up', async () => {
    const fn = await installation.appendFunction('throw 1');
    const [id] = await requestRuns(installation, fn.id, ALICE, [{ maxAttempts: 1 }]);
    start();
    await until(isQuiet);
    await installation.appendFunction('return "mended"', { id: fn.id });
    await changeRequests(installation.stage0.database, context(), REDRIVE, { ids: [id as string] });
    await until(isQuiet);
    expect(await statuses(id as string)).toEqual(['scheduled', 'dead', 'scheduled', 'complete']);
    expect((await versions(id as string)).at(-1)).toMatchObject({ output: 'mended', attempt: 1, error: null });
  });
});

describe('what does not prove itself', () => {
  const forged = (functionId: string, more: object = {}) =>
    sealSpan(
      hashable({
        entity_type: 'request',
        parent_id: functionId,
        status: 'scheduled',
        at: new Date().toISOString(),
        ...more,
      }),
      runtimeSigner,
    );
  const other = (hash: string) => strangerSigner.signHash(Buffer.from(hash, 'hex'));

  it('of requests is given up and not run, while the others are', async () => {
    const fn = await installation.appendFunction('return 1');
    const good = await requestRuns(installation, fn.id, ALICE, [{}]);
    const unsigned = forged(fn.id);
    await installation.insert({ ...unsigned, signature: other(unsigned.curr_hash) });
    const foreign = sealSpan(
      hashable({ entity_type: 'request', parent_id: fn.id, status: 'scheduled' }),
      strangerSigner,
    );
    await installation.insert(foreign);
    const altered = forged(fn.id);
    await installation.insert({ ...altered, input: { amount: 1_000_000 } });
    const stolen = forged(fn.id);
    await installation.insert({ ...stolen, owner_id: 'bob', tenant_id: 'bolt' });
    const answer = await workUntil(installation.stage0, 'request-worker', isQuiet);
    expect(answer.output).toEqual({ claimed: 5, ended: { complete: 1, dead: 4 } });
    const bad = [unsigned, foreign, altered, stolen].map(({ id }) => id);
    for (const id of bad) {
      const last = (await versions(id)).at(-1);
      expect(last).toMatchObject({ status: 'dead', attempt: 0, error: { code: 'SPAN_NOT_PROVED' } });
    }
    expect(await executions(bad)).toEqual([]);
    expect(await executions(good)).toHaveLength(1);
  });

  it('of functions is not run', async () => {
    const fn = await installation.appendFunction('return "as reviewed"');
    await installation.tamper(`update ledger.universal_registry set code = 'return "altered"' where id = $1`, [fn.id]);
    const signedByNobody = await installation.appendFunction('return 2');
    await installation.tamper('update ledger.universal_registry set signature = $2 where id = $1', [
      signedByNobody.id,
      other(signedByNobody.curr_hash),
    ]);
    const ids = [
      ...(await requestRuns(installation, fn.id, ALICE, [{}])),
      ...(await requestRuns(installation, signedByNobody.id, ALICE, [{}])),
    ];
    await workUntil(installation.stage0, 'request-worker', isQuiet);
    for (const id of ids) expect((await versions(id)).at(-1).error.code).toBe('SPAN_NOT_PROVED');
    expect(await executions(ids)).toEqual([]);
  });

  it('is looked at again after it was found good: a function altered between two claims is not run', async () => {
    const fn = await installation.appendFunction('return "as reviewed"');
    start();
    await requestRuns(installation, fn.id, ALICE, [{}]);
    await until(isQuiet);
    await installation.tamper(`update ledger.universal_registry set code = 'return "altered"' where id = $1`, [fn.id]);
    const [id] = await requestRuns(installation, fn.id, ALICE, [{}]);
    await until(isQuiet);
    expect((await versions(id as string)).at(-1).error.code).toBe('SPAN_NOT_PROVED');
  });
});

describe('a sandbox that takes no more', () => {
  it('gets the rest later: nothing is an attempt that did not run', async () => {
    await installation.close();
    installation = await Installation.create({ maxChildren: 1, maxWaiting: 5 });
    await installation.seed();
    const ids = await request(BUSY(5), 60);
    start();
    await until(isQuiet);
    const answer = await worker?.stop();
    expect(answer.output.ended).toEqual({ complete: 60, released: expect.any(Number) });
    expect(await expectEachEndedOnce(ids)).toEqual([]);
    expect(await installation.usage('acme')).toBe(60);
  });
});

describe('in the middle of work', () => {
  it('the queue may be made anew: nothing is lost, nothing ends twice', async () => {
    const ids = await request(BUSY(20), 120);
    const [delayed] = await requestRuns(installation, randomUUID(), BOB, [
      { scheduledAt: new Date(Date.now() + 3_600_000).toISOString() },
    ]);
    start();
    for (let i = 0; i < 4; i++) {
      await until(isLeased);
      await rebuildDerived({ url: installation.ledger.adminUrl });
      await new Promise((resolve) => setTimeout(resolve, 150));
    }
    await until(async () => (await openRequests(installation, `state <> 'delayed'`)) === 0);
    const answer = await worker?.stop();
    expect(answer).toMatchObject({ ok: true, error: null });
    expect(answer.output.claimed, 'claims, those that were lost again').toBeGreaterThan(120);
    expect(await expectEachEndedOnce(ids)).toEqual([]);
    expect(await installation.usage('acme')).toBe(120);
    expect(await openRequests(installation, `request_id = '${delayed}'`)).toBe(1);
    await expectVerified();
  });

  it('the lease may run out and be taken by the same worker: the first run does not end the second claim', async () => {
    const [id] = await request(BUSY(800));
    start();
    await until(async () => isLeased());
    await new Promise((resolve) => setTimeout(resolve, 200));
    await installation.admin.query(`update ledger.request_queue set leased_until = now() - interval '1 second'`);
    await until(isQuiet);
    const answer = await worker?.stop();
    expect(answer).toMatchObject({ ok: true, output: { claimed: 2, ended: { complete: 1 } } });
    expect(await expectEachEndedOnce([id as string])).toEqual([]);
    expect(await installation.usage('acme')).toBe(1);
  });
});
