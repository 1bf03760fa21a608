import { readFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { boot } from '../../src/stage0/index.ts';
import { ROLES, type Role, workShift } from '../../src/worker/index.ts';
import { type AnyJson, type ExtraKernel, Installation } from '../stage0/installation.ts';
import { ALICE, BOB } from '../support/spans.ts';
import { openRequests, requestRuns, startRole, until } from './shifts.ts';

const WORKER_ID = '00000000-0000-4000-8000-00000000f003';
const WORKER_FILE = new URL('../../ROW/kernels/request_worker.js', import.meta.url).pathname;
const BUSY = (ms: number) => `const end = Date.now() + ${ms}; while (Date.now() < end); return input;`;
/** What a shift that ends "within about a second" may take here. */
const SOON_MS = 2_500;

let installation: Installation;
beforeEach(async () => {
  installation = await Installation.create();
});
afterEach(() => installation?.close());

const limits = (content: AnyJson) => {
  content.throttle.per_tenant_daily_exec_limit = 1_000_000;
  content.policy.timeout_ms = 1_000;
};
const begun = (id = ROLES['request-worker'].kernelId) =>
  until(async () => {
    const events = await installation.spans(`entity_type = 'boot_event' and this = $1`, [`function:${id}`]);
    return events.length > 0;
  });
const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** How long a shift took to end, and how it did. */
async function timed(ended: Promise<AnyJson>): Promise<{ ms: number; answer: AnyJson }> {
  const from = performance.now();
  const answer = await ended;
  return { ms: performance.now() - from, answer };
}

describe('a shift', () => {
  it('that has nothing to do leaves its boot_event and its execution, and nothing else', async () => {
    await installation.seed(limits);
    const count = await installation.count();
    const shift = startRole(installation.stage0, 'request-worker');
    await wait(2_500);
    const answer = await shift.stop();
    expect(answer).toMatchObject({ ok: true, output: { claimed: 0, ended: {} } });
    expect(await installation.count()).toBe(count + 2);
    expect(await installation.span(answer.boot_event_id)).toMatchObject({
      entity_type: 'boot_event',
      owner_id: 'request-worker',
      tenant_id: 'system',
    });
    expect(await installation.span(answer.execution_id)).toMatchObject({
      entity_type: 'execution',
      did: 'ran_kernel',
      output: { claimed: 0, ended: {} },
    });
  });

  it.each(['observer', 'request-worker', 'policy-agent'] as const)(
    'of %s that is over before it could begin to work ends well',
    async (role) => {
      await installation.seed(limits);
      expect(await startRole(installation.stage0, role).stop()).toMatchObject({ ok: true, error: null });
    },
  );

  it('ends soon after it is told to stop', async () => {
    await installation.seed(limits);
    const shift = startRole(installation.stage0, 'request-worker');
    await begun();
    await wait(300);
    const { ms, answer } = await timed(shift.stop());
    expect(answer.ok).toBe(true);
    expect(ms).toBeLessThan(SOON_MS);
  });

  it('ends when its time is up: what is claimed then could not end in time', async () => {
    await installation.seed(limits);
    // Five seconds are kept to record, and a function may take one.
    const shift = startRole(installation.stage0, 'request-worker', 8_000);
    const { ms, answer } = await timed(shift.ended);
    expect(answer).toMatchObject({ ok: true, status: 'complete' });
    expect(ms).toBeGreaterThan(1_500);
    expect(ms).toBeLessThan(2_000 + SOON_MS);
  });

  it('ends soon after the manifest has changed, and the next one works under the new one', async () => {
    await installation.seed(limits);
    const shift = startRole(installation.stage0, 'request-worker');
    await begun();
    await installation.seed((content) => {
      limits(content);
      content.throttle.per_tenant_concurrency = 2;
    });
    const { ms, answer } = await timed(shift.ended);
    expect(answer.ok).toBe(true);
    expect(ms).toBeLessThan(SOON_MS);
    expect(installation.logged).toMatchObject([
      { level: 'info', message: 'a shift ends early', role: 'request-worker' },
    ]);
  });

  it('of a kernel that was revoked ends soon, and none begins', async () => {
    await installation.seed(limits);
    const shift = startRole(installation.stage0, 'request-worker');
    await begun();
    await installation.seed((content) => {
      limits(content);
      content.allowed_boot_ids = content.allowed_boot_ids.filter(
        (id: string) => id !== ROLES['request-worker'].kernelId,
      );
    });
    const { ms } = await timed(shift.ended);
    expect(ms).toBeLessThan(SOON_MS);
    await expect(startRole(installation.stage0, 'request-worker').ended).rejects.toMatchObject({
      code: 'KERNEL_REVOKED',
    });
  });

  it('ends soon after its kernel has changed', async () => {
    const kernel: ExtraKernel = { id: WORKER_ID, name: 'own_worker', code: await readFile(WORKER_FILE, 'utf8') };
    const role: Role = { ...ROLES['request-worker'], kernelId: WORKER_ID };
    await installation.seed(limits, [kernel]);
    const shift = workShift(installation.stage0, role, { endOfTime: new Date(Date.now() + 600_000) });
    await begun(WORKER_ID);
    await installation.seed(limits, [{ ...kernel, code: `${kernel.code}// changed\n` }]);
    const { ms, answer } = await timed(shift);
    expect(answer).toMatchObject({ ok: true, function_seq: 0 });
    expect(ms).toBeLessThan(SOON_MS);
  });

  it('lets what runs come to its end, and gives back what has not begun', async () => {
    await installation.seed(limits);
    const fn = await installation.appendFunction(BUSY(800));
    const ids = await requestRuns(installation, fn.id, ALICE, Array(30).fill({}));
    const shift = startRole(installation.stage0, 'request-worker');
    const ran = () => installation.spans(`caused_by = any($1) and entity_type = 'execution'`, [ids]);
    await until(async () => (await ran()).length > 0);
    const { ms, answer } = await timed(shift.stop());
    expect(ms).toBeLessThan(SOON_MS);
    const { complete, released } = answer.output.ended;
    expect(released).toBeGreaterThan(0);
    expect(complete + released).toBe(30);
    expect(await openRequests(installation, `state = 'ready' and takeovers = 0`)).toBe(released);
    expect((await ran()).map(({ status }) => status)).toEqual(Array(complete).fill('complete'));
  });

  it('that is over waits for what is open, and does not ask for it without end', async () => {
    const code = `export default async function main(ctx) {
      await ctx.claim('requests', { limit: 1 });
      while (!(await ctx.outcomes(1_000)).is_over);
      const until = Date.parse(ctx.now()) + 500;
      let asked = 0;
      for (; Date.parse(ctx.now()) < until; asked++) await ctx.outcomes(100);
      return { asked };
    }`;
    await installation.seed(limits, [{ id: WORKER_ID, name: 'own_worker', code }]);
    const stop = new AbortController();
    const role: Role = { ...ROLES['request-worker'], kernelId: WORKER_ID };
    const shift = workShift(installation.stage0, role, {
      endOfTime: new Date(Date.now() + 600_000),
      stop: stop.signal,
    });
    await begun(WORKER_ID);
    await wait(200);
    stop.abort();
    const { output } = (await shift) as AnyJson;
    expect(output.asked).toBeLessThan(10);
  });

  it('that runs out of time gives back what has not begun, in place of ending it as too slow', async () => {
    await installation.seed(limits);
    const fn = await installation.appendFunction(BUSY(700));
    const ids = await requestRuns(installation, fn.id, ALICE, Array(30).fill({ maxAttempts: 1 }));
    const answer = await startRole(installation.stage0, 'request-worker', 8_500).ended;
    expect(answer).toMatchObject({ ok: true, output: { ended: { released: expect.any(Number) } } });
    const executions = await installation.spans(`caused_by = any($1) and entity_type = 'execution'`, [ids]);
    expect(new Set(executions.map(({ status }) => status))).toEqual(new Set(['complete']));
    expect(await openRequests(installation, `state = 'ready'`)).toBe(answer.output.ended.released);
  });

  it('whose kernel breaks gives everything back at once', async () => {
    const code = `export default async function main(ctx) {
      await ctx.claim('requests', { limit: 10 });
      throw new Error('on purpose');
    }`;
    await installation.seed(limits, [{ id: WORKER_ID, name: 'own_worker', code }]);
    const fn = await installation.appendFunction('return 1');
    await requestRuns(installation, fn.id, ALICE, Array(3).fill({}));
    const role: Role = { ...ROLES['request-worker'], kernelId: WORKER_ID };
    const answer = await workShift(installation.stage0, role, { endOfTime: new Date(Date.now() + 600_000) });
    expect(answer).toMatchObject({ ok: false, error: { code: 'THREW' } });
    expect(await openRequests(installation, `state = 'ready' and takeovers = 0`)).toBe(3);
  });

  it.each([
    ['nothing that was not claimed', `await ctx.run(['${WORKER_ID}'])`, 'NOTHING_CLAIMED'],
    [
      'no word for it that something ran',
      `const { work } = await ctx.claim('requests', { limit: 1 });
       await ctx.complete([{ request_id: work[0].request_id, status: 'complete' }])`,
      'NOT_RUN',
    ],
    ['no work of an unknown kind', `await ctx.claim('everything', { limit: 1 })`, 'FIELD_INVALID'],
    [
      'no work of two kinds',
      `await ctx.claim('requests', { limit: 1 }); await ctx.claim('schedules', { limit: 1 })`,
      'WORK_KIND',
    ],
    ['no more than there is', `await ctx.claim('requests', { limit: 0 })`, 'FIELD_INVALID'],
    ['no claim by a name of the language', `await ctx.claim('constructor', {})`, 'FIELD_INVALID'],
  ])('takes %s', async (_, statement, code) => {
    const kernel = `export default async function main(ctx) { ${statement}; }`;
    await installation.seed(limits, [{ id: WORKER_ID, name: 'own_worker', code: kernel }]);
    const { id: fn } = await installation.appendFunction('return 1');
    await requestRuns(installation, fn, ALICE, [{}]);
    const role: Role = { ...ROLES['request-worker'], kernelId: WORKER_ID };
    const answer = await workShift(installation.stage0, role, { endOfTime: new Date(Date.now() + 600_000) });
    expect(answer).toMatchObject({ ok: false, error: { code } });
    expect(await openRequests(installation, `state = 'ready'`)).toBe(1);
  });

  it('is the host’s to give: a boot has none, whoever asks', async () => {
    await installation.seed(limits);
    for (const identity of [ALICE, BOB, { userId: 'request-worker', tenantId: 'system' }]) {
      const request = { boot_function_id: ROLES['request-worker'].kernelId, identity, input: null };
      expect(await boot(installation.stage0, request)).toMatchObject({ ok: false, error: { code: 'NO_SHIFT' } });
    }
  });
});
