/**
 * The signature scheme: Ed25519 (RFC 8032), strict. One interface, two implementations held equal by a property test:
 * `ed25519-node.ts` (OpenSSL, the server's) and `ed25519-noble.ts` (portable, a browser's).
 *
 * Strict means: S below the group order, no point in a non-canonical encoding, no small-order point, and the equation
 * without cofactor. RFC 8032 leaves room in these; a ledger must not, or two verifiers could disagree about a row.
 */
export interface Ed25519 {
  /** The 32-byte public key of a 32-byte secret key (the RFC's seed). */
  publicKeyOf(secretKey: Uint8Array): Uint8Array;
  /** The 64-byte signature of a message. */
  sign(message: Uint8Array, secretKey: Uint8Array): Uint8Array;
  /** The same on another thread, where there is one, while this one goes on. */
  signOnThread(message: Uint8Array, secretKey: Uint8Array): Promise<Uint8Array>;
  /** False for anything that is not a strict, valid signature; throws for nothing. */
  verify(signature: Uint8Array, message: Uint8Array, publicKey: Uint8Array): boolean;
}

const FIELD_PRIME = 2n ** 255n - 19n;
const GROUP_ORDER = 2n ** 252n + 27742317777372353535851937790883648493n;

/** The y-coordinates of the eight points of order 1, 2, 4 and 8. */
const SMALL_ORDER_Y: ReadonlySet<bigint> = new Set([
  0n,
  1n,
  FIELD_PRIME - 1n,
  2707385501144840649318225287225658788936804267575313519463743609750303402022n,
  FIELD_PRIME - 2707385501144840649318225287225658788936804267575313519463743609750303402022n,
]);

/** The encoding checks that both implementations make before the equation. */
export function isStrictEncoding(signature: Uint8Array, publicKey: Uint8Array): boolean {
  return (
    signature.length === 64 &&
    publicKey.length === 32 &&
    littleEndian(signature.subarray(32)) < GROUP_ORDER &&
    isStrictPoint(signature.subarray(0, 32)) &&
    isStrictPoint(publicKey)
  );
}

function isStrictPoint(encoded: Uint8Array): boolean {
  const y = littleEndian(encoded) & (2n ** 255n - 1n);
  return y < FIELD_PRIME && !SMALL_ORDER_Y.has(y);
}

function littleEndian(bytes: Uint8Array): bigint {
  let hex = '';
  for (let i = bytes.length - 1; i >= 0; i--) hex += (bytes[i] as number).toString(16).padStart(2, '0');
  return BigInt(`0x${hex}`);
}
