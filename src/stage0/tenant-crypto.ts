import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';
import { InputError } from '../errors.ts';

const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/**
 * Encrypt text with the tenant's own key: AES-256-GCM (NIST SP 800-38D) under a key derived from the master key by
 * HKDF-SHA-256 (RFC 5869) with the tenant's id. The tenant is also authenticated, so no other tenant can open it.
 *
 * @returns base64 of nonce, ciphertext and tag.
 */
export function encryptForTenant(masterKey: Uint8Array, tenantId: string, text: string): string {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv('aes-256-gcm', tenantKey(masterKey, tenantId), nonce);
  cipher.setAAD(Buffer.from(tenantId));
  return Buffer.concat([nonce, cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()]).toString('base64');
}

/** @throws {InputError} `DECRYPTION_FAILED`: altered, or not this tenant's. */
export function decryptForTenant(masterKey: Uint8Array, tenantId: string, encrypted: string): string {
  const bytes = Buffer.from(encrypted, 'base64');
  try {
    const nonce = bytes.subarray(0, NONCE_BYTES);
    const decipher = createDecipheriv('aes-256-gcm', tenantKey(masterKey, tenantId), nonce, {
      authTagLength: TAG_BYTES,
    });
    decipher.setAAD(Buffer.from(tenantId));
    decipher.setAuthTag(bytes.subarray(-TAG_BYTES));
    return decipher.update(bytes.subarray(NONCE_BYTES, -TAG_BYTES), undefined, 'utf8') + decipher.final('utf8');
  } catch (cause) {
    throw new InputError('DECRYPTION_FAILED', 'the text was altered, or another tenant encrypted it', { cause });
  }
}

function tenantKey(masterKey: Uint8Array, tenantId: string): Uint8Array {
  return new Uint8Array(hkdfSync('sha256', masterKey, 'loglineos tenant key', tenantId, 32));
}
