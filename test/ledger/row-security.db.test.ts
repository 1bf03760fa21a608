import { randomUUID } from 'node:crypto';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { appendSpans, type Identity, readLatestVersions } from '../../src/ledger/index.ts';
import { sealSpan } from '../../src/span/index.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { rootSigner, runtimeSigner } from '../support/keys.ts';
import { ALAN, ALICE, BOB, contextOf, draft, hashable, OTHER_ALICE } from '../support/spans.ts';

const READERS = ['app', 'kernel', 'publisher', 'seeder', 'auditor', 'guard', 'owner'].map(
  (name) => `loglineos_${name}`,
);
const PUBLISHER: Identity = { userId: 'press', tenantId: 'paper' };

let database: TestDatabase;
let admin: pg.Client;
/** Everything in the schema that shows rows of the registry. */
let relations: string[];

beforeAll(async () => {
  database = await createTestDatabase();
  admin = await database.connect('admin');
  const { rows } = await admin.query<{ name: string }>(
    `select format('ledger.%I', viewname) as name from pg_views where schemaname = 'ledger'`,
  );
  relations = ['ledger.universal_registry', ...rows.map(({ name }) => name)];
  const app = database.open('loglineos_app');
  for (const identity of [ALICE, ALAN, BOB, OTHER_ALICE]) {
    const both = (['private', 'tenant'] as const).map((visibility) =>
      draft({ visibility, this: `${visibility} of ${identity.userId}@${identity.tenantId}` }),
    );
    await appendSpans(app, both, contextOf(identity));
  }
  const publication = draft({ visibility: 'public', this: 'public of press@paper' });
  await appendSpans(database.open('loglineos_seeder'), [publication], contextOf(PUBLISHER, rootSigner));
});
afterAll(() => database.close());

/** What a role sees of a relation under settings, in one transaction. */
async function see(relation: string, role: string, settings: Record<string, string>): Promise<string[]> {
  await admin.query('begin');
  try {
    // Not every role may read every view; what row level security would show it is asked here.
    await admin.query(`grant select on ${relations.join(', ')} to ${role}`);
    await admin.query(`set local role ${role}`);
    for (const [name, value] of Object.entries(settings))
      await admin.query('select set_config($1, $2, true)', [name, value]);
    const { rows } = await admin.query<{ this: string }>(`select "this" from ${relation} order by "this"`);
    return rows.map((row) => row.this);
  } finally {
    await admin.query('rollback');
  }
}

function declared({ userId, tenantId }: Identity): Record<string, string> {
  return { 'app.user_id': userId, 'app.tenant_id': tenantId };
}

describe('a session without an identity', () => {
  it.each(READERS)('sees no row as %s, in the table or any view', async (role) => {
    expect(relations).toEqual(
      expect.arrayContaining(['ledger.visible_timeline', 'ledger.settled_timeline', 'ledger.current_span']),
    );
    for (const relation of relations) {
      expect(await see(relation, role, {}), relation).toEqual([]);
      expect(await see(relation, role, { 'app.user_id': '', 'app.tenant_id': '' }), relation).toEqual([]);
      expect(await see(relation, role, { 'app.user_id': 'alice' }), relation).toEqual([]);
      expect(await see(relation, role, { 'app.tenant_id': 'acme' }), relation).toEqual([]);
      expect(await see(relation, role, { 'app.rebuild': 'on' }), relation).toEqual([]);
    }
  });

  it.each(['loglineos_app', 'loglineos_seeder', 'loglineos_auditor'] as const)(
    'sees no row when it logs in as %s',
    async (login) => {
      const client = await database.connect(login);
      for (const relation of relations)
        expect((await client.query(`select from ${relation}`)).rowCount, relation).toBe(0);
    },
  );

  it('gets nothing from the functions that look past row level security', async () => {
    const client = await database.connect('loglineos_app');
    for (const sql of [
      `select * from ledger.lost_boots('-infinity', 'infinity', 10)`,
      `select ledger.reserve_execution('acme', '2026-11-23', 10)`,
      `select ledger.release_execution('acme', '2026-11-23')`,
    ]) {
      await expect(client.query(sql), sql).rejects.toMatchObject({ code: '42501' });
    }
  });

  it('writes nothing', async () => {
    const client = await database.connect('loglineos_app');
    const rows = JSON.stringify([sealSpan(hashable(), runtimeSigner)]);
    for (const [user, tenant] of [
      [null, null],
      ['', ''],
      ['alice', null],
      [null, 'acme'],
    ]) {
      await expect(client.query('select ledger.append($1, $2, $3)', [user, tenant, rows])).rejects.toMatchObject({
        code: '42501',
      });
    }
  });
});

describe('an identity', () => {
  const visibleTo: [Identity, string[]][] = [
    [ALICE, ['private of alice@acme', 'public of press@paper', 'tenant of alan@acme', 'tenant of alice@acme']],
    [ALAN, ['private of alan@acme', 'public of press@paper', 'tenant of alan@acme', 'tenant of alice@acme']],
    [BOB, ['private of bob@bolt', 'public of press@paper', 'tenant of alice@bolt', 'tenant of bob@bolt']],
    [OTHER_ALICE, ['private of alice@bolt', 'public of press@paper', 'tenant of alice@bolt', 'tenant of bob@bolt']],
    [{ userId: 'nobody', tenantId: 'nowhere' }, ['public of press@paper']],
    [{ userId: 'ALICE', tenantId: 'acme ' }, ['public of press@paper']],
    [{ userId: '%', tenantId: '%' }, ['public of press@paper']],
  ];

  it.each(visibleTo)('%o sees its own, its tenant’s and public rows alone', async (identity, expected) => {
    for (const relation of relations) {
      for (const role of ['loglineos_app', 'loglineos_kernel', 'loglineos_seeder', 'loglineos_owner']) {
        // Rows settle once every transaction of the server that was running has ended; other tests run beside this one.
        await expect
          .poll(() => see(relation, role, declared(identity)), { message: `${relation} ${role}`, timeout: 10_000 })
          .toEqual(expected);
      }
    }
  });

  it('sees no more by the setting that lets the owner rebuild, through any view', async () => {
    for (const relation of relations) {
      for (const role of ['loglineos_app', 'loglineos_kernel', 'loglineos_seeder']) {
        const seen = await see(relation, role, { ...declared(BOB), 'app.rebuild': 'on' });
        expect(
          seen.filter((text) => text.includes('acme') || text.startsWith('private of alice')),
          `${relation} ${role}`,
        ).toEqual([]);
      }
    }
    const { rows } = await admin.query(`
      select relname from pg_class
       where relnamespace = 'ledger'::regnamespace and relkind in ('v', 'm')
         and not coalesce('security_invoker=true' = any (reloptions), false)`);
    expect(rows).toEqual([]);
  });

  it('gets another’s span by its id no more than by any other way', async () => {
    const app = database.open('loglineos_app');
    const { rows } = await admin.query<{ id: string; this: string }>(
      'select id, "this" from ledger.universal_registry',
    );
    const latest = await readLatestVersions(
      app,
      BOB,
      rows.map(({ id }) => id),
    );
    expect([...latest.values()].map((span) => span.this).sort()).toEqual(visibleTo[2]?.[1]);
  });

  it('is told nothing by a function of its own that Postgres would like to run first', async () => {
    const client = await database.connect('loglineos_app');
    const notices: string[] = [];
    client.on('notice', (notice) => notices.push(String(notice.message)));
    await client.query('begin');
    await client.query(`create function pg_temp.leak(value text) returns boolean language plpgsql cost 0.0000001 as $$
      begin raise notice '%', value; return true; end $$`);
    await client.query(`select set_config('app.user_id', 'bob', true), set_config('app.tenant_id', 'bolt', true)`);
    for (const relation of relations) await client.query(`select from ${relation} where pg_temp.leak("this")`);
    await client.query('rollback');
    expect(notices).not.toHaveLength(0);
    expect(notices.filter((notice) => notice.includes('acme'))).toEqual([]);
  });

  it('is an auditor’s only licence to see everything', async () => {
    expect(await see('ledger.universal_registry', 'loglineos_auditor', declared(ALICE))).toHaveLength(9);
    const auditor = await database.connect('loglineos_auditor');
    const rows = JSON.stringify([sealSpan(hashable(), runtimeSigner)]);
    await expect(auditor.query(`select ledger.append('alice', 'acme', $1)`, [rows])).rejects.toMatchObject({
      code: '42501',
    });
  });
});

describe('writing', () => {
  async function append(
    login: 'loglineos_app' | 'loglineos_seeder',
    identity: Identity,
    more: object,
  ): Promise<unknown> {
    const client = await database.connect(login);
    const rows = JSON.stringify([sealSpan(hashable({ id: randomUUID(), ...more }, identity), runtimeSigner)]);
    return client.query('select ledger.append($1, $2, $3)', [identity.userId, identity.tenantId, rows]);
  }

  it.each([
    ['another owner’s row', { owner_id: 'alan' }],
    ['another tenant’s row', { tenant_id: 'bolt' }],
    ['another tenant’s tenant row', { tenant_id: 'bolt', visibility: 'tenant' }],
  ])('%s is refused', async (_what, more) => {
    await expect(append('loglineos_app', ALICE, more)).rejects.toMatchObject({ code: '42501' });
    await expect(append('loglineos_seeder', ALICE, more)).rejects.toMatchObject({ code: '42501' });
  });

  it('a public row needs a right of its own', async () => {
    await expect(append('loglineos_app', ALICE, { visibility: 'public' })).rejects.toMatchObject({ code: '42501' });
    await expect(
      append('loglineos_seeder', ALICE, { visibility: 'public', this: 'public of press@paper' }),
    ).resolves.toBeDefined();
  });

  it('is refused through the append function and directly alike', async () => {
    const client = await database.connect('loglineos_app');
    const span = sealSpan(hashable({ visibility: 'public' }), runtimeSigner);
    await client.query('begin');
    await client.query(`select set_config('app.user_id', 'alice', true), set_config('app.tenant_id', 'acme', true)`);
    const names = Object.keys(span);
    const insert = `insert into ledger.universal_registry (${names.map((name) => `"${name}"`)}) values (${names.map((_, i) => `$${i + 1}`)})`;
    await expect(client.query(insert, Object.values(span))).rejects.toMatchObject({ code: '42501' });
    await client.query('rollback');
  });

  it('is not for the kernel’s role, whatever the statement', async () => {
    const client = await database.connect('loglineos_app');
    const rows = JSON.stringify([sealSpan(hashable(), runtimeSigner)]);
    for (const sql of [
      `select ledger.append('alice', 'acme', '${rows}')`,
      `insert into ledger.universal_registry (id, seq) values (gen_random_uuid(), 0)`,
      `insert into ledger.visible_timeline (id, seq) values (gen_random_uuid(), 0)`,
      `select ledger.reserve_execution('acme', '2026-11-23', 1)`,
      `select * from ledger.lost_boots(now(), now(), 1)`,
      `select ledger.rebuild_derived()`,
      `create table ledger.mine (a int)`,
      `create table public.mine (a int)`,
    ]) {
      await client.query('begin; set local role loglineos_kernel');
      await expect(client.query(sql), sql).rejects.toMatchObject({ code: '42501' });
      await client.query('rollback');
    }
  });
});
