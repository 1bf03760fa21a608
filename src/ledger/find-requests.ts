import type { StoredSpan } from '../span/index.ts';
import type { Database, Identity, Row, Statement, TransactionQuery } from './database.ts';
import { listSpans } from './list-spans.ts';
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
  return (await query<Row>(requestsStatement(ids))).map(toRecord);
}

/** The same, as far as one page may hold their bytes. `end` is where in `ids` they ended; null if all were held. */
async function readRequestPage(
  query: TransactionQuery,
  ids: string[],
): Promise<{ requests: RequestRecord[]; end: number | null }> {
  const statement = requestsStatement(ids);
  const rows = await query<Row>({ ...statement, text: pageText(statement.text, 'r.turn') });
  const { rows: held, isCut } = readPage(rows);
  return { requests: held.map(toRecord), end: isCut ? Number(held.at(-1)?.turn) - 1 : null };
}

function toRecord({ turn: _turn, created_at, queue_state, ...row }: Row): RequestRecord {
  return { request: toSpan(row), createdAt: created_at as string, state: queue_state as QueueState | null };
}

function requestsStatement(ids: string[]): Statement {
  return {
    text: `select latest.*, wanted.turn, first.at as created_at, place.state as queue_state
             from unnest($1::uuid[]) with ordinality wanted (id, turn)
            cross join lateral (
              select r.* from ledger.universal_registry r where r.id = wanted.id order by r.seq desc limit 1
            ) latest
             join ledger.universal_registry first on first.id = wanted.id and first.seq = 0
             left join ledger.request_places($1::uuid[]) place on place.request_id = wanted.id
            where latest.entity_type = 'request'
            order by wanted.turn`,
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
  let found: { id: string; cursor: Cursor }[] = [];
  let next: Cursor | null = null;
  if (!isQueued) {
    const spanFilter = { entity_type: 'request', status: filter.status, parent_id: filter.functionId };
    const page = await listSpans(database, identity, spanFilter, before, pageSize);
    found = page.spans.map((span) => ({ id: span.id, cursor: cursorOf(span) }));
    next = page.before;
  }
  return database.transaction(
    identity,
    async (query) => {
      if (isQueued) {
        found = await findQueuedRequests(query, filter, before, pageSize);
        next = found.length < pageSize ? null : (found.at(-1)?.cursor ?? null);
      }
      const { requests, end } = await readRequestPage(
        query,
        found.map(({ id }) => id),
      );
      return { requests, before: end === null ? next : (found[end]?.cursor ?? null) };
    },
    { readOnly: true },
  );
}
