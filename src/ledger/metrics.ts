import type { Database, Identity } from './database.ts';

/** How many executions, and how long they took, in ms. */
type Durations = { count: number; avg_duration_ms: number | null; p95_duration_ms: number | null };

export interface TenantMetrics {
  from: string;
  total: Durations;
  /** By day (UTC, `YYYY-MM-DD`) and status. */
  executions: (Durations & { day: string; status: string })[];
  queue: { ready: number; delayed: number; leased: number; dead: number; oldest_due_ms: number | null };
}

/**
 * What became of the function executions of a tenant since an instant, as far as the identity may see them, and how many
 * requests of the tenant wait.
 */
export async function readMetrics(database: Database, identity: Identity, from: Date): Promise<TenantMetrics> {
  const executions = {
    text: `select to_char(r.at at time zone 'UTC', 'YYYY-MM-DD') as day, coalesce(r.status, 'unknown') as status,
                  count(*)::int as count,
                  round(avg(r.duration_ms), 1)::float8 as avg_duration_ms,
                  percentile_disc(0.95) within group (order by r.duration_ms)::float8 as p95_duration_ms
             from ledger.universal_registry r
            where r.tenant_id = $1 and r.at >= $2 and r.entity_type = 'execution' and r.did = 'ran_function' and r.seq = 0
            group by grouping sets ((1, 2), ())
            order by 1 nulls first, 2`,
    values: [identity.tenantId, from.toISOString()],
  };
  return database.transaction(
    identity,
    async (query) => {
      const [total, ...byDay] = await query<TenantMetrics['executions'][number]>(executions);
      const [queue] = await query<TenantMetrics['queue']>({ text: 'select * from ledger.tenant_queue()' });
      const { count, avg_duration_ms, p95_duration_ms } = total as Durations;
      return {
        from: from.toISOString(),
        total: { count, avg_duration_ms, p95_duration_ms },
        executions: byDay,
        queue: queue as TenantMetrics['queue'],
      };
    },
    { readOnly: true },
  );
}
