import type { StoredSpan } from '../span/index.ts';
import { asAuditor, versionLinksStatement } from './as-auditor.ts';
import type { Database, Row, TransactionQuery } from './database.ts';
import { spanTypes, toSpan } from './rows.ts';

/** Where a row stands in the timeline: transaction, then position. Decimal digits, because both have 64 bits. */
export interface RowPlace {
  tx_id: string;
  position: string;
}

/** A row by what a move of the ledger to another server keeps, and by the transaction that it had here. */
export interface PlacedRow extends RowPlace {
  id: string;
  seq: number;
}

/** Before the first row. */
export const FIRST_PLACE: RowPlace = { tx_id: '0', position: '0' };

/** What stands at one place of the timeline, beside what its witness remembers of that place. */
export interface WitnessedRow {
  span: StoredSpan | null;
  /** The version before; undefined when it is not there, or there is none. */
  before: StoredSpan | undefined;
  witness: { id: string; seq: number; curr_hash: string } | null;
  /** The version that the witness remembers stands at another place now. */
  isElsewhere: boolean;
}

/** Rows that are fetched, and held, at once: one may have a megabyte. */
const FETCH_ROWS = 50;
const LOOK_MS_MAX = 10_000;

/**
 * Where a row stands now: where it was, as long as it or its witness is there; in a ledger that was imported, in the
 * transaction that imported it. Null when neither ledger nor witness has it.
 */
export async function findRow(database: Database, { id, seq, tx_id, position }: PlacedRow): Promise<RowPlace | null> {
  const statement = {
    text: `select found.tx_id
             from (select 1 as turn, w.tx_id from ledger.registry_witness w
                    where w.tx_id = $3::xid8 and w.position = $4::bigint and w.id = $1 and w.seq = $2
                   union all
                   select 2, r.tx_id from ledger.universal_registry r
                    where r.id = $1 and r.seq = $2 and r.position = $4::bigint) found
            order by found.turn limit 1`,
    values: [id, seq, tx_id, position],
  };
  const [found] = await asAuditor(database, (query) => query<{ tx_id: string }>(statement), LOOK_MS_MAX);
  return found === undefined ? null : { tx_id: found.tx_id, position };
}

/** How many rows are settled, and how many of them, with which sum of positions, up to a place. */
export async function countRows(
  database: Database,
  upTo: RowPlace,
  timeoutMs: number,
): Promise<{ rows: number; rowsUpTo: number; positionsUpTo: string }> {
  const statement = {
    text: `select count(*) as rows, count(*) filter (where ${isWithin}) as rows_up_to,
                  coalesce(sum(r.position) filter (where ${isWithin}), 0)::text as positions_up_to
             from ledger.universal_registry r
            where r.tx_id < pg_snapshot_xmin(pg_current_snapshot())`,
    values: [upTo.tx_id, upTo.position],
  };
  const [counted] = await asAuditor(database, (query) => query(statement), timeoutMs);
  const { rows, rows_up_to, positions_up_to } = counted as Row;
  return { rows: Number(rows), rowsUpTo: Number(rows_up_to), positionsUpTo: String(positions_up_to) };
}

const isWithin = '(r.tx_id, r.position) <= ($1::xid8, $2::bigint)';

/**
 * A stretch of the timeline, of all tenants, deleted versions too: after one place, for so many rows, or up to another
 * place if that comes first. Only what is settled (section 7 of the blueprint), so that the same stretch is the same whenever it is read.
 *
 * @param visit gets the rows in order, some at a time; when it answers false, nothing more is read.
 * @returns whether it was cut short by that, and whether the settled ledger ended first.
 */
export async function readStretch(
  database: Database,
  after: RowPlace,
  { upTo = null, rowsMax }: { upTo?: RowPlace | null; rowsMax: number },
  timeoutMs: number,
  visit: (rows: WitnessedRow[]) => boolean,
): Promise<{ isCut: boolean; isEnd: boolean }> {
  return asAuditor(
    database,
    async (query) => {
      const [{ horizon } = { horizon: '0' }] = await query<{ horizon: string }>({
        text: 'select pg_snapshot_xmin(pg_current_snapshot()) as horizon',
      });
      const last = (await placeOfRow(query, after, upTo, horizon, rowsMax)) ?? upTo;
      await query({ text: declareText(after, last, horizon) });
      for (;;) {
        const found = await query<Row>({ text: `fetch ${FETCH_ROWS} from stretch`, types: spanTypes });
        if (found.length === 0) return { isCut: false, isEnd: last === null };
        if (!visit(await withNeighbours(query, found))) return { isCut: true, isEnd: false };
      }
    },
    timeoutMs,
  );
}

/** Where the nth row after a place stands; null when there are fewer, up to another place or the end of what is settled. */
async function placeOfRow(
  query: TransactionQuery,
  after: RowPlace,
  upTo: RowPlace | null,
  horizon: string,
  n: number,
): Promise<RowPlace | null> {
  const [row] = await query<Row>({
    text: `select r.tx_id, r.position::text as position from ledger.universal_registry r
            where ${boundsText(after, upTo, horizon)}
            order by r.tx_id, r.position offset $1 limit 1`,
    values: [n - 1],
  });
  return (row as RowPlace | undefined) ?? null;
}

/** Each place once, where a row stands or the witness remembers one. */
function declareText(after: RowPlace, upTo: RowPlace | null, horizon: string): string {
  const bounds = boundsText(after, upTo, horizon);
  return `declare stretch no scroll cursor for
    select r.*, w.id as witness_id, w.seq as witness_seq, w.curr_hash as witness_hash
      from (select * from ledger.universal_registry where ${bounds}) r
      full join (select * from ledger.registry_witness where ${bounds}) w
        on w.tx_id = r.tx_id and w.position = r.position
     order by coalesce(r.tx_id, w.tx_id), coalesce(r.position, w.position)`;
}

/**
 * A cursor is declared without parameters: what is put in is made a number first. The transactions are bounded once more
 * by themselves, because the planner takes a pair of row comparisons for a quarter of the table, and would read it all.
 */
function boundsText(after: RowPlace, upTo: RowPlace | null, horizon: string): string {
  const place = ({ tx_id, position }: RowPlace) => `('${BigInt(tx_id)}'::xid8, ${BigInt(position)}::bigint)`;
  return [
    `(tx_id, position) > ${place(after)} and tx_id >= '${BigInt(after.tx_id)}'::xid8`,
    upTo === null
      ? `tx_id < '${BigInt(horizon)}'::xid8`
      : `(tx_id, position) <= ${place(upTo)} and tx_id <= '${BigInt(upTo.tx_id)}'::xid8`,
  ].join(' and ');
}

/** To each row the version before it, and to each witness without a row whether that is elsewhere. */
async function withNeighbours(query: TransactionQuery, found: Row[]): Promise<WitnessedRow[]> {
  const rows = found.map(({ witness_id, witness_seq, witness_hash, ...columns }) => ({
    span: columns.id === null ? null : toSpan(columns),
    witness:
      witness_id === null
        ? null
        : { id: witness_id as string, seq: witness_seq as number, curr_hash: witness_hash as string },
  }));
  const wanted = rows.flatMap(({ span, witness }) => [
    ...(span === null || span.seq === 0 ? [] : [{ id: span.id, seq: span.seq - 1 }]),
    ...(witness === null || (span !== null && isSame(span, witness)) ? [] : [witness]),
  ]);
  const versions = new Map<string, StoredSpan>();
  if (wanted.length > 0) {
    const found = await query<Row>(versionLinksStatement(wanted));
    for (const row of found) versions.set(`${row.id} ${row.seq}`, toSpan(row));
  }
  return rows.map(({ span, witness }) => ({
    span,
    before: span === null ? undefined : versions.get(`${span.id} ${span.seq - 1}`),
    witness,
    isElsewhere: witness !== null && versions.has(`${witness.id} ${witness.seq}`),
  }));
}

/** The witness is of this version of this span. */
export function isSame(span: StoredSpan, witness: { id: string; seq: number }): boolean {
  return span.id === witness.id && span.seq === witness.seq;
}
