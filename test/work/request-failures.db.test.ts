import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Identity } from '../../src/ledger/index.ts';
import type { RequestOptions } from '../../src/work/index.ts';
import { type AnyJson, Installation } from '../stage0/installation.ts';
import { ALICE, BOB } from '../support/spans.ts';
import { openRequests, requestRuns, startRole, until, type WorkingRole } from '../worker/shifts.ts';

/** Nothing of this file waits longer for its next attempt. */
const SOON = { retry: { backoff_ms: 20, max_ms: 40 } };
const INTEGER_MAX = 0x7fffffff;

let installation: Installation;
let worker: WorkingRole;
beforeAll(async () => {
  installation = await Installation.create();
  await installation.seed((content) => {
    content.throttle.per_tenant_daily_exec_limit = 1_000_000;
    content.policy.timeout_ms = 5_000;
    content.policy.memory_mb = 32;
  });
  worker = startRole(installation.stage0, 'request-worker', undefined, installation.ledger.urls.loglineos_app);
});
afterAll(async () => {
  await worker?.stop();
  await installation?.close();
});
afterEach(() => expect(installation.logged).toEqual([]));

/** Whose day nobody else uses. */
const CAROL: Identity = { userId: 'carol', tenantId: 'coal' };

/** Request one run of a function of Alice's, let it come to its end, and say what it left: executions and versions. */
async function ended(code: string, options: RequestOptions = {}) {
  const fn = await installation.appendFunction(code);
  const [id] = await requestRuns(installation, fn.id, ALICE, [{ metadata: SOON, ...options }]);
  return endOf(id as string);
}

async function endOf(id: string): Promise<{ executions: AnyJson[]; versions: AnyJson[]; last: AnyJson }> {
  await until(async () => (await openRequests(installation, `request_id = '${id}'`)) === 0);
  const versions = await installation.spans('id = $1', [id]);
  const executions = await installation.spans(`caused_by = $1 and entity_type = 'execution'`, [id]);
  return { executions, versions, last: versions.at(-1) };
}

describe('a function that fails', () => {
  it.concurrent.each([
    ['throws', 'throw new Error("on purpose")', 'THREW', 'error'],
    ['never ends', 'for (;;);', 'TIMEOUT', 'timeout'],
    ['never settles', 'return new Promise(() => {})', 'TIMEOUT', 'timeout'],
    ['answers 10 MB', 'return "x".repeat(10 * 1024 * 1024)', 'OUTPUT_TOO_LARGE', 'error'],
    ['is no JavaScript', 'return {', 'CODE_INVALID', 'error'],
    ['wants to load something', 'return import("node:fs")', 'CODE_REFUSED', 'error'],
    ['takes all memory', 'const a = []; for (;;) a.push(new Array(1e5).fill(a.length));', 'MEMORY', 'error'],
    ['answers a bigint', 'return 1n', 'THREW', 'error'],
    ['answers what no span can hold', 'return "before\\0after"', 'OUTPUT_NOT_STORABLE', 'error'],
    ['answers half a character', 'return { text: "\\ud800" }', 'OUTPUT_NOT_STORABLE', 'error'],
    ['says it is a refusal', 'throw Object.assign(new Error("no"), { code: "QUOTA_EXCEEDED" })', 'THREW', 'error'],
  ])('because it %s, is tried as often as it may be, and given up', async (_, code, error, status) => {
    const metadata = { ...SOON, ...(error === 'TIMEOUT' ? { timeout_ms: 150 } : {}) };
    const { executions, versions, last } = await ended(code, { maxAttempts: 2, metadata });
    expect(versions.map((version) => [version.status, version.attempt, version.error?.code])).toEqual([
      ['scheduled', 0, undefined],
      ['error', 1, error],
      ['dead', 2, error],
    ]);
    expect(executions.map((one) => [one.status, one.attempt, one.error.code])).toEqual([
      [status, 1, error],
      [status, 2, error],
    ]);
    expect(last.related_to).toEqual(executions.map(({ id }) => id));
    expect(last).toMatchObject({ output: null, who: 'kernel:request_worker', did: 'gave_up' });
  });

  it('runs three times when nobody says how often', async () => {
    const { executions } = await ended('throw 1');
    expect(executions).toHaveLength(3);
  });

  it('runs once when it may once', async () => {
    const { executions, versions } = await ended('throw 1', { maxAttempts: 1 });
    expect(executions).toHaveLength(1);
    expect(versions.map(({ status }) => status)).toEqual(['scheduled', 'dead']);
  });

  it('and then succeeds, is complete with the execution that did it', async () => {
    const fn = await installation.appendFunction('throw new Error("not yet")');
    const [id] = await requestRuns(installation, fn.id, ALICE, [{ metadata: { retry: { backoff_ms: 400 } } }]);
    await until(async () => (await installation.spans(`id = $1 and status = 'error'`, [id])).length > 0);
    await installation.appendFunction('return "now"', { id: fn.id });
    const { executions, versions, last } = await endOf(id as string);
    expect(versions.map(({ status }) => status)).toEqual(['scheduled', 'error', 'complete']);
    expect(last).toMatchObject({ output: 'now', error: null, attempt: 2 });
    expect(executions.map(({ metadata }) => metadata.function_seq)).toEqual([0, 1]);
  });

  it('waits longer before each attempt, at least half of what it says and at most all of it', async () => {
    const metadata = { retry: { backoff_ms: 200, max_ms: 300 } };
    const { versions } = await ended('throw 1', { maxAttempts: 4, metadata });
    const waits = versions.slice(1, -1).map(({ at, scheduled_at }) => scheduled_at - at);
    const bounds = [200, 300, 300];
    expect(waits).toHaveLength(bounds.length);
    for (const [i, bound] of bounds.entries()) {
      expect(waits[i]).toBeGreaterThanOrEqual(bound / 2 - 50);
      expect(waits[i]).toBeLessThanOrEqual(bound);
    }
    const executions = await installation.spans('caused_by = $1', [versions[0].id]);
    for (const [i, { started_at }] of executions.slice(1).entries()) {
      expect(started_at.getTime()).toBeGreaterThanOrEqual(versions[i + 1].scheduled_at.getTime());
    }
  });

  it('does not hold up another tenant', async () => {
    const hostile = await installation.appendFunction('for (;;);');
    const fine = await installation.appendFunction('return input.n', {}, BOB);
    const metadata = { ...SOON, timeout_ms: 300 };
    const bad = await requestRuns(installation, hostile.id, ALICE, Array(30).fill({ maxAttempts: 1, metadata }));
    const askedAt = Date.now();
    const good = await requestRuns(
      installation,
      fine.id,
      BOB,
      Array.from({ length: 10 }, (_, n) => ({ input: { n } })),
    );
    await until(async () => (await openRequests(installation, `tenant_id = '${BOB.tenantId}'`)) === 0);
    expect(Date.now() - askedAt).toBeLessThan(2_000);
    expect(await openRequests(installation, `tenant_id = '${ALICE.tenantId}'`)).toBeGreaterThan(0);
    const ends = await installation.spans(`id = any($1) and status = 'complete'`, [good]);
    expect(ends.map(({ output }) => output).sort()).toEqual([...Array(10).keys()]);
    await until(async () => (await openRequests(installation)) === 0);
    expect(await installation.spans(`id = any($1) and status = 'dead'`, [bad])).toHaveLength(30);
  });
});

describe('a request that may not run', () => {
  const carols = async (more: object) => (await installation.appendFunction('return 1', more, CAROL)).id;

  it.concurrent.each<[string, string, () => Promise<string>]>([
    ['whose function is not there', 'FUNCTION_NOT_FOUND', async () => '7f000000-0000-4000-8000-00000000dead'],
    [
      "whose function is another's",
      'FUNCTION_NOT_FOUND',
      async () => (await installation.appendFunction('return 1')).id,
    ],
    ['whose function is retired', 'FUNCTION_RETIRED', () => carols({ status: 'retired' })],
    ['whose function is deleted', 'FUNCTION_RETIRED', () => carols({ is_deleted: true })],
    ['that names a note', 'NOT_A_FUNCTION', () => carols({ entity_type: 'note' })],
    ['that names a function without code', 'NOT_A_FUNCTION', () => carols({ code: null })],
  ])('%s is given up at once, with no execution', async (_, code, functionId) => {
    const [id] = await requestRuns(installation, await functionId(), CAROL, [{}]);
    const { executions, versions, last } = await endOf(id as string);
    expect(executions).toEqual([]);
    expect(versions.map(({ status }) => status)).toEqual(['scheduled', 'dead']);
    expect(last).toMatchObject({ attempt: 0, error: { code } });
  });

  it('uses nothing of the day', async () => expect(await installation.usage(CAROL.tenantId)).toBe(0));
});

describe('a request whose end cannot be recorded as it is', () => {
  /** The largest of a kind that may still be requested; the last 20 characters are left. */
  async function largest(functionId: string, of: (length: number) => [RequestOptions, object?]): Promise<string> {
    for (let length = 1024 * 1024; ; length -= 20) {
      const [options, more] = of(length);
      try {
        const [id] = await requestRuns(installation, functionId, ALICE, [{ maxAttempts: 1, ...options }], more);
        return id as string;
      } catch (error) {
        if ((error as { code?: string }).code !== 'SPAN_TOO_LARGE') throw error;
      }
    }
  }
  const expectWorking = async () => expect((await ended('return 1')).last.status).toBe('complete');

  it.each(['return 1', 'throw 1'])('(its input fills a span; %s) is dead, and its run is recorded', async (code) => {
    const fn = await installation.appendFunction(code);
    const before = await installation.usage(ALICE.tenantId);
    const { executions, versions, last } = await endOf(
      await largest(fn.id, (length) => [{ input: 'x'.repeat(length) }]),
    );
    expect(last).toMatchObject({ seq: 1, status: 'dead', attempt: 1, input: null, related_to: null });
    expect(last.error.code).toBe('VERSION_NOT_STORABLE');
    expect(versions[0].input.length).toBeGreaterThan(1_040_000);
    expect(executions.map(({ status, input, error }) => [status, input, error.code])).toEqual([
      ['error', null, 'OUTPUT_NOT_STORABLE'],
    ]);
    expect(await installation.usage(ALICE.tenantId)).toBe(before + 1);
    await expectWorking();
  });

  it('(what it is related to fills a span) is dead, with its execution as it was', async () => {
    const fn = await installation.appendFunction('return 1');
    const related = (length: number) => ({ related_to: Array(Math.ceil(length / 39)).fill(fn.id) });
    const { executions, last } = await endOf(await largest(fn.id, (length) => [{}, related(length)]));
    expect(last).toMatchObject({ status: 'dead', related_to: null, error: { code: 'VERSION_NOT_STORABLE' } });
    expect(executions.map(({ status, output }) => [status, output])).toEqual([['complete', 1]]);
    await expectWorking();
  });

  it('(it may not run, and its input fills a span) is dead', async () => {
    const id = await largest('7f000000-0000-4000-8000-00000000dead', (length) => [{ input: 'x'.repeat(length) }]);
    const { executions, last } = await endOf(id);
    expect(executions).toEqual([]);
    expect(last).toMatchObject({ status: 'dead', attempt: 0, error: { code: 'VERSION_NOT_STORABLE' } });
    await expectWorking();
  });

  it('(the ledger refuses it for good) is dead, while its neighbours end as they do', async () => {
    await installation.admin.query(`
      create function refuse() returns trigger language plpgsql as $$
      begin raise exception 'not this' using errcode = '22000'; end $$;
      create trigger refuse before insert on ledger.universal_registry for each row
        when (new.entity_type = 'execution' and new.output = '"poison"') execute function refuse()`);
    const fn = await installation.appendFunction('return input');
    const inputs = ['one', 'poison', 'two'].map((input) => ({ input }));
    const ids = await requestRuns(installation, fn.id, ALICE, inputs);
    const ends = await Promise.all(ids.map(endOf));
    expect(ends.map(({ last }) => [last.status, last.output, last.error?.code])).toEqual([
      ['complete', 'one', undefined],
      ['dead', null, 'VERSION_NOT_STORABLE'],
      ['complete', 'two', undefined],
    ]);
    expect(ends.map(({ executions }) => executions.length)).toEqual([1, 0, 1]);
  });
});

describe('a request that says something odd', () => {
  it.concurrent.each<[string, RequestOptions]>([
    ['a wait that is no number', { metadata: { retry: { backoff_ms: 'soon' } } }],
    [
      'a wait beyond all time',
      { metadata: { retry: { backoff_ms: Number.MAX_SAFE_INTEGER, max_ms: Number.MAX_SAFE_INTEGER } } },
    ],
    ['a wait before all time', { metadata: { retry: { backoff_ms: -Number.MAX_SAFE_INTEGER, max_ms: -1 } } }],
    ['a retry that is null', { metadata: { retry: null } }],
    ['a retry that is text', { metadata: { retry: 'often' } }],
    ['metadata that is text', { metadata: 'odd' as AnyJson }],
    ['metadata that is a list', { metadata: ['odd'] as AnyJson }],
    ['a timeout that is text', { metadata: { ...SOON, timeout_ms: 'for ever' } }],
    ['no attempts at all', { maxAttempts: 0 }],
    ['fewer attempts than none', { maxAttempts: -INTEGER_MAX }],
  ])('(%s) fails as itself, and the worker goes on', async (_, options) => {
    const fn = await installation.appendFunction('throw 1');
    const [id] = await requestRuns(installation, fn.id, ALICE, [options]);
    await until(async () => (await installation.spans(`caused_by = $1`, [id])).length > 0);
    const first = (await installation.spans('id = $1 and seq = 1', [id]))[0];
    expect(first?.error.code).toBe('THREW');
    expect((await ended('return 1')).last.status).toBe('complete');
  });

  it.concurrent.each<[string, RequestOptions]>([
    ['waited for longer than a column holds', { scheduledAt: '2001-01-01T00:00:00.000Z' }],
    ['is due before there was time', { scheduledAt: '0001-01-01T00:00:00.000Z' }],
  ])('(it %s) runs once and is recorded', async (_, options) => {
    const { executions, last } = await ended('return 7', options);
    expect(last).toMatchObject({ status: 'complete', output: 7 });
    expect(executions.map(({ queue_ms }) => queue_ms)).toEqual([INTEGER_MAX]);
  });

  it('(it was tried as often as a column can count) runs once more and is given up', async () => {
    const { id: fn } = await installation.appendFunction('throw 1');
    const [id] = await requestRuns(installation, fn, ALICE, [{}], { attempt: INTEGER_MAX });
    const { executions, last } = await endOf(id as string);
    expect(executions.map(({ attempt }) => attempt)).toEqual([INTEGER_MAX]);
    expect(last).toMatchObject({ status: 'dead', attempt: INTEGER_MAX });
  });
});
