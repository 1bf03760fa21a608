import pg from 'pg';
import { type ConnectionOptions, connectionConfig } from './database.ts';

/** Make the derived tables again from the ledger. Needs the owner's or an administrator's connection. */
export async function rebuildDerived(connection: ConnectionOptions): Promise<void> {
  const client = new pg.Client(connectionConfig(connection));
  await client.connect();
  try {
    await client.query('begin; set local role loglineos_owner');
    await client.query('select ledger.rebuild_derived()');
    await client.query('commit');
  } finally {
    await client.end(); // rolls an open transaction back
  }
}
