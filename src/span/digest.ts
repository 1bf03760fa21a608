import { blake3 } from '@noble/hashes/blake3.js';
import { bytesToHex } from '@noble/hashes/utils.js';

const utf8 = new TextEncoder();

/** BLAKE3-256 of the UTF-8 bytes of `text`: 32 bytes. Source: BLAKE3 specification, hash mode. */
export function blake3Bytes(text: string): Uint8Array {
  return blake3(utf8.encode(text));
}

/** BLAKE3-256 of the UTF-8 bytes of `text`, as 64 lower-case hex digits. */
export function blake3Hex(text: string): string {
  return bytesToHex(blake3Bytes(text));
}
