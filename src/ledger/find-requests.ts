import type { StoredSpan } from '../span/index.ts';
import type { Database, Identity, Row, Statement, TransactionQuery } from './database.ts';
import { findSpans } from './list-spans.ts';
import { spanTypes, toSpan } from './rows.ts';
import { PAGE_MAX, pageText, readPage } from './span-filter.ts';
import { type Cursor, cursorOf, parseCursor } from './timeline.ts';

/** Where a request waits; see sql/0012_request_queue.sql. */
export type QueueState = 'ready' | 'delayed' | 'leased' | 'dead';

export const QUEUE_STATES: readonly QueueState[] = ['ready', 'delayed', 'leased', 'dead'];

export interface RequestFilter {
  /** Without it, any. */
  states?: readonly QueueState[] | undefined;
  status?: string | undefined;
  functionId?: string | undefined;
}

/** A request as its versions and the queue together tell it. */
export interface RequestRecord {
  /** Its newest version. */
  request: StoredSpan;
  /** When its first version was appended, as that one says. */
  createdAt: string;
  /** Null when it does not wait any more, or is another's. */
  state: QueueState | null;
}

/** The named requests that the identity may see, in the order of their names. */
export async function readRequests(query: TransactionQuery, ids: string[]): Promise<RequestRecord[]> {
  return (await query<Row>(requestsStatement(newestText('latest.*, wanted.ordinality'), ids))).map(toRecord);
}

/** The same, as far as one page may hold their bytes. */
async function readRequestPage(
  query: TransactionQuery,
  ids: string[],
): Promise<{ requests: RequestRecord[]; isCut: boolean }> {
  const places = newestText('latest.id, latest.seq');
  const { rows, isCut } = readPage(await query<Row>(requestsStatement(pageText(places), ids)));
  return { requests: rows.map(toRecord), isCut };
}

function toRecord({ ordinality: _ordinality, created_at, queue_state, ...row }: Row): RequestRecord {
  return { request: toSpan(row), createdAt: created_at as string, state: queue_state as QueueState | null };
}

/** Newest versions of those of `$1` that are requests, and whose first version can be seen too. */
function newestText(columns: string): string {
  return `select ${columns}
            from unnest($1::uuid[]) with ordinality wanted (id, ordinality)
           cross join lateral (
             select r.* from ledger.universal_registry r where r.id = wanted.id order by r.seq desc limit 1
           ) latest
           where latest.entity_type = 'request'
             and exists (select from ledger.universal_registry first where first.id = wanted.id and first.seq = 0)
           order by wanted.ordinality`;
}

function requestsStatement(newest: string, ids: string[]): Statement {
  return {
    text: `select newest.*, first.at as created_at, place.state as queue_state
             from (${newest}) newest
             join ledger.universal_registry first on first.id = newest.id and first.seq = 0
             left join ledger.request_places($1::uuid[]) place on place.request_id = newest.id
            order by newest.ordinality`,
    values: [ids],
    types: spanTypes,
  };
}

/** The identity's own requests that wait, or are dead, by the place that put them into the queue, newest first. */
export async function findQueuedRequests(
  query: TransactionQuery,
  { states = QUEUE_STATES, status, functionId }: RequestFilter,
  before: Cursor | null,
  limit: number,
): Promise<{ id: string; cursor: Cursor }[]> {
  const rows = await query<{ request_id: string; position: number }>({
    text: 'select * from ledger.find_requests($1, $2, $3, $4, $5)',
    values: [
      states,
      status ?? null,
      functionId ?? null,
      before === null ? null : String(parseCursor(before, 'before').position),
      Math.min(limit, PAGE_MAX),
    ],
  });
  return rows.map(({ request_id, position }) => ({ id: request_id, cursor: cursorOf({ tx_id: '0', position }) }));
}

/** Statuses of requests that are in the queue. Others are looked for in the ledger. */
const QUEUED_STATUSES: readonly string[] = ['scheduled', 'error', 'dead'];

/**
 * Requests, newest first. Who asks for a state, or for a status that waits, is answered from the queue and sees his own;
 * all others are found in the ledger.
 *
 * @param before belongs to the same filter: it is a place in the order of the list that gave it.
 * @returns `before` continues the list; null at its end.
 */
export async function listRequests(
  database: Database,
  identity: Identity,
  filter: RequestFilter,
  before: Cursor | null,
  limit: number,
): Promise<{ requests: RequestRecord[]; before: Cursor | null }> {
  const pageSize = Math.min(limit, PAGE_MAX);
  const isQueued = filter.states !== undefined || QUEUED_STATUSES.includes(filter.status ?? '');
  return database.transaction(
    identity,
    async (query) => {
      const spanFilter = { entity_type: 'request', status: filter.status, parent_id: filter.functionId };
      const found = isQueued
        ? await findQueuedRequests(query, filter, before, pageSize)
        : await findSpans(query, identity, spanFilter, before, pageSize);
      const { requests, isCut } = await readRequestPage(
        query,
        found.map(({ id }) => id),
      );
      const last = isCut ? found.find(({ id }) => id === requests.at(-1)?.request.id) : found[pageSize - 1];
      return { requests, before: last?.cursor ?? null };
    },
    { readOnly: true },
  );
}
