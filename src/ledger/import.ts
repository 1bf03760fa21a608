import { setImmediate as yieldToOthers } from 'node:timers/promises';
import { ConflictError, IntegrityError, LogLineError } from '../errors.ts';
import {
  checkChain,
  type Ed25519,
  type Problem,
  type StoredSpan,
  type TrustedKeys,
  verifySpan,
} from '../span/index.ts';
import { readAsAuditor, versionLinksStatement } from './as-auditor.ts';
import type { Database, Row } from './database.ts';
import { describeRow, findExportedRow, REGISTRY_START, type RegistryPlace } from './export.ts';
import { ExportReader, isSameRow, type Line, parseRow, type RowName } from './export-file.ts';

/** Rows that are written in one transaction, and bytes of them, unless a version waits for the one before it. */
const BATCH_ROWS_MAX = 1_000;
const BATCH_BYTES_MAX = 8 * 1024 * 1024;
/** How far on the version before may stand: a transaction that began first may have ended last. */
const AHEAD_BYTES_MAX = 64 * 1024 * 1024;
const PAGE_ROWS = 5_000;
/** Proofs that are checked before others get their turn, so that what was sent to the database goes on. */
const PROOFS_AT_ONCE = 32;
const WRITE_TIMEOUT_MS = 10 * 60 * 1000;

export interface ImportReport {
  /** Rows of the export. */
  rows: number;
  /** Those of them that the ledger had. */
  there: number;
  /** Rows that the ledger has beyond the export; only where nothing is written. */
  beyond: number;
}

export interface ImportOptions {
  keys: TrustedKeys;
  scheme: Ed25519;
  /** Compare and check, and write nothing. */
  isDryRun?: boolean;
  /** Of the parts that are meant, as `ExportReader` wants them; nothing else is taken for whole. */
  digests?: readonly string[] | null;
  onProgress?: (rows: number) => void;
  /** Each row that the ledger does not have, before it is written. */
  onMissing?: (row: StoredSpan) => void;
}

/** A line that is about to be written. */
interface Item {
  line: number;
  bytes: number;
  row: StoredSpan;
}

/**
 * Append to a ledger what an export has and it has not. What it has already must be what the export begins with, row by
 * row; so an import that was interrupted goes on, and a second one writes nothing. Every row is checked (hash, signature,
 * key, chain) before the transaction that writes it begins, and the database checks it as it checks any row.
 *
 * Rows keep their position, and their order in the timeline. A version may stand there before the one that it follows
 * (its transaction began earlier and ended later): such rows are written in one statement. Where positions descend, the
 * rows from there on get a later transaction number, drawn while the transaction runs: `sql/0020_import.sql`.
 *
 * @param database an administrator, with two connections at least. Nobody else may use the ledger meanwhile.
 * @throws {IntegrityError} `ROW_NOT_PROVED`, `EXPORT_INVALID`, `EXPORT_TRUNCATED`, `DIGEST_DIFFERS`: the message says which line.
 * @throws {ConflictError} `LEDGER_DIFFERS`: the ledger has other rows. `LEDGER_IN_USE`: somebody is connected.
 */
export async function importLedger(
  database: Database,
  lines: AsyncIterable<Line>,
  { keys, scheme, isDryRun = false, digests = null, onProgress = () => {}, onMissing = () => {} }: ImportOptions,
): Promise<ImportReport> {
  const reader = new ExportReader(digests);
  const report: ImportReport = { rows: 0, there: 0, beyond: 0 };
  let ledger: LedgerRows | undefined;
  let batch = new Batch();
  let writing: Promise<RegistryPlace> | undefined;

  /** Check a batch while the one before it is written; then begin to write it, if nothing in it waits for later lines. */
  const flush = async (isLast: boolean) => {
    const added = batch.takeAdded();
    await checkProofs(added, keys, scheme);
    const last = (await writing) ?? (ledger as LedgerRows).last;
    writing = undefined;
    for (const { row } of added) onMissing(row);
    if (isDryRun) {
      batch = new Batch();
      return;
    }
    const waiting = await findWaiting(database, batch.items);
    if (waiting === null) {
      writing = writeRows(database, batch.items, last);
      writing.catch(() => {}); // whoever awaits it next is told
      batch = new Batch();
    } else {
      writing = Promise.resolve(last);
      if (isLast || batch.bytes > AHEAD_BYTES_MAX) {
        throw notProved(waiting.line, { ...waiting.row, class: 'chain', detail: 'the version before it is not there' });
      }
      batch.extend();
    }
  };

  try {
    for await (const { text, isWhole } of lines) {
      if (!isWhole) break;
      const kind = reader.take(text);
      if (kind === 'begin') ledger ??= await LedgerRows.openBehind(database, reader.last);
      if (kind !== 'row') continue;
      report.rows += 1;
      const row = parseRow(text);
      const there = await (ledger as LedgerRows).next();
      if (there === null) batch.add({ line: reader.lines, bytes: text.length, row });
      else if (isSameRow(row, there)) report.there += 1;
      else throw differs(`the export has ${describeRow(row)} where the ledger has ${describeRow(there)}`, reader.lines);
      if (batch.isFull) await flush(false);
      if (report.rows % BATCH_ROWS_MAX === 0) onProgress(report.rows);
    }
    reader.end();
    while (batch.items.length > 0) await flush(true);
  } finally {
    await writing;
  }

  report.beyond = report.there === report.rows ? await (ledger as LedgerRows).countRest() : 0;
  if (report.beyond > 0 && !isDryRun) throw differs(`the ledger has ${report.beyond} rows behind those of the export`);
  return report;
}

/** Rows that wait to be written. */
class Batch {
  readonly items: Item[] = [];
  bytes = 0;
  #rowsMax = BATCH_ROWS_MAX;
  #bytesMax = BATCH_BYTES_MAX;
  #taken = 0;

  add(item: Item): void {
    this.items.push(item);
    this.bytes += item.bytes;
  }

  get isFull(): boolean {
    return this.items.length >= this.#rowsMax || this.bytes >= this.#bytesMax;
  }

  /** Take as much again. */
  extend(): void {
    this.#rowsMax = this.items.length + BATCH_ROWS_MAX;
    this.#bytesMax = this.bytes + BATCH_BYTES_MAX;
  }

  /** Items since the last time. */
  takeAdded(): Item[] {
    const items = this.items.slice(this.#taken);
    this.#taken = this.items.length;
    return items;
  }
}

/** The rows that the ledger has, in the order of the timeline, whether settled or not. */
class LedgerRows {
  /** Where the last row stands that `next` has given. */
  last: RegistryPlace;
  readonly #database: Database;
  #page: (RowName & { tx_id: string })[] = [];
  #index = 0;
  #isEnd = false;

  private constructor(database: Database, last: RegistryPlace) {
    this.#database = database;
    this.last = last;
  }

  /** @throws {ConflictError} `LEDGER_DIFFERS`: it does not have the row that an export goes on behind. */
  static async openBehind(database: Database, row: RowName | null): Promise<LedgerRows> {
    const place = row === null ? REGISTRY_START : await findExportedRow(database, row);
    if (place !== null) return new LedgerRows(database, place);
    throw differs(`the export goes on behind ${describeRow(row as RowName)}; import first what came before`);
  }

  async next(): Promise<RowName | null> {
    if (this.#index === this.#page.length && !this.#isEnd) {
      this.#page = await readAsAuditor<RowName & Row & { tx_id: string }>(this.#database, {
        text: `select r.id, r.seq, r.position, r.curr_hash, r.tx_id from ledger.universal_registry r
                where (r.tx_id, r.position) > ($1::xid8, $2::bigint) order by r.tx_id, r.position limit ${PAGE_ROWS}`,
        values: [this.last.txId, this.last.position],
      });
      this.#index = 0;
      this.#isEnd = this.#page.length === 0;
    }
    const row = this.#page[this.#index];
    if (row === undefined) return null;
    this.#index += 1;
    this.last = { txId: row.tx_id, position: row.position };
    return row;
  }

  async countRest(): Promise<number> {
    const [rest] = await readAsAuditor<{ rows: number }>(this.#database, {
      text: 'select count(*) as rows from ledger.universal_registry r where (r.tx_id, r.position) > ($1::xid8, $2::bigint)',
      values: [this.last.txId, this.last.position],
    });
    return rest?.rows ?? 0;
  }
}

/** Hash, signature and key of each row. */
async function checkProofs(items: Item[], keys: TrustedKeys, scheme: Ed25519): Promise<void> {
  for (const [i, { line, row }] of items.entries()) {
    const [problem] = verifySpan(row, keys, scheme);
    if (problem !== undefined) throw notProved(line, problem);
    if (i % PROOFS_AT_ONCE === 0) await yieldToOthers();
  }
}

/**
 * Each row beside the version before it, be that in the ledger or among the rows themselves, also behind it.
 *
 * @returns the first that waits for a version which is in neither.
 * @throws {IntegrityError} `ROW_NOT_PROVED`: it does not follow from that version.
 */
async function findWaiting(database: Database, items: Item[]): Promise<Item | null> {
  const known = new Map(items.map(({ row }) => [`${row.id} ${row.seq}`, row]));
  const before = (row: StoredSpan) => known.get(`${row.id} ${row.seq - 1}`);
  const later = items.filter(({ row }) => row.seq > 0);
  const sought = later.filter(({ row }) => before(row) === undefined);
  const wanted = sought.map(({ row }) => ({ id: row.id, seq: row.seq - 1 }));
  const found = await readAsAuditor(database, versionLinksStatement(wanted));
  for (const row of found as unknown as StoredSpan[]) known.set(`${row.id} ${row.seq}`, row);
  for (const { line, row } of items) {
    const problem = checkChain(row, before(row));
    if (problem !== null) throw notProved(line, problem);
  }
  return later.find(({ row }) => before(row) === undefined) ?? null;
}

/** One transaction. @returns where its last row stands. */
async function writeRows(database: Database, items: Item[], last: RegistryPlace): Promise<RegistryPlace> {
  const identity = { userId: 'import', tenantId: 'system' };
  try {
    return await database.transaction(
      identity,
      async (query) => {
        const drawn = { text: 'select pg_current_xact_id() as tx_id' };
        let txId = await drawOne(query(drawn));
        let position = 0;
        const rows: string[] = [];
        for (const { row } of items) {
          if (row.position <= position) txId = await drawOne(database.query(drawn)); // of a transaction of its own
          position = row.position;
          rows.push(JSON.stringify({ ...row, tx_id: txId }));
        }
        await query({
          text: 'select ledger.import_rows($1, $2, $3)',
          values: [`[${rows.join(',')}]`, last.txId, last.position],
        });
        return { txId, position };
      },
      { role: 'loglineos_owner', timeoutMs: WRITE_TIMEOUT_MS },
    );
  } catch (error) {
    if (!(error instanceof LogLineError) || error.kind === 'upstream' || error.code === 'LEDGER_IN_USE') throw error;
    const where = `lines ${items[0]?.line} to ${items.at(-1)?.line}`;
    throw new IntegrityError('ROW_NOT_PROVED', `${where}: the database refuses them: ${error.message}`, {
      cause: error,
    });
  }
}

async function drawOne(drawing: Promise<Row[]>): Promise<string> {
  const [drawn] = (await drawing) as { tx_id: string }[];
  return String(drawn?.tx_id);
}

function notProved(
  line: number,
  { id, seq, class: problemClass, detail }: Pick<Problem, 'id' | 'seq' | 'class' | 'detail'>,
) {
  return new IntegrityError(
    'ROW_NOT_PROVED',
    `line ${line}: ${problemClass}: ${detail} (version ${seq} of span ${id})`,
  );
}

function differs(what: string, line?: number): ConflictError {
  return new ConflictError('LEDGER_DIFFERS', line === undefined ? what : `line ${line}: ${what}`);
}
