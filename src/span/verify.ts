import { hexToBytes } from '@noble/hashes/utils.js';
import { GovernanceError, LogLineError } from '../errors.ts';
import { canonicalText } from './canonical.ts';
import type { SealedSpan, Span, StoredSpan } from './columns.ts';
import { blake3Hex } from './digest.ts';
import type { Ed25519 } from './ed25519.ts';
import type { Signer } from './seal.ts';

/** `missing` is found by looking for a row; the others by looking at one. */
export type ProblemClass = 'hash' | 'signature' | 'key' | 'chain' | 'missing';

export interface Problem {
  id: string;
  seq: number;
  class: ProblemClass;
  detail: string;
}

/**
 * Public keys (64 hex digits) that may sign, each with the last `position` that it counts for: `Infinity` while it is in
 * use. A position and no instant, because the database gives positions: whoever has a former key cannot back-date a row.
 */
export type KeyEnds = ReadonlyMap<string, number>;

/** The keys that are trusted. They come from configuration, never from the ledger itself. */
export interface TrustedKeys {
  /** May sign everything, and alone may sign what governs: manifest, kernels, system policies, providers. */
  root: KeyEnds;
  /** May sign what happened. */
  runtime: KeyEnds;
}

/** The identity that seeding writes under. What it owns, governs. */
export const SYSTEM_ID = 'system';
const GOVERNING_TYPES: ReadonlySet<string> = new Set(['manifest', 'function', 'policy', 'provider']);

/** Whether a span governs the system, so that only a root key may have signed it. */
export function isGoverning(span: Span): boolean {
  return span.tenant_id === SYSTEM_ID && span.owner_id === SYSTEM_ID && GOVERNING_TYPES.has(span.entity_type as string);
}

/** Every check of a single row, in order. An empty list means that the row proves itself. */
export function verifySpan(span: StoredSpan, keys: TrustedKeys, scheme: Ed25519): Problem[] {
  return [checkHash(span), checkSignature(span, scheme), checkKey(span, keys)].filter((problem) => problem !== null);
}

/** The hash is the hash of what the row says now. */
export function checkHash(span: SealedSpan): Problem | null {
  let actual: string;
  try {
    actual = blake3Hex(canonicalText(span));
  } catch (error) {
    if (error instanceof LogLineError) return problem(span, 'hash', `has no canonical form: ${error.message}`);
    throw error;
  }
  return actual === span.curr_hash
    ? null
    : problem(span, 'hash', `content hashes to ${actual}, row says ${span.curr_hash}`);
}

/** The signature is the key's, over the hash that the row says. */
export function checkSignature(span: SealedSpan, scheme: Ed25519): Problem | null {
  if (!/^[0-9a-f]{128}$/.test(span.signature)) return problem(span, 'signature', 'not 128 lower-case hex digits');
  try {
    if (scheme.verify(hexToBytes(span.signature), hexToBytes(span.curr_hash), hexToBytes(span.public_key))) return null;
  } catch {
    // not hex: no signature either
  }
  return problem(span, 'signature', `not a valid signature of key ${span.public_key} over ${span.curr_hash}`);
}

/** What a row can prove by itself, whoever signed it: the first thing wrong with its hash or its signature. */
export function checkProof(span: SealedSpan, scheme: Ed25519): Problem | null {
  return checkHash(span) ?? checkSignature(span, scheme);
}

/** The key is one we trust for this kind of row. */
export function checkKey(span: SealedSpan, keys: TrustedKeys): Problem | null {
  if (isTrusted(keys.root, span)) return null;
  const governs = isGoverning(span);
  if (!governs && isTrusted(keys.runtime, span)) return null;
  const end = keys.root.get(span.public_key) ?? (governs ? undefined : keys.runtime.get(span.public_key));
  if (end !== undefined) {
    const where = `position ${span.position ?? 'yet to come'}, signed by ${span.public_key}`;
    return problem(span, 'key', `${where}, which counts up to position ${end}`);
  }
  if (governs)
    return problem(span, 'key', `${span.entity_type} of the system signed by ${span.public_key}, no root key`);
  return problem(span, 'key', `signed by ${span.public_key}, a key nobody trusts`);
}

/** A row that has no position yet is not signed by a key that has an end. */
function isTrusted(keys: KeyEnds, { public_key, position }: SealedSpan): boolean {
  const end = keys.get(public_key);
  return end !== undefined && (position ?? Infinity) <= end;
}

/**
 * What is signed from now on must count: its key is trusted, and without an end.
 *
 * @throws {GovernanceError} `SIGNING_KEY_NOT_TRUSTED`
 */
export function requireKeyInUse(keys: KeyEnds, { publicKey }: Signer): void {
  const end = keys.get(publicKey);
  if (end === Infinity) return;
  const why = end === undefined ? 'is not among the trusted keys' : `counts up to position ${end} only`;
  throw new GovernanceError('SIGNING_KEY_NOT_TRUSTED', `key ${publicKey} is to sign and ${why}`);
}

/** A version follows the one before it: dense, linked by hash, same tenant, owner and type. */
export function checkChain(span: StoredSpan, before: StoredSpan | undefined): Problem | null {
  if (span.seq === 0)
    return span.prev_hash == null ? null : problem(span, 'chain', 'the first version has a prev_hash');
  if (before === undefined || before.id !== span.id || before.seq !== span.seq - 1) return null; // reported as missing
  if (span.prev_hash !== before.curr_hash) {
    return problem(
      span,
      'chain',
      `prev_hash ${span.prev_hash} is not the hash of version ${before.seq}, ${before.curr_hash}`,
    );
  }
  for (const column of ['tenant_id', 'owner_id', 'entity_type'] as const) {
    if (span[column] !== before[column]) return problem(span, 'chain', `${column} differs from version ${before.seq}`);
  }
  return null;
}

/** A version by itself, and as what follows the one before it; a version that is not there between them is `missing`. */
export function verifyVersion(
  span: StoredSpan,
  before: StoredSpan | undefined,
  keys: TrustedKeys,
  scheme: Ed25519,
): Problem[] {
  const isAlone = span.seq !== (before === undefined ? 0 : before.seq + 1);
  const missing = isAlone
    ? [problem({ ...span, seq: span.seq - 1 }, 'missing', `version ${span.seq} is there and this one is not`)]
    : [];
  const chain = checkChain(span, before);
  return [...missing, ...verifySpan(span, keys, scheme), ...(chain === null ? [] : [chain])];
}

function problem(span: SealedSpan, problemClass: ProblemClass, detail: string): Problem {
  return { id: span.id, seq: span.seq, class: problemClass, detail };
}
