import { describe, expect, it } from 'vitest';
import { parseJson } from '../../src/span/index.ts';

describe('parseJson', () => {
  it('reads keys with escapes right after a key that ends in a backslash', () => {
    parseJson(String.raw`{"a\\":1}`);
    expect(parseJson(String.raw`{"\"":1,"x\\":{"\u0041\"b":[{"\n":2}]},"plain":"\"text\":"}`)).toEqual({
      '"': 1,
      'x\\': { 'A"b': [{ '\n': 2 }] },
      plain: '"text":',
    });
  });

  it('keeps an escaped __proto__ as a key of its own', () => {
    const value = parseJson(String.raw`{"\u005f_proto__":{"polluted":1}}`) as object;
    expect(Object.getPrototypeOf(value)).toBe(Object.prototype);
    expect(Object.keys(value)).toEqual(['__proto__']);
  });

  it.each([
    ['a string without an end', `"${'\\"'.repeat(500_000)}`],
    ['half an object', `{"a\\"":"${'\\n'.repeat(500_000)}`],
  ])('refuses %s of a million characters at once', (_name, text) => {
    const startedAt = performance.now();
    expect(() => parseJson(text)).toThrow(SyntaxError);
    expect(performance.now() - startedAt).toBeLessThan(1_000);
  });

  it('reads eight million characters with escapes at once', () => {
    const startedAt = performance.now();
    const value = parseJson(`{"\\"":"${'\\n'.repeat(4_000_000)}"}`) as Record<string, string>;
    expect(value['"']).toHaveLength(4_000_000);
    expect(performance.now() - startedAt).toBeLessThan(3_000);
  });
});
