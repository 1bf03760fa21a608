import type { StoredSpan } from '../span/index.ts';
import type { Database, Identity, Row, Statement, TransactionQuery } from './database.ts';
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
import { type Cursor, cursorOf, parseCursor } from './timeline.ts';

/**
 * The newest versions that match and that the identity may see, newest first. For people who look: spans that are
 * appended meanwhile may be missing, see `readTimeline` for programs that must not miss one.
 *
 * @returns `before` continues the list; null at its end.
 */
export async function listSpans(
  database: Database,
  identity: Identity,
  filter: SpanFilter,
  before: Cursor | null,
  limit: number,
): Promise<{ spans: StoredSpan[]; before: Cursor | null }> {
  const pageSize = Math.min(limit, PAGE_MAX);
  const places = placesStatement(identity, filter, before, pageSize);
  const statement = { ...places, text: pageText(places.text) };
  const found = await database.transaction(identity, (query) => query<Row>(statement), { readOnly: true });
  const { rows, isCut } = readPage(found);
  const spans = rows.map(toSpan);
  const last = spans.at(-1);
  const isContinued = isCut || spans.length === pageSize;
  return { spans, before: last !== undefined && isContinued ? cursorOf(last) : null };
}

/** The same, without reading the spans: their ids, and where each stands. */
export async function findSpans(
  query: TransactionQuery,
  identity: Identity,
  filter: SpanFilter,
  before: Cursor | null,
  limit: number,
): Promise<{ id: string; cursor: Cursor }[]> {
  const places = await query<PlaceRow>(placesStatement(identity, filter, before, limit));
  return places.map((place) => ({ id: place.id, cursor: cursorOf(place) }));
}

function placesStatement(identity: Identity, filter: SpanFilter, before: Cursor | null, limit: number): Statement {
  const values: unknown[] = [];
  const conditions = ['r.is_deleted is not true', ...filterConditions(filter, values)];
  if (before !== null) {
    const { txId, position } = parseCursor(before, 'before');
    conditions.push(
      `(r.tx_id, r.position) < ($${values.push(String(txId))}::xid8, $${values.push(String(position))}::bigint)`,
    );
  }
  const visible = { view: 'ledger.current_span', conditions, direction: 'desc', limit } as const;
  return { text: visiblePlacesText(identity, visible, values), values, types: spanTypes };
}
