import {
  checkChain,
  type Ed25519,
  type Problem,
  type StoredSpan,
  type TrustedKeys,
  verifySpan,
} from '../span/index.ts';
import { asAuditor } from './as-auditor.ts';
import type { Database, Row } from './database.ts';
import { spanTypes, toSpan } from './rows.ts';

export interface VerifyReport {
  ok: boolean;
  /** Rows read and checked. */
  checked: number;
  problems: Problem[];
}

const FETCH_ROWS = 500;
const MISSING_NAMED_MAX = 100;
const VERIFY_TIMEOUT_MS = 24 * 60 * 60 * 1000;

/**
 * Read every row of the ledger beside what its witness remembers, and check hash, signature, key, chain and place. One
 * snapshot, streamed by a cursor, so memory does not grow with the ledger. Every bad row is named.
 *
 * @param database a login that is, or may act as, `loglineos_auditor`, which sees all tenants.
 */
export async function verifyLedger(
  database: Database,
  keys: TrustedKeys,
  scheme: Ed25519,
  onProgress: (checked: number) => void = () => {},
): Promise<VerifyReport> {
  const problems: Problem[] = [];
  let checked = 0;
  let before: StoredSpan | undefined;
  let next = { id: '', seq: 0 };
  await asAuditor(
    database,
    async (query) => {
      await query({
        text: `declare ledger_rows no scroll cursor for
          select r.*, w.id as witness_id, w.seq as witness_seq, w.curr_hash as witness_hash,
                 w.position is distinct from r.position or w.tx_id is distinct from r.tx_id as is_moved
            from ledger.universal_registry r
            full join ledger.registry_witness w on w.id = r.id and w.seq = r.seq
           order by coalesce(r.id, w.id), coalesce(r.seq, w.seq)`,
      });
      for (;;) {
        const rows = await query<Row>({ text: `fetch ${FETCH_ROWS} from ledger_rows`, types: spanTypes });
        if (rows.length === 0) return;
        for (const row of rows) {
          const id = (row.id ?? row.witness_id) as string;
          const seq = (row.seq ?? row.witness_seq) as number;
          problems.push(...missingBetween(next.id === id ? next.seq : 0, id, seq));
          next = { id, seq: seq + 1 };
          if (row.id === null) {
            problems.push({
              id,
              seq,
              class: 'missing',
              detail: `was appended with hash ${row.witness_hash} and is gone`,
            });
            continue;
          }
          const { span, witnessHash, isMoved } = splitRow(row);
          problems.push(...verifySpan(span, keys, scheme));
          const isTwice = before?.id === id && before.seq === seq;
          const chain = isTwice
            ? ({ id, seq, class: 'chain', detail: 'this version is there twice' } satisfies Problem)
            : (checkChain(span, before) ?? checkWitness(span, witnessHash, isMoved));
          if (chain !== null) problems.push(chain);
          before = span;
          checked++;
        }
        onProgress(checked);
      }
    },
    VERIFY_TIMEOUT_MS,
  );
  return { ok: problems.length === 0, checked, problems };
}

function splitRow(row: Row): { span: StoredSpan; witnessHash: string | null; isMoved: boolean } {
  const { witness_id: _id, witness_seq: _seq, witness_hash: witnessHash, is_moved: isMoved, ...columns } = row;
  return { span: toSpan(columns), witnessHash: witnessHash as string | null, isMoved: isMoved === true };
}

/** What was written down when the row was appended still holds. */
function checkWitness(span: StoredSpan, witnessHash: string | null, isMoved: boolean): Problem | null {
  const problem = (detail: string): Problem => ({ id: span.id, seq: span.seq, class: 'chain', detail });
  if (witnessHash === null) return problem('nobody witnessed this row being appended');
  if (witnessHash !== span.curr_hash) return problem(`the hash was ${witnessHash} when the row was appended`);
  if (isMoved) return problem('position or tx_id differ from when the row was appended');
  return null;
}

/** Versions that neither the table nor the witness has, though a later one exists. Named one by one, up to a bound. */
function missingBetween(from: number, id: string, to: number): Problem[] {
  const problems: Problem[] = [];
  for (let seq = from; seq < to && problems.length < MISSING_NAMED_MAX; seq++) {
    problems.push({ id, seq, class: 'missing', detail: `version ${to} is there and this one before it is not` });
  }
  return problems;
}
