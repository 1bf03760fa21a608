/**
 * The loader, the only code outside the ledger: it fetches a function row that the manifest allows, verifies it, runs
 * it in the sandbox and appends what happened. `boot.ts` reads from top to bottom in that order.
 *
 * Authoritative for whether code may run. Fails closed: what cannot be proved is refused, and a refusal runs nothing.
 * Must never run a row by its name or place alone, nor let an answer leave without its execution in the ledger.
 */
export { type Admission, readManifest } from './admit.ts';
export { type BootAnswer, type BootOptions, boot } from './boot.ts';
export { BootFailed } from './boot-failed.ts';
export { derivedId } from './identifiers.ts';
export { invokeStage0 } from './invocation.ts';
export { MANIFEST_ID, parseManifestContent } from './manifest.ts';
export { reapLostBoots } from './reaper.ts';
export { type BootRequest, parseBootRequest } from './request.ts';
export { appendContext, type Shift, type Stage0 } from './stage0.ts';
export { GovernanceVerifier } from './verify-kernel.ts';
