import type { StoredSpan } from '../span/index.ts';
import type { Database, Identity, Row, Statement } from './database.ts';
import { spanTypes, toSpan, toSpansById } from './rows.ts';
import { pageText, readPage } from './span-filter.ts';

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
  return toSpansById(await database.query<Row>(latestVersionsStatement(identity, ids)));
}

/** The first version of each span that the identity may see, by id. */
export async function readFirstVersions(
  database: Database,
  identity: Identity,
  ids: string[],
): Promise<Map<string, StoredSpan>> {
  const text = 'select * from ledger.universal_registry where id = any ($1) and seq = 0';
  const statement = { text, values: [ids], types: spanTypes };
  return toSpansById(await database.transaction(identity, (query) => query<Row>(statement), { readOnly: true }));
}

/** A newest version, and where its row lies: which changes with every update, so that an altered row is another one. */
export interface PlacedSpan {
  span: StoredSpan;
  rowVersion: string;
}

/** The same, each with its row's place, by which `appendBootEvent` recognises it later. */
export async function readPlacedVersions(
  database: Database,
  identity: Identity,
  ids: string[],
): Promise<Map<string, PlacedSpan>> {
  return database.transaction(
    identity,
    async (query) => {
      const rows = await query<Row>({
        text: `select distinct on (r.id) r.*, r.ctid::text || ' ' || r.xmin::text as row_version
                 from ledger.universal_registry r
                where r.id = any ($1)
                order by r.id, r.seq desc`,
        values: [ids],
        types: spanTypes,
      });
      return new Map(
        rows.map(({ row_version, ...row }) => {
          const span = toSpan(row);
          return [span.id, { span, rowVersion: row_version as string }];
        }),
      );
    },
    { readOnly: true },
  );
}

/** One version of a span; undefined where there is none that the identity may see. */
export async function readVersion(
  database: Database,
  identity: Identity,
  id: string,
  seq: number,
): Promise<StoredSpan | undefined> {
  const text = 'select * from ledger.universal_registry where id = $1 and seq = $2';
  const statement = { text, values: [id, seq], types: spanTypes };
  const [row] = await database.transaction(identity, (query) => query<Row>(statement), { readOnly: true });
  return row === undefined ? undefined : toSpan(row);
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

/**
 * The same by pages: versions from `from` on, at most `limit` and about as many bytes as pages of lists hold.
 *
 * @returns `next` is the last version of the page, where there are later ones; null at the end.
 */
export async function readVersionsFrom(
  database: Database,
  identity: Identity,
  id: string,
  from: number,
  limit: number,
): Promise<{ versions: StoredSpan[]; next: number | null }> {
  const text = pageText(
    'select id, seq from ledger.universal_registry where id = $1 and seq >= $2::bigint order by seq limit $3',
  );
  // One more than is asked for tells whether there is more.
  const statement = { text, values: [id, from, limit + 1], types: spanTypes };
  const found = await database.transaction(identity, (query) => query<Row>(statement), { readOnly: true });
  const { rows, isCut } = readPage(found);
  const versions = rows.slice(0, limit).map(toSpan);
  const hasMore = isCut || rows.length > limit;
  return { versions, next: hasMore ? (versions.at(-1)?.seq ?? null) : null };
}
