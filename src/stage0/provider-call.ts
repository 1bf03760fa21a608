import { setTimeout as sleep } from 'node:timers/promises';
import { GovernanceError, InputError, UpstreamError } from '../errors.ts';
import { type Identity, readLatestVersions } from '../ledger/index.ts';
import {
  callProvider,
  type Provider,
  type ProviderAnswer,
  parseProviderContent,
  readProviderRequest,
} from '../provider/index.ts';
import { isUuid, type StoredSpan, SYSTEM_ID } from '../span/index.ts';
import type { Stage0 } from './stage0.ts';

/** A call ends this much before its kernel must (or a quarter of what is left), so that the kernel can record how. */
const RECORDING_MS = 2_000;

/**
 * `ctx.provider`: ask the provider of a row. The host's secrets go where the row says, so the row must be the system's
 * own and signed by a root key: nobody's own row is ever called, and it would learn nothing if it were.
 *
 * @throws {InputError} the request, naming its field.
 * @throws {GovernanceError} `PROVIDER_NOT_FOUND`, `PROVIDER_NOT_ACTIVE`
 * @throws {IntegrityError} the row does not prove itself; `PROVIDER_INVALID`
 * @throws {UpstreamError} `SECRET_UNAVAILABLE`, `SECRET_MALFORMED`; the provider's own failures, see `src/provider`.
 */
export async function callProviderRow(
  stage0: Stage0,
  identity: Identity,
  providerId: unknown,
  request: unknown,
  deadline: Date,
): Promise<ProviderAnswer> {
  if (!isUuid(providerId)) {
    throw new InputError('FIELD_INVALID', 'provider_id: expected a UUID in lower case', { field: 'provider_id' });
  }
  const asked = readProviderRequest(request);
  const span = (await readLatestVersions(stage0.database, identity, [providerId])).get(providerId);
  const row = requireActiveProvider(span, providerId);
  await stage0.verifier.prove(row, stage0.database, identity);
  const provider = parseProviderContent(row.content, row.name ?? row.id);
  const remainingMs = deadline.getTime() - stage0.now().getTime();
  return callProvider(provider, asked, {
    secret: await secretOf(stage0, provider),
    deadline: new Date(deadline.getTime() - Math.min(RECORDING_MS, remainingMs / 4)),
    clock: { now: stage0.now, sleep, random: Math.random },
  });
}

function requireActiveProvider(span: StoredSpan | undefined, id: string): StoredSpan {
  if (span === undefined) throw new GovernanceError('PROVIDER_NOT_FOUND', `no span ${id} is visible`);
  const isOfSystem = span.tenant_id === SYSTEM_ID && span.owner_id === SYSTEM_ID;
  const isActive = span.status === 'active' && span.is_deleted !== true;
  if (span.entity_type === 'provider' && isOfSystem && isActive) return span;
  throw new GovernanceError(
    'PROVIDER_NOT_ACTIVE',
    `span ${id} version ${span.seq} is not an active provider of the system`,
  );
}

/** Errors name the secret and the provider; a malformed value would otherwise be quoted by whoever trips over it. */
async function secretOf(stage0: Stage0, { secretName, name }: Provider): Promise<string | null> {
  if (secretName === null) return null;
  const what = `secret ${secretName} of provider ${name}`;
  let secret: string | null;
  try {
    secret = await stage0.providerSecrets(secretName);
  } catch (cause) {
    throw new UpstreamError('SECRET_UNAVAILABLE', `${what} cannot be read`, { cause });
  }
  if (secret === null || secret === '') throw new UpstreamError('SECRET_UNAVAILABLE', `${what} is not set`);
  if (!/^[\x21-\x7e]+$/.test(secret)) {
    throw new UpstreamError('SECRET_MALFORMED', `${what} is not one word of visible ASCII characters`);
  }
  return secret;
}
