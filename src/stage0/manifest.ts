import { GovernanceError, InputError, IntegrityError } from '../errors.ts';
import { Fields } from '../fields.ts';
import type { QueueLimits } from '../ledger/index.ts';
import type { StoredSpan } from '../span/index.ts';

/** The manifest's id, fixed: the only span that Stage-0 knows by heart. */
export const MANIFEST_ID = '00000000-0000-4000-8000-0000000000aa';

/** What the manifest says. */
export interface ManifestContent {
  /** Name → id of every kernel it knows. */
  kernels: Map<string, string>;
  /** Kernels that may boot. */
  allowedBootIds: string[];
  throttle: {
    perTenantDailyExecLimit: number;
    /** Kernels whose boots run a function and so take one execution of the tenant's day. */
    meteredBootIds: string[];
    /** Requests of a tenant that are worked on at the same time. */
    perTenantConcurrency: number;
    /** Tenants with limits of their own; what is not said of one is everybody's. */
    tenants: Map<string, { perTenantDailyExecLimit?: number; perTenantConcurrency?: number }>;
  };
  /** Bounds of a function's run: slow above, ended above, memory above. */
  policy: { slow_ms: number; timeout_ms: number; memory_mb: number };
  /** Ed25519 public key whose signature lets a run pass the quota. */
  overridePublicKey: string | null;
}

/** A manifest that was verified: what it says, and which version says it. */
export interface Manifest extends ManifestContent {
  seq: number;
  hash: string;
}

/** @throws {IntegrityError} `MANIFEST_INVALID` naming the field. */
export function parseManifest(span: Pick<StoredSpan, 'content' | 'seq' | 'curr_hash'>): Manifest {
  return { ...parseManifestContent(span.content), seq: span.seq, hash: span.curr_hash };
}

export function parseManifestContent(content: unknown): ManifestContent {
  try {
    return readContent(new Fields(content, 'content'));
  } catch (cause) {
    if (!(cause instanceof InputError)) throw cause;
    throw new IntegrityError('MANIFEST_INVALID', cause.message, { field: cause.field ?? 'content', cause });
  }
}

function readContent(fields: Fields): ManifestContent {
  const throttle = fields.object('throttle');
  const policy = fields.object('policy');
  const content: ManifestContent = {
    kernels: fields.map('kernels', (kernels, name) => kernels.uuid(name)),
    allowedBootIds: fields.uuids('allowed_boot_ids'),
    throttle: {
      perTenantDailyExecLimit: throttle.wholeNumber('per_tenant_daily_exec_limit', 0),
      meteredBootIds: throttle.uuids('metered_boot_ids'),
      perTenantConcurrency: throttle.wholeNumber('per_tenant_concurrency', 1),
      tenants: throttle.map('tenants', (tenants, name) => readTenant(tenants.object(name))),
    },
    policy: {
      slow_ms: policy.wholeNumber('slow_ms', 1),
      timeout_ms: policy.wholeNumber('timeout_ms', 1),
      memory_mb: policy.wholeNumber('memory_mb', 1),
    },
    overridePublicKey:
      fields.any('override_pubkey_hex') === null
        ? null
        : fields.text('override_pubkey_hex', /^[0-9a-f]{64}$/, 'an Ed25519 public key of 64 hex digits, or null'),
  };
  for (const part of [throttle, policy, fields]) part.end();
  return content;
}

function readTenant(fields: Fields) {
  const tenant = {
    ...(fields.has('per_tenant_daily_exec_limit')
      ? { perTenantDailyExecLimit: fields.wholeNumber('per_tenant_daily_exec_limit', 0) }
      : {}),
    ...(fields.has('per_tenant_concurrency')
      ? { perTenantConcurrency: fields.wholeNumber('per_tenant_concurrency', 1) }
      : {}),
  };
  fields.end();
  return tenant;
}

/** Step 3, allowed: the manifest decides what may boot, whatever else the ledger holds. */
export function requireAllowed(manifest: Manifest, kernelId: string, isThere: boolean): void {
  if (manifest.allowedBootIds.includes(kernelId)) return;
  const by = `manifest version ${manifest.seq}`;
  if ([...manifest.kernels.values()].includes(kernelId)) {
    throw new GovernanceError('KERNEL_REVOKED', `${by} names kernel ${kernelId} and does not allow it to boot`);
  }
  if (!isThere) throw new GovernanceError('KERNEL_NOT_FOUND', `${by} knows no kernel ${kernelId}`);
  throw new GovernanceError('KERNEL_NOT_ALLOWED', `${by} does not allow ${kernelId} to boot`);
}

export function dailyLimitOf({ throttle }: Manifest, tenantId: string): number {
  return throttle.tenants.get(tenantId)?.perTenantDailyExecLimit ?? throttle.perTenantDailyExecLimit;
}

/** The limits of the queue, as its claims want them. */
export function queueLimitsOf({ throttle }: Manifest): QueueLimits {
  const tenants = [...throttle.tenants].map(([id, { perTenantDailyExecLimit, perTenantConcurrency }]) => [
    id,
    { daily: perTenantDailyExecLimit, concurrency: perTenantConcurrency },
  ]);
  return {
    daily: throttle.perTenantDailyExecLimit,
    concurrency: throttle.perTenantConcurrency,
    tenants: Object.fromEntries(tenants),
  };
}
