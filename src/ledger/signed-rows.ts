import { RESERVED_FOR_CLIENTS } from '../span/index.ts';
import { readAsAuditor } from './as-auditor.ts';
import type { Database, Row } from './database.ts';

const TIMEOUT_MS = 60 * 60 * 1000;

/** A row as one names it to people. */
export interface SignedRow {
  id: string;
  seq: number;
  position: number;
  entity_type: string;
  tenant_id: string;
  owner_id: string;
  at: string;
}

/**
 * The last position that the ledger has given; 0 when it is empty.
 *
 * @param database here and below, a login that is, or may act as, `loglineos_auditor`.
 */
export async function readLastPosition(database: Database): Promise<number> {
  const [row] = await readAll(
    database,
    'select coalesce(max(position), 0) as position from ledger.universal_registry',
    [],
  );
  return row?.position as number;
}

/**
 * The first position at which a row says that it is that time, or later; null when none does. Of rows of those types alone
 * that no client appends: a client says what `at` he likes.
 *
 * @param at an instant in UTC.
 */
export async function readFirstPositionSince(database: Database, at: string): Promise<number | null> {
  const text = `select min(position) as position from ledger.universal_registry
                 where at >= $1 and entity_type = any ($2)`;
  const [row] = await readAll(database, text, [at, [...RESERVED_FOR_CLIENTS]]);
  return row?.position as number | null;
}

/** Rows that a key signed behind a position: how many, and the first of them, in the order of positions. */
export async function readRowsSignedBehind(
  database: Database,
  publicKey: string,
  position: number,
  limit: number,
): Promise<{ count: number; rows: SignedRow[] }> {
  const text = `select id, seq, position, entity_type, tenant_id, owner_id, at, count(*) over () as total
                  from ledger.universal_registry
                 where public_key = $1 and position > $2
                 order by position
                 limit $3`;
  const found = await readAll(database, text, [publicKey, position, limit]);
  const rows = found.map(({ total: _total, ...row }) => row as unknown as SignedRow);
  return { count: (found[0]?.total as number | undefined) ?? 0, rows };
}

function readAll(database: Database, text: string, values: unknown[]): Promise<Row[]> {
  return readAsAuditor(database, { text, values }, TIMEOUT_MS);
}
