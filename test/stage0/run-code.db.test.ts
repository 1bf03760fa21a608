import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { blake3Hex } from '../../src/span/index.ts';
import type { BootAnswer } from '../../src/stage0/index.ts';
import { ALAN, ALICE, BOB, OTHER_ALICE } from '../support/spans.ts';
import { type AnyJson, Installation, PROBE, RUN_CODE } from './installation.ts';

const TIMEOUT_MS = 1_200;
const SLOW_MS = 200;
const MEMORY_MB = 64;

let installation: Installation;
beforeAll(async () => {
  installation = await Installation.create();
  await installation.seed((content) => {
    content.policy = { slow_ms: SLOW_MS, timeout_ms: TIMEOUT_MS, memory_mb: MEMORY_MB };
    content.throttle.per_tenant_daily_exec_limit = 1_000;
  });
});
afterAll(() => installation?.close());

interface Ran {
  execution_id: string;
  status: string;
  result: unknown;
  error: { code: string; message: string } | null;
}

/** What run_code says of the function it ran, and the execution it wrote of it. */
async function ran(answer: BootAnswer): Promise<Ran & { row: AnyJson }> {
  expect(answer).toMatchObject({ ok: true, status: 'complete', error: null, function_id: RUN_CODE });
  const output = answer.output as unknown as Ran;
  const row = await installation.span(output.execution_id);
  expect(row).toMatchObject({
    entity_type: 'execution',
    did: 'ran_function',
    caused_by: answer.boot_event_id,
    trace_id: answer.trace_id,
  });
  return { ...output, row };
}

/** A boot in which run_code itself refused: nothing ran, so the day's count is as before. */
async function expectRefused(input: unknown, code: string, identity = ALICE): Promise<void> {
  const before = await installation.usage(identity.tenantId);
  const answer = await installation.runCode(input, identity);
  expect(answer).toMatchObject({ ok: false, status: 'error', output: null, error: { code } });
  expect((await installation.span(answer.execution_id)).error).toMatchObject(answer.error as object);
  expect(await installation.spans(`caused_by = $1 and did = 'ran_function'`, [answer.boot_event_id])).toEqual([]);
  expect(await installation.usage(identity.tenantId)).toBe(before);
}

describe('a function row', () => {
  it('runs for its owner, with its input, and its execution names it and the hashes of both', async () => {
    const { id, curr_hash } = await installation.appendFunction('return input.a * input.b', { name: 'multiply' });
    const { row, ...output } = await ran(await installation.runCode({ span_id: id, input: { a: 6, b: 7 } }));
    expect(output).toEqual({ execution_id: row.id, status: 'complete', result: 42, error: null });
    const kernel = await installation.sealed(RUN_CODE);
    expect(row).toMatchObject({
      parent_id: id,
      name: 'multiply',
      status: 'complete',
      input: { a: 6, b: 7 },
      output: 42,
      code: null,
      owner_id: ALICE.userId,
      tenant_id: ALICE.tenantId,
      metadata: {
        kernel_id: RUN_CODE,
        kernel_hash: kernel.curr_hash,
        function_hash: curr_hash,
        function_seq: 0,
        timeout_ms: TIMEOUT_MS,
      },
    });
    expect(row.started_at.getTime()).toBeLessThanOrEqual(row.finished_at.getTime());
  });

  it('runs in its newest version, and not at all when that is deleted or retired', async () => {
    const { id } = await installation.appendFunction('return 1');
    await installation.appendFunction('return 2', { id });
    expect(await ran(await installation.runCode({ span_id: id }))).toMatchObject({
      result: 2,
      row: { metadata: { function_seq: 1 } },
    });
    await installation.appendFunction('return 3', { id, status: 'retired' });
    await expectRefused({ span_id: id }, 'FUNCTION_RETIRED');
    await installation.appendFunction('return 4', { id, is_deleted: true });
    await expectRefused({ span_id: id }, 'FUNCTION_RETIRED');
  });

  it('of another owner runs for who may see it, in his own name, and is not found when it is private', async () => {
    const shared = await installation.appendFunction('return input', { visibility: 'tenant' });
    const { row } = await ran(await installation.runCode({ span_id: shared.id, input: 'mine' }, ALAN));
    expect(row).toMatchObject({ owner_id: ALAN.userId, tenant_id: ALAN.tenantId, parent_id: shared.id });
    const secret = await installation.appendFunction('return input');
    await expectRefused({ span_id: secret.id }, 'FUNCTION_NOT_FOUND', ALAN);
  });

  it('of another tenant is not found, whatever the user is called, as one that does not exist', async () => {
    for (const visibility of ['private', 'tenant'] as const) {
      const { id } = await installation.appendFunction('return 1', { visibility });
      await expectRefused({ span_id: id }, 'FUNCTION_NOT_FOUND', BOB);
      await expectRefused({ span_id: id }, 'FUNCTION_NOT_FOUND', OTHER_ALICE);
    }
    await expectRefused({ span_id: '00000000-0000-4000-8000-00000000dead' }, 'FUNCTION_NOT_FOUND', BOB);
  });

  it('that is no function is refused', async () => {
    const answer = await installation.runCode({ code: 'return 1' });
    await expectRefused({ span_id: answer.execution_id }, 'NOT_A_FUNCTION');
  });

  it('that was altered in the database is refused', async () => {
    const { id } = await installation.appendFunction('return "harmless"');
    await installation.tamper(`update ledger.universal_registry set code = 'return "harmful!"' where id = $1`, [id]);
    await expectRefused({ span_id: id }, 'SPAN_NOT_PROVED');
  });

  it('runs once at a time: two boots of it do not overlap, boots of two functions do', async () => {
    const busy = 'const end = Date.now() + 300; while (Date.now() < end); return 1';
    const [one, other] = [await installation.appendFunction(busy), await installation.appendFunction(busy)];
    const intervals = async (ids: string[]) => {
      const rows = await Promise.all(
        ids.map(async (span_id) => (await ran(await installation.runCode({ span_id }))).row),
      );
      return rows.sort((a, b) => a.started_at - b.started_at);
    };
    const [first, second, third] = await intervals([one.id, one.id, one.id]);
    expect(first.finished_at.getTime()).toBeLessThanOrEqual(second.started_at.getTime());
    expect(second.finished_at.getTime()).toBeLessThanOrEqual(third.started_at.getTime());
    const [a, b] = await intervals([one.id, other.id]);
    expect(a.finished_at.getTime()).toBeGreaterThan(b.started_at.getTime());
  });
});

describe('code that is run once', () => {
  it('is kept in its execution with its hash', async () => {
    const code = 'return input.name.toUpperCase()';
    const { result, row } = await ran(await installation.runCode({ code, input: { name: 'ada' } }));
    expect(result).toBe('ADA');
    expect(row).toMatchObject({
      code,
      parent_id: null,
      this: 'code',
      metadata: { function_hash: blake3Hex(code), function_seq: null },
    });
  });

  it.each<[string, string]>([
    ['the body of an async function', 'return (await Promise.resolve(input)) + 1'],
    ['a module with a default function', 'export default function (input) { return input + 1 }'],
    ['a module with a named default function', 'export default async function add(input) { return input + 1 }'],
    ['a module with an arrow', 'export default (input) => input + 1;'],
    ['the older globalThis.default', 'globalThis.default = (input) => input + 1;'],
    ['an older top-level main', 'async function main(input) { return input + 1 }'],
    ['an older top-level on', 'function on(span) { return span + 1 }'],
  ])('may be written as %s', async (_form, code) => {
    expect(await ran(await installation.runCode({ code, input: 41 }))).toMatchObject({
      status: 'complete',
      result: 42,
    });
  });

  it('sees no process, no network, no file, no clock of the host and nothing of an earlier run', async () => {
    const names = '["process", "require", "fetch", "Buffer", "setTimeout", "ctx", "module", "console", "left"]';
    const code = `globalThis.left = 1; return ${names}.filter((name) => name !== 'left' && typeof globalThis[name] !== 'undefined')`;
    expect(await ran(await installation.runCode({ code }))).toMatchObject({ result: [] });
    expect(await ran(await installation.runCode({ code: 'return typeof left' }))).toMatchObject({
      result: 'undefined',
    });
  });
});

describe('an input that asks for nothing that can be run', () => {
  it.each([null, {}, undefined])('runs the sample when it is empty: %j', async (input) => {
    expect(await ran(await installation.runCode(input))).toMatchObject({ result: 42 });
  });

  it.each<[string, unknown]>([
    ['both span_id and code', { span_id: RUN_CODE, code: 'return 1' }],
    ['neither of them', { input: 1 }],
    ['an unknown field', { code: 'return 1', timeout: 5 }],
    ['code that is no text', { code: 42 }],
    ['a list', [1]],
    ['text', 'return 1'],
  ])('is refused with %s', async (_what, input) => {
    await expectRefused(input, 'INPUT_INVALID');
  });

  it('is refused with a span_id that is no UUID', async () => {
    await expectRefused({ span_id: 'my function' }, 'TYPE_MISMATCH');
    await expectRefused({ span_id: 42 }, 'TYPE_MISMATCH');
  });

  it.each(['timeout_ms', 'memory_mb'])(
    'is refused with a %s that is no whole number above 0, and the day is not charged',
    async (limit) => {
      for (const value of [0, -1, 1.5, '100', true])
        await expectRefused({ code: 'return 1', [limit]: value }, 'TYPE_MISMATCH');
    },
  );
});

describe('a limit', () => {
  const forEver = 'for (;;);';

  /** The function's execution says how it ended; the boot of run_code itself went well; and the next boot works. */
  async function expectEnded(input: object, code: string): Promise<Ran & { row: AnyJson }> {
    const outcome = await ran(await installation.runCode(input));
    const status = code === 'TIMEOUT' ? 'timeout' : 'error';
    expect(outcome).toMatchObject({ status, result: null, error: { code } });
    expect(outcome.row).toMatchObject({ status, output: null, error: outcome.error });
    expect(await ran(await installation.runCode({ code: 'return "next"' }))).toMatchObject({ result: 'next' });
    return outcome;
  }

  it.each<[string, string]>([
    ['a loop', forEver],
    ['a loop after an await', `await null; ${forEver}`],
    ['a promise that never settles', 'await new Promise(() => {})'],
  ])('ends %s at its timeout', async (_what, code) => {
    const { row } = await expectEnded({ code, timeout_ms: 150 }, 'TIMEOUT');
    expect(row.duration_ms).toBeLessThan(1_000);
  });

  it("is never above the manifest's: timeout_ms", async () => {
    const { row } = await expectEnded({ code: forEver, timeout_ms: 60_000 }, 'TIMEOUT');
    expect(row.duration_ms).toBeGreaterThanOrEqual(TIMEOUT_MS - 50);
    expect(row.duration_ms).toBeLessThan(TIMEOUT_MS + 1_000);
  });

  it("is never above the manifest's: memory_mb", async () => {
    const hold = (mb: number) => ({
      code: `const held = []; for (let i = 0; i < ${mb}; i++) held.push(new Uint8Array(1048576).fill(1)); return held.length`,
      memory_mb: 4_096,
    });
    const { error } = await expectEnded(hold(200), 'MEMORY');
    expect(error?.message).toContain(String(MEMORY_MB));
    expect(await ran(await installation.runCode(hold(20)))).toMatchObject({ result: 20 });
  });

  it('may be asked for below the manifest', async () => {
    const code =
      'const held = []; for (let i = 0; i < 50; i++) held.push(new Uint8Array(1048576).fill(1)); return held.length';
    await expectEnded({ code, memory_mb: 20 }, 'MEMORY');
    expect(await ran(await installation.runCode({ code }))).toMatchObject({ result: 50 });
  });

  it.each<[string, string, string]>([
    ['more output than it may', 'return "x".repeat(300 * 1024)', 'OUTPUT_TOO_LARGE'],
    ['an error', 'throw new Error("of mine")', 'THREW'],
    ['a rejection', 'return Promise.reject(new TypeError("of mine"))', 'THREW'],
    ['a thrown null', 'throw null', 'THREW'],
    ['no JavaScript', 'return ((', 'CODE_INVALID'],
    ['no code at all', 'export default 42', 'CODE_INVALID'],
    ['dynamic loading', 'return import("node:fs")', 'CODE_REFUSED'],
    ['the word of it in a string', 'return "import"', 'CODE_REFUSED'],
    ['more source than it may', `return 1 //${'x'.repeat(256 * 1024)}`, 'CODE_REFUSED'],
    ['code made out of text', 'return new Function("return 1")()', 'THREW'],
  ])('leaves an execution that says which: %s', async (_what, code, expected) => {
    const { error } = await expectEnded({ code }, expected);
    expect(error?.message).not.toMatch(/node:|child\.cjs|sandbox\//);
  });

  it('tells the user the message of the error and the line of the code that does not compile', async () => {
    const threw = await ran(await installation.runCode({ code: '\nthrow new RangeError("too far")' }));
    expect(threw.error?.message).toContain('too far');
    const invalid = await ran(await installation.runCode({ code: 'const a = 1;\nconst b = ;\n' }));
    expect(invalid.error).toMatchObject({ code: 'CODE_INVALID', line: 2 });
  });
});

describe('what a function answers that no span can hold', () => {
  it.each<[string, string]>([
    ['U+0000 in its result', 'return "a\\0b"'],
    ['a lone surrogate in its result', 'return "\\ud800"'],
    ['an integer beyond 2^53-1', 'return 2 ** 60'],
    ['nesting beyond 64', 'let nested = 1; for (let i = 0; i < 80; i++) nested = [nested]; return nested'],
    ['U+0000 in its error', 'throw new Error("a\\0b")'],
    ['a lone surrogate in its error', 'throw new Error("\\ud800")'],
  ])('still leaves its execution, which says so: %s', async (_what, code) => {
    const before = await installation.usage(ALICE.tenantId);
    const { row, ...output } = await ran(await installation.runCode({ code }));
    expect(output).toMatchObject({ status: 'error', result: null });
    expect(row).toMatchObject({ status: 'error', output: null, error: output.error });
    expect(await installation.usage(ALICE.tenantId)).toBe(before + 1);
  });

  it('still leaves its execution when input and result together are larger than a span', async () => {
    const input = { code: 'return "y".repeat(200_000)', input: 'x'.repeat(900_000) };
    expect(await ran(await installation.runCode(input))).toMatchObject({ row: { did: 'ran_function' } });
  });
});

describe('a slow run', () => {
  it('gets a status_patch, a quick one does not', async () => {
    const busy = (ms: number) => ({ code: `const end = Date.now() + ${ms}; while (Date.now() < end); return 1` });
    const slow = await ran(await installation.runCode(busy(SLOW_MS + 150)));
    const quick = await ran(await installation.runCode(busy(1)));
    expect(slow.status).toBe('complete');
    const patches = await installation.spans(`entity_type = 'status_patch' and parent_id = any($1)`, [
      [slow.execution_id, quick.execution_id],
    ]);
    expect(patches).toHaveLength(1);
    expect(patches[0]).toMatchObject({
      parent_id: slow.execution_id,
      status: 'slow',
      metric_name: 'duration',
      metric_value: slow.row.duration_ms,
      metadata: { slow_ms: SLOW_MS },
    });
  });
});

describe('the counter of the day', () => {
  it('says after all of this what a count of the executions says', async () => {
    await installation.boot(PROBE, { probe: 'answer', value: 1 });
    const { rows } = await installation.admin.query(
      `select tenant_id, count(*)::int as n from ledger.universal_registry where did = 'ran_function' group by 1 order by 1`,
    );
    expect(rows.length).toBeGreaterThan(0);
    for (const { tenant_id, n } of rows)
      expect([tenant_id, await installation.usage(tenant_id)]).toEqual([tenant_id, n]);
  });
});
