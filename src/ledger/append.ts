import { randomUUID } from 'node:crypto';
import { ConflictError, InputError } from '../errors.ts';
import {
  ASSIGNED_COLUMNS,
  type HashableSpan,
  type HashedSpan,
  hashSpan,
  rowJson,
  type SealedSpan,
  type Signer,
  type Span,
  type StoredSpan,
} from '../span/index.ts';
import type { Database, Identity, Row, Statement, TransactionQuery } from './database.ts';
import { latestVersionsStatement } from './read.ts';
import { toSpansById } from './rows.ts';

/** Spans one append takes. */
export const APPEND_BATCH_MAX = 1_000;
/** From so many spans on, other threads gain more than handing over costs. */
const SIGNED_ON_THREADS_MIN = 16;
/**
 * Times an append that named no seq is tried again when another writer was first. After the first it waits in line, but who
 * comes anew does not, and may be first again.
 */
const CONFLICT_RETRIES_MAX = 20;

/**
 * What a caller says of a span; the rest is completed here. With an `id` that exists it becomes that span's next
 * version, with a new one or none it becomes a new span. `at` may be left out for now, `owner_id` and `tenant_id` are
 * the identity's, `visibility` is private unless said (a later version keeps the one before it).
 */
export type SpanDraft = Span & { entity_type: string };

/** Where an appended version stands. */
export interface Appended {
  id: string;
  seq: number;
  curr_hash: string;
}

export interface AppendContext {
  identity: Identity;
  signer: Signer;
  now: () => Date;
  /**
   * Says whether the proof that a span brings with it holds; without this, none may bring one.
   *
   * @throws {IntegrityError} it does not.
   */
  checkSealed?: (span: SealedSpan) => void;
}

/**
 * Complete, sign and append spans: all or none, in one statement.
 *
 * @throws {InputError} a field cannot be stored, or the batch is empty or too large; nothing is written.
 * @throws {ConflictError} `SEQ_TAKEN`: the caller named a seq and another writer had it first.
 * @throws {AccessError} the identity may not write this.
 */
export async function appendSpans(
  database: Database,
  drafts: SpanDraft[],
  context: AppendContext,
): Promise<Appended[]> {
  for (let attempt = 0; ; attempt++) {
    try {
      if (attempt === 0) return await appendOnce((statement) => database.query(statement), drafts, context);
      return await appendInTurn(database, drafts, context);
    } catch (error) {
      const lostRace = error instanceof ConflictError && drafts.every((draft) => draft.seq == null);
      if (!lostRace || attempt === CONFLICT_RETRIES_MAX) throw error;
    }
  }
}

/** Who lost a race waits in line: one lock for each span, taken in the order of ids so that no two wait for each other. */
function appendInTurn(database: Database, drafts: SpanDraft[], context: AppendContext): Promise<Appended[]> {
  const ids = [...new Set(drafts.map(({ id }) => id).filter((id) => id != null))].sort();
  return database.transaction(context.identity, async (query) => {
    await query({
      text: 'select pg_advisory_xact_lock(hashtextextended(id, 0)) from unnest($1::text[]) id',
      values: [ids],
    });
    return appendOnce(query, drafts, context);
  });
}

/** The same inside a transaction of the caller's: it commits or vanishes with it, so a lost race is the caller's. */
export async function appendOnce(
  query: TransactionQuery,
  drafts: SpanDraft[],
  context: AppendContext,
): Promise<Appended[]> {
  if (drafts.length === 0 || drafts.length > APPEND_BATCH_MAX) {
    throw new InputError('BATCH_SIZE', `an append takes 1 to ${APPEND_BATCH_MAX} spans, this has ${drafts.length}`);
  }
  const latest = await latestOfDrafts(query, drafts, context.identity);
  const { signHash, signHashOnThread } = context.signer;
  const sign = drafts.length < SIGNED_ON_THREADS_MIN ? signHash : signHashOnThread;
  const signatures: (string | Promise<string>)[] = [];
  const hashed = drafts.map((draft) => {
    const version = hashDraft(draft, context, draft.id == null ? undefined : latest.get(draft.id));
    signatures.push(version.signature ?? sign(version.hash)); // on a thread it goes on while the next draft is hashed
    latest.set(version.span.id, version.span); // a batch may hold several versions of one span
    return version;
  });
  const signed = await Promise.all(signatures);
  const rows = hashed.map((version, i) => rowJson(version, signed[i] as string));
  await query(appendStatement(context.identity, `[${rows.join(',')}]`));
  return hashed.map(({ span: { id, seq, curr_hash } }) => ({ id, seq, curr_hash }));
}

/** The one statement that writes: declares the identity and inserts. */
function appendStatement(identity: Identity, rows: string): Statement {
  return { text: 'select ledger.append($1, $2, $3)', values: [identity.userId, identity.tenantId, rows] };
}

/** Versions that drafts continue. New spans (no id, or seq 0) cost no look-up. */
async function latestOfDrafts(
  query: TransactionQuery,
  drafts: SpanDraft[],
  identity: Identity,
): Promise<Map<string, HashableSpan & { curr_hash: string }>> {
  const ids = drafts.filter((draft) => draft.id != null && draft.seq !== 0).map((draft) => draft.id as string);
  if (ids.length === 0) return new Map();
  return toSpansById(await query<Row>(latestVersionsStatement(identity, [...new Set(ids)])));
}

/**
 * Complete and sign one span, as the JSON of its row. `before` is the version it follows; without it, it is a new span.
 *
 * @throws {InputError} a field cannot be stored.
 */
export function sealDraft(draft: SpanDraft, context: AppendContext, before?: StoredSpan): string {
  const hashed = hashDraft(draft, context, before);
  return rowJson(hashed, context.signer.signHash(hashed.hash));
}

/**
 * Complete and hash one span. `before` is the version it follows; without it, it is a new span. One that its author has
 * signed stays as it is, with that signature.
 *
 * @throws {InputError} a field cannot be stored.
 */
export function hashDraft(
  draft: SpanDraft,
  { identity, signer, now, checkSealed }: AppendContext,
  before?: HashableSpan & { curr_hash: string },
): HashedSpan & { signature?: string } {
  if (checkSealed !== undefined && draft.signature != null) return hashSealed(draft, checkSealed);
  for (const column of ASSIGNED_COLUMNS) {
    if (draft[column] != null)
      throw new InputError('FIELD_IS_ASSIGNED', `${column} is not the caller's to set`, { field: column });
  }
  const span = {
    ...draft,
    id: draft.id ?? randomUUID(),
    seq: draft.seq ?? (before === undefined ? 0 : before.seq + 1),
    who: draft.who ?? identity.userId,
    at: draft.at ?? now().toISOString(),
    owner_id: draft.owner_id ?? identity.userId,
    tenant_id: draft.tenant_id ?? identity.tenantId,
    visibility: (draft.visibility ?? before?.visibility ?? 'private') as HashableSpan['visibility'],
    prev_hash: before === undefined ? null : before.curr_hash,
  };
  return hashSpan(span, signer.publicKey);
}

/** What is signed must say by itself what would be completed otherwise; `prev_hash` too, from the second version on. */
const SEALED_COLUMNS = ['id', 'seq', 'who', 'at', 'owner_id', 'tenant_id', 'visibility', 'public_key'] as const;

function hashSealed(draft: SpanDraft, checkSealed: (span: SealedSpan) => void): HashedSpan & { signature: string } {
  for (const column of ['position', 'tx_id'] as const) {
    if (draft[column] != null)
      throw new InputError('FIELD_IS_ASSIGNED', `${column} is not the caller's to set`, { field: column });
  }
  for (const column of SEALED_COLUMNS) {
    if (draft[column] == null)
      throw new InputError('FIELD_MISSING', `${column} is missing, and the span is signed`, { field: column });
  }
  const { curr_hash, signature, ...span } = draft as SealedSpan;
  const hashed = hashSpan(span, span.public_key);
  checkSealed({ ...hashed.span, curr_hash: curr_hash ?? hashed.span.curr_hash, signature });
  return { ...hashed, signature };
}
