import type { StoredSpan } from '../span/index.ts';
import type { Database, Identity, Row, Statement } from './database.ts';
import { spanTypes, toSpan } from './rows.ts';

export function latestVersionsStatement(identity: Identity, ids: string[]): Statement {
  return {
    text: 'select * from ledger.latest_versions($1, $2, $3)',
    values: [identity.userId, identity.tenantId, ids],
    types: spanTypes,
  };
}

/** The newest version of each span that the identity may see, by id, in one round trip. */
export async function readLatestVersions(
  database: Database,
  identity: Identity,
  ids: string[],
): Promise<Map<string, StoredSpan>> {
  const rows = await database.query<Row>(latestVersionsStatement(identity, ids));
  return new Map(rows.map(toSpan).map((span) => [span.id, span]));
}

/** A newest version, with the digest of the whole row as the database shows it. */
export interface DigestedSpan {
  span: StoredSpan;
  digest: string;
}

/** The same, each with its row's digest, by which {@link appendBootEvent} recognises it later. */
export async function readDigestedVersions(
  database: Database,
  identity: Identity,
  ids: string[],
): Promise<Map<string, DigestedSpan>> {
  const rows = await database.query<Row>({
    text: 'select r.*, ledger.row_digest(r) from ledger.latest_versions($1, $2, $3) r',
    values: [identity.userId, identity.tenantId, ids],
    types: spanTypes,
  });
  return new Map(
    rows.map(({ row_digest, ...row }) => {
      const span = toSpan(row);
      return [span.id, { span, digest: row_digest as string }];
    }),
  );
}

/** All versions of one span that the identity may see, oldest first. */
export async function readVersions(database: Database, identity: Identity, id: string): Promise<StoredSpan[]> {
  return database.transaction(
    identity,
    async (query) => {
      const rows = await query<Row>({
        text: 'select * from ledger.universal_registry where id = $1 order by seq',
        values: [id],
        types: spanTypes,
      });
      return rows.map(toSpan);
    },
    { readOnly: true },
  );
}
