import type { StoredSpan } from '../span/index.ts';
import type { Database, Identity, Row, TransactionQuery } from './database.ts';
import { spanTypes, toSpan } from './rows.ts';

/** Bounds of a tenant: function executions a day (UTC), and requests that are worked on at the same time. */
export interface TenantLimits {
  daily: number;
  concurrency: number;
}

/** Everybody's bounds, and those of tenants that have their own. */
export interface QueueLimits extends TenantLimits {
  tenants: Record<string, { [limit in keyof TenantLimits]?: TenantLimits[limit] | undefined }>;
}

/** A request that was leased to the caller. */
export interface ClaimedRequest {
  /** The request's newest version. Not proved yet. */
  request: StoredSpan;
  /** Who closes it must say this number; a later claim draws a higher one. */
  fence: string;
  /** About as many as the request has. */
  bytes: number;
  /** How many workers had this attempt and were not heard of again. */
  takeovers: number;
  /** False when the tenant's day is used up: it is to be closed, not run. */
  isGranted: boolean;
  quota: { used: number; limit: number };
}

/** A claim that is still to be closed, extended or released. */
export interface RequestClaim {
  requestId: string;
  fence: string;
}

/** Lease due requests of all tenants: see `claim_requests` in sql/0012_request_queue.sql for order and fairness. */
export async function claimRequests(
  database: Database,
  options: { now: Date; limit: number; reserve?: number; leaseMs: number; limits: QueueLimits },
): Promise<ClaimedRequest[]> {
  const { now, limit, reserve = 0, leaseMs, limits } = options;
  const rows = await database.query<Row>({
    text: `with claimed as materialized (select * from ledger.claim_requests($1, $2, $3, $4, $5, $6))
           select c.fence::text as claim_fence, c.bytes as claim_bytes, c.takeovers, c.is_granted, c.quota_used, c.quota_limit, r.*
             from claimed c
             join ledger.newest_rows((select array_agg(request_id) from claimed)) r on r.id = c.request_id
            order by c.fence`,
    values: [now.toISOString(), limit, reserve, leaseMs, now.toISOString().slice(0, 10), JSON.stringify(limits)],
    types: spanTypes,
  });
  return rows.map(({ claim_fence, claim_bytes, takeovers, is_granted, quota_used, quota_limit, ...row }) => ({
    request: toSpan(row),
    fence: claim_fence as string,
    bytes: claim_bytes as number,
    takeovers: takeovers as number,
    isGranted: is_granted as boolean,
    quota: { used: quota_used as number, limit: quota_limit as number },
  }));
}

/** The heartbeat: from now on these claims hold for so long, where they still do. */
export async function extendLeases(database: Database, claims: RequestClaim[], leaseMs: number): Promise<void> {
  await database.query({
    text: 'select ledger.extend_leases($1, $2, $3)',
    values: [...claimColumns(claims), leaseMs],
  });
}

/** Give claims back under which nothing ran. */
export async function releaseRequests(database: Database, claims: RequestClaim[]): Promise<void> {
  await database.query({ text: 'select ledger.release_requests($1, $2)', values: claimColumns(claims) });
}

/**
 * Append what became of claimed requests of one owner, if all claims still hold; otherwise nothing is written.
 *
 * @param rows signed rows as JSON, see `sealSpan`.
 * @param unused those of the requests that ran nothing: they give their execution of the day back.
 * @returns the requests that somebody else has by now; empty when all was written.
 */
export async function closeRequests(
  database: Database,
  identity: Identity,
  claims: RequestClaim[],
  rows: string[],
  unused: string[] = [],
): Promise<string[]> {
  const [row] = await database.query<{ lost: string[] }>({
    text: 'select ledger.close_requests($1, $2, $3, $4, $5, $6) as lost',
    values: [identity.userId, identity.tenantId, ...claimColumns(claims), unused, `[${rows.join(',')}]`],
  });
  return row?.lost ?? [];
}

/** Lock the queue's places of the identity's own requests, before a version is appended to one from outside. */
export async function lockRequests(query: TransactionQuery, ids: string[]): Promise<void> {
  await query({ text: 'select ledger.lock_requests($1)', values: [ids] });
}

function claimColumns(claims: RequestClaim[]): [string[], string[]] {
  return [claims.map(({ requestId }) => requestId), claims.map(({ fence }) => fence)];
}
