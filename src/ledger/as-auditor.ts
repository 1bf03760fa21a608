import type { Database, Identity, Row, Statement, TransactionQuery } from './database.ts';
import { spanTypes } from './rows.ts';

const AUDITOR: Identity = { userId: 'auditor', tenantId: 'system' };

/**
 * Read as the auditor, who sees all rows of every tenant and writes none.
 *
 * @param database a login that is, or may act as, `loglineos_auditor`.
 * @param timeoutMs of each statement; that of the database's own options unless said.
 */
export function asAuditor<T>(
  database: Database,
  run: (query: TransactionQuery) => Promise<T>,
  timeoutMs?: number,
): Promise<T> {
  const bound = timeoutMs === undefined ? {} : { timeoutMs };
  return database.transaction(AUDITOR, run, { readOnly: true, role: 'loglineos_auditor', ...bound });
}

/** One statement, read so. */
export function readAsAuditor<R extends Row = Row>(
  database: Database,
  statement: Statement,
  timeoutMs?: number,
): Promise<R[]> {
  return asAuditor(database, (query) => query<R>({ types: spanTypes, ...statement }), timeoutMs);
}

/** Of named versions as much as a look at the chain takes; those that are not there are left out. */
export function versionLinksStatement(wanted: { id: string; seq: number }[]): Statement {
  return {
    text: `select r.id, r.seq, r.curr_hash, r.tenant_id, r.owner_id, r.entity_type
             from unnest($1::uuid[], $2::integer[]) wanted (id, seq)
             join ledger.universal_registry r on r.id = wanted.id and r.seq = wanted.seq`,
    values: [wanted.map(({ id }) => id), wanted.map(({ seq }) => seq)],
  };
}
