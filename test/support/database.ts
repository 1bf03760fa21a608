import pg from 'pg';
import { inject } from 'vitest';
import { Database, type DatabaseOptions, type LoginRole } from '../../src/ledger/index.ts';
import { TEST_PASSWORD, withClient, withDatabase } from './postgres-server.ts';

const LOGIN_ROLES: readonly LoginRole[] = ['loglineos_app', 'loglineos_seeder', 'loglineos_auditor'];

/** A freshly migrated database of a test file's own. */
export interface TestDatabase {
  name: string;
  adminUrl: string;
  /** Connection URLs of the roles that log in. */
  urls: Record<LoginRole, string>;
  /** A pool with one role's login, closed together with the database. */
  open(role: LoginRole | 'admin', options?: Partial<DatabaseOptions>): Database;
  /** A bare connection of one role, closed together with the database. */
  connect(role: LoginRole | 'admin'): Promise<pg.Client>;
  /** Closes what was opened. */
  close(): Promise<void>;
}

let cloned = 0;

/** The template on the server of this process, or on the one that is given to all. */
export function templateUrl(): string {
  const urls = inject('templateUrls');
  return urls[(Number(process.env.VITEST_POOL_ID) - 1) % urls.length] as string;
}

/** Clone the run's migrated template. Takes about a tenth of a second. */
export async function createTestDatabase(): Promise<TestDatabase> {
  const template = templateUrl();
  const name = `${inject('databasePrefix')}_${process.pid}_${++cloned}`;
  await withClient(withDatabase(template, 'postgres'), (client) =>
    client.query(`create database ${name} template ${new URL(template).pathname.slice(1)}`),
  );

  const adminUrl = withDatabase(template, name);
  const urls = Object.fromEntries(LOGIN_ROLES.map((role) => [role, withLogin(adminUrl, role)])) as TestDatabase['urls'];
  const urlOf = (role: LoginRole | 'admin') => (role === 'admin' ? adminUrl : urls[role]);
  const opened: { end(): Promise<void> }[] = [];
  return {
    name,
    adminUrl,
    urls,
    open(role, options = {}) {
      const database = new Database({ url: urlOf(role), applicationName: 'test', connectionsMax: 4, ...options });
      opened.push({ end: () => database.close() });
      return database;
    },
    async connect(role) {
      const client = new pg.Client(urlOf(role));
      client.on('error', () => {});
      await client.connect();
      opened.push(client);
      return client;
    },
    async close() {
      // The database itself goes at the end of the run: a process that a test has killed may still be ending in it.
      await Promise.all(opened.map((connection) => connection.end()));
    },
  };
}

function withLogin(url: string, role: LoginRole): string {
  const login = new URL(url);
  login.username = role;
  login.password = TEST_PASSWORD;
  return login.href;
}
