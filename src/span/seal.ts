import { bytesToHex, hexToBytes } from '@noble/hashes/utils.js';
import { canonicalText } from './canonical.ts';
import type { HashableSpan, SealedSpan } from './columns.ts';
import { blake3Bytes } from './digest.ts';
import type { Ed25519 } from './ed25519.ts';

/** A key pair that can sign spans. The secret stays inside the closure: a signer can be logged without harm. */
export interface Signer {
  /** 64 hex digits. */
  readonly publicKey: string;
  /** Signs the 32 bytes of a span's hash; returns 128 hex digits. */
  signHash(hash: Uint8Array): string;
}

/** @param secretKey 32 bytes, the RFC 8032 seed. */
export function createSigner(scheme: Ed25519, secretKey: Uint8Array): Signer {
  return {
    publicKey: bytesToHex(scheme.publicKeyOf(secretKey)),
    signHash: (hash) => bytesToHex(scheme.sign(hash, secretKey)),
  };
}

/** @param secretKeyHex 64 hex digits. */
export function createSignerFromHex(scheme: Ed25519, secretKeyHex: string): Signer {
  return createSigner(scheme, hexToBytes(secretKeyHex));
}

/** A span with its proof, and the JSON of exactly the bytes that were hashed (with the proof's own columns behind). */
export interface SealedRow {
  span: SealedSpan;
  json: string;
}

/**
 * Give a span its proof: canonical form, BLAKE3, Ed25519 over the hash. `public_key` is part of what is hashed, so a
 * signature cannot be moved to another key.
 *
 * @throws {InputError} naming the field that cannot be stored, see {@link canonicalText}.
 */
export function sealRow(span: HashableSpan, signer: Signer): SealedRow {
  const unsigned = { ...span, public_key: signer.publicKey };
  const text = canonicalText(unsigned);
  const hash = blake3Bytes(text);
  const proof = { curr_hash: bytesToHex(hash), signature: signer.signHash(hash) };
  return {
    span: { ...unsigned, ...proof },
    json: `${text.slice(0, -1)},"curr_hash":"${proof.curr_hash}","signature":"${proof.signature}"}`,
  };
}

/** {@link sealRow} where only the span itself is wanted. */
export function sealSpan(span: HashableSpan, signer: Signer): SealedSpan {
  return sealRow(span, signer).span;
}
