import type { StoredSpan } from '../span/index.ts';
import type { Database, Identity, Row } from './database.ts';
import { spanTypes, toSpan } from './rows.ts';

const REAPER: Identity = { userId: 'reaper', tenantId: 'system' };

/** Boot events of every tenant whose deadline lies in the window and whose execution is not there, oldest first. */
export async function readLostBoots(
  database: Database,
  dueAfter: Date | '-infinity',
  dueBefore: Date | 'infinity',
  limit: number,
): Promise<StoredSpan[]> {
  const text = (time: Date | string) => (time instanceof Date ? time.toISOString() : time);
  const statement = {
    text: 'select * from ledger.lost_boots($1, $2, $3)',
    values: [text(dueAfter), text(dueBefore), limit],
    types: spanTypes,
  };
  const rows = await database.transaction(REAPER, (query) => query<Row>(statement), { readOnly: true });
  return rows.map(toSpan);
}
