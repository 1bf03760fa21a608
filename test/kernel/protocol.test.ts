import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { Sandbox } from '../../src/kernel/index.ts';
import { kernel, untrusted } from './support.ts';

const folder = mkdtempSync(join(tmpdir(), 'loglineos-kernel-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** Octal escapes of a frame for printf. */
function frame(text: string, length: number = Buffer.byteLength(text)): string {
  const head = Buffer.alloc(8);
  head.writeUInt32LE(length);
  return [...head, ...Buffer.from(text)].map((byte) => `\\${byte.toString(8).padStart(3, '0')}`).join('');
}

/** Runs a job against a child whose code was taken over and that answers with these bytes. */
async function against(job: Parameters<Sandbox['run']>[0], hello: string, answer: string, after = 'sleep 30') {
  const program = join(folder, 'taken-over');
  writeFileSync(program, `#!/bin/sh\nprintf '${hello}'\nhead -c 4 >/dev/null\nprintf '${answer}'\nexec ${after}\n`);
  chmodSync(program, 0o755);
  const original = process.execPath;
  process.execPath = program;
  const sandbox = new Sandbox({ maxChildren: 1 });
  try {
    return await sandbox.run(job);
  } finally {
    process.execPath = original;
    await sandbox.close();
  }
}

const HELLO = frame('H');

describe('a child that was taken over', () => {
  const ODDITIES: [string, string][] = [
    ['a frame of no length', frame('', 0)],
    ['a frame of four gigabytes', frame('O', 0xffffffff)],
    ['an unknown frame', frame('Z{}')],
    ['a second hello', frame('H')],
    ['something that is no JSON', frame('O{"a":')],
    ['two frames', frame('O1') + frame('O2')],
    ['a system call of untrusted code', frame('C[[1,"sql",[]]]')],
    ['a result above its limit', frame(`O"${'x'.repeat(101_000)}"`)],
  ];
  for (const [name, answer] of ODDITIES) {
    it(`is ended when it sends ${name}`, async () => {
      expect(await against(untrusted('return 1'), HELLO, answer)).toMatchObject({
        ok: false,
        error: { code: 'THREW', message: expect.stringMatching(/^protocol: /) },
      });
    });
  }

  const EACH: [string, string][] = [
    ['no list', 'O{"length":2}'],
    ['too few answers', 'O[{"value":1}]'],
    ['too many answers', 'O[{"value":1},{"value":1},{"value":1}]'],
    ['an answer of neither kind', 'O[{"value":1},{}]'],
    ['an answer that is null', 'O[{"value":1},null]'],
    ['an error that is no text', 'O[{"value":1},{"error":{}}]'],
  ];
  for (const [name, answer] of EACH) {
    it(`is ended when it answers two items with ${name}`, async () => {
      const job = untrusted('return 1', { entry: 'on', each: true, input: { items: [1, 2] } });
      expect(await against(job, HELLO, frame(answer))).toMatchObject({
        error: { code: 'THREW', message: expect.stringMatching(/^protocol: /) },
      });
    });
  }

  const CALLS: [string, string][] = [
    ['a call outside the table', 'C[[1,"constructor",[]]]'],
    ['a call of an inherited name', 'C[[1,"__proto__",[]]]'],
    ['calls that are no list', 'C{"length":1}'],
    ['arguments that are no list', 'C[[1,"sql",{"length":1}]]'],
    ['an id that is no number', 'C[[{},"sql",[]]]'],
    ['a wait for nothing', 'C[]'],
  ];
  for (const [name, answer] of CALLS) {
    it(`reaches no system call by ${name}`, async () => {
      const seen: string[] = [];
      const job = kernel('', { systemCall: async (call) => void seen.push(call) });
      expect(await against(job, HELLO, frame(answer))).toMatchObject({ ok: false, error: { code: 'THREW' } });
      expect(seen).toEqual([]);
    });
  }

  it('is ended by the clock when it sends half a frame', async () => {
    const job = untrusted('return 1', { limits: { timeoutMs: 100 } });
    expect(await against(job, HELLO, frame('O123').slice(0, -8))).toMatchObject({ error: { code: 'TIMEOUT' } });
  });

  it('is reported when it ends in the middle of a run', async () => {
    const job = untrusted('return 1');
    expect(await against(job, HELLO, '', 'false')).toMatchObject({ error: { code: 'THREW' } });
    expect(await against(job, HELLO, '', 'sh -c "kill -ABRT $$"')).toMatchObject({ error: { code: 'MEMORY' } });
  });

  it('cannot bring an own __proto__ key by another spelling', async () => {
    const result = await against(untrusted('return 1'), HELLO, frame('O{"\\u005f_proto__":{"a":1},"b":2}'));
    expect(result).toMatchObject({ ok: true, output: { b: 2 } });
    expect(Object.hasOwn(result.ok ? (result.output as object) : {}, '__proto__')).toBe(false);
  });

  it('is not used when it does not report itself hardened', async () => {
    await expect(against(untrusted('return 1'), frame('O1'), '')).rejects.toMatchObject({
      code: 'SANDBOX_UNAVAILABLE',
    });
  });
});
