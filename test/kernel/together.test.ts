import { afterAll, describe, expect, it } from 'vitest';
import { Sandbox, type SandboxResult } from '../../src/kernel/index.ts';
import { SandboxChild } from '../../src/kernel/sandbox/child-process.ts';
import { kernel, untrusted } from './support.ts';

/** What each run asks for is in its input, so that all are of the same code: once that was quick, they go together. */
const CODE = `
  const seen = globalThis.last;
  globalThis.last = input.n;
  Object.prototype.polluted = input.n;
  if (input.does === 'hang') for (;;);
  if (input.does === 'throw') throw new Error('thrown by ' + input.n);
  if (input.does === 'fill') { const a = []; for (;;) a.push(new Uint8Array(1e6).fill(1)); }
  if (input.does === 'tell much') return 'x'.repeat(200_000);
  if (input.does === 'settle never') await new Promise(() => {});
  if (input.does === 'take 30 ms') for (const start = Date.now(); Date.now() - start < 30; );
  return { n: input.n, seen: seen ?? null };
`;

const MANY = 40;

/** That many runs given at once, to children that know the code; `does` says of one or more of them what they do. */
async function together(sandbox: Sandbox, does: Record<number, string> = {}, limits = {}): Promise<SandboxResult[]> {
  const job = (n: number) => untrusted(CODE, { input: { n, does: does[n] }, limits });
  for (let n = 0; n < 3; n += 1) await sandbox.run(job(-1));
  return Promise.all(Array.from({ length: MANY }, (_, n) => sandbox.run(job(n))));
}

const quiet = (n: number) => ({ ok: true, output: { n, seen: null } });

describe('runs that a child got together', () => {
  // Of four children one compartment gets two: each is given several of forty.
  const sandbox = new Sandbox({ maxChildren: 4 });
  afterAll(() => sandbox.close());

  it('answer each for itself, and see nothing of each other', async () => {
    const results = await together(sandbox);
    expect(results).toMatchObject(results.map((_, n) => quiet(n)));
    for (const { durationMs } of results) expect(durationMs).toBeLessThan(1_000);
  });

  it('each have their own error', async () => {
    const results = await together(sandbox, { 3: 'throw', 9: 'throw' });
    for (const [n, result] of results.entries()) {
      if (n !== 3 && n !== 9) expect(result).toMatchObject(quiet(n));
      else expect(result).toMatchObject({ ok: false, error: { code: 'THREW', message: `thrown by ${n}` } });
    }
  });

  const ENDS: [string, string, RegExp, number][] = [
    ['hang', 'TIMEOUT', /at most 400 ms/, 400],
    ['fill', 'MEMORY', /at most 64 MB/, 10_000],
    ['tell much', 'OUTPUT_TOO_LARGE', /at most 100000 bytes/, 10_000],
    ['settle never', 'TIMEOUT', /never settles/, 10_000],
  ];
  for (const [does, code, message, timeoutMs] of ENDS) {
    it(`lose nothing by some that ${does}: those meet their limit, and no other does`, async () => {
      const results = await together(sandbox, { 0: does, 5: does, 6: does, 39: does }, { timeoutMs });
      for (const [n, result] of results.entries()) {
        if (![0, 5, 6, 39].includes(n)) expect(result).toMatchObject(quiet(n));
        else expect(result).toMatchObject({ ok: false, error: { code, message: expect.stringMatching(message) } });
      }
    });
  }

  it('do not wait for one that is slow', async () => {
    const job = (n: number, does = 'nothing') => untrusted(CODE, { input: { n, does } });
    for (let n = 0; n < 3; n += 1) await sandbox.run(job(-1));
    const started = performance.now();
    const quick = Array.from({ length: MANY / 2 }, (_, n) => sandbox.run(job(n)));
    const slow = sandbox.run(job(-1, 'hang'));
    quick.push(...Array.from({ length: MANY / 2 }, (_, n) => sandbox.run(job(MANY / 2 + n))));
    expect(await Promise.all(quick)).toMatchObject(quick.map((_, n) => quiet(n)));
    expect(performance.now() - started).toBeLessThan(1_500);
    expect(await slow).toMatchObject({ ok: false, error: { code: 'TIMEOUT' } });
  });

  it('say each how long it took, and not how long they took together', async () => {
    const results = await together(sandbox, { 4: 'take 30 ms' });
    expect(results[4]?.durationMs).toBeGreaterThanOrEqual(29); // the code counts whole ones
    const others = results.filter((_, n) => n !== 4).map(({ durationMs }) => durationMs);
    expect(others.sort((a, b) => a - b)[Math.floor(others.length / 2)]).toBeLessThan(20);
  });

  it('have no more time than alone, though their answer waits for others', async () => {
    const slow = [5, 15, 25, 35];
    const results = await together(sandbox, Object.fromEntries(slow.map((n) => [n, 'take 30 ms'])), { timeoutMs: 20 });
    for (const n of slow) expect(results[n]).toMatchObject({ ok: false, error: { code: 'TIMEOUT' } });
  });

  it('are not thrown away because their host was busy itself', async () => {
    const child = new SandboxChild('untrusted', 64);
    await child.ready;
    const poll = setInterval(() => child.check(performance.now()), 10);
    const job = untrusted('return input');
    await child.run(job);
    const runs = Array.from({ length: 5 }, () => child.run(job));
    await Promise.resolve();
    for (const start = performance.now(); performance.now() - start < 300; );
    expect(await Promise.all(runs)).toMatchObject(runs.map(() => ({ ok: true })));
    clearInterval(poll);
    child.kill();
    await child.gone;
  });

  it('use memory together, and none of them is blamed for what the others have used', async () => {
    const fill = 'const a = new Uint8Array(input.mb * 1048576).fill(1); return a.length';
    const job = (mb: number) => untrusted(fill, { input: { mb }, limits: { memoryMb: 16 } });
    for (let n = 0; n < 3; n += 1) await sandbox.run(job(0));
    const results = await Promise.all(Array.from({ length: MANY }, (_, n) => sandbox.run(job(n % 4 === 0 ? 8 : 0))));
    expect(results).toMatchObject(results.map((_, n) => ({ ok: true, output: n % 4 === 0 ? 8 * 1048576 : 0 })));
  });

  it('do not run more often in a child than it may', async () => {
    const once = new Sandbox({ maxChildren: 2, maxRunsPerChild: 1 });
    const results = await together(once);
    expect(results).toMatchObject(results.map((_, n) => quiet(n)));
    await once.close();
  });

  it('end with the sandbox, all of them', async () => {
    const closing = new Sandbox({ maxChildren: 2 });
    const open = together(closing, { 0: 'hang' });
    const seen = open.then(
      () => 'answered',
      (error) => error.code,
    );
    await new Promise((resolve) => setTimeout(resolve, 400));
    await closing.close();
    expect(await seen).toBe('SANDBOX_UNAVAILABLE');
  });
});

describe('what a child takes', () => {
  const quick = untrusted('return input');
  const slow = untrusted('for (const start = Date.now(); Date.now() - start < 30; ); return input');

  it('is one run, and others only in the same turn, of code that was quick there, up to a number', async () => {
    const child = new SandboxChild('untrusted', 64);
    await child.ready;
    expect(child.takes(quick)).toBe(true);
    const first = child.run(quick);
    expect(child.takes(quick)).toBe(false); // nobody knows how long it takes
    expect(await first).toMatchObject({ ok: true });
    await child.run(slow);

    const runs = [child.run(quick)];
    expect(child.takes(slow)).toBe(false);
    while (child.takes(quick)) runs.push(child.run(quick));
    expect(runs).toHaveLength(8);
    expect(await Promise.all(runs)).toMatchObject(runs.map(() => ({ ok: true, output: { a: 1, b: 2 } })));

    const alone = child.run(slow);
    expect(child.takes(quick)).toBe(false);
    await alone;
    const later = child.run(quick);
    await Promise.resolve();
    expect(child.takes(quick)).toBe(false); // it is on its way
    await later;
    child.kill();
    await child.gone;
  });

  it('is never a kernel beside another one, whose calls want their answers first', async () => {
    const child = new SandboxChild('kernel', 64);
    await child.ready;
    const job = kernel('return 1');
    await child.run(job);
    const run = child.run(job);
    expect(child.takes(job)).toBe(false);
    expect(await run).toMatchObject({ ok: true, output: 1 });
    child.kill();
    await child.gone;
  });

  it('has a bound in bytes', async () => {
    const child = new SandboxChild('untrusted', 64);
    await child.ready;
    const large = untrusted('return input.length', { input: 'x'.repeat(100_000) });
    await child.run(large);
    const run = child.run(large);
    expect(child.takes(large)).toBe(false);
    expect(await run).toMatchObject({ ok: true, output: 100_000 });
    child.kill();
    await child.gone;
  });
});
