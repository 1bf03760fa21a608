import { GovernanceError } from '../errors.ts';
import { type Identity, readLatestVersions } from '../ledger/index.ts';
import type { StoredSpan } from '../span/index.ts';
import { MANIFEST_ID, type Manifest, parseManifest, requireAllowed } from './manifest.ts';
import type { Stage0 } from './stage0.ts';

export type Kernel = StoredSpan & { code: string };

/**
 * Steps 2 to 5 of a boot, and of a nested invoke: manifest, allowed, fetch, verify. Both rows are read anew each time,
 * in one round trip, so a revocation holds from the next boot on; each must prove itself before anything runs.
 *
 * @throws {GovernanceError} the manifest does not let this kernel boot.
 * @throws {IntegrityError} the manifest or the kernel does not prove itself.
 */
export async function admit(
  stage0: Stage0,
  identity: Identity,
  kernelId: string,
): Promise<{ manifest: Manifest; kernel: Kernel }> {
  const rows = await readLatestVersions(stage0.database, identity, [MANIFEST_ID, kernelId]);
  const manifest = await requireManifest(stage0, rows, identity);
  requireAllowed(manifest, kernelId, rows);
  const kernel = requireActiveKernel(rows, kernelId);
  await stage0.verifier.prove(kernel, stage0.database, identity);
  return { manifest, kernel };
}

/** Step 2, manifest: the latest version of the fixed id, signed by a root key. */
async function requireManifest(
  stage0: Stage0,
  rows: Map<string, StoredSpan>,
  identity: Identity,
): Promise<Manifest> {
  const span = rows.get(MANIFEST_ID);
  if (span === undefined) throw new GovernanceError('MANIFEST_MISSING', 'the ledger has no manifest; seed it first');
  await stage0.verifier.prove(span, stage0.database, identity);
  return parseManifest(span);
}

/** Step 4, fetch: the newest version must be an active function with code. An older one never stands in for it. */
function requireActiveKernel(rows: Map<string, StoredSpan>, kernelId: string): Kernel {
  const kernel = rows.get(kernelId);
  if (kernel === undefined) throw new GovernanceError('KERNEL_NOT_FOUND', `no span ${kernelId} is visible`);
  const isActive = kernel.status === 'active' && kernel.is_deleted !== true;
  if (kernel.entity_type !== 'function' || !isActive || typeof kernel.code !== 'string') {
    throw new GovernanceError('KERNEL_NOT_ACTIVE', `span ${kernelId} version ${kernel.seq} is not an active function with code`);
  }
  return kernel as Kernel;
}
