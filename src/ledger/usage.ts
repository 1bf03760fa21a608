import type { Database } from './database.ts';

/** Take one function execution of a tenant's day (UTC, `YYYY-MM-DD`); false when the limit is reached. Free of races. */
export async function reserveExecution(
  database: Database,
  tenantId: string,
  day: string,
  limit: number,
): Promise<boolean> {
  return database.transaction(counterOf(tenantId), async (query) => {
    const [row] = await query<{ reserved: boolean }>({
      text: 'select ledger.reserve_execution($1, $2, $3) as reserved',
      values: [tenantId, day, limit],
    });
    return row?.reserved === true;
  });
}

/** Give back a reservation under which no function ran. */
export async function releaseExecution(database: Database, tenantId: string, day: string): Promise<void> {
  await database.transaction(counterOf(tenantId), (query) =>
    query({ text: 'select ledger.release_execution($1, $2)', values: [tenantId, day] }),
  );
}

/** The counter is a tenant's own: its functions ask in whose name they are called. */
function counterOf(tenantId: string) {
  return { userId: 'stage0', tenantId };
}
