import { GovernanceError } from '../errors.ts';
import { type Identity, readLatestVersions, readPlacedVersions } from '../ledger/index.ts';
import type { Json, StoredSpan } from '../span/index.ts';
import { MANIFEST_ID, type Manifest, parseManifest, requireAllowed } from './manifest.ts';
import type { Stage0 } from './stage0.ts';

export type Kernel = StoredSpan & { code: string };

/** A kernel that may boot, the manifest that says so, and where the rows of both lie. */
export interface Admission {
  manifest: Manifest;
  kernel: Kernel;
  rowVersions: Map<string, string>;
}

/**
 * Steps 2 to 5 of a boot, and of a nested invoke: manifest, allowed, fetch, verify. Both rows are read, in one round
 * trip, and each must prove itself.
 *
 * @throws {GovernanceError} the manifest does not let this kernel boot.
 * @throws {IntegrityError} the manifest or the kernel does not prove itself.
 */
export async function admit(stage0: Stage0, identity: Identity, kernelId: string): Promise<Admission> {
  const rows = await readPlacedVersions(stage0.database, identity, [MANIFEST_ID, kernelId]);
  const manifest = await requireManifest(stage0, rows.get(MANIFEST_ID)?.span, identity);
  requireAllowed(manifest, kernelId, rows.has(kernelId));
  const kernel = requireActiveKernel(rows.get(kernelId)?.span, kernelId);
  await stage0.verifier.prove(kernel, stage0.database, identity);
  return { manifest, kernel, rowVersions: new Map([...rows].map(([id, { rowVersion }]) => [id, rowVersion])) };
}

/** The row of the manifest in force; it has proved itself, and says what a manifest must. */
export async function readManifest(stage0: Stage0, identity: Identity): Promise<StoredSpan> {
  const span = (await readLatestVersions(stage0.database, identity, [MANIFEST_ID])).get(MANIFEST_ID);
  await requireManifest(stage0, span, identity);
  return span as StoredSpan;
}

/** Step 2, manifest: the latest version of the fixed id, signed by a root key. */
async function requireManifest(stage0: Stage0, span: StoredSpan | undefined, identity: Identity): Promise<Manifest> {
  if (span === undefined) throw new GovernanceError('MANIFEST_MISSING', 'the ledger has no manifest; seed it first');
  await stage0.verifier.prove(span, stage0.database, identity);
  return parseManifest(span);
}

/** Step 4, fetch: the newest version must be an active function with code. An older one never stands in for it. */
function requireActiveKernel(kernel: StoredSpan | undefined, kernelId: string): Kernel {
  if (kernel === undefined) throw new GovernanceError('KERNEL_NOT_FOUND', `no span ${kernelId} is visible`);
  const isActive = kernel.status === 'active' && kernel.is_deleted !== true;
  if (kernel.entity_type !== 'function' || !isActive || typeof kernel.code !== 'string') {
    throw new GovernanceError(
      'KERNEL_NOT_ACTIVE',
      `span ${kernelId} version ${kernel.seq} is not an active function with code`,
    );
  }
  return kernel as Kernel;
}

/** Which code, under which manifest. The kernel's hash covers its code, the manifest's what it allowed. */
export function proofOf(kernel: StoredSpan, manifest: Manifest): Record<string, Json> {
  return {
    kernel_id: kernel.id,
    kernel_seq: kernel.seq,
    kernel_hash: kernel.curr_hash,
    manifest_seq: manifest.seq,
    manifest_hash: manifest.hash,
  };
}
