import { afterAll, describe, expect, it } from 'vitest';
import { ConflictError } from '../../src/errors.ts';
import { Sandbox, type SandboxResult } from '../../src/kernel/index.ts';
import { ENV, kernel, untrusted } from './support.ts';

const sandbox = new Sandbox({ maxChildren: 2 });
afterAll(() => sandbox.close());

async function output(body: string, more: Parameters<typeof kernel>[1] = {}): Promise<unknown> {
  const result = await sandbox.run(kernel(body, more));
  return result.ok ? result.output : result.error;
}

describe('ctx', () => {
  it('holds input, environment, clock and random ids', async () => {
    const value = (await output(
      'return { input: ctx.input, env: ctx.env, now: ctx.now(), ids: [ctx.randomUUID(), ctx.randomUUID()], frozen: Object.isFrozen(ctx) }',
    )) as { now: string; ids: [string, string] };
    expect(value).toMatchObject({ input: { a: 1, b: 2 }, env: ENV, frozen: true });
    expect(Math.abs(Date.parse(value.now) - Date.now())).toBeLessThan(5000);
    for (const id of value.ids)
      expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    expect(value.ids[0]).not.toBe(value.ids[1]);
  });

  it('says when the stock of ids is used up and refills it with each answer', async () => {
    expect(await output('for (let i = 0; i < 33; i++) ctx.randomUUID()')).toMatchObject({
      code: 'THREW',
      message: expect.stringMatching(/used up/),
    });
    expect(
      await output(
        'const ids = new Set(); for (let i = 0; i < 32; i++) ids.add(ctx.randomUUID()); await ctx.sql`x`; for (let i = 0; i < 16; i++) ids.add(ctx.randomUUID()); return ids.size',
      ),
    ).toBe(48);
  });

  it('keeps at most 64 ids, all different, however many answers came', async () => {
    const body = (draws: number) => `
      const ids = new Set();
      for (let i = 0; i < 3; i++) { ids.add(ctx.randomUUID()); await ctx.sql\`x\`; }
      for (let i = 0; i < 20; i++) await ctx.sql\`x\`;
      for (let i = 0; i < ${draws}; i++) ids.add(ctx.randomUUID());
      return ids.size`;
    expect(await output(body(64))).toBe(67);
    expect(await output(body(65))).toMatchObject({ code: 'THREW', message: expect.stringMatching(/used up/) });
  });

  it('sends each call with its own name and arguments', async () => {
    const seen: unknown[] = [];
    const systemCall = async (name: string, args: unknown[]) => {
      seen.push([name, ...args]);
      return name;
    };
    await output(
      `await ctx.sql\`select \${1} as a, \${'x'} as b\`; await ctx.fetchSpan('id'); await ctx.append({ a: 1 }); await ctx.insertSpan([{ a: 2 }]);
       await ctx.invoke('k', { a: 1 }); await ctx.invoke('k');
       await ctx.runSandboxed({ code: 'return 1' });
       await ctx.crypto.blake3('t'); await ctx.crypto.hex('t'); await ctx.crypto.canonicalize({ b: 1 });
       await ctx.crypto.encrypt('t'); await ctx.crypto.decrypt('t'); await ctx.log('info', 'm', { a: 1 });`,
      { systemCall },
    );
    expect(seen).toEqual([
      ['sql', { text: 'select $1 as a, $2 as b', values: [1, 'x'] }],
      ['fetchSpan', 'id'],
      ['append', [{ a: 1 }], true],
      ['append', [{ a: 2 }], false],
      ['invoke', 'k', { a: 1 }],
      ['invoke', 'k', null],
      ['runSandboxed', { code: 'return 1' }],
      ['crypto.blake3', 't'],
      ['crypto.hex', 't'],
      ['crypto.canonicalize', { b: 1 }],
      ['crypto.encrypt', 't'],
      ['crypto.decrypt', 't'],
      ['log', 'info', 'm', { a: 1 }],
    ]);
  });

  it('does not take sql that is no template', async () => {
    expect(await output("return ctx.sql('select 1')")).toMatchObject({
      message: expect.stringMatching(/template tag/),
    });
  });

  it('holds a lock around its function, commits its value and rolls back its error', async () => {
    const seen: string[] = [];
    const systemCall = async (name: string, args: unknown[]) => void seen.push([name, ...args].join(' '));
    expect(await output("return ctx.lock('k', async () => { await ctx.sql`x`; return 5 })", { systemCall })).toBe(5);
    expect(await output("return ctx.lock('k', () => { throw new Error('inside') })", { systemCall })).toMatchObject({
      message: 'inside',
      line: 2,
    });
    expect(seen).toEqual(['lock k', 'sql [object Object]', 'unlock k commit', 'lock k', 'unlock k rollback']);
  });

  it('is nothing for untrusted code', async () => {
    const job = untrusted('return [typeof ctx, Object.keys(input)]', { systemCall: async () => 'power' });
    expect(await sandbox.run(job)).toMatchObject({ ok: true, output: ['undefined', ['a', 'b']] });
  });
});

describe('a refused call', () => {
  it('has the code and message of our errors, and the line that made it', async () => {
    const systemCall = async () => {
      throw new ConflictError('SEQ_TAKEN', 'seq 4 is taken', { field: 'seq', cause: new Error('secret') });
    };
    expect(
      await output(
        'try { await ctx.append({}) } catch (e) { return [e instanceof Error, e.code, e.message, Object.keys(e)] }',
        {
          systemCall,
        },
      ),
    ).toEqual([true, 'SEQ_TAKEN', 'seq 4 is taken', ['code']]);
    expect(await output('\n  await ctx.append({})', { systemCall })).toMatchObject({
      code: 'THREW',
      thrownCode: 'SEQ_TAKEN',
      message: 'seq 4 is taken',
      line: 3,
      stack: expect.stringMatching(/^at main \(kernel\.js:3:\d+\)/),
    });
  });

  it('says nothing of any other error, thrown or rejected', async () => {
    const body = 'try { await ctx.append({}) } catch (e) { return [e.code, e.message, JSON.stringify(e.stack)] }';
    const throwing = () => {
      throw new Error('password=hunter2');
    };
    for (const systemCall of [throwing, async () => throwing(), async () => 1n, async () => ({ toJSON: throwing })]) {
      const value = (await output(body, { systemCall })) as string[];
      expect(value.slice(0, 2)).toEqual(['INTERNAL', 'system call failed']);
      expect(value[2]).not.toMatch(/hunter2|child-process/);
    }
  });

  it('is one whose answer is too large', async () => {
    const systemCall = async () => 'x'.repeat(9 * 1024 * 1024);
    expect(await output('await ctx.sql`x`', { systemCall })).toMatchObject({ thrownCode: 'ANSWER_TOO_LARGE' });
  });
});

describe('calls', () => {
  it('made together run together, and each answer arrives when it is there', async () => {
    const { promise: second, resolve: answerSecond } = Promise.withResolvers<string>();
    let running = 0;
    let together = 0;
    const systemCall = async (name: string, args: unknown[]) => {
      together = Math.max(together, ++running);
      if (name === 'invoke') answerSecond('late');
      const value = name === 'sql' ? await second : args;
      running -= 1;
      return value;
    };
    // The slow answer only comes after a call that is made because of the quick one.
    const body =
      'const slow = ctx.sql`slow`; const quick = ctx.append({ a: 1 }); await quick; await ctx.invoke("k"); return slow';
    expect(await output(body, { systemCall })).toBe('late');
    expect(together).toBe(2);
  });

  it('may be very many in one run, and leave nothing behind', async () => {
    const run = (count: number) =>
      sandbox.run(
        kernel(
          `let sum = 0;
           for (let n = 0; n < ${count}; n += 2) sum += (await Promise.all([ctx.outcomes(n), ctx.claim('requests')])).length;
           return sum`,
          { compartment: 'kernel:many', limits: { calls: count, timeoutMs: 60_000, memoryMb: 200 } },
        ),
      );
    // The heap of a child grows to its working size first.
    for (let n = 0; n < 3; n += 1) expect(await run(4_000)).toMatchObject({ ok: true });
    const result = await run(20_000);
    expect(result).toMatchObject({ ok: true, output: 20_000 });
    expect(result.memoryBytes / 20_000).toBeLessThan(150);
  }, 90_000);

  it('still open at the end are aborted', async () => {
    const signals: AbortSignal[] = [];
    const systemCall = (name: string, _args: unknown[], signal: AbortSignal) => {
      signals.push(signal);
      return name === 'log' ? Promise.resolve(1) : new Promise<never>(() => {});
    };
    expect(await output("ctx.sql`never`; ctx.log('info', 'm'); return 1", { systemCall })).toBe(1);
    expect(signals.map(({ aborted }) => aborted)).toEqual([true, true]);
  });

  it('hear of their end when the child that made them takes nothing more', async () => {
    const one = new Sandbox({ maxChildren: 1 });
    let next: Promise<SandboxResult> | undefined;
    const systemCall = async (_name: string, _args: unknown[], signal: AbortSignal) => {
      signal.addEventListener('abort', () => {
        next = one.run(kernel('return 2'));
      });
      return null;
    };
    const looped = await one.run(
      kernel("await ctx.log('info', 'm'); for (;;);", { systemCall, limits: { timeoutMs: 300 } }),
    );
    expect(looped).toMatchObject({ ok: false, error: { code: 'TIMEOUT' } });
    expect(await next).toMatchObject({ ok: true, output: 2 });
    await one.close();
  });

  it('left without await are made before the end', async () => {
    const seen: string[] = [];
    expect(await output("ctx.log('info', 'm'); return 1", { systemCall: async (name) => void seen.push(name) })).toBe(
      1,
    );
    expect(seen).toEqual(['log']);
  });

  it('cannot be made by a name that is not in the table, nor spoil the host', async () => {
    const seen: unknown[] = [];
    const systemCall = async (_name: string, args: unknown[]) => void seen.push(args);
    const body = `
      await ctx.append(JSON.parse('{"__proto__":{"admin":true},"a":{"__proto__":1,"b":2}}'));
      await ctx.append({ toJSON() { return { forged: 1 } } });
      await ctx.append([new Proxy({}, { ownKeys: () => ['x'], getOwnPropertyDescriptor: () => ({ value: 1, enumerable: true, configurable: true }), get: () => 7 })]).catch(() => {});
      const cycle = {}; cycle.cycle = cycle;
      try { await ctx.append(cycle) } catch (e) { return e instanceof TypeError }`;
    expect(await output(body, { systemCall })).toBe(true);
    expect(seen[0]).toEqual([[{ a: { b: 2 } }], true]);
    expect(({} as Record<string, unknown>).admin).toBe(undefined);
    expect(Object.hasOwn((seen[0] as [[object]])[0][0], '__proto__')).toBe(false);
    expect(seen[1]).toEqual([[{ forged: 1 }], true]);
  });

  it('survive a kernel that replaces the built-ins under the bridge', async () => {
    const body = `
      Map.prototype.get = Map.prototype.set = JSON.parse = JSON.stringify = Array.isArray = () => { throw new Error('mine') };
      globalThis.Promise = undefined; Object.prototype.toJSON = () => 'forged';
      try { await ctx.sql\`x\` } catch (e) { return 'own fault' }
      return 'fine'`;
    const result = await sandbox.run(kernel(body));
    expect(result.ok || /THREW|TIMEOUT/.test(result.error.code)).toBe(true);
    expect(await output('return ctx.sql`after`')).toMatchObject({ name: 'sql' });
  });
});
