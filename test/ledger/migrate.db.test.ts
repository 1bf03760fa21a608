import { createHash } from 'node:crypto';
import { afterAll, describe, expect, inject, it } from 'vitest';
import {
  appendSpans,
  Database,
  exportLedger,
  grantLogins,
  importLedger,
  linesOf,
  loadMigrations,
  type Migration,
  migrate,
  rebuildDerived,
  verifyLedger,
} from '../../src/ledger/index.ts';
import { nodeEd25519 } from '../../src/span/ed25519-node.ts';
import { templateUrl } from '../support/database.ts';
import { trustedKeys } from '../support/keys.ts';
import { startTemporaryPostgres, TEST_PASSWORD, withClient, withDatabase } from '../support/postgres-server.ts';
import { ALICE, contextOf, draft } from '../support/spans.ts';

const migrations = await loadMigrations(new URL('../../sql', import.meta.url).pathname);
const NAMES = migrations.map(({ name }) => name);
const serverUrl = withDatabase(templateUrl(), 'postgres');
const made: string[] = [];

/** A database with nothing in it. */
async function createEmpty(): Promise<string> {
  const name = `${inject('databasePrefix')}_${process.pid}_empty_${made.length}`;
  made.push(name);
  await withClient(serverUrl, (client) => client.query(`create database ${name}`));
  return withDatabase(serverUrl, name);
}

afterAll(async () => {
  await withClient(serverUrl, async (client) => {
    for (const name of made) await client.query(`drop database ${name} with (force)`);
  });
});

function recorded(url: string): Promise<string[]> {
  return withClient(url, async (client) => {
    const { rows } = await client.query<{ name: string }>('select name from ledger.schema_migration order by version');
    return rows.map(({ name }) => name);
  });
}

function edited(migration: Migration, text: string): Migration {
  return { ...migration, text, checksum: createHash('sha256').update(text).digest('hex') };
}

describe('the migration files', () => {
  it('are numbered from 1 without a gap, each with words in its name', () => {
    expect(migrations.map(({ version }) => version)).toEqual(migrations.map((_, i) => i + 1));
    for (const name of NAMES) expect(name).toMatch(/^\d{4}_[a-z]+(_[a-z]+)*\.sql$/);
  });
});

describe('migrate', () => {
  it('applies everything once, and nothing the second time', async () => {
    const url = await createEmpty();
    expect((await migrate({ url: url }, migrations)).applied).toEqual(NAMES);
    expect(await migrate({ url: url }, migrations)).toEqual({ version: migrations.length, applied: [] });
    expect(await recorded(url)).toEqual(NAMES);
  });

  it('goes on from where an older version of the code stopped', async () => {
    const url = await createEmpty();
    await migrate({ url: url }, migrations.slice(0, 5));
    expect((await migrate({ url: url }, migrations)).applied).toEqual(NAMES.slice(5));
  });

  it('works when twenty start at once: one applies, the others find nothing to do', async () => {
    const url = await createEmpty();
    const results = await Promise.all(Array.from({ length: 20 }, () => migrate({ url: url }, migrations)));
    expect(results.filter(({ applied }) => applied.length > 0).map(({ applied }) => applied)).toEqual([NAMES]);
    expect(await recorded(url)).toEqual(NAMES);
  });

  it('refuses a file that was edited after it was applied', async () => {
    const url = await createEmpty();
    await migrate({ url: url }, migrations.slice(0, 3));
    const tampered = migrations.map((migration, i) =>
      i === 1 ? edited(migration, `${migration.text}\n-- a word`) : migration,
    );
    await expect(migrate({ url: url }, tampered)).rejects.toMatchObject({
      code: 'MIGRATION_EDITED',
      message: expect.stringContaining(NAMES[1] as string),
    });
    expect(await recorded(url)).toEqual(NAMES.slice(0, 3));
  });

  it('refuses a database that a newer version of the code has migrated', async () => {
    const url = await createEmpty();
    await migrate({ url: url }, migrations);
    await expect(migrate({ url: url }, migrations.slice(0, -1))).rejects.toMatchObject({
      code: 'MIGRATION_UNKNOWN',
      message: expect.stringContaining(NAMES.at(-1) as string),
    });
  });

  it('leaves nothing of a set that fails half way', async () => {
    const url = await createEmpty();
    const failing = {
      ...edited(migrations[0] as Migration, 'create table ledger.half (a int); select 1/0'),
      version: 9999,
      name: '9999_fails.sql',
    };
    await expect(migrate({ url: url }, [...migrations, failing])).rejects.toMatchObject({ code: '22012' });
    const schemas = await withClient(url, (client) =>
      client.query(`select from pg_namespace where nspname = 'ledger'`),
    );
    expect(schemas.rowCount).toBe(0);
    expect((await migrate({ url: url }, migrations)).applied).toEqual(NAMES);
  });
});

describe('on a server of its own, where no role exists yet', () => {
  it('a master user who is no superuser migrates two databases with ten migrators each, and the ledger works', async () => {
    const server = await startTemporaryPostgres();
    try {
      await withClient(server.url, (client) =>
        client.query(`create role master login createrole createdb password '${TEST_PASSWORD}'`),
      );
      const login = new URL(withDatabase(server.url, 'postgres'));
      login.username = 'master';
      const urls = ['one', 'two'].map((name) => withDatabase(login.href, name));
      await withClient(login.href, async (client) => {
        await client.query('create database one');
        await client.query('create database two');
      });
      for (const results of await Promise.all(
        urls.map((url) => Promise.all(Array.from({ length: 10 }, () => migrate({ url: url }, migrations)))),
      )) {
        expect(results.filter(({ applied }) => applied.length > 0).map(({ applied }) => applied)).toEqual([NAMES]);
      }
      for (const url of urls) await expectWorkingLedger(url);
      await withClient(login.href, (client) => client.query('create database three'));
      await expectMoves(urls[0] as string, withDatabase(login.href, 'three'));
    } finally {
      await server.stop();
    }
  });

  /** The same master exports a ledger and brings it back in another database. */
  async function expectMoves(from: string, to: string): Promise<void> {
    await migrate({ url: to }, migrations);
    const open = (url: string) => new Database({ url, applicationName: 'test', connectionsMax: 2 });
    const [source, target] = [open(from), open(to)];
    try {
      async function* exported() {
        for await (const { text } of exportLedger(source, null)) yield Buffer.from(text);
      }
      await importLedger(target, linesOf(exported()), { keys: trustedKeys, scheme: nodeEd25519 });
      await rebuildDerived({ url: to });
      expect(await verifyLedger(target, trustedKeys, nodeEd25519)).toMatchObject({ ok: true, checked: 2 });
    } finally {
      await source.close();
      await target.close();
    }
  }

  async function expectWorkingLedger(url: string): Promise<void> {
    const passwords = { loglineos_app: 'a', loglineos_seeder: 'b', loglineos_auditor: 'c' };
    await grantLogins({ url: url }, passwords);
    const open = (role: keyof typeof passwords) => {
      const login = new URL(url);
      login.username = role;
      login.password = passwords[role];
      return new Database({ url: login.href, applicationName: 'test' });
    };
    const [app, auditor] = [open('loglineos_app'), open('loglineos_auditor')];
    try {
      const [first] = await appendSpans(app, [draft()], contextOf(ALICE));
      await appendSpans(app, [draft({ id: first?.id as string })], contextOf(ALICE));
      expect(await verifyLedger(auditor, trustedKeys, nodeEd25519)).toMatchObject({ ok: true, checked: 2 });
      await rebuildDerived({ url: url });
      await withClient(url, async (client) => {
        for (const sql of [
          'update ledger.universal_registry set who = who',
          'delete from ledger.universal_registry',
          'truncate ledger.universal_registry',
        ]) {
          await expect(client.query(sql), sql).rejects.toMatchObject({ code: '42501' });
        }
        expect((await client.query('select from ledger.universal_registry')).rowCount).toBe(0);
      });
    } finally {
      await app.close();
      await auditor.close();
    }
  }
});
