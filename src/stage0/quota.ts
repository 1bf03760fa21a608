import { hexToBytes } from '@noble/hashes/utils.js';
import { GovernanceError } from '../errors.ts';
import { appendSpans, readLatestVersions, releaseExecution, reserveExecution } from '../ledger/index.ts';
import { isUuid } from '../span/index.ts';
import { appendContext, type Stage0 } from './stage0.ts';
import { dailyLimitOf, type Manifest } from './manifest.ts';
import type { BootRequest } from './request.ts';

type MeteredRequest = Pick<BootRequest, 'identity' | 'boot_function_id' | 'input'>;

/** A taken execution of the tenant's day. Given back if no function ran under it. */
export interface Reservation {
  release(): Promise<void>;
}

/** Higher than any day's count. */
const NO_LIMIT = 2_000_000_000;

/**
 * Step 6, quota: a boot that will run a function takes one execution of the tenant's day, before anything runs. The
 * counter is a row that is updated where it is below the limit, so parallel boots cannot both take the last one.
 *
 * @throws {GovernanceError} `QUOTA_EXCEEDED`, recorded as a `policy_violation`; `OVERRIDE_INVALID`.
 */
export async function reserveQuota(
  stage0: Stage0,
  manifest: Manifest,
  request: MeteredRequest,
  traceId: string,
): Promise<Reservation | null> {
  const { database, now } = stage0;
  const { identity, boot_function_id, input } = request;
  if (!manifest.throttle.meteredBootIds.includes(boot_function_id)) return null;

  const forced = await isForced(stage0, manifest, request);
  const limit = forced ? NO_LIMIT : dailyLimitOf(manifest, identity.tenantId);
  const day = now().toISOString().slice(0, 10);
  if (await reserveExecution(database, identity.tenantId, day, limit)) {
    return { release: () => releaseExecution(database, identity.tenantId, day) };
  }

  const message = `tenant ${identity.tenantId} has used its ${limit} function executions of ${day} (UTC)`;
  await appendSpans(
    database,
    [
      {
        entity_type: 'policy_violation',
        who: 'stage0',
        did: 'refused',
        this: `function:${boot_function_id}`,
        status: 'refused',
        related_to: [boot_function_id],
        input: input as never,
        error: { code: 'QUOTA_EXCEEDED', message },
        metric_name: 'per_tenant_daily_exec_limit',
        metric_value: limit,
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
  const spanId = String(input.span_id);
  const span = isUuid(spanId)
    ? (await readLatestVersions(database, request.identity, [spanId])).get(spanId)
    : undefined;
  const signature = String(input.force?.signature);
  const isValid =
    span !== undefined &&
    manifest.overridePublicKey !== null &&
    /^[0-9a-f]{128}$/.test(signature) &&
    scheme.verify(hexToBytes(signature), hexToBytes(span.curr_hash), hexToBytes(manifest.overridePublicKey));
  if (!isValid) {
    throw new GovernanceError('OVERRIDE_INVALID', 'input.force.signature is not the override key\'s over this function', {
      field: 'input.force.signature',
    });
  }
  return true;
}
