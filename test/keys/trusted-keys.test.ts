import { describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.ts';
import { keyEntries, readTrustedKeys } from '../../src/keys/index.ts';
import { TRUSTED_KEYS_ENV } from '../support/keys.ts';

const A = 'a1'.repeat(32);
const B = 'b2'.repeat(32);
const rootKeys = (text: string) => readTrustedKeys({ ...TRUSTED_KEYS_ENV, TRUSTED_ROOT_KEYS: text }).root;

describe('the list of trusted keys', () => {
  it.each<[string, [string, number][]]>([
    [A, [[A, Infinity]]],
    [`${A}@0`, [[A, 0]]],
    [
      `${A},${B}@9007199254740991`,
      [
        [A, Infinity],
        [B, 9007199254740991],
      ],
    ],
  ])('says of %s where it ends, and is written as it was read', (text, keys) => {
    expect([...rootKeys(text)]).toEqual(keys);
    expect(keyEntries(rootKeys(text)).join(',')).toBe(text);
  });

  it.each([
    ['none', ''],
    ['an upper-case digit', A.toUpperCase()],
    ['a short key', A.slice(1)],
    ['a long key', `${A}0`],
    ['an end that is no number', `${A}@x`],
    ['an end that is missing', `${A}@`],
    ['an end below 0', `${A}@-1`],
    ['an end with a fraction', `${A}@1.5`],
    ['an end that no row has', `${A}@9007199254740992`],
    ['two ends', `${A}@1@2`],
    ['a space', `${A}, ${B}`],
    ['a comma too many', `${A},`],
    ['a new line', `${A}\n`],
    ['one key twice, with an end and without', `${A}@5,${A}`],
  ])('with %s is refused, and named', (_what, text) => {
    expect(() => rootKeys(text)).toThrow(InputError);
    expect(() => rootKeys(text)).toThrow(/^TRUSTED_ROOT_KEYS: /);
  });

  it('that is missing names itself', () => {
    const { TRUSTED_RUNTIME_KEYS: _none, ...rest } = TRUSTED_KEYS_ENV;
    expect(() => readTrustedKeys(rest)).toThrow('TRUSTED_RUNTIME_KEYS is missing');
  });
});
