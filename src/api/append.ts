import { ConflictError, InputError, IntegrityError } from '../errors.ts';
import { TEXT, TEXT_EXPECTED } from '../fields.ts';
import { type Caller, requireScope } from '../identity/index.ts';
import {
  type AppendContext,
  type Appended,
  appendSpans,
  hashDraft,
  readFirstVersions,
  type SpanDraft,
} from '../ledger/index.ts';
import type { SealedSpan, StoredSpan } from '../span/index.ts';
import { appendContext, derivedId, type Stage0 } from '../stage0/index.ts';
import { IDEMPOTENCY_KEY } from './input.ts';
import { checkStorable, readDrafts } from './span-drafts.ts';

/** Spans of one request that may come signed: each is proved before the next request has its turn. */
export const SIGNED_MAX = 100;

/**
 * Append the spans of a client, in his name: one, or a batch.
 *
 * An idempotency key names what it appends: the ids follow from the key, so that of any number of calls one appends, and
 * the others find the places taken and answer the same. So all of it is new spans: one that names an id, or a later seq,
 * is refused under a key.
 *
 * A span that its author has signed, by a key that is trusted here, is proved and stored as it was sent: at most
 * `SIGNED_MAX` in one request.
 *
 * @throws {InputError} `BATCH_SIZE`
 * @throws {AccessError} `SCOPE_MISSING`: what is appended runs by itself, and the caller may execute nothing.
 * @throws {ConflictError} `IDEMPOTENCY_KEY_REUSED`: under this key something else was appended.
 * @throws {IntegrityError} `HASH_MISMATCH`, `SIGNATURE_INVALID`, `KEY_NOT_TRUSTED`: of a span that came signed.
 */
export async function append(
  stage0: Stage0,
  caller: Caller,
  body: unknown,
  key: string | undefined,
): Promise<Appended | { spans: Appended[] }> {
  const checkSealed = (span: SealedSpan) => stage0.verifier.proveSealed(span);
  const context = { ...appendContext(stage0, caller.identity), checkSealed };
  const { drafts, isBatch } = await readDrafts(body, caller.identity);
  const signed = drafts.filter(({ signature }) => signature != null).length;
  if (signed > SIGNED_MAX)
    throw new InputError('BATCH_SIZE', `a request takes at most ${SIGNED_MAX} signed spans, this has ${signed}`);
  if (drafts.some(runsByItself)) requireScope(caller, 'execute');
  const appending =
    key === undefined
      ? appendSpans(stage0.database, drafts, context)
      : appendUnderKey(stage0, drafts, context, key, isBatch);
  const appended = await appending.catch((error: unknown) => {
    if (isBatch && (error instanceof InputError || error instanceof IntegrityError)) checkStorable(drafts, context);
    throw error;
  });
  return isBatch ? { spans: appended } : (appended[0] as Appended);
}

/** A function on a schedule, or a policy at work: nobody else need ask for it. */
function runsByItself({ entity_type, status }: SpanDraft): boolean {
  return (entity_type === 'function' && status === 'scheduled') || (entity_type === 'policy' && status === 'active');
}

async function appendUnderKey(
  { database, tenantMasterKey }: Stage0,
  drafts: SpanDraft[],
  context: AppendContext,
  key: string,
  isBatch: boolean,
): Promise<Appended[]> {
  if (!TEXT.test(key)) throw invalid(IDEMPOTENCY_KEY, TEXT_EXPECTED);
  const { tenantId, userId } = context.identity;
  const idAt = (i: number) => derivedId(tenantMasterKey, 'append', tenantId, userId, key, String(i));
  const placed = drafts.map((draft, i) => {
    const at = (field: string) => (isBatch ? `spans[${i}].${field}` : field);
    if (draft.id != null) throw invalid(at('id'), 'none, because under an idempotency key it follows from the key');
    if ((draft.seq ?? 0) !== 0) throw invalid(at('seq'), '0, because under an idempotency key every span is new');
    return { idempotency_key: key, ...draft, id: idAt(i), seq: 0 };
  });
  try {
    return await appendSpans(database, placed, context);
  } catch (error) {
    if (!(error instanceof ConflictError)) throw error;
    const ids = placed.map(({ id }) => id);
    // One more than there are now: there may have been more the first time.
    const first = await readFirstVersions(database, context.identity, [...ids, idAt(ids.length)]);
    if (first.size === 0) throw error;
    if (first.size !== ids.length || !placed.every((draft) => isRepeated(draft, first.get(draft.id), context))) {
      const message = 'the idempotency key was used for something else';
      throw new ConflictError('IDEMPOTENCY_KEY_REUSED', message, { field: IDEMPOTENCY_KEY });
    }
    return ids.map((id) => ({ id, seq: 0, curr_hash: (first.get(id) as StoredSpan).curr_hash }));
  }
}

/** Whether a draft, completed when and by whom the first one was, becomes the same span. */
function isRepeated(draft: SpanDraft, first: StoredSpan | undefined, context: AppendContext): boolean {
  if (first === undefined) return false;
  const signer = { ...context.signer, publicKey: first.public_key };
  const again = hashDraft(draft, { ...context, signer, now: () => new Date(first.at) });
  return again.span.curr_hash === first.curr_hash;
}

function invalid(field: string, expected: string): InputError {
  return new InputError('FIELD_INVALID', `${field}: expected ${expected}`, { field });
}
