import { InputError } from '../errors.ts';
import type { StoredSpan } from '../span/index.ts';
import type { Database, Identity, Row } from './database.ts';
import { spanTypes, toSpan } from './rows.ts';

/** Spans one page of the timeline may hold. */
export const TIMELINE_PAGE_MAX = 1_000;

/**
 * A place in the timeline: 32 hex digits, transaction before position. Opaque to clients, and totally ordered as text.
 * Why two numbers: `sql/0006_timeline.sql`.
 */
export type Cursor = string;

/** Before the first span. */
export const TIMELINE_START: Cursor = '0'.repeat(32);

export function cursorOf(span: StoredSpan): Cursor {
  return hex64(BigInt(span.tx_id)) + hex64(BigInt(span.position));
}

/** @throws {InputError} `CURSOR_INVALID` */
export function parseCursor(cursor: Cursor): { txId: bigint; position: bigint } {
  if (!/^[0-9a-f]{16}[0-7][0-9a-f]{15}$/.test(cursor)) {
    throw new InputError('CURSOR_INVALID', 'a position is 32 hex digits, as an earlier page gave it', {
      field: 'after',
    });
  }
  return { txId: BigInt(`0x${cursor.slice(0, 16)}`), position: BigInt(`0x${cursor.slice(16)}`) };
}

function hex64(value: bigint): string {
  return value.toString(16).padStart(16, '0');
}

/** The settled spans after a position, in order, as far as the identity may see them. Resuming misses and repeats none. */
export async function readTimeline(
  database: Database,
  identity: Identity,
  after: Cursor,
  limit: number,
): Promise<{ spans: StoredSpan[]; position: Cursor }> {
  const { txId, position } = parseCursor(after);
  const rows = await database.transaction(
    identity,
    (query) =>
      query<Row>({
        text: `select r.*
                 from ledger.settled_timeline r
                where (r.tx_id, r.position) > ($1::xid8, $2::bigint)
                order by r.tx_id, r.position
                limit $3`,
        values: [String(txId), String(position), Math.min(limit, TIMELINE_PAGE_MAX)],
        types: spanTypes,
      }),
    { readOnly: true },
  );
  const spans = rows.map(({ when: _alias, ...row }) => toSpan(row));
  const last = spans.at(-1);
  return { spans, position: last === undefined ? after : cursorOf(last) };
}
