import { ConflictError } from '../errors.ts';
import {
  type AppendContext,
  appendOnce,
  type Cursor,
  type Database,
  findQueuedRequests,
  lockRequests,
  type QueueState,
  type RequestFilter,
  readRequests,
  type SpanDraft,
  type TransactionQuery,
} from '../ledger/index.ts';
import type { StoredSpan } from '../span/index.ts';

/** Requests that one call may change. */
export const REQUESTS_CHANGED_MAX = 1_000;
/** Times that a call which met another writer is tried again. */
const ATTEMPTS_MAX = 5;

/** Which requests: those that are named, or the newest that match; `before` goes on where another call ended. */
export type RequestSelection = { ids: string[] } | { filter: RequestFilter; before: Cursor | null; limit: number };

export interface RequestChanges {
  changed: string[];
  /** `reason` is a code: `REQUEST_NOT_FOUND`, `NOT_YOUR_SPAN`, or what the change itself says. */
  unchanged: { id: string; reason: string }[];
  /** Where the next call goes on; null when no more matched. What was redriven has a newer place: it is not met again. */
  before: Cursor | null;
}

/** What an owner may do to a request from outside: a version that he appends himself. */
export interface RequestChange {
  /** Where requests wait that it can change. */
  states: readonly QueueState[];
  from: readonly string[];
  /** Why a request with another status is left as it is. */
  reason: string;
  version: (now: string) => Partial<SpanDraft>;
}

/** It will not run again. One that is running is not stopped, but what comes of it is refused. */
export const CANCEL: RequestChange = {
  states: ['ready', 'delayed', 'leased'],
  from: ['scheduled', 'error'],
  reason: 'REQUEST_CLOSED',
  version: (now) => ({ did: 'cancelled', status: 'cancelled', finished_at: now }),
};

/** It was given up, and begins again: due now, with all its attempts before it. */
export const REDRIVE: RequestChange = {
  states: ['dead'],
  from: ['dead'],
  reason: 'REQUEST_NOT_DEAD',
  version: () => ({
    did: 'redriven',
    status: 'scheduled',
    attempt: 0,
    scheduled_at: null,
    started_at: null,
    finished_at: null,
    output: null,
    error: null,
  }),
};

/**
 * Change requests of the identity's own, all in one transaction. Their places in the queue are locked before their
 * newest versions are read, in the order in which workers lock them: so that a worker that is closing one of them at
 * this moment is either before us, and then we see what it wrote, or after us, and then it has lost its claim.
 */
export async function changeRequests(
  database: Database,
  context: AppendContext,
  change: RequestChange,
  selection: RequestSelection,
): Promise<RequestChanges> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await database.transaction(context.identity, (query) => changeOnce(query, context, change, selection));
    } catch (error) {
      if (!(error instanceof ConflictError) || attempt === ATTEMPTS_MAX) throw error;
    }
  }
}

async function changeOnce(
  query: TransactionQuery,
  context: AppendContext,
  change: RequestChange,
  selection: RequestSelection,
): Promise<RequestChanges> {
  const { ids, before } =
    'ids' in selection
      ? { ids: [...new Set(selection.ids)], before: null }
      : await findRequests(query, change, selection);
  await lockRequests(query, ids);
  const records = await readRequests(query, ids);
  const known = new Map(records.map(({ request }) => [request.id, request]));
  const reasons = new Map(ids.map((id) => [id, reasonAgainst(known.get(id), change, context)]));

  const changed = ids.filter((id) => reasons.get(id) === null);
  const now = context.now().toISOString();
  const drafts = changed.map((id) => {
    const { position, tx_id, seq, prev_hash, curr_hash, signature, public_key, ...kept } = known.get(id) as StoredSpan;
    return { ...kept, who: context.identity.userId, at: now, ...change.version(now) } as SpanDraft;
  });
  if (drafts.length > 0) await appendOnce(query, drafts, context);
  const unchanged = [...reasons].flatMap(([id, reason]) => (reason === null ? [] : [{ id, reason }]));
  return { changed, unchanged, before };
}

async function findRequests(
  query: TransactionQuery,
  change: RequestChange,
  { filter, before, limit }: { filter: RequestFilter; before: Cursor | null; limit: number },
): Promise<{ ids: string[]; before: Cursor | null }> {
  const states = change.states.filter((state) => filter.states?.includes(state) ?? true);
  const found = await findQueuedRequests(query, { ...filter, states }, before, limit);
  return { ids: found.map(({ id }) => id), before: found[limit - 1]?.cursor ?? null };
}

function reasonAgainst(
  request: StoredSpan | undefined,
  { from, reason }: RequestChange,
  { identity }: AppendContext,
): string | null {
  if (request === undefined) return 'REQUEST_NOT_FOUND';
  if (request.owner_id !== identity.userId || request.tenant_id !== identity.tenantId) return 'NOT_YOUR_SPAN';
  return from.includes(request.status ?? '') ? null : reason;
}
