import type { StoredSpan } from '../span/index.ts';
import type { Database, Identity, Row } from './database.ts';
import { spanTypes, toSpan } from './rows.ts';
import { filterConditions, PAGE_MAX, pageText, readPage, type SpanFilter, visibleRowsText } from './span-filter.ts';
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
  const values: unknown[] = [];
  const conditions = ['r.is_deleted is not true', ...filterConditions(filter, values)];
  if (before !== null) {
    const { txId, position } = parseCursor(before, 'before');
    conditions.push(
      `(r.tx_id, r.position) < ($${values.push(String(txId))}::xid8, $${values.push(String(position))}::bigint)`,
    );
  }
  const pageSize = Math.min(limit, PAGE_MAX);
  const visible = visibleRowsText(
    identity,
    { columns: 'r.*', view: 'ledger.current_span', conditions, direction: 'desc', limit: pageSize },
    values,
  );
  const statement = { text: pageText(visible, 'r.tx_id desc, r.position desc'), values, types: spanTypes };
  const found = await database.transaction(identity, (query) => query<Row>(statement), { readOnly: true });
  const { rows, isCut } = readPage(found);
  const spans = rows.map(toSpan);
  const last = spans.at(-1);
  const isContinued = isCut || spans.length === pageSize;
  return { spans, before: last !== undefined && isContinued ? cursorOf(last) : null };
}
