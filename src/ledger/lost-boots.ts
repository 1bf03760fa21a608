import type { StoredSpan } from '../span/index.ts';
import type { Database, Row } from './database.ts';
import { spanTypes, toSpan } from './rows.ts';

/** Boot events of every tenant whose deadline lies in the window and whose execution is not there, oldest first. */
export async function readLostBoots(
  database: Database,
  dueAfter: Date | '-infinity',
  dueBefore: Date | 'infinity',
  limit: number,
): Promise<StoredSpan[]> {
  const text = (time: Date | string) => (time instanceof Date ? time.toISOString() : time);
  const rows = await database.query<Row>({
    text: 'select * from ledger.lost_boots($1, $2, $3)',
    values: [text(dueAfter), text(dueBefore), limit],
    types: spanTypes,
  });
  return rows.map(toSpan);
}
