import { InputError } from '../errors.ts';
import { Fields } from '../fields.ts';
import { nodeEd25519 } from '../span/ed25519-node.ts';
import { createSignerFromHex, type KeyEnds } from '../span/index.ts';
import { keyEntries, readKeyEnds } from './trusted-keys.ts';

/** `root` signs what governs, `runtime` what happens. */
export type KeyKind = 'root' | 'runtime';
export const KEY_KINDS: readonly KeyKind[] = ['root', 'runtime'];

/** A key and those before it. */
export interface KeyRing {
  /** Signs now: an Ed25519 seed, 64 hex digits. */
  secretKey: string;
  /** Other public keys that are trusted: those that signed before, and those of clients. Of their secret halves nothing is kept. */
  former: KeyEnds;
}

/** The fields of a secret that hold a ring. The former keys are public: a list as in `TRUSTED_ROOT_KEYS`. */
export type KeyFields<K extends KeyKind> = Record<`${K}_key`, string> & Partial<Record<`former_${K}_keys`, string>>;

/**
 * The ring that a secret holds.
 *
 * @throws {InputError} `FIELD_MISSING`, `FIELD_INVALID`, without any of the secret.
 */
export function readKeyRing(secret: unknown, kind: KeyKind): KeyRing {
  const fields = new Fields(secret, '');
  const former = formerName(kind);
  return {
    secretKey: fields.text(`${kind}_key`, /^[0-9a-f]{64}$/, '64 hex digits'),
    former: fields.has(former) ? readKeyEnds(fields, former) : new Map(),
  };
}

/** The same ring as fields of a secret. */
export function writeKeyRing<K extends KeyKind>({ secretKey, former }: KeyRing, kind: K): KeyFields<K> {
  const formerKeys = former.size === 0 ? {} : { [formerName(kind)]: keyEntries(former).join(',') };
  return { [`${kind}_key`]: secretKey, ...formerKeys } as KeyFields<K>;
}

function formerName(kind: KeyKind): string {
  return `former_${kind}_keys`;
}

/** All of the ring that is trusted. A key that is said to be in use and to have an end has an end. */
export function keyEndsOf({ secretKey, former }: KeyRing): KeyEnds {
  return new Map([[publicKeyOf(secretKey), Infinity], ...former]);
}

/** Another key signs from now on; the one before counts up to `end`, or for good while that is not known. */
export function rotateKey(ring: KeyRing, secretKey: string, end = Infinity): KeyRing {
  return { secretKey, former: new Map([...ring.former, [publicKeyOf(ring.secretKey), end]]) };
}

/**
 * A client's key counts from now on.
 *
 * @throws {InputError} `KEY_KNOWN`: it is there already, and where it ended it stays ended.
 */
export function trustKey(ring: KeyRing, publicKey: string): KeyRing {
  if (keyEndsOf(ring).has(publicKey)) throw new InputError('KEY_KNOWN', `${publicKey} is among these keys already`);
  return { ...ring, former: new Map([...ring.former, [publicKey, Infinity]]) };
}

/** A former key counts up to `end`, unless it ended before that: an end never moves back to later rows. */
export function endKey(ring: KeyRing, publicKey: string, end: number): KeyRing {
  const earliest = Math.min(end, ring.former.get(publicKey) ?? Infinity);
  return { ...ring, former: new Map([...ring.former, [publicKey, earliest]]) };
}

export function publicKeyOf(secretKey: string): string {
  return createSignerFromHex(nodeEd25519, secretKey).publicKey;
}
