import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import { nobleEd25519 } from '../../src/span/ed25519-noble.ts';
import { nodeEd25519 } from '../../src/span/ed25519-node.ts';
import {
  blake3Hex,
  canonicalText,
  createSigner,
  createSignerFromHex,
  type SealedSpan,
  type StoredSpan,
  sealSpan,
  verifySpan,
} from '../../src/span/index.ts';
import { runtimeSigner, SECRET_KEYS, strangerSigner, trustedKeys } from '../support/keys.ts';
import { hashable } from '../support/spans.ts';

function stored(span: SealedSpan): StoredSpan {
  return { ...span, position: 1, tx_id: '700' };
}

describe('sealSpan', () => {
  it('signs the hash of the canonical text, the public key included', () => {
    const span = hashable({ input: { a: 1 } });
    const sealed = sealSpan(span, runtimeSigner);
    expect(sealed.public_key).toBe(runtimeSigner.publicKey);
    expect(sealed.curr_hash).toBe(blake3Hex(canonicalText({ ...span, public_key: runtimeSigner.publicKey })));
    expect(sealed.curr_hash).not.toBe(blake3Hex(canonicalText(span)));
    expect(sealed.signature).toMatch(/^[0-9a-f]{128}$/);
    expect(verifySpan(stored(sealed), trustedKeys, nodeEd25519)).toEqual([]);
    expect(verifySpan(stored(sealed), trustedKeys, nobleEd25519)).toEqual([]);
  });

  it('gives the same proof with the portable implementation', () => {
    const span = hashable();
    expect(sealSpan(span, createSigner(nobleEd25519, SECRET_KEYS.runtime))).toEqual(sealSpan(span, runtimeSigner));
  });

  it('replaces a proof that the span brought along', () => {
    const span = hashable();
    const forged = {
      ...span,
      public_key: strangerSigner.publicKey,
      curr_hash: '0'.repeat(64),
      signature: '0'.repeat(128),
    };
    expect(sealSpan(forged, runtimeSigner)).toEqual(sealSpan(span, runtimeSigner));
  });

  it('changes nothing in the span that it was given', () => {
    const span = hashable({ input: { a: [1] } });
    const copy = structuredClone(span);
    sealSpan(span, runtimeSigner);
    expect(span).toEqual(copy);
  });

  it('signs nothing that has no canonical form', () => {
    expect(() => sealSpan(hashable({ input: { a: Number.NaN } }), runtimeSigner)).toThrow(
      expect.objectContaining({ field: 'input.a' }),
    );
  });
});

describe('a signer', () => {
  it('can be made from hex', () => {
    const secretKeyHex = Buffer.from(SECRET_KEYS.runtime).toString('hex');
    expect(createSignerFromHex(nodeEd25519, secretKeyHex).publicKey).toBe(runtimeSigner.publicKey);
  });

  it('shows no secret when it is logged', () => {
    const secretKeyHex = Buffer.from(SECRET_KEYS.runtime).toString('hex');
    const shown = inspect(runtimeSigner, { depth: 9, showHidden: true }) + JSON.stringify(runtimeSigner);
    expect(shown).not.toContain(secretKeyHex);
    expect(shown).not.toContain('2, 2, 2, 2');
  });

  it('cannot be made from half a key', () => {
    expect(() => createSignerFromHex(nodeEd25519, 'ab'.repeat(16))).toThrow();
    expect(() => createSignerFromHex(nodeEd25519, 'zz'.repeat(32))).toThrow();
  });
});
