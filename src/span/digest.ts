import { blake3 } from '@noble/hashes/blake3.js';
import { bytesToHex } from '@noble/hashes/utils.js';

/** BLAKE3-256 of bytes: 32 bytes. Source: BLAKE3 specification, hash mode. */
export type Blake3 = (bytes: Uint8Array) => Uint8Array;

const utf8 = new TextEncoder();
let hash: Blake3 = blake3;

/** Hash by another implementation from here on: the portable one costs a server a quarter of what an append costs. */
export function useBlake3(implementation: Blake3): void {
  hash = implementation;
}

/** BLAKE3-256 of the UTF-8 bytes of `text`: 32 bytes. */
export function blake3Bytes(text: string): Uint8Array {
  return hash(utf8.encode(text));
}

/** BLAKE3-256 of the UTF-8 bytes of `text`, as 64 lower-case hex digits. */
export function blake3Hex(text: string): string {
  return bytesToHex(blake3Bytes(text));
}
