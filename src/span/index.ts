/**
 * The noun of the house: a span, its canonical form, its hash, its signature, and the checks of all three.
 *
 * Authoritative for what a span's proof is. Pure: no clock, no environment, no input or output, so that the same code
 * proves a row on the server, in a test and in a browser (with `ed25519-noble.ts`; the Node implementation is imported
 * by name where it is wanted).
 */
export { canonicalJson, canonicalText, isUuid, SPAN_LENGTH_MAX } from './canonical.ts';
export {
  ASSIGNED_COLUMNS,
  COLUMN_TYPES,
  type ColumnName,
  type HashableSpan,
  type Json,
  type SealedSpan,
  type Span,
  type StoredSpan,
} from './columns.ts';
export { blake3Hex, useBlake3 } from './digest.ts';
export type { Ed25519 } from './ed25519.ts';
export { parseJson } from './json.ts';
export { RESERVED_FOR_CLIENTS, RESERVED_FOR_KERNELS, RESERVED_FOR_POLICIES, RESERVED_WHO } from './reserved-types.ts';
export {
  createSigner,
  createSignerFromHex,
  type HashedSpan,
  hashSpan,
  isSignedBy,
  rowJson,
  type Signer,
  sealSpan,
} from './seal.ts';
export {
  checkChain,
  checkHash,
  checkKey,
  checkProof,
  checkSignature,
  isGoverning,
  type KeyEnds,
  type Problem,
  type ProblemClass,
  requireKeyInUse,
  SYSTEM_ID,
  type TrustedKeys,
  verifySpan,
  verifyVersion,
} from './verify.ts';
