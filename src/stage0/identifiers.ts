import { createHmac } from 'node:crypto';
import { canonicalJson } from '../span/index.ts';

/**
 * A UUID that follows from its parts (version 8 of RFC 9562, by HMAC-SHA-256): the same parts give the same id, so the
 * ledger's key lets only one boot have it; and without the secret nobody can take the place before.
 */
export function derivedId(secret: Uint8Array, ...parts: string[]): string {
  const hex = createHmac('sha256', secret).update(canonicalJson(parts)).digest('hex');
  const variant = ((Number.parseInt(hex.charAt(16), 16) & 0x3) | 0x8).toString(16);
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}
