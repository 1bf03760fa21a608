import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import pg from 'pg';
import { IntegrityError } from '../errors.ts';
import { type ConnectionOptions, connectionConfig } from './database.ts';

export interface Migration {
  version: number;
  name: string;
  checksum: string;
  text: string;
}

export interface MigrationResult {
  version: number;
  applied: string[];
}

/** Any number, the same for every migrator: "LogLine" on a telephone's keys. */
const MIGRATION_LOCK = 5645463;
/** Roles belong to the cluster: a migrator of another database may be changing them. Tried again from the start. */
const CLUSTER_RACE = new Set(['XX000', '40001', '40P01', '23505', '42710']);
const ATTEMPTS_MAX = 10;

/** The migrations of a folder, in order: `0001_roles.sql`, `0002_…`. */
export async function loadMigrations(folder: string): Promise<Migration[]> {
  const names = (await readdir(folder)).filter((name) => name.endsWith('.sql')).sort();
  return Promise.all(
    names.map(async (name) => {
      const text = await readFile(join(folder, name), 'utf8');
      return {
        version: Number.parseInt(name, 10),
        name,
        checksum: createHash('sha256').update(text).digest('hex'),
        text,
      };
    }),
  );
}

/**
 * Bring a database to the newest schema: all missing migrations in one transaction, or none. Any number of migrators
 * may start at once; one works, the others wait and find nothing to do.
 *
 * @param connection an administrator's connection: superuser, or a role that may create roles.
 * @throws {IntegrityError} `MIGRATION_EDITED`, `MIGRATION_UNKNOWN`: what was applied is not what these files say.
 */
export async function migrate(connection: ConnectionOptions, migrations: Migration[]): Promise<MigrationResult> {
  return withMigrationLock(connection, (client) => migrateOnce(client, migrations));
}

/**
 * One transaction of an administrator, alone among all that hold this lock. What the cluster shares (roles) may be
 * changed at the same time through another database; then it is tried again from the start.
 */
export async function withMigrationLock<T>(
  connection: ConnectionOptions,
  run: (client: pg.Client) => Promise<T>,
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    const client = new pg.Client(connectionConfig(connection));
    await client.connect();
    try {
      await client.query('begin');
      await client.query('select pg_advisory_xact_lock($1)', [MIGRATION_LOCK]);
      const result = await run(client);
      await client.query('commit');
      return result;
    } catch (error) {
      if (attempt === ATTEMPTS_MAX || !CLUSTER_RACE.has((error as { code?: string }).code ?? '')) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50 * attempt * Math.random()));
    } finally {
      await client.end(); // rolls an open transaction back
    }
  }
}

async function migrateOnce(client: pg.Client, migrations: Migration[]): Promise<MigrationResult> {
  await client.query('create schema if not exists ledger');
  await client.query(`create table if not exists ledger.schema_migration (
    version integer primary key, name text not null, checksum text not null, applied_at timestamptz not null default now()
  )`);
  const { rows: applied } = await client.query<Migration>(
    'select version, name, checksum from ledger.schema_migration order by version',
  );
  const pending = pendingMigrations(migrations, applied);
  for (const migration of pending) {
    await client.query(migration.text);
    await client.query('insert into ledger.schema_migration (version, name, checksum) values ($1, $2, $3)', [
      migration.version,
      migration.name,
      migration.checksum,
    ]);
  }
  return { version: migrations.at(-1)?.version ?? 0, applied: pending.map((migration) => migration.name) };
}

/** What is still to be applied, once all that was applied is recognised. */
export function pendingMigrations(
  migrations: Migration[],
  applied: Pick<Migration, 'version' | 'name' | 'checksum'>[],
): Migration[] {
  const known = new Map(migrations.map((migration) => [migration.version, migration]));
  for (const { version, name, checksum } of applied) {
    const migration = known.get(version);
    if (migration === undefined) {
      throw new IntegrityError(
        'MIGRATION_UNKNOWN',
        `the database has ${name}, which this version of the code does not`,
      );
    }
    if (migration.checksum !== checksum) {
      throw new IntegrityError('MIGRATION_EDITED', `${name} was changed after it was applied; add a new file instead`);
    }
  }
  const done = new Set(applied.map(({ version }) => version));
  return migrations.filter(({ version }) => !done.has(version));
}
