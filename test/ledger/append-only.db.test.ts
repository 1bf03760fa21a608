import { randomUUID } from 'node:crypto';
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { appendSpans } from '../../src/ledger/index.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { ALICE, contextOf, draft } from '../support/spans.ts';

const ROLES = ['app', 'kernel', 'publisher', 'seeder', 'auditor', 'guard', 'owner'].map((name) => `loglineos_${name}`);
const VIEWS = ['ledger.visible_timeline', 'ledger.settled_timeline', 'ledger.current_span'];
const TABLES = ['ledger.universal_registry', 'ledger.registry_witness'];

/** Ways to change or remove a row of a table. Each names the table as `t`. */
const CHANGES = [
  `update t set curr_hash = curr_hash`,
  `update t set seq = 9 where false`,
  `delete from t`,
  `with gone as (delete from t returning id) select count(*) from gone`,
  `truncate t`,
  `merge into t using (select 1 as one) s on true when matched then update set curr_hash = t.curr_hash`,
  `merge into t using (select 1 as one) s on true when matched then delete`,
];
/** Ways through a view that Postgres could pass on to the table. */
const CHANGES_BY_VIEW = CHANGES.filter((sql) => !sql.startsWith('truncate'));
const COLUMNS = 'id, seq, entity_type, who, at, owner_id, tenant_id, visibility, curr_hash, signature, public_key';
const UPSERT = `insert into t (${COLUMNS}) select ${COLUMNS} from ledger.universal_registry limit 1 on conflict (id, seq) do update set who = 'mallory'`;

let database: TestDatabase;
let admin: pg.Client;
let rowsBefore: unknown;

beforeAll(async () => {
  database = await createTestDatabase();
  admin = await database.connect('admin');
  const app = database.open('loglineos_app');
  const [first] = await appendSpans(app, [draft(), draft({ visibility: 'tenant' })], contextOf(ALICE));
  await appendSpans(app, [draft({ id: first?.id as string })], contextOf(ALICE));
  rowsBefore = await readEverything();
});
afterAll(() => database.close());

/** Whatever a test tried, the table and its witness are what they were. */
afterEach(async () => {
  expect(await readEverything()).toEqual(rowsBefore);
});

async function readEverything(): Promise<unknown> {
  const { rows: registry } = await admin.query('select * from ledger.universal_registry order by position');
  const { rows: witness } = await admin.query('select * from ledger.registry_witness order by position');
  expect(registry).toHaveLength(3);
  return { registry, witness };
}

interface Attempt {
  role?: string;
  /** Give the role, as far as SQL can, what the schema withholds. */
  isGranted?: boolean;
  isReplica?: boolean;
}

/** The SQLSTATE that a statement ends with, in a transaction of ALICE's that would have committed. */
async function attempt(sql: string, { role, isGranted, isReplica }: Attempt = {}): Promise<string> {
  try {
    await admin.query('begin');
    if (isGranted) {
      await admin.query(`grant all on ${[...TABLES, ...VIEWS].join(', ')} to ${role}`);
      await admin.query(
        `create policy change_all on ledger.universal_registry for all to ${role} using (true) with check (true)`,
      );
    }
    if (isReplica) await admin.query('set local session_replication_role = replica');
    if (role !== undefined) await admin.query(`set local role ${role}`);
    await admin.query(`select set_config('app.user_id', 'alice', true), set_config('app.tenant_id', 'acme', true)`);
    await admin.query(sql);
    return 'done';
  } catch (error) {
    return (error as pg.DatabaseError).code as string;
  } finally {
    await admin.query('rollback');
  }
}

function on(target: string, sql: string): string {
  return sql
    .replaceAll(/(?<=\b(?:update|from|truncate|merge into|insert into) )t\b/g, target)
    .replaceAll('= t.', `= ${target.split('.')[1]}.`);
}

describe.each(ROLES)('%s', (role) => {
  it('may not update, delete or truncate, by any statement', async () => {
    for (const table of TABLES) {
      for (const sql of CHANGES) expect(await attempt(on(table, sql), { role }), on(table, sql)).toBe('42501');
    }
    expect(await attempt(on('ledger.universal_registry', UPSERT), { role })).toBe('42501');
  });

  it('may not do it through any view', async () => {
    for (const view of VIEWS) {
      for (const sql of [...CHANGES_BY_VIEW, UPSERT]) {
        expect(await attempt(on(view, sql), { role }), on(view, sql)).toMatch(/^(42501|55000|0A000|42P10)$/);
      }
    }
  });

  it('is refused by a trigger even when it was granted everything', async () => {
    for (const table of TABLES) {
      for (const sql of CHANGES) {
        expect(await attempt(on(table, sql), { role, isGranted: true }), on(table, sql)).toBe('LL001');
        expect(await attempt(on(table, sql), { role, isGranted: true, isReplica: true }), on(table, sql)).toBe('LL001');
      }
    }
    expect(await attempt(on('ledger.universal_registry', UPSERT), { role, isGranted: true })).toBe('LL001');
  });

  it('is refused through a view even when it was granted everything', async () => {
    for (const view of ['ledger.visible_timeline', 'ledger.current_span']) {
      for (const sql of CHANGES_BY_VIEW) {
        expect(await attempt(on(view, sql), { role, isGranted: true, isReplica: true }), on(view, sql)).toMatch(
          /^(LL001|55000)$/,
        );
      }
    }
  });

  it('cannot change a row that it locked before', async () => {
    const lockThenUpdate = `do $$ begin
      perform from ledger.universal_registry for update;
      update ledger.universal_registry set who = 'mallory';
    end $$`;
    expect(await attempt('select from ledger.universal_registry for update', { role })).toBe('42501');
    expect(await attempt(lockThenUpdate, { role, isGranted: true })).toBe('LL001');
  });
});

describe.each(ROLES.filter((role) => role !== 'loglineos_owner'))('%s', (role) => {
  it('cannot take the guards away', async () => {
    for (const sql of [
      'alter table ledger.universal_registry disable trigger all',
      'alter table ledger.universal_registry disable row level security',
      'drop trigger refuse_update_delete on ledger.universal_registry',
      'create or replace function ledger.refuse_change() returns trigger language plpgsql as $$ begin return null; end $$',
      'drop table ledger.universal_registry',
      'set local session_replication_role = replica',
      'set role loglineos_owner',
      'set role loglineos_guard',
    ]) {
      const isItself = sql.endsWith(role);
      if (!isItself) expect(await attemptAsLogin(sql, role), sql).toMatch(/^42501$/);
    }
  });
});

/** The same as the role itself would: an administrator who set a role may set another. */
async function attemptAsLogin(sql: string, role: string): Promise<string> {
  try {
    await admin.query('begin');
    await admin.query(`set local session authorization ${role}`);
    await admin.query(sql);
    return 'done';
  } catch (error) {
    return (error as pg.DatabaseError).code as string;
  } finally {
    await admin.query('rollback');
  }
}

describe('an administrator', () => {
  it('is refused too, as a replica as well', async () => {
    for (const table of TABLES) {
      for (const sql of CHANGES) {
        expect(await attempt(on(table, sql)), on(table, sql)).toBe('LL001');
        expect(await attempt(on(table, sql), { isReplica: true }), on(table, sql)).toBe('LL001');
      }
    }
    expect(await attempt(on('ledger.universal_registry', UPSERT))).toBe('LL001');
    expect(await attempt(on('ledger.universal_registry', UPSERT), { isReplica: true })).toBe('LL001');
  });

  it('is refused when truncating by cascade or together with another table', async () => {
    expect(await attempt('truncate ledger.daily_usage, ledger.universal_registry cascade')).toBe('LL001');
  });
});

describe('nobody', () => {
  it('writes into the witness directly', async () => {
    const forged = `insert into ledger.registry_witness values ('${randomUUID()}', 0, 1, '1', 'x')`;
    for (const role of ROLES.filter((name) => !['loglineos_owner', 'loglineos_guard'].includes(name))) {
      expect(await attempt(forged, { role }), role).toBe('42501');
    }
  });

  it('holds a grant that would let it change a row', async () => {
    const { rows } = await admin.query(`
      select grantee, privilege_type from information_schema.role_table_grants
       where table_schema = 'ledger' and table_name in ('universal_registry', 'registry_witness')
         and privilege_type in ('UPDATE', 'DELETE', 'TRUNCATE') and grantee like 'loglineos%'`);
    expect(rows).toEqual([]);
  });
});
