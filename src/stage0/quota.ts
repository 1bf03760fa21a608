import { hexToBytes } from '@noble/hashes/utils.js';
import { GovernanceError } from '../errors.ts';
import {
  appendSpans,
  type BootConditions,
  readLatestVersions,
  releaseExecution,
  reserveExecution,
} from '../ledger/index.ts';
import { type Ed25519, isUuid, type Json, type StoredSpan } from '../span/index.ts';
import { dailyLimitOf, type Manifest } from './manifest.ts';
import type { BootRequest } from './request.ts';
import { appendContext, type Stage0 } from './stage0.ts';

type MeteredRequest = Pick<BootRequest, 'identity' | 'boot_function_id' | 'input'>;
type Metered = BootConditions['metered'];

/** Higher than any day's count. */
const NO_LIMIT = 2_000_000_000;

/**
 * What a boot takes of the tenant's day: one function execution if the manifest meters the kernel, otherwise nothing.
 * The counter is a row that is updated where it is below the limit, so parallel boots cannot both take the last one.
 *
 * @throws {GovernanceError} `OVERRIDE_INVALID`: `input.force` is there and is not what passes the limit.
 */
export async function meter(stage0: Stage0, manifest: Manifest, request: MeteredRequest): Promise<Metered> {
  if (!manifest.throttle.meteredBootIds.includes(request.boot_function_id)) return null;
  const limit = (await isForced(stage0, manifest, request))
    ? NO_LIMIT
    : dailyLimitOf(manifest, request.identity.tenantId);
  return { day: stage0.now().toISOString().slice(0, 10), limit };
}

/** Step 6 for a nested invoke, which has no boot_event to take its execution with. False when none is left. */
export async function reserve(stage0: Stage0, request: MeteredRequest, metered: Metered): Promise<boolean> {
  return metered === null || reserveExecution(stage0.database, request.identity.tenantId, metered.day, metered.limit);
}

/** Give back what was taken: no function ran. */
export async function release(stage0: Stage0, request: MeteredRequest, metered: Metered): Promise<void> {
  if (metered !== null) await releaseExecution(stage0.database, request.identity.tenantId, metered.day);
}

/** The tenant's day is used up: say so in the ledger, and to the caller. */
export async function refuseOverQuota(
  stage0: Stage0,
  manifest: Manifest,
  request: MeteredRequest,
  metered: NonNullable<Metered>,
  traceId: string,
): Promise<never> {
  const { identity, boot_function_id, input } = request;
  const message = `tenant ${identity.tenantId} has used its ${metered.limit} function executions of ${metered.day} (UTC)`;
  await appendSpans(
    stage0.database,
    [
      {
        entity_type: 'policy_violation',
        who: 'stage0',
        did: 'refused',
        this: `function:${boot_function_id}`,
        status: 'refused',
        related_to: [boot_function_id],
        input: input as Json,
        error: { code: 'QUOTA_EXCEEDED', message },
        metric_name: 'per_tenant_daily_exec_limit',
        metric_value: metered.limit,
        trace_id: traceId,
        metadata: { manifest_hash: manifest.hash },
      },
    ],
    appendContext(stage0, identity),
  );
  throw new GovernanceError('QUOTA_EXCEEDED', message);
}

/** `input.force.signature`: the override key's signature over the hash of the function to be run. Nothing else counts. */
async function isForced({ database, scheme }: Stage0, manifest: Manifest, request: MeteredRequest): Promise<boolean> {
  const input = request.input as { span_id?: unknown; force?: { signature?: unknown } } | null;
  if (typeof input !== 'object' || input === null || input.force === undefined) return false;
  const { span_id: spanId } = input;
  const span = isUuid(spanId)
    ? (await readLatestVersions(database, request.identity, [spanId])).get(spanId)
    : undefined;
  const isValid = span !== undefined && isOverridden(scheme, manifest, span, input.force?.signature);
  if (isValid) return true;
  const field = 'input.force.signature';
  throw new GovernanceError(
    'OVERRIDE_INVALID',
    `${field} is not the override key's signature over this function's hash`,
    {
      field,
    },
  );
}

/** Whether a signature is the override key's, over the hash of this version of a function. */
export function isOverridden(scheme: Ed25519, manifest: Manifest, fn: StoredSpan, signature: unknown): boolean {
  return (
    manifest.overridePublicKey !== null &&
    typeof signature === 'string' &&
    /^[0-9a-f]{128}$/.test(signature) &&
    scheme.verify(hexToBytes(signature), hexToBytes(fn.curr_hash), hexToBytes(manifest.overridePublicKey))
  );
}
