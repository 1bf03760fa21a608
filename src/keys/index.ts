/**
 * Keys as configuration and secrets name them: which public keys are trusted and up to where, which one signs now, and how
 * one takes the other's place.
 *
 * Pure: it reads what it is given. Where keys are kept is known to `local` and `aws`, what a trusted key means to `span`.
 */
export {
  endKey,
  KEY_KINDS,
  type KeyFields,
  type KeyKind,
  type KeyRing,
  keyEndsOf,
  publicKeyOf,
  readKeyRing,
  rotateKey,
  trustKey,
  writeKeyRing,
} from './key-ring.ts';
export { keyEntries, keyId, readKeyEnds, readTrustedKeys } from './trusted-keys.ts';
