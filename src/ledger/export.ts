import { ConflictError, InputError } from '../errors.ts';
import type { StoredSpan } from '../span/index.ts';
import { readAsAuditor } from './as-auditor.ts';
import type { Database, Row } from './database.ts';
import { ExportPart, ExportReader, type ExportSummary, nameOf, type RowName } from './export-file.ts';
import { toSpan } from './rows.ts';
import { PAGE_MAX, pageText, readPage } from './span-filter.ts';
import { type Cursor, parseCursor, TIMELINE_START } from './timeline.ts';

/** Where a row stands in the timeline of one ledger. */
export interface RegistryPlace {
  txId: string;
  position: number;
}

/** Before the first row. */
export const REGISTRY_START: RegistryPlace = { txId: '0', position: 0 };

/** Where a row stands in this ledger; null when the ledger has no such row. */
export async function findExportedRow(
  database: Database,
  { id, seq, position, curr_hash }: RowName,
): Promise<RegistryPlace | null> {
  const [row] = await readAsAuditor<{ tx_id: string }>(database, {
    text: `select tx_id from ledger.universal_registry
            where id = $1 and seq = $2 and position = $3 and curr_hash = $4`,
    values: [id, seq, position, curr_hash],
  });
  return row === undefined ? null : { txId: row.tx_id, position };
}

/**
 * The row that a cursor of this ledger stands on; null for the start.
 *
 * @throws {InputError} `CURSOR_INVALID`: it is none, or of another ledger.
 */
export async function rowAt(database: Database, cursor: Cursor): Promise<RowName | null> {
  if (cursor === TIMELINE_START) return null;
  const { txId, position } = parseCursor(cursor);
  const [row] = await readAsAuditor(database, {
    text: 'select * from ledger.universal_registry where tx_id = $1::xid8 and position = $2',
    values: [String(txId), String(position)],
  });
  if (row === undefined) {
    throw new InputError('CURSOR_INVALID', `no row of this ledger stands at ${cursor}`, { field: 'after' });
  }
  return nameOf(toSpan(row));
}

/**
 * The lines of an export, some at a time, with what it has come to: all rows of every tenant behind a row, deleted ones
 * too, in the order of the timeline, that were settled when it began. What was not stands behind the last row, and so
 * belongs to the next export.
 *
 * @param after the row to go on behind; null for all.
 * @param earlier what the file has already: a part of it that was interrupted is gone on with.
 * @param database a login that is, or may act as, `loglineos_auditor`.
 * @throws {ConflictError} `LEDGER_DIFFERS`: this ledger does not have the row to go on behind.
 */
export async function* exportLedger(
  database: Database,
  after: RowName | null,
  earlier: ExportReader = new ExportReader(),
): AsyncGenerator<{ text: string; summary: ExportSummary }> {
  let place = after === null ? REGISTRY_START : await findExportedRow(database, after);
  if (place === null) {
    throw new ConflictError('LEDGER_DIFFERS', `this ledger does not have ${describeRow(after as RowName)}`);
  }
  const part = earlier.open ?? new ExportPart(after, earlier.digest);
  if (earlier.open === null) yield { text: `${part.beginLine}\n`, summary: part.summary };
  const [horizon] = await readAsAuditor(database, { text: 'select pg_snapshot_xmin(pg_current_snapshot()) as xmin' });
  for (;;) {
    const spans = await readRows(database, place, horizon?.xmin as string);
    const last = spans.at(-1);
    if (last === undefined) break;
    const lines = spans.map((span) => JSON.stringify(span));
    for (const line of lines) part.addRow(line);
    yield { text: `${lines.join('\n')}\n`, summary: part.summary };
    place = { txId: last.tx_id, position: last.position };
  }
  yield { text: `${part.endLine}\n`, summary: part.summary };
}

/** A page of what stands behind a place and before the transaction of the horizon. */
async function readRows(database: Database, place: RegistryPlace, horizon: string): Promise<StoredSpan[]> {
  const found = await readAsAuditor<Row>(database, {
    text: pageText(`select r.id, r.seq, r.tx_id, r.position from ledger.universal_registry r
                     where (r.tx_id, r.position) > ($1::xid8, $2::bigint) and r.tx_id < $3::xid8
                     order by r.tx_id, r.position limit ${PAGE_MAX}`),
    values: [place.txId, place.position, horizon],
  });
  return readPage(found).rows.map(toSpan);
}

export function describeRow({ id, seq, position }: RowName): string {
  return `version ${seq} of span ${id} at position ${position}`;
}
