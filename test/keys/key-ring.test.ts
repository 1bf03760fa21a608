import { describe, expect, it } from 'vitest';
import {
  endKey,
  keyEndsOf,
  publicKeyOf,
  readKeyRing,
  rotateKey,
  trustKey,
  writeKeyRing,
} from '../../src/keys/index.ts';

const [OLD, MIDDLE, NEW] = ['01', '02', '03'].map((byte) => byte.repeat(32)) as [string, string, string];
const ring = { secretKey: OLD, former: new Map() };

describe('a ring of keys', () => {
  it('trusts the key that signs without an end, and each before it up to its own', () => {
    const twice = rotateKey(rotateKey(ring, MIDDLE, 10), NEW, 20);
    expect([...keyEndsOf(twice)]).toEqual([
      [publicKeyOf(NEW), Infinity],
      [publicKeyOf(OLD), 10],
      [publicKeyOf(MIDDLE), 20],
    ]);
  });

  it('keeps no secret but the one that signs', () => {
    const fields = writeKeyRing(rotateKey(ring, NEW, 10), 'runtime');
    expect(fields).toEqual({ runtime_key: NEW, former_runtime_keys: `${publicKeyOf(OLD)}@10` });
    expect(readKeyRing(fields, 'runtime')).toEqual(rotateKey(ring, NEW, 10));
    expect(writeKeyRing(ring, 'root')).toEqual({ root_key: OLD });
  });

  it('moves an end to earlier rows, and never to later ones', () => {
    const ended = (end: number, ...more: number[]) =>
      more.reduce(
        (one, next) => endKey(one, publicKeyOf(OLD), next),
        endKey(rotateKey(ring, NEW), publicKeyOf(OLD), end),
      );
    expect(ended(10).former.get(publicKeyOf(OLD))).toBe(10);
    expect(ended(10, 4).former.get(publicKeyOf(OLD))).toBe(4);
    expect(ended(10, 4, 30).former.get(publicKeyOf(OLD))).toBe(4);
  });

  it("trusts a client's key until it is ended, and not anew after that", () => {
    const client = publicKeyOf(MIDDLE);
    const trusting = trustKey(ring, client);
    expect(keyEndsOf(trusting).get(client)).toBe(Infinity);
    const ended = endKey(trusting, client, 10);
    expect(() => trustKey(ended, client)).toThrow(expect.objectContaining({ code: 'KEY_KNOWN' }));
    expect(() => trustKey(ring, publicKeyOf(OLD))).toThrow(expect.objectContaining({ code: 'KEY_KNOWN' }));
  });

  it('does not trust the key that signs, where it is said to have ended', () => {
    const contradiction = { secretKey: OLD, former: new Map([[publicKeyOf(OLD), 7]]) };
    expect(keyEndsOf(contradiction).get(publicKeyOf(OLD))).toBe(7);
  });

  it.each<[string, object, RegExp]>([
    ['without the key', { former_root_keys: 'a1'.repeat(32) }, /^root_key is missing$/],
    ['with a key that is none', { root_key: `secret${OLD}` }, /^root_key: expected 64 hex digits$/],
    [
      'with former keys that are none',
      { root_key: OLD, former_root_keys: 'x' },
      /^former_root_keys: expected public keys/,
    ],
  ])('is not read %s, and the error has no secret', (_what, fields, message) => {
    expect(() => readKeyRing(fields, 'root')).toThrow(message);
  });
});
