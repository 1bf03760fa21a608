/**
 * A real Postgres for each process of tests, for a whole run, with a migrated database that every test file clones
 * (`database.ts`). Not one for all: a server orders the transactions of all its databases together, so one that is still
 * running in another file's database would hold back what this file's timelines show.
 *
 *   DATABASE_URL=postgres://…              a server for tests, with an administrator's login: the roles' passwords change
 *   LOGLINEOS_TEST_POSTGRES=docker         containers
 *   (neither)                              embedded servers, in temporary folders
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import type { TestProject } from 'vitest/node';
import { grantLogins, loadMigrations, migrate } from '../../src/ledger/index.ts';
import { startEmbeddedPostgres } from '../../src/local/embedded-postgres.ts';

declare module 'vitest' {
  export interface ProvidedContext {
    /** The administrator's URL of the migrated template database, one for each process. */
    templateUrls: string[];
    /** Every database of this run has a name that begins so. */
    databasePrefix: string;
  }
}

/** The roles' passwords in tests; no server that matters has them. */
export const TEST_PASSWORD = 'of-tests-only';
const PREFIX = 'loglineos_test_';
const MIGRATIONS = new URL('../../sql', import.meta.url).pathname;

interface TestServer {
  url: string;
  stop(): Promise<void>;
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const databasePrefix = `${PREFIX}${randomBytes(4).toString('hex')}`;
  const processes = Math.max(...project.vitest.projects.map(({ config }) => config.maxWorkers));
  const length = process.env.DATABASE_URL ? 1 : processes;
  const prepared = await Promise.allSettled(Array.from({ length }, () => prepareServer(databasePrefix)));
  const servers = prepared.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
  const stop = async () => void (await Promise.all(servers.map((server) => server.stop())));
  const failed = prepared.find((one) => one.status === 'rejected');
  if (failed !== undefined) {
    await stop();
    throw failed.reason;
  }
  const templateUrls = servers.map(({ url }) => url);
  project.provide('templateUrls', templateUrls);
  project.provide('databasePrefix', databasePrefix);
  return stop;
}

/** A server with the migrated template; the URL is that database's. */
async function prepareServer(databasePrefix: string): Promise<TestServer> {
  const server = await startServer();
  try {
    const url = await createTemplate(server.url, `${databasePrefix}_template`);
    // Marks the run as alive, so that the next one leaves its databases alone.
    const marker = new pg.Client({ connectionString: server.url, application_name: databasePrefix });
    marker.on('error', () => {});
    await marker.connect();
    await dropAbandoned(marker);
    return {
      url,
      stop: async () => {
        await dropDatabases(marker, (name) => name.startsWith(databasePrefix));
        await marker.end();
        await server.stop();
      },
    };
  } catch (error) {
    await server.stop();
    throw error;
  }
}

async function startServer(): Promise<TestServer> {
  const url = process.env.DATABASE_URL;
  if (url !== undefined && url !== '') return { url, stop: async () => {} };
  if (process.env.LOGLINEOS_TEST_POSTGRES === 'docker') return startContainer();
  return startTemporaryPostgres();
}

async function startContainer(): Promise<TestServer> {
  const { PostgreSqlContainer } = await import('@testcontainers/postgresql');
  const container = await new PostgreSqlContainer('postgres:18-alpine').start();
  return { url: container.getConnectionUri(), stop: async () => void (await container.stop()) };
}

/** An embedded server in a folder of its own. Both are gone afterwards, in whatever way this process ends. */
export async function startTemporaryPostgres(): Promise<TestServer> {
  const folder = await mkdtemp(join(tmpdir(), 'loglineos-test-'));
  const janitor = startJanitor(folder);
  const postgres = await startEmbeddedPostgres(folder, TEST_PASSWORD).catch(async (error: unknown) => {
    janitor.stdin?.end();
    throw error;
  });
  await forgoDurability(postgres.url);
  return {
    url: postgres.url,
    stop: async () => {
      await postgres.stop();
      await rm(folder, { recursive: true, force: true });
      janitor.stdin?.end();
    },
  };
}

/** Reads a pipe that closes when this process ends, even by SIGKILL; then ends the server and removes its folder. */
function startJanitor(folder: string): ChildProcess {
  const script = `cat >/dev/null
    pid=$(head -n 1 "$1/postgres/postmaster.pid" 2>/dev/null) && kill -QUIT "$pid" && while kill -0 "$pid"; do sleep 0.1; done
    rm -rf "$1"`;
  const janitor = spawn('sh', ['-c', script, 'janitor', folder], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  });
  janitor.unref();
  (janitor.stdin as unknown as { unref?: () => void } | null)?.unref?.();
  return janitor;
}

/** Nothing here outlives the run, so no commit needs to wait for the disk, and nobody needs to tidy up beside the tests. */
async function forgoDurability(url: string): Promise<void> {
  await withClient(url, async (client) => {
    for (const setting of ['fsync', 'full_page_writes', 'synchronous_commit', 'autovacuum']) {
      await client.query(`alter system set ${setting} = off`);
    }
    await client.query('select pg_reload_conf()');
  });
}

async function createTemplate(serverUrl: string, name: string): Promise<string> {
  await withClient(serverUrl, (client) => client.query(`create database ${name}`));
  const url = withDatabase(serverUrl, name);
  await migrate({ url: url }, await loadMigrations(MIGRATIONS));
  await grantLogins(
    { url: url },
    { loglineos_app: TEST_PASSWORD, loglineos_seeder: TEST_PASSWORD, loglineos_auditor: TEST_PASSWORD },
  );
  return url;
}

/** Databases that an interrupted run left on a server that is not ours to remove. */
async function dropAbandoned(client: pg.Client): Promise<void> {
  const { rows } = await client.query<{ run: string }>(
    'select distinct application_name as run from pg_stat_activity where application_name like $1',
    [`${PREFIX}%`],
  );
  await dropDatabases(client, (name) => !rows.some(({ run }) => name.startsWith(run)));
}

async function dropDatabases(client: pg.Client, isDropped: (name: string) => boolean): Promise<void> {
  const { rows } = await client.query<{ name: string }>(
    'select datname as name from pg_database where starts_with(datname, $1)',
    [PREFIX],
  );
  for (const { name } of rows) {
    if (isDropped(name)) await client.query(`drop database if exists ${pg.escapeIdentifier(name)} with (force)`);
  }
}

export async function withClient<T>(url: string, run: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client(url);
  await client.connect();
  try {
    return await run(client);
  } finally {
    await client.end();
  }
}

export function withDatabase(serverUrl: string, name: string): string {
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  return url.href;
}
