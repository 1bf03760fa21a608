import type { Database } from './database.ts';
import { type Cursor, transactionCursor } from './timeline.ts';

/** What was added to the timeline since an earlier look. */
export interface TimelineNews {
  /** Everything before it has settled. */
  horizon: Cursor;
  /** Whose spans. */
  tenants: ReadonlySet<string>;
  /** Whether some are public: everybody's. */
  isPublic: boolean;
}

/** One look for everybody, whoever may see what; without `since` it only tells the horizon. */
export async function readTimelineNews(database: Database, since: Cursor | null): Promise<TimelineNews> {
  const [row] = await database.query<{ horizon: string; tenants: string[]; is_public: boolean }>({
    text: 'select horizon, tenants, is_public from ledger.timeline_news($1)',
    values: [since === null ? null : String(BigInt(`0x${since.slice(0, 16)}`))],
  });
  if (row === undefined) throw new Error('ledger.timeline_news answers one row');
  return { horizon: transactionCursor(row.horizon), tenants: new Set(row.tenants), isPublic: row.is_public };
}

/**
 * Have appends notify this reader (`listenForTimeline`) for so long, in ms; 0 ends that. Appends that began before may not:
 * they have ended when the horizon has passed what the next call returns.
 */
export async function hangTimelineBell(database: Database, reader: string, leaseMs: number): Promise<Cursor> {
  const [row] = await database.query<{ tx_id: string }>({
    text: 'select ledger.hang_timeline_bell($1, $2) as tx_id',
    values: [reader, leaseMs],
  });
  return transactionCursor(row?.tx_id ?? '0');
}
