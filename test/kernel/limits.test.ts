import { describe, expect, it } from 'vitest';
import { Sandbox } from '../../src/kernel/index.ts';
import { kernel, untrusted, useSandbox, WAYS } from './support.ts';

const failed = (code: string, message: RegExp = /./) => ({
  ok: false,
  error: { code, message: expect.stringMatching(message) },
});

describe.each(WAYS)('untrusted code %s', (way) => {
  const sandbox = useSandbox(way, { maxChildren: 2 });

  describe('a limit', () => {
    it('of time ends a loop close to its moment', async () => {
      const result = await sandbox.run(untrusted('for (;;);', { limits: { timeoutMs: 120 } }));
      expect(result).toMatchObject(failed('TIMEOUT', /120 ms/));
      expect(result.durationMs).toBeGreaterThanOrEqual(120);
      expect(result.durationMs).toBeLessThan(400);
    });

    it('of time answers at once when nothing can ever settle', async () => {
      const job = untrusted('await new Promise(() => {})');
      const result = await sandbox.run(job);
      expect(result).toMatchObject(failed('TIMEOUT', /never settles/));
      expect(result.durationMs).toBeLessThan(job.limits.timeoutMs / 2);
    });

    it('of memory is a run of its own: what fits is fine, what does not is ended', async () => {
      const fill = (mb: number) => untrusted(`const a = new Uint8Array(${mb} * 1048576).fill(1); return a.length`);
      expect(await sandbox.run(fill(40))).toMatchObject({ ok: true, output: 40 * 1048576 });
      const result = await sandbox.run(untrusted('const a = []; for (;;) a.push(new Uint8Array(1e6).fill(1))'));
      expect(result).toMatchObject(failed('MEMORY'));
      expect(result.memoryBytes).toBeGreaterThan(64 * 1048576);
    });

    it('of memory covers the heap too, at the heap limit of V8 as well', async () => {
      const bomb = 'const a = []; for (;;) a.push({ a: [1, 2, 3] })';
      expect(await sandbox.run(untrusted(bomb, { limits: { timeoutMs: 10_000 } }))).toMatchObject(failed('MEMORY'));
    });

    it('of output counts the bytes of the JSON', async () => {
      const text = (length: number) => untrusted(`return 'é'.repeat(${length})`, { limits: { outputBytes: 1002 } });
      expect(await sandbox.run(text(500))).toMatchObject({ ok: true });
      expect(await sandbox.run(text(501))).toMatchObject(failed('OUTPUT_TOO_LARGE', /1002 bytes/));
    });

    it('of output counts them as whoever passes the result on writes them', async () => {
      const numbers = (count: number, text: string) =>
        untrusted(`return Array.from({ length: ${count} }, () => JSON.rawJSON('${text}'))`);
      expect(await sandbox.run(numbers(4_000, '1e20'))).toMatchObject({ ok: true });
      // 25,001 bytes as the child sends them, and 110,001 here.
      expect(await sandbox.run(numbers(5_000, '1e20'))).toMatchObject(failed('OUTPUT_TOO_LARGE', /100000 bytes/));
    });

    it('of nesting is met long before a stack on the way is too short', async () => {
      const nested = (levels: number) =>
        untrusted(`let v = 1; for (let n = 0; n < ${levels}; n += 1) v = { '"\\\\': v }; return v`);
      expect(await sandbox.run(nested(500))).toMatchObject({ ok: true });
      for (const levels of [501, 1_000, 2_000, 2_200, 2_400, 2_600, 2_800, 3_000, 4_000, 10_000]) {
        expect(await sandbox.run(nested(levels))).toMatchObject(failed('THREW'));
      }
    });

    it('is refused when it is no number, instead of being none', async () => {
      for (const name of ['timeoutMs', 'memoryMb', 'outputBytes', 'calls'] as const) {
        const job = untrusted('return 1', { limits: { [name]: Number.NaN } });
        await expect(sandbox.run(job)).rejects.toMatchObject({
          name: 'InputError',
          code: 'LIMIT_INVALID',
          field: name,
        });
      }
    });
  });

  describe('a limit of a run for many items', () => {
    const each = (code: string, items: number, limits: Parameters<typeof untrusted>[1] = {}) =>
      sandbox.run(
        untrusted(code, {
          entry: 'on',
          each: true,
          input: { items: Array.from({ length: items }, (_, n) => n) },
          ...limits,
        }),
      );

    it('is one for all calls together', async () => {
      const slow = 'const end = Date.now() + 60; while (Date.now() < end);';
      expect(await each(slow, 1, { limits: { timeoutMs: 200 } })).toMatchObject({ ok: true });
      expect(await each(slow, 9, { limits: { timeoutMs: 200 } })).toMatchObject(failed('TIMEOUT', /200 ms/));
      const text = "return 'x'.repeat(300)";
      expect(await each(text, 3, { limits: { outputBytes: 1000 } })).toMatchObject({ ok: true });
      expect(await each(text, 4, { limits: { outputBytes: 1000 } })).toMatchObject(failed('OUTPUT_TOO_LARGE'));
      const numbers = (count: number) =>
        each("return JSON.rawJSON('1e20')", count, { limits: { outputBytes: 10_000 } });
      expect(await numbers(300)).toMatchObject({ ok: true });
      expect(await numbers(400)).toMatchObject(failed('OUTPUT_TOO_LARGE'));
      const keep = 'const kept = [];\nexport default () => void kept.push(new Uint8Array(2e7).fill(1))';
      expect(await each(keep, 2)).toMatchObject({ ok: true });
      expect(await each(keep, 90)).toMatchObject(failed('MEMORY'));
    });

    it('is met at once by a call that never settles', async () => {
      const result = await each('export default (n) => (n === 2 ? new Promise(() => {}) : n)', 4);
      expect(result).toMatchObject(failed('TIMEOUT', /never settles/));
      expect(result.durationMs).toBeLessThan(1000);
    });

    it('leaves room for thousands of items', async () => {
      const result = await each('return span', 10_000, { limits: { outputBytes: 1e6 } });
      expect(result.ok && (result.output as unknown[])[9_999]).toEqual({ value: 9_999 });
    });
  });

  describe('the input', () => {
    it('must be JSON', async () => {
      const job = untrusted('return 1', { input: { a: 1n } });
      await expect(sandbox.run(job)).rejects.toMatchObject({ name: 'InputError', code: 'INPUT_INVALID' });
      expect(await sandbox.run(untrusted('return input', { input: undefined }))).toMatchObject({
        ok: true,
        output: null,
      });
    });

    it('may be large and hold every character', async () => {
      const input = { text: `${'\u{1F600}\u2028\ud800 "\\\n'.repeat(50_000)}`, __proto__: 1 };
      const result = await sandbox.run(untrusted('return input.text.length', { input }));
      expect(result).toMatchObject({ ok: true, output: input.text.length });
    });
  });
});

describe('a limit of a kernel', () => {
  const sandbox = useSandbox('in a child of this process', { maxChildren: 2 });

  it('of time covers what a kernel waits for, and aborts it', async () => {
    let aborted = false;
    const job = kernel("await ctx.sql`select 1`; return 'late'", {
      limits: { timeoutMs: 100 },
      systemCall: (_name, _args, signal) =>
        new Promise(() => signal.addEventListener('abort', () => (aborted = true), { once: true })),
    });
    expect(await sandbox.run(job)).toMatchObject(failed('TIMEOUT', /100 ms/));
    expect(aborted).toBe(true);
  });

  it('of calls counts single ones and batches', async () => {
    const one = 'for (let i = 0; i < 6; i++) await ctx.sql`select 1`; return 1';
    const batch = 'await Promise.all(Array.from({ length: 6 }, () => ctx.sql`select 1`)); return 1';
    for (const body of [one, batch]) {
      expect(await sandbox.run(kernel(body, { limits: { calls: 6 } }))).toMatchObject({ ok: true });
      expect(await sandbox.run(kernel(body, { limits: { calls: 5 } }))).toMatchObject(failed('TOO_MANY_CALLS', /5/));
    }
  });

  it('of calls meets a kernel that floods without waiting', async () => {
    expect(await sandbox.run(kernel('for (;;) ctx.log("info", "x".repeat(1000))'))).toMatchObject(
      failed(expect.stringMatching(/MEMORY|TIMEOUT/) as unknown as string),
    );
    const batch = "for (let i = 0; i < 5000; i++) ctx.log('info', 'x'.repeat(2000))";
    const result = await sandbox.run(kernel(batch, { limits: { outputBytes: 10 } }));
    expect(result.ok).toBe(false);
  });

  it('of time answers at once when nothing can ever settle', async () => {
    const job = kernel('await new Promise(() => {})');
    const result = await sandbox.run(job);
    expect(result).toMatchObject(failed('TIMEOUT', /never settles/));
    expect(result.durationMs).toBeLessThan(job.limits.timeoutMs / 2);
  });

  it('of output counts the bytes of the JSON', async () => {
    const job = kernel("return 'x'.repeat(2000)", { limits: { outputBytes: 1000 } });
    expect(await sandbox.run(job)).toMatchObject(failed('OUTPUT_TOO_LARGE'));
  });
});

describe('the heap limit of V8', () => {
  it('is a limit of memory too', async () => {
    const small = new Sandbox({ maxMemoryMb: 24 });
    const bomb = untrusted('const a = []; for (;;) a.push({ a: [1, 2, 3] })', { limits: { timeoutMs: 10_000 } });
    expect(await small.run(bomb)).toMatchObject(failed('MEMORY'));
    await small.close();
  });
});
