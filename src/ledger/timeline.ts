import { InputError } from '../errors.ts';
import type { StoredSpan } from '../span/index.ts';
import type { Database, Identity, Row, TransactionQuery } from './database.ts';
import { spanTypes, toSpan } from './rows.ts';
import {
  filterConditions,
  PAGE_MAX,
  type PlaceRow,
  pageText,
  readPage,
  type SpanFilter,
  visiblePlacesText,
} from './span-filter.ts';

/** Visible spans that a filtered page looks at before it answers, however few of them match. */
const LOOKED_AT_MAX = 10_000;

/**
 * A place in the timeline: 32 hex digits, transaction before position. Opaque to clients, and totally ordered as text.
 * Why two numbers: `sql/0006_timeline.sql`.
 */
export type Cursor = string;

/** Both numbers are of 63 bits and more; a position is never negative. */
export const CURSOR = /^[0-9a-f]{16}[0-7][0-9a-f]{15}$/;

/** Before the first span. */
export const TIMELINE_START: Cursor = '0'.repeat(32);

interface Place {
  txId: bigint;
  position: bigint;
}

export function cursorOf(span: { tx_id: string; position: number | string }): Cursor {
  return hex64(BigInt(span.tx_id)) + hex64(BigInt(span.position));
}

/** Before all spans of a transaction, and after those of all earlier ones. */
export function transactionCursor(txId: string): Cursor {
  return cursorOf({ tx_id: txId, position: 0 });
}

/** @throws {InputError} `CURSOR_INVALID` */
export function parseCursor(cursor: Cursor, field = 'after'): Place {
  if (!CURSOR.test(cursor)) {
    throw new InputError('CURSOR_INVALID', 'a position is 32 hex digits, as an earlier page gave it', { field });
  }
  return { txId: BigInt(`0x${cursor.slice(0, 16)}`), position: BigInt(`0x${cursor.slice(16)}`) };
}

function hex64(value: bigint): string {
  return value.toString(16).padStart(16, '0');
}

/**
 * The settled spans after a position, in order, as far as the identity may see them. Resuming misses and repeats none.
 *
 * A page takes no further span once it has `bytesMax`, or what pages of lists hold.
 *
 * With a filter, a page goes on past what does not match: it may hold few spans, or none, and still move its position.
 */
export async function readTimeline(
  database: Database,
  identity: Identity,
  after: Cursor,
  limit: number,
  filter: SpanFilter = {},
  bytesMax?: number,
): Promise<{ spans: StoredSpan[]; position: Cursor }> {
  const from = parseCursor(after);
  const pageSize = Math.min(limit, PAGE_MAX);
  return database.transaction(
    identity,
    async (query) => {
      const isFiltered = Object.values(filter).some((value) => value !== undefined);
      const end = isFiltered ? await endOfLook(query, identity, from) : null;
      if (isFiltered && end === null) return { spans: [], position: after };
      const { spans, isCut } = await readSpans(query, identity, from, end, pageSize, filter, bytesMax);
      const last = spans.at(-1);
      if (end !== null && !isCut && spans.length < pageSize) return { spans, position: cursorOf(end) };
      return { spans, position: last === undefined ? after : cursorOf(last) };
    },
    { readOnly: true },
  );
}

/** Where the timeline ends now: who reads on from here sees only what is new. */
export async function readTimelineEnd(database: Database, identity: Identity): Promise<Cursor> {
  const values: unknown[] = [];
  const text = visiblePlacesText(identity, { view: VIEW, conditions: [], direction: 'desc', limit: 1 }, values);
  const statement = { text, values, types: spanTypes };
  const options = { readOnly: true } as const;
  const [last] = await database.transaction(identity, (query) => query<PlaceRow>(statement), options);
  return last === undefined ? TIMELINE_START : cursorOf(last);
}

const VIEW = 'ledger.settled_timeline';

/** The last of the spans that a filtered page looks at; null when there is nothing new. Later spans come after it. */
async function endOfLook(query: TransactionQuery, identity: Identity, from: Place): Promise<PlaceRow | null> {
  const values: unknown[] = [];
  const lookedAt = visiblePlacesText(
    identity,
    { view: VIEW, conditions: [isAfter(from, values)], direction: 'asc', limit: LOOKED_AT_MAX },
    values,
  );
  const [end] = await query<PlaceRow>({
    text: `select * from (${lookedAt}) looked_at order by tx_id desc, position desc limit 1`,
    values,
    types: spanTypes,
  });
  return end ?? null;
}

async function readSpans(
  query: TransactionQuery,
  identity: Identity,
  from: Place,
  end: PlaceRow | null,
  limit: number,
  filter: SpanFilter,
  bytesMax?: number,
): Promise<{ spans: StoredSpan[]; isCut: boolean }> {
  const values: unknown[] = [];
  const conditions = [isAfter(from, values), ...filterConditions(filter, values)];
  if (end !== null) {
    conditions.push(
      `(r.tx_id, r.position) <= ($${values.push(end.tx_id)}::xid8, $${values.push(end.position)}::bigint)`,
    );
  }
  const places = visiblePlacesText(identity, { view: VIEW, conditions, direction: 'asc', limit }, values);
  const found = await query<Row>({ text: pageText(places, bytesMax), values, types: spanTypes });
  const { rows, isCut } = readPage(found);
  return { spans: rows.map(toSpan), isCut };
}

function isAfter({ txId, position }: Place, values: unknown[]): string {
  return `(r.tx_id, r.position) > ($${values.push(String(txId))}::xid8, $${values.push(String(position))}::bigint)`;
}
