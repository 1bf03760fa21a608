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
  /** The same on another thread: for many, while the next are hashed. */
  signHashOnThread(hash: Uint8Array): Promise<string>;
}

/** @param secretKey 32 bytes, the RFC 8032 seed. */
export function createSigner(scheme: Ed25519, secretKey: Uint8Array): Signer {
  return {
    publicKey: bytesToHex(scheme.publicKeyOf(secretKey)),
    signHash: (hash) => bytesToHex(scheme.sign(hash, secretKey)),
    signHashOnThread: async (hash) => bytesToHex(await scheme.signOnThread(hash, secretKey)),
  };
}

/** @param secretKeyHex 64 hex digits. */
export function createSignerFromHex(scheme: Ed25519, secretKeyHex: string): Signer {
  return createSigner(scheme, hexToBytes(secretKeyHex));
}

/** A span that has its hash and not yet its signature. */
export interface HashedSpan {
  span: HashableSpan & { curr_hash: string; public_key: string };
  /** The canonical text, whose bytes were hashed. */
  text: string;
  hash: Uint8Array;
}

/**
 * The first half of a span's proof: its canonical form and BLAKE3 hash. `public_key` is part of what is hashed, so a
 * signature cannot be moved to another key.
 *
 * @throws {InputError} naming the field that cannot be stored, see {@link canonicalText}.
 */
export function hashSpan(span: HashableSpan, publicKey: string): HashedSpan {
  const unhashed = { ...span, public_key: publicKey };
  const text = canonicalText(unhashed);
  const hash = blake3Bytes(text);
  return { span: { ...unhashed, curr_hash: bytesToHex(hash) }, text, hash };
}

/** A row to be appended: exactly the text that was hashed, with the proof behind it, as JSON. */
export function rowJson({ span, text }: HashedSpan, signature: string): string {
  return `${text.slice(0, -1)},"curr_hash":"${span.curr_hash}","signature":"${signature}"}`;
}

/** The whole proof of one span: canonical form, BLAKE3, Ed25519 over the hash. */
export function sealSpan(span: HashableSpan, signer: Signer): SealedSpan {
  const hashed = hashSpan(span, signer.publicKey);
  return { ...hashed.span, signature: signer.signHash(hashed.hash) };
}

/**
 * Whether a span's signature is the one that this signer makes of its hash. Ed25519 is deterministic (RFC 8032, section
 * 5.1.6), and to sign costs a third of what it costs to verify: so who holds the key checks its own signatures so.
 */
export function isSignedBy(span: SealedSpan, signer: Signer): boolean {
  if (span.public_key !== signer.publicKey || !/^[0-9a-f]{64}$/.test(span.curr_hash)) return false;
  return signer.signHash(hexToBytes(span.curr_hash)) === span.signature;
}
