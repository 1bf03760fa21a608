import type { StoredSpan } from '../span/index.ts';
import type { Database, Row, TransactionQuery } from './database.ts';
import { spanTypes, toSpan } from './rows.ts';

/** Where a policy stands: a place in the timeline's order, and the last day it has done. */
export interface PolicyPlace {
  txId: string;
  position: string;
  /** UTC, `YYYY-MM-DD`. */
  day: string;
}

export interface PolicyCursor {
  policyId: string;
  seq: number;
  tenantId: string;
  ownerId: string;
  trigger: string;
  place: PolicyPlace;
  /** Evaluations in a row that met a limit. */
  failures: number;
}

/** Active policies of all tenants that are not paused. */
export async function readPolicyCursors(database: Database, now: Date): Promise<PolicyCursor[]> {
  const rows = await database.query<Row>({
    text: `select policy_id, seq, tenant_id, owner_id, trigger, tx_id::text, position::text, day::text, failures
             from ledger.active_policies($1)`,
    values: [now.toISOString()],
  });
  return rows.map((row) => ({
    policyId: row.policy_id as string,
    seq: row.seq as number,
    tenantId: row.tenant_id as string,
    ownerId: row.owner_id as string,
    trigger: row.trigger as string,
    place: { txId: row.tx_id as string, position: row.position as string, day: row.day as string },
    failures: row.failures as number,
  }));
}

/** Newest versions of spans, whoever owns them: for the agent, which must know its policies. */
export async function readAnyVersions(database: Database, ids: string[]): Promise<StoredSpan[]> {
  const rows = await database.query<Row>({
    text: 'select * from ledger.newest_rows($1)',
    values: [ids],
    types: spanTypes,
  });
  return rows.map(toSpan);
}

/** Newest seq of each of these spans that is there, whoever owns it. */
export async function readAnySeqs(query: TransactionQuery, ids: string[]): Promise<Map<string, number>> {
  const rows = await query<{ id: string; seq: number }>({
    text: 'select id, seq from ledger.newest_rows($1)',
    values: [ids],
  });
  return new Map(rows.map(({ id, seq }) => [id, seq]));
}

/** Settled spans of all tenants after a place, in the timeline's order. */
export async function readPolicyWindow(
  database: Database,
  after: PolicyPlace,
  bounds: { spans: number; bytes: number },
): Promise<StoredSpan[]> {
  const rows = await database.query<Row>({
    text: 'select * from ledger.policy_window($1, $2, $3, $4)',
    values: [after.txId, after.position, bounds.spans, bounds.bytes],
    types: spanTypes,
  });
  return rows.map(toSpan);
}

/** Give what has expired its place in the order in which policies are shown it. */
export async function numberExpiredSpans(database: Database, now: Date, limit: number): Promise<void> {
  await database.query({ text: 'select ledger.number_expired($1, $2)', values: [now.toISOString(), limit] });
}

/** Newest versions of spans of all tenants that have expired, each with its place, after a place. */
export async function readExpiredSpans(
  database: Database,
  after: PolicyPlace,
  bounds: { spans: number; bytes: number },
): Promise<{ span: StoredSpan; place: PolicyPlace }[]> {
  const rows = await database.query<Row>({
    text: 'select number::text, (span).* from ledger.expired_spans($1, $2, $3)',
    values: [after.position, bounds.spans, bounds.bytes],
    types: spanTypes,
  });
  return rows.map(({ number, ...row }) => ({ span: toSpan(row), place: { ...after, position: number as string } }));
}

/** What functions did on a day, one summary for each tenant that ran any. */
export async function readDaySummaries(
  database: Database,
  day: string,
): Promise<{ tenantId: string; content: Record<string, unknown> }[]> {
  const rows = await database.query<Row>({ text: 'select * from ledger.day_summary($1)', values: [day] });
  return rows.map(({ tenant_id, content }) => ({
    tenantId: tenant_id as string,
    content: content as Record<string, unknown>,
  }));
}

/** Move a policy on within a transaction; false when it is not where the caller read it. */
export async function advancePolicy(
  query: TransactionQuery,
  cursor: PolicyCursor,
  to: PolicyPlace,
  failures: number,
  pausedUntil: Date | null,
): Promise<boolean> {
  const { policyId, seq, place } = cursor;
  const [row] = await query<{ moved: boolean }>({
    text: 'select ledger.advance_policy($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) as moved',
    values: [
      policyId,
      seq,
      place.txId,
      place.position,
      place.day,
      to.txId,
      to.position,
      to.day,
      failures,
      pausedUntil?.toISOString() ?? null,
    ],
  });
  return row?.moved === true;
}

/** Move policies on that found nothing for them between two places. */
export async function passPolicies(
  database: Database,
  policyIds: string[],
  from: PolicyPlace,
  to: PolicyPlace,
): Promise<void> {
  await database.query({
    text: 'select ledger.pass_policies($1, $2, $3, $4, $5)',
    values: [policyIds, from.txId, from.position, to.txId, to.position],
  });
}

/** How much work waits, how long, and how far policies are behind. */
export interface QueueSnapshot {
  queue: { ready: number; delayed: number; leased: number; dead: number; oldest_ready_ms: number | null };
  policies: { lag_spans: number; lag_ms: number; paused: number };
}

export async function readQueueSnapshot(database: Database, now: Date): Promise<QueueSnapshot> {
  const [row] = await database.query<{ snapshot: QueueSnapshot & Row }>({
    text: 'select ledger.work_snapshot($1) as snapshot',
    values: [now.toISOString()],
  });
  return row?.snapshot as QueueSnapshot;
}
