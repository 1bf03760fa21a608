import type { StoredSpan } from '../span/index.ts';
import type { Database, Identity, Row } from './database.ts';
import { spanTypes, toSpan } from './rows.ts';

/** A function that is due, or whose next due time is not known yet. */
export interface DueSchedule {
  /** The function's newest version. Not proved yet. */
  span: StoredSpan;
  /** Every due time up to this instant has its request. */
  doneUntil: string;
}

/** How far a function has come. */
export interface ScheduleAdvance {
  doneBefore: string;
  doneUntil: string;
  /** Null when it is never due again. */
  nextDueAt: string | null;
}

/** Functions of all tenants that are due, those first whose next time is not known. */
export async function readDueSchedules(database: Database, now: Date, limit: number): Promise<DueSchedule[]> {
  const rows = await database.query<Row>({
    text: `with due as materialized (select * from ledger.due_schedules($1, $2))
           select d.seq as due_seq, d.done_until, r.*
             from due d
             join ledger.newest_rows((select array_agg(function_id) from due)) r on r.id = d.function_id`,
    values: [now.toISOString(), limit],
    types: spanTypes,
  });
  return rows
    .map(({ due_seq, done_until, ...row }) => ({ span: toSpan(row), seq: due_seq, doneUntil: done_until as string }))
    .filter(({ span, seq }) => span.seq === seq)
    .map(({ span, doneUntil }) => ({ span, doneUntil }));
}

/** When the next function is due; null when none is. */
export async function readNextDue(database: Database): Promise<string | null> {
  const [row] = await database.query<{ next: string | null }>({ text: 'select ledger.next_schedule() as next' });
  return row?.next ?? null;
}

/**
 * Append the requests of one function's due times and note how far it has come, together or not at all.
 *
 * @returns false when another observer was first, or the function has a newer version; nothing is written.
 */
export async function advanceSchedule(
  database: Database,
  identity: Identity,
  functionVersion: { id: string; seq: number },
  advance: ScheduleAdvance,
  rows: string[],
): Promise<boolean> {
  const [row] = await database.query<{ moved: boolean }>({
    text: 'select ledger.advance_schedule($1, $2, $3, $4, $5, $6, $7, $8) as moved',
    values: [
      identity.userId,
      identity.tenantId,
      functionVersion.id,
      functionVersion.seq,
      advance.doneBefore,
      advance.doneUntil,
      advance.nextDueAt,
      `[${rows.join(',')}]`,
    ],
  });
  return row?.moved === true;
}
