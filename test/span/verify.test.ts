import { describe, expect, it } from 'vitest';
import { nodeEd25519 } from '../../src/span/ed25519-node.ts';
import {
  checkChain,
  checkKey,
  isGoverning,
  requireKeyInUse,
  type SealedSpan,
  type Signer,
  type Span,
  type StoredSpan,
  SYSTEM_ID,
  sealSpan,
  verifySpan,
} from '../../src/span/index.ts';
import { rootSigner, runtimeSigner, strangerSigner, trustedKeys } from '../support/keys.ts';
import { hashable, nextVersion } from '../support/spans.ts';

function stored(span: SealedSpan): StoredSpan {
  return { ...span, position: 1, tx_id: '700' };
}

function sealed(more: Span = {}, signer: Signer = runtimeSigner): StoredSpan {
  return stored(sealSpan(hashable({ input: { a: 1 }, ...more }), signer));
}

function classesOf(span: StoredSpan): string[] {
  return verifySpan(span, trustedKeys, nodeEd25519).map((problem) => problem.class);
}

const SYSTEM = { owner_id: SYSTEM_ID, tenant_id: SYSTEM_ID };

describe('verifySpan', () => {
  it('finds nothing wrong with a span as it was sealed', () => {
    expect(classesOf(sealed())).toEqual([]);
    expect(classesOf(sealed({}, rootSigner))).toEqual([]);
  });

  it('takes no other spelling of a signature: one byte is a change', () => {
    const span = sealed();
    expect(classesOf({ ...span, signature: span.signature.toUpperCase() })).toEqual(['signature']);
  });

  it.each<[what: string, change: Span]>([
    ['a changed value', { input: { a: 2 } }],
    ['a column added', { model: 'm' }],
    ['a column taken away', { input: null }],
    ['a value moved to another column', { input: null, output: { a: 1 } }],
    ['a value that no span may hold', { input: Number.NaN }],
    ['a microsecond', { at: '2026-11-23T10:00:00.000001Z' }],
  ])('names %s as a wrong hash, with id and seq', (_what, change) => {
    const span = { ...sealed(), ...change } as StoredSpan;
    const problems = verifySpan(span, trustedKeys, nodeEd25519);
    expect(problems).toEqual([{ id: span.id, seq: span.seq, class: 'hash', detail: expect.any(String) }]);
  });

  it('names a changed hash as wrong hash and wrong signature', () => {
    expect(classesOf({ ...sealed(), curr_hash: 'ab'.repeat(32) })).toEqual(['hash', 'signature']);
  });

  it.each([
    ['another span’s signature', sealed({ input: 'another' }).signature],
    ['no hex', 'zz'.repeat(64)],
    ['half of it', 'ab'.repeat(32)],
    ['nothing', ''],
  ])('names %s as a wrong signature', (_what, signature) => {
    expect(classesOf({ ...sealed(), signature })).toEqual(['signature']);
  });

  it('names a signature that was moved to another key', () => {
    const span = sealed();
    expect(classesOf({ ...span, public_key: rootSigner.publicKey })).toEqual(['hash', 'signature']);
  });

  it('names a span that a stranger signed, however well', () => {
    expect(classesOf(sealed({}, strangerSigner))).toEqual(['key']);
  });

  it('names a row without proof instead of throwing', () => {
    const { curr_hash, signature, public_key, ...bare } = sealed();
    expect(classesOf(bare as StoredSpan)).toEqual(['hash', 'signature', 'key']);
  });
});

describe('what governs', () => {
  it.each(['manifest', 'function', 'policy', 'provider'])(
    'is a %s of the system, and only a root key may sign it',
    (entity_type) => {
      expect(classesOf(sealed({ ...SYSTEM, entity_type }, rootSigner))).toEqual([]);
      expect(classesOf(sealed({ ...SYSTEM, entity_type }, runtimeSigner))).toEqual(['key']);
      expect(checkKey(sealed({ ...SYSTEM, entity_type }, strangerSigner), trustedKeys)?.class).toBe('key');
    },
  );

  it('is not a tenant’s own function, nor one that a user put in the system’s tenant', () => {
    expect(isGoverning({ entity_type: 'function', owner_id: 'alice', tenant_id: 'acme' })).toBe(false);
    expect(isGoverning({ entity_type: 'function', owner_id: 'alice', tenant_id: SYSTEM_ID })).toBe(false);
    expect(isGoverning({ entity_type: 'function', owner_id: SYSTEM_ID, tenant_id: 'acme' })).toBe(false);
    expect(isGoverning({ entity_type: 'execution', ...SYSTEM })).toBe(false);
    expect(isGoverning({ entity_type: 'provider', owner_id: 'alice', tenant_id: 'acme' })).toBe(false);
  });
});

describe('checkChain', () => {
  const first = sealed();
  const second = stored(nextVersion(first));

  it('accepts a version that names the hash of the one before it', () => {
    expect(checkChain(first, undefined)).toBeNull();
    expect(checkChain(second, first)).toBeNull();
    expect(checkChain(stored(nextVersion(second)), second)).toBeNull();
  });

  it('refuses a first version with a prev_hash', () => {
    expect(checkChain({ ...first, prev_hash: first.curr_hash }, undefined)?.class).toBe('chain');
  });

  it('refuses a later version with no, another or its own hash as prev_hash', () => {
    for (const prev_hash of [null, 'ab'.repeat(32), second.curr_hash]) {
      expect(checkChain({ ...second, prev_hash }, first)?.class).toBe('chain');
    }
  });

  it.each(['tenant_id', 'owner_id', 'entity_type'])('refuses a later version that changes %s', (column) => {
    const problem = checkChain({ ...second, [column]: 'other' }, first);
    expect(problem).toMatchObject({ class: 'chain', id: first.id, seq: 1, detail: expect.stringContaining(column) });
  });
});

describe('a key with an end', () => {
  const END = 5;
  const ended = new Map([[strangerSigner.publicKey, END]]);
  const asRoot = { ...trustedKeys, root: new Map([...trustedKeys.root, ...ended]) };
  const asRuntime = { ...trustedKeys, runtime: new Map([...trustedKeys.runtime, ...ended]) };
  const at = (position: number, more: Span = {}) => ({ ...sealed(more, strangerSigner), position });
  const kernel = { ...SYSTEM, entity_type: 'function' };

  it('counts for rows up to its position, and for no row behind it', () => {
    for (const position of [1, END]) expect(checkKey(at(position), asRuntime)).toBeNull();
    for (const position of [END + 1, Number.MAX_SAFE_INTEGER]) {
      expect(checkKey(at(position), asRuntime)).toMatchObject({
        class: 'key',
        detail: `position ${position}, signed by ${strangerSigner.publicKey}, which counts up to position ${END}`,
      });
    }
  });

  it('does so for what governs as a root key, and never as a runtime key', () => {
    expect(checkKey(at(END, kernel), asRoot)).toBeNull();
    expect(checkKey(at(END + 1, kernel), asRoot)).toMatchObject({
      class: 'key',
      detail: expect.stringMatching(/up to/),
    });
    expect(checkKey(at(END, kernel), asRuntime)).toMatchObject({ detail: expect.stringMatching(/no root key$/) });
  });

  it('counts for no row that has no position, or none that a number holds', () => {
    const { position: _none, ...unplaced } = at(1);
    expect(checkKey(unplaced as StoredSpan, asRuntime)).toMatchObject({ class: 'key' });
    expect(checkKey({ ...at(1), position: '9007199254740993' as unknown as number }, asRuntime)).toMatchObject({
      class: 'key',
    });
  });

  it('may not sign any more, as a key that nobody trusts may not', () => {
    const code = 'SIGNING_KEY_NOT_TRUSTED';
    expect(() => requireKeyInUse(ended, strangerSigner)).toThrow(expect.objectContaining({ code }));
    expect(() => requireKeyInUse(new Map(), strangerSigner)).toThrow(expect.objectContaining({ code }));
    expect(() => requireKeyInUse(trustedKeys.runtime, runtimeSigner)).not.toThrow();
  });
});
