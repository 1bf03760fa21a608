import { getPublicKey, hashes, Point, sign } from '@noble/ed25519';
import { sha512 } from '@noble/hashes/sha2.js';
import { concatBytes } from '@noble/hashes/utils.js';
import { type Ed25519, isStrictEncoding } from './ed25519.ts';

hashes.sha512 = sha512;

const GROUP_ORDER = Point.CURVE().n;

/** Ed25519 in portable JavaScript: runs wherever JavaScript does. */
export const nobleEd25519: Ed25519 = {
  publicKeyOf: (secretKey) => getPublicKey(secretKey),
  sign: (message, secretKey) => sign(message, secretKey),
  signOnThread: async (message, secretKey) => sign(message, secretKey),
  /**
   * The library's own verify() multiplies by the cofactor; OpenSSL does not. The equation is written out without it
   * (RFC 8032 section 5.1.7: "it's sufficient, but not required"), so both accept exactly the same signatures.
   */
  verify(signature, message, publicKey) {
    if (!isStrictEncoding(signature, publicKey)) return false;
    try {
      const r = signature.subarray(0, 32);
      const s = littleEndian(signature.subarray(32));
      const k = littleEndian(sha512(concatBytes(r, publicKey, message))) % GROUP_ORDER;
      const expected = Point.BASE.multiply(s, false)
        .add(Point.fromBytes(publicKey, false).multiply(k, false).negate())
        .toBytes();
      return expected.every((byte, i) => byte === r[i]);
    } catch {
      return false; // not a point of the curve
    }
  },
};

function littleEndian(bytes: Uint8Array): bigint {
  return bytes.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);
}
