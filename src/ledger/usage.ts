import type { Database } from './database.ts';

/** Take one function execution of a tenant's day (UTC, `YYYY-MM-DD`); false when the limit is reached. Free of races. */
export async function reserveExecution(
  database: Database,
  tenantId: string,
  day: string,
  limit: number,
): Promise<boolean> {
  const [row] = await database.query<{ reserved: boolean }>({
    text: 'select ledger.reserve_execution($1, $2, $3) as reserved',
    values: [tenantId, day, limit],
  });
  return row?.reserved === true;
}

/** Give back a reservation under which no function ran. */
export async function releaseExecution(database: Database, tenantId: string, day: string): Promise<void> {
  await database.query({ text: 'select ledger.release_execution($1, $2)', values: [tenantId, day] });
}
