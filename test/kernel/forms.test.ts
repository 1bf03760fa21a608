import { describe, expect, it } from 'vitest';
import { kernel, untrusted, useSandbox, WAYS } from './support.ts';

describe.each(WAYS)('untrusted code %s', (way) => {
  const sandbox = useSandbox(way, { maxChildren: 1 });

  async function output(code: string, entry: 'function' | 'on' = 'function'): Promise<unknown> {
    const result = await sandbox.run(untrusted(code, { entry }));
    return result.ok ? result.output : result.error;
  }

  describe('the forms of untrusted code', () => {
    const SUM = [
      ['a body', 'return input.a + input.b'],
      ['a body that ends in a comment', 'return input.a + input.b // sum'],
      ['a body with await', 'const a = await input.a; return a + (await Promise.resolve(input.b))'],
      ['a body that mentions the other form', '/*\nexport default function x() {}\n*/\nreturn input.a + input.b'],
      ['a body with a template of the other form', 'const t = `\nexport default 1`;\nreturn input.a + input.b'],
      ['an exported function', 'export default function (input) { return input.a + input.b }'],
      [
        'an exported function before other statements',
        'export default function (i) { return i.a + b(i) }\n(1);\nconst b = (i) => i.b',
      ],
      ['an exported async function', 'const x = 0;\nexport default async function(i) { return i.a + i.b + x }'],
      ['an exported arrow', 'export default (i) => i.a + i.b'],
      ['an exported async arrow', '  export   default async ({ a, b }) => a + b;\n'],
      ['an exported name', 'function sum(i) { return i.a + i.b }\nexport default sum'],
      ['an exported name that uses itself', 'export default function sum(i) { return i ? i.a + i.b : typeof sum }'],
      ['an exported expression', 'const wrap = (f) => (i) => f(i);\nexport default wrap((i) => i.a + i.b);'],
      [
        'a default export below a comment with one',
        '/*\nexport default function y() {}\n*/\nexport default (i) => i.a + i.b',
      ],
      ['the global default', 'globalThis.default = (i) => i.a + i.b'],
      ['a top-level main', 'function main(i) { return i.a + i.b }'],
      ['a top-level main in a constant', 'const main = async (i) => i.a + i.b;'],
      ['a body with an inner main', 'function main(i) { return i.a + i.b }\nreturn main(input)'],
    ] as const;
    for (const [name, code] of SUM) it(`runs ${name}`, async () => expect(await output(code)).toBe(3));

    it('calls a policy with its span', async () => {
      expect(await output('export default function on(span) { return [{ run: span.a }] }', 'on')).toEqual([{ run: 1 }]);
      expect(await output('function on(span) { return span.b }\nfunction main() { return 0 }', 'on')).toBe(2);
      expect(await output('return span.a', 'on')).toBe(1);
    });

    it('runs it whatever it and its tenant are called, in however many words', async () => {
      for (const name of ['', 'n'.repeat(10_000), 'one\ntwo', '\ud800']) {
        const job = untrusted('return span.b', { entry: 'on', fileName: `${name}.js`, compartment: `tenant:${name}` });
        expect(await sandbox.run(job)).toMatchObject({ ok: true, output: 2 });
      }
    });

    it('keeps modules strict and bodies as they were written', async () => {
      expect(await output('export default function () { return this === undefined }')).toBe(true);
      expect(await output('total = input.a; return total')).toBe(1);
    });

    it('says which form is expected when there is no function', async () => {
      expect(await output('export default 5')).toMatchObject({ code: 'CODE_INVALID' });
      expect(await output('globalThis.default = 5')).toMatchObject({ code: 'CODE_INVALID' });
    });

    it('tells the line of a syntax error in the stored source', async () => {
      expect(await output('const a = 1;\nconst b = ;')).toMatchObject({ code: 'CODE_INVALID', line: 2 });
      expect(await output('export default (i) => {\n\n  let = i')).toMatchObject({ code: 'CODE_INVALID', line: 3 });
    });

    it.each([
      'return 1 +',
      'return {\n',
      'const a =\n\n',
      'return [1,\n2,',
      'if (input.a) {\n  return 1;\n',
      'class A {\n',
      'export default function () {\n  return [',
      'export default (input) => {',
      'function main(input) {',
    ])('says that something is missing at the end: %j', async (code) => {
      const line = code.trimEnd().split('\n').length;
      expect(await output(code)).toEqual({
        code: 'CODE_INVALID',
        message: 'SyntaxError: Unexpected end of input',
        line,
      });
    });

    it.each([
      ['return 1;\n}\n', undefined],
      ['function main(input) {}\n}', undefined],
      ['export default function () {}\n}', 2],
      ['return [ };', 1],
      ["const a = '\u2028\u2028\u2028';\nreturn [ };", 2],
    ])('says that a brace is one too many, and of no brace but the author’s: %j', async (code, line) => {
      const error = { code: 'CODE_INVALID', message: "SyntaxError: Unexpected token '}'" };
      expect(await output(code)).toEqual(line === undefined ? error : { ...error, line });
    });

    it('tells what is wrong behind what closes too early', async () => {
      expect(await output('return 1;\n}\nlet = = 2')).toMatchObject({ code: 'CODE_INVALID', line: 3 });
    });

    it('knows neither `using` nor numbers of 16 bits', async () => {
      expect(await output('using a = input; return 1')).toMatchObject({ code: 'CODE_INVALID', line: 1 });
      const names = ['DisposableStack', 'AsyncDisposableStack', 'SuppressedError', 'Float16Array'];
      expect(await output(`return ${JSON.stringify(names)}.filter((name) => name in globalThis)`)).toEqual([]);
    });

    it('refuses the word of dynamic loading everywhere and says so', async () => {
      const refused = await output('// first\nreturn "we import goods"');
      expect(refused).toMatchObject({
        code: 'CODE_REFUSED',
        line: 2,
        message: expect.stringMatching(/strings and comments/),
      });
      expect(await output('return "important, reimport_ed"')).toBe('important, reimport_ed');
    });

    it('refuses code above 256 KiB and runs code of exactly that size', async () => {
      const code = 'return 1 //';
      expect(await output(code + 'é'.repeat((256 * 1024 - code.length) / 2 + 1))).toMatchObject({
        code: 'CODE_REFUSED',
      });
      expect(await output(code + 'x'.repeat(256 * 1024 - code.length))).toBe(1);
    });
  });

  describe('code that is called for each of many items', () => {
    async function answers(code: string, items: unknown[], context?: unknown): Promise<unknown> {
      const result = await sandbox.run(untrusted(code, { entry: 'on', each: true, input: { items, context } }));
      return result.ok ? result.output : result.error;
    }

    it('gets each with the context, in order, and answers with a list as long', async () => {
      const code =
        'const seen = [];\nexport default (item, context) => { seen.push(item); return [item * context.by, ...seen] }';
      expect(await answers(code, [3, 1, 2], { by: 10 })).toEqual([
        { value: [30, 3] },
        { value: [10, 3, 1] },
        { value: [20, 3, 1, 2] },
      ]);
      expect(await answers(code, [])).toEqual([]);
      expect(await answers('return [span, typeof input]', [undefined, '\n', { a: '\u2028' }])).toEqual([
        { value: [null, 'undefined'] },
        { value: ['\n', 'undefined'] },
        { value: [{ a: '\u2028' }, 'undefined'] },
      ]);
      expect(await answers('function on(span, context) { return context }', [1])).toEqual([{ value: null }]);
    });

    it('waits for one before it begins the next', async () => {
      const code = `let open = 0;
      export default async (item) => {
      open += 1; for (let n = 0; n < item; n += 1) await null; open -= 1; return open }`;
      expect(await answers(code, [20, 10, 0])).toEqual([{ value: 0 }, { value: 0 }, { value: 0 }]);
    });

    it('tells what goes wrong with one, and nothing of it reaches the next', async () => {
      const code = `export default function on(item) { switch (item) {
      case 0: throw new TypeError('bad');
      case 1: return Promise.reject('late');
      case 2: return () => 1;
      case 3: return { a: 1n };
      case 4: throw { get message() { throw 1; } };
      case 5: throw null;
      case 6: return;
      case 7: const f = () => f(); return f();
      case 8: return { toJSON() { throw new Error('inside'); } };
      default: return { value: item, error: 'mine' }; } }`;
      expect(await answers(code, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])).toEqual([
        { error: 'TypeError: bad' },
        { error: 'late' },
        { error: 'the result is not JSON: it is a function' },
        { error: expect.stringMatching(/^the result is not JSON: TypeError: /) },
        { error: 'something was thrown that cannot be described' },
        { error: 'null' },
        { value: null },
        { error: expect.stringMatching(/^RangeError: /) },
        { error: 'the result is not JSON: inside' },
        { value: { value: 9, error: 'mine' } },
      ]);
    });

    it('gets a context of its own each time, with nothing that an earlier call wrote there', async () => {
      const code =
        'export default (item, context) => { context.notes.push(item); context.last = item; return context.notes }';
      expect(await answers(code, [1, 2], { notes: [] })).toEqual([{ value: [1] }, { value: [2] }]);
    });

    it('fails as a whole where the code itself does', async () => {
      expect(await answers('export default 5', [1])).toMatchObject({ code: 'CODE_INVALID' });
      expect(await answers('return {', [1])).toMatchObject({ code: 'CODE_INVALID', line: 1 });
      expect(await answers('throw new Error("early");\nexport default () => 1', [1])).toEqual({
        code: 'THREW',
        message: 'early',
      });
    });

    it('must be given a list of JSON values', async () => {
      for (const input of [null, 5, {}, { items: {} }, { items: [1n] }, { items: [1], context: 1n }]) {
        const job = untrusted('return 1', { entry: 'on', each: true, input });
        await expect(sandbox.run(job)).rejects.toMatchObject({ name: 'InputError', code: 'INPUT_INVALID' });
      }
    });
  });

  describe('results of untrusted code', () => {
    it('are JSON, and nothing is null', async () => {
      expect(await output('return { a: undefined, b: [undefined, NaN], c: new Date(0) }')).toEqual({
        b: [null, null],
        c: '1970-01-01T00:00:00.000Z',
      });
      expect(await output('')).toBe(null);
      expect(await output('return undefined')).toBe(null);
    });

    it('hold the message of what was thrown and nothing of ours', async () => {
      expect(await output('throw new Error("boom")')).toEqual({ code: 'THREW', message: 'boom' });
      expect(await output('return input.c.d')).toMatchObject({
        code: 'THREW',
        message: expect.stringMatching(/^TypeError: /),
      });
      expect(await output('throw "text"')).toEqual({ code: 'THREW', message: 'text' });
      expect(await output('return 1n')).toMatchObject({ code: 'THREW', message: expect.stringMatching(/not JSON/) });
      expect(await output('const a = []; a[0] = a; return a')).toMatchObject({
        message: expect.stringMatching(/not JSON/),
      });
      expect(await output('return () => 1')).toMatchObject({ message: expect.stringMatching(/not JSON/) });
    });

    it('lose own __proto__ keys, also deep ones', async () => {
      const value = await output('return JSON.parse(\'{"a":[{"__proto__":{"x":1},"b":2}],"__proto__":3}\')');
      expect(value).toEqual({ a: [{ b: 2 }] });
      expect(Object.hasOwn((value as { a: [object] }).a[0], '__proto__')).toBe(false);
    });
  });
});

describe('the form of a kernel', () => {
  const sandbox = useSandbox('in a child of this process', { maxChildren: 1 });

  it('is a module, or an older form, but no body', async () => {
    const run = (code: string) => sandbox.run({ ...kernel(''), code, codeHash: code });
    expect(await run('export default async (ctx) => ctx.input.a')).toMatchObject({ ok: true, output: 1 });
    expect(await run('globalThis.default = (ctx) => ctx.input.a')).toMatchObject({ ok: true, output: 1 });
    expect(await run('async function main(ctx) { return ctx.input.a }')).toMatchObject({ ok: true, output: 1 });
    expect(await run('return 1')).toMatchObject({ ok: false, error: { code: 'CODE_INVALID' } });
  });

  it('has errors with file, line and column of the stored source', async () => {
    const result = await sandbox.run(kernel("  await null;\n  throw new TypeError('bad');"));
    expect(result).toMatchObject({
      ok: false,
      error: { code: 'THREW', message: 'TypeError: bad', line: 3, stack: 'at main (kernel.js:3:9)' },
    });
  });

  it('keeps columns on a first line that holds the export', async () => {
    const code = 'export default function (ctx) { throw new Error("x") }';
    const result = await sandbox.run({ ...kernel(''), code, codeHash: code });
    expect(result).toMatchObject({ ok: false, error: { stack: expect.stringContaining('kernel.js:1:39') } });
  });
});
