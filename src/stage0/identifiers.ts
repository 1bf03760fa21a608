import { blake3Hex, canonicalJson } from '../span/index.ts';

/**
 * A UUID that follows from its parts (version 8 of RFC 9562, by BLAKE3): whoever derives it from the same parts gets
 * the same id, and the ledger's key lets only one of them append it.
 */
export function derivedId(...parts: string[]): string {
  const hex = blake3Hex(canonicalJson(parts));
  const variant = ((Number.parseInt(hex.charAt(16), 16) & 0x3) | 0x8).toString(16);
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}

/** The one execution that ends a boot. Stage-0 and the reaper both write this id; the first one wins. */
export function executionIdOf(bootEventId: string): string {
  return derivedId('execution', bootEventId);
}
