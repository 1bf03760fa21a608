import { nodeEd25519 } from '../../src/span/ed25519-node.ts';
import { createSigner, type Signer, type TrustedKeys } from '../../src/span/index.ts';

/** Fixed keys, so that a failing test fails the same way again. */
export const SECRET_KEYS = {
  root: new Uint8Array(32).fill(1),
  runtime: new Uint8Array(32).fill(2),
  stranger: new Uint8Array(32).fill(3),
};

/** Signs what governs. */
export const rootSigner: Signer = createSigner(nodeEd25519, SECRET_KEYS.root);
/** Signs what happened. */
export const runtimeSigner: Signer = createSigner(nodeEd25519, SECRET_KEYS.runtime);
/** A key that nobody trusts. */
export const strangerSigner: Signer = createSigner(nodeEd25519, SECRET_KEYS.stranger);

export const trustedKeys: TrustedKeys = {
  root: new Map([[rootSigner.publicKey, Infinity]]),
  runtime: new Map([[runtimeSigner.publicKey, Infinity]]),
};

/** The same keys as a function's environment names them. */
export const TRUSTED_KEYS_ENV = {
  TRUSTED_ROOT_KEYS: rootSigner.publicKey,
  TRUSTED_RUNTIME_KEYS: runtimeSigner.publicKey,
};
