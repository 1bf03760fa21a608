import type { StoredSpan } from '../span/index.ts';
import type { Database, Identity, Row } from './database.ts';
import { spanTypes, toSpan } from './rows.ts';

/** The first version of each span that the identity may see, by id. */
export async function readFirstVersions(
  database: Database,
  identity: Identity,
  ids: string[],
): Promise<Map<string, StoredSpan>> {
  const text = 'select * from ledger.universal_registry where id = any ($1) and seq = 0';
  const statement = { text, values: [ids], types: spanTypes };
  const rows = await database.transaction(identity, (query) => query<Row>(statement), { readOnly: true });
  return new Map(rows.map(toSpan).map((span) => [span.id, span]));
}
