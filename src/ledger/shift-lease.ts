import type { Database } from './database.ts';

/** Take a role for so long, or keep it; false while somebody else holds it. */
export async function holdShift(database: Database, role: string, holder: string, leaseMs: number): Promise<boolean> {
  const [row] = await database.query<{ held: boolean }>({
    text: 'select ledger.hold_shift($1, $2, $3) as held',
    values: [role, holder, leaseMs],
  });
  return row?.held === true;
}

export async function endShift(database: Database, role: string, holder: string): Promise<void> {
  await database.query({ text: 'select ledger.end_shift($1, $2)', values: [role, holder] });
}
