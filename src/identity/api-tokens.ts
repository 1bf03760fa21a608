import { randomBytes, timingSafeEqual } from 'node:crypto';
import { AccessError, InputError } from '../errors.ts';
import { appendSpans, type Database, listSpans, readAnyVersions, readLatestVersions } from '../ledger/index.ts';
import { blake3Hex, type Ed25519, type StoredSpan, type TrustedKeys, verifySpan } from '../span/index.ts';
import { appendContext, derivedId, type Stage0 } from '../stage0/index.ts';
import type { Caller } from './caller.ts';
import { allows } from './scopes.ts';

export const API_TOKEN_PREFIX = 'llo_';
const SECRET_BYTES = 32;
const ENTITY_TYPE = 'api_token';

const DAY_S = 24 * 60 * 60;
const LIFE_S = 90 * DAY_S;
/** Seconds that a token may last. */
export const API_TOKEN_LIFE_MAX_S = 3_650 * DAY_S;

/** A token as its owner sees it later: everything but the token. */
export interface ApiTokenView {
  id: string;
  name: string | null;
  scopes: string[];
  status: string;
  expires_at: string | null;
}

export interface ApiTokenDraft {
  name: string;
  scopes: string[];
  /** 90 days unless said; at most `API_TOKEN_LIFE_MAX_S`. */
  expires_in_s?: number | undefined;
}

/**
 * Make a token for the caller: it speaks for the same identity, and allows nothing that the caller may not do. Its span
 * has only its hash, so whoever reads the ledger cannot use it.
 *
 * A token that a token made ends with that one, and makes no tokens itself; otherwise who stole one could keep what he has.
 *
 * @throws {AccessError} `SCOPE_NOT_YOURS`, naming the field.
 */
export async function createApiToken(
  stage0: Pick<Stage0, 'database' | 'signer' | 'tenantMasterKey' | 'now'>,
  caller: Caller,
  { name, scopes, expires_in_s: lifeS = LIFE_S }: ApiTokenDraft,
): Promise<ApiTokenView & { token: string }> {
  for (const [i, scope] of scopes.entries()) {
    const field = `scopes.${i}`;
    if (!allows(caller.scopes, scope)) throw new AccessError('SCOPE_NOT_YOURS', `${field}: it is not yours`, { field });
    if (caller.tokenId !== null && allows([scope], 'tokens:manage')) {
      throw new AccessError('SCOPE_NOT_YOURS', `${field}: a token that a token makes can make none`, { field });
    }
  }
  const token = API_TOKEN_PREFIX + randomBytes(SECRET_BYTES).toString('base64url');
  const id = idOf(stage0.tenantMasterKey, token);
  const draft = {
    id,
    seq: 0,
    entity_type: ENTITY_TYPE,
    did: 'created',
    this: `api_token:${id}`,
    parent_id: caller.tokenId,
    visibility: 'private' as const,
    status: 'active',
    name,
    expires_at: new Date(stage0.now().getTime() + lifeS * 1000).toISOString(),
    content: { scopes: [...new Set(scopes)], token_hash: blake3Hex(token) },
  };
  await appendSpans(stage0.database, [draft], appendContext(stage0, caller.identity));
  return { ...viewOf(draft), token };
}

/** The caller's own, newest first. */
export async function listApiTokens(
  { database }: Stage0,
  { identity }: Caller,
  before: string | null,
  limit: number,
): Promise<{ tokens: ApiTokenView[]; before: string | null }> {
  const filter = { entity_type: ENTITY_TYPE, owner_id: identity.userId };
  const page = await listSpans(database, identity, filter, before, limit);
  return { tokens: page.spans.map(viewOf), before: page.before };
}

/**
 * End one of the caller's own tokens, at once; one that has ended before stays as it is.
 *
 * @throws {InputError} `TOKEN_NOT_FOUND`
 */
export async function revokeApiToken(stage0: Stage0, { identity }: Caller, id: string): Promise<ApiTokenView> {
  const span = (await readLatestVersions(stage0.database, identity, [id])).get(id);
  if (span?.entity_type !== ENTITY_TYPE) {
    throw new InputError('TOKEN_NOT_FOUND', `you have no token ${id}`, { field: 'id' });
  }
  if (span.status === 'revoked') return viewOf(span);
  const { name = null, parent_id = null, expires_at = null, content = null } = span;
  const said = { name, parent_id, expires_at, content, status: 'revoked' };
  const draft = { id, entity_type: ENTITY_TYPE, did: 'revoked', this: `api_token:${id}`, ...said };
  await appendSpans(stage0.database, [draft], appendContext(stage0, identity));
  return viewOf(draft);
}

export interface ApiTokenReaderOptions {
  database: Database;
  trustedKeys: TrustedKeys;
  scheme: Ed25519;
  /** Ids of tokens follow from them by this secret. */
  tenantMasterKey: Uint8Array;
  now: () => Date;
}

/** Knows whom API tokens speak for. Keeps nothing: each time it asks the ledger, so what is revoked is revoked at once. */
export class ApiTokenReader {
  readonly #options: ApiTokenReaderOptions;

  constructor(options: ApiTokenReaderOptions) {
    this.#options = options;
  }

  /** @throws {AccessError} `TOKEN_INVALID`, `TOKEN_EXPIRED`, `TOKEN_REVOKED` */
  async read(token: string): Promise<Caller> {
    const { tenantMasterKey, now } = this.#options;
    const id = idOf(tenantMasterKey, token);
    const spans = await this.#newest([id]);
    const span = spans.get(id);
    if (span === undefined || !isHashOf(token, span)) throw new AccessError('TOKEN_INVALID', 'this token is not known');
    if (!isLive(span, spans)) throw new AccessError('TOKEN_REVOKED', 'this token was revoked');
    this.#prove(span);
    const expiresAt = endOf(span, spans);
    if (!(expiresAt > now())) throw new AccessError('TOKEN_EXPIRED', 'this token has expired');
    return {
      identity: { userId: span.owner_id, tenantId: span.tenant_id },
      scopes: contentOf(span).scopes,
      tokenId: id,
      expiresAt,
    };
  }

  /** Those of the ids whose token was revoked since. */
  async revoked(ids: string[]): Promise<Set<string>> {
    const spans = await this.#newest(ids);
    return new Set(ids.filter((id) => !isLive(spans.get(id), spans)));
  }

  /** A row in the table is no authority: what counts is that we said it, and that it says it still. */
  #prove(span: StoredSpan): void {
    const { trustedKeys, scheme } = this.#options;
    const [problem] = verifySpan(span, trustedKeys, scheme);
    if (problem === undefined) return;
    const cause = new Error(`api_token ${span.id} does not prove itself: ${problem.detail}`);
    throw new AccessError('TOKEN_INVALID', 'this token is not known', { cause });
  }

  /** The newest versions of these tokens, and of those that made them. */
  async #newest(ids: string[]): Promise<Map<string, StoredSpan>> {
    if (ids.length === 0) return new Map();
    const { database } = this.#options;
    const spans = await readAnyVersions(database, ids);
    const makers = spans.map(({ parent_id }) => parent_id).filter((id) => id != null);
    const all = makers.length === 0 ? spans : [...spans, ...(await readAnyVersions(database, makers))];
    return new Map(all.filter((span) => span.entity_type === ENTITY_TYPE).map((span) => [span.id, span]));
  }
}

/** It follows from the token, so that a token is found by its place in the ledger, and nobody can tell where that is. */
function idOf(secret: Uint8Array, token: string): string {
  return derivedId(secret, ENTITY_TYPE, token);
}

function isHashOf(token: string, span: StoredSpan): boolean {
  const hash = Buffer.from(blake3Hex(token));
  const said = Buffer.from(String(contentOf(span).token_hash));
  return hash.length === said.length && timingSafeEqual(hash, said);
}

/** Neither it nor the token that made it was revoked. */
function isLive(span: StoredSpan | undefined, spans: Map<string, StoredSpan>): boolean {
  // There is no version after the first but its end.
  const isActive = (token: StoredSpan | undefined) => token?.seq === 0 && token.status === 'active';
  return isActive(span) && (span?.parent_id == null || isActive(spans.get(span.parent_id)));
}

/** @param span one that is live, so its maker is there. */
function endOf(span: StoredSpan, spans: Map<string, StoredSpan>): Date {
  const maker = span.parent_id == null ? undefined : spans.get(span.parent_id);
  const ends = [span, maker].map((token) => (token === undefined ? Infinity : Date.parse(token.expires_at ?? '')));
  return new Date(Math.min(...ends));
}

function contentOf(span: { content?: unknown }): { scopes: string[]; token_hash: string } {
  const { scopes, token_hash } = (span.content ?? {}) as { scopes?: unknown; token_hash?: unknown };
  return { scopes: Array.isArray(scopes) ? scopes.map(String) : [], token_hash: String(token_hash) };
}

function viewOf(span: Pick<StoredSpan, 'name' | 'status' | 'expires_at' | 'content'> & { id: string }): ApiTokenView {
  return {
    id: span.id,
    name: span.name ?? null,
    scopes: contentOf(span).scopes,
    status: span.status ?? '',
    expires_at: span.expires_at ?? null,
  };
}
