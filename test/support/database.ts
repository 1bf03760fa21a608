import pg from 'pg';
import { expect, inject } from 'vitest';
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
  /** An older transaction in a database of another test holds the timeline of this one back: until there is none. */
  othersEnded(): Promise<void>;
  /** Closes what was opened, then drops the database. */
  close(): Promise<void>;
}

let cloned = 0;

/** Clone the run's migrated template. Takes about a tenth of a second. */
export async function createTestDatabase(): Promise<TestDatabase> {
  const templateUrl = inject('templateUrl');
  const name = `${inject('databasePrefix')}_${process.pid}_${++cloned}`;
  const template = new URL(templateUrl).pathname.slice(1);
  const serverUrl = withDatabase(templateUrl, 'postgres');
  await withClient(serverUrl, (client) => client.query(`create database ${name} template ${template}`));

  const adminUrl = withDatabase(templateUrl, name);
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
    async othersEnded() {
      const text = `select from pg_stat_activity
                     where datname <> current_database()
                       and age(backend_xid) >= (select min(age(xmin)) from ledger.universal_registry)`;
      await withClient(adminUrl, (client) =>
        expect.poll(async () => (await client.query(text)).rowCount, { timeout: 20_000 }).toBe(0),
      );
    },
    async close() {
      // The database itself goes at the end of the run: to drop one holds the timelines of all others back meanwhile.
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
