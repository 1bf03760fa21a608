import { randomUUID } from 'node:crypto';
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { appendSpans, type Database, verifyLedger } from '../../src/ledger/index.ts';
import { nobleEd25519 } from '../../src/span/ed25519-noble.ts';
import { nodeEd25519 } from '../../src/span/ed25519-node.ts';
import { COLUMN_TYPES, type ColumnName, type SealedSpan, sealSpan } from '../../src/span/index.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { rootSigner, runtimeSigner, strangerSigner, trustedKeys } from '../support/keys.ts';
import { ALICE, BOB, contextOf, draft, FULL_DRAFT, hashable, nextVersion } from '../support/spans.ts';

let testDatabase: TestDatabase;
let auditor: Database;
/** A superuser who has switched every trigger off. */
let admin: pg.Client;

/** A span with a value in each column, in three versions; one with almost none; another tenant's. */
const [FULL, SPARSE, FOREIGN] = [randomUUID(), randomUUID(), randomUUID()];
const VERSIONS = 3;
/** Values whose other spellings JavaScript would take for the same. */
const SPELLINGS = { one: 1, tenth: 0.1, number: '1.0', flag: 'true', list: [1, 2], empty: {} };
const ROWS = VERSIONS + 3;

beforeAll(async () => {
  testDatabase = await createTestDatabase();
  auditor = testDatabase.open('loglineos_auditor');
  admin = await testDatabase.connect('admin');
  const app = testDatabase.open('loglineos_app');
  for (let seq = 0; seq < VERSIONS; seq++) {
    const said = { ...FULL_DRAFT, id: FULL, visibility: 'tenant', output: SPELLINGS, error: 'null', score: 0 };
    await appendSpans(app, [{ ...said, priority: seq }], contextOf(ALICE));
  }
  await appendSpans(app, [draft({ id: SPARSE, seq: 0 })], contextOf(ALICE));
  await appendSpans(app, [draft({ id: FOREIGN, seq: 0 })], contextOf(BOB));
  await appendSpans(app, [draft({ id: FOREIGN })], contextOf(BOB));
  await admin.query(`
    create schema safe;
    create table safe.registry as table ledger.universal_registry;
    create table safe.witness as table ledger.registry_witness;
    alter table ledger.universal_registry disable trigger all;
    alter table ledger.registry_witness disable trigger all`);
});
afterAll(() => testDatabase.close());

afterEach(async () => {
  await admin.query(`
    truncate ledger.universal_registry, ledger.registry_witness;
    insert into ledger.universal_registry overriding system value table safe.registry;
    insert into ledger.registry_witness table safe.witness`);
});

/** Every problem that verify names, as `seq class` of the spans by name. */
async function problems(): Promise<string[]> {
  const report = await verifyLedger(auditor, trustedKeys, nodeEd25519);
  expect(report.ok).toBe(report.problems.length === 0);
  const names = new Map<string, string>([
    [FULL, 'full'],
    [SPARSE, 'sparse'],
    [FOREIGN, 'foreign'],
  ]);
  return report.problems.map((problem) => `${names.get(problem.id) ?? problem.id} ${problem.seq} ${problem.class}`);
}

async function tamper(sql: string, values: unknown[] = []): Promise<void> {
  expect((await admin.query(sql, values)).rowCount, 'rows that were tampered with').toBeGreaterThan(0);
}

describe('a clean ledger', () => {
  it('is found right, by both implementations, and every row is counted', async () => {
    const progress: number[] = [];
    const report = await verifyLedger(auditor, trustedKeys, nodeEd25519, (checked) => progress.push(checked));
    expect(report).toEqual({ ok: true, checked: ROWS, problems: [] });
    expect(progress).toEqual([ROWS]);
    expect(await verifyLedger(auditor, trustedKeys, nobleEd25519)).toEqual(report);
  });

  it('that is empty is right, too', async () => {
    await admin.query('truncate ledger.universal_registry, ledger.registry_witness');
    expect(await verifyLedger(auditor, trustedKeys, nodeEd25519)).toEqual({ ok: true, checked: 0, problems: [] });
  });

  it('is not right when a key is no longer trusted', async () => {
    const report = await verifyLedger(auditor, { root: new Map(), runtime: new Map() }, nodeEd25519);
    expect(report.problems.map((problem) => problem.class)).toEqual(Array(ROWS).fill('key'));
  });

  it('is read to its end, however many rows it has', async () => {
    const chain = [sealSpan(hashable(), runtimeSigner)];
    while (chain.length < 1_200) chain.push(nextVersion(chain.at(-1) as SealedSpan));
    const [{ id }] = chain as [SealedSpan];
    await admin.query('alter table ledger.universal_registry enable always trigger check_appended');
    await admin.query(`select ledger.append('alice', 'acme', $1)`, [JSON.stringify(chain)]);
    await admin.query('alter table ledger.universal_registry disable trigger all');
    expect(await verifyLedger(auditor, trustedKeys, nodeEd25519)).toEqual({
      ok: true,
      checked: ROWS + 1_200,
      problems: [],
    });
    for (const seq of [499, 500, 999, 1_000]) {
      await tamper(`update ledger.universal_registry set who = 'mallory' where id = $1 and seq = $2`, [id, seq]);
    }
    await tamper(`delete from ledger.universal_registry where id = $1 and seq = 700`, [id]);
    expect(await problems()).toEqual([
      ...[`${id} 499 hash`, `${id} 500 hash`, `${id} 700 missing`],
      ...[`${id} 999 hash`, `${id} 1000 hash`],
    ]);
  });
});

/** How each type's value is changed a little. */
const CHANGE: Record<string, (column: string) => string> = {
  text: (column) => `${column} || ' '`,
  uuid: () => 'gen_random_uuid()',
  integer: (column) => `${column} + 1`,
  bigint: (column) => `${column} + 1`,
  xid8: () => `'3'`,
  timestamptz: (column) => `${column} + interval '1 microsecond'`,
  boolean: (column) => `not ${column}`,
  jsonb: (column) => `case when jsonb_typeof(${column}) = 'object' then ${column} || '{"more": null}' else '{}' end`,
  'double precision': (column) => `${column} + 1e-16`,
  'text[]': (column) => `${column} || ''::text`,
  'uuid[]': (column) => `array_reverse(${column})`,
};
const CHANGE_OF_COLUMN: Partial<Record<ColumnName, string>> = {
  seq: 'seq + 7',
  position: 'default',
  visibility: `'private'`,
  prev_hash: 'reverse(prev_hash)',
  curr_hash: 'reverse(curr_hash)',
  signature: 'reverse(signature)',
  public_key: 'reverse(public_key)',
};
/** What is named when a column of the last version is changed; the hash alone for all others. */
const NAMED: Partial<Record<ColumnName, string[]>> = {
  id: ['full 2 missing', 'CHANGED 0 missing', 'CHANGED 1 missing', 'CHANGED 2 hash', 'CHANGED 2 chain'],
  seq: [...[2, 3, 4, 5, 6, 7, 8].map((seq) => `full ${seq} missing`), 'full 9 hash', 'full 9 chain'],
  position: ['full 2 chain'],
  tx_id: ['full 2 chain'],
  entity_type: ['full 2 hash', 'full 2 chain'],
  owner_id: ['full 2 hash', 'full 2 chain'],
  tenant_id: ['full 2 hash', 'full 2 chain'],
  prev_hash: ['full 2 hash', 'full 2 chain'],
  curr_hash: ['full 2 hash', 'full 2 signature', 'full 2 chain'],
  signature: ['full 2 signature'],
  public_key: ['full 2 hash', 'full 2 signature', 'full 2 key'],
};

describe('a superuser who disables triggers is found, whatever column of a row is changed:', () => {
  it.each(Object.entries(COLUMN_TYPES) as [ColumnName, string][])('%s (%s)', async (name, type) => {
    const expression = CHANGE_OF_COLUMN[name] ?? (CHANGE[type] as (column: string) => string)(`"${name}"`);
    const { rows } = await admin.query<{ id: string; is_changed: boolean }>(
      `update ledger.universal_registry set "${name}" = ${expression} where id = $1 and seq = 2
        returning id, ("${name}")::text is distinct from (select s."${name}"::text from safe.registry s where s.id = $1 and s.seq = 2) as is_changed`,
      [FULL],
    );
    expect(rows).toEqual([{ id: expect.any(String), is_changed: true }]);
    const expected = NAMED[name] ?? ['full 2 hash'];
    const named = (await problems()).map((problem) =>
      rows[0]?.id === FULL ? problem : problem.replace(rows[0]?.id as string, 'CHANGED'),
    );
    expect(named.sort()).toEqual([...expected].sort());
  });

  it('or emptied', async () => {
    const { rows } = await admin.query<{ name: string }>(`
      select attname as name from pg_attribute
       where attrelid = 'ledger.universal_registry'::regclass and attnum > 0 and not attnotnull`);
    expect(rows).toHaveLength(57);
    for (const { name } of rows) {
      await admin.query('begin');
      const { rowCount } = await admin.query(
        `update ledger.universal_registry set "${name}" = null where id = $1 and seq = 2`,
        [FULL],
      );
      await admin.query('commit');
      expect(rowCount).toBe(1);
      expect(await problems(), name).toEqual(name === 'prev_hash' ? ['full 2 hash', 'full 2 chain'] : ['full 2 hash']);
      await admin.query(
        `update ledger.universal_registry r set "${name}" = s."${name}" from safe.registry s where r.id = s.id and r.seq = s.seq`,
      );
    }
    expect(await problems()).toEqual([]);
  });

  it('or filled where it was empty', async () => {
    for (const name of [
      'model',
      'input',
      'is_deleted',
      'priority',
      'tags',
      'parent_id',
      'related_to',
      'expires_at',
      'score',
      'cost_micros',
    ]) {
      await tamper(
        `update ledger.universal_registry r set "${name}" = s."${name}" from safe.registry s where r.id = $1 and s.id = $2 and s.seq = 0`,
        [SPARSE, FULL],
      );
      expect(await problems(), name).toEqual(['sparse 0 hash']);
      await tamper(`update ledger.universal_registry set "${name}" = null where id = $1`, [SPARSE]);
    }
  });

  it.each<[what: string, set: string]>([
    ['a jsonb number 1 to 1.0', `output = jsonb_set(output, '{one}', '1.0')`],
    ['a jsonb number 0.1 to 0.10', `output = jsonb_set(output, '{tenth}', '0.10')`],
    ['a jsonb number 0.1 to 0.10000000000000000001', `output = jsonb_set(output, '{tenth}', '0.10000000000000000001')`],
    ['a jsonb number in a list to 1.0', `output = jsonb_set(output, '{list,0}', '1.0')`],
    ['a jsonb number to one that no double holds', `output = jsonb_set(output, '{one}', '1e400')`],
    ['a jsonb text "1.0" to the number 1.0', `output = jsonb_set(output, '{number}', '1.0')`],
    ['a jsonb text "true" to true', `output = jsonb_set(output, '{flag}', 'true')`],
    ['a jsonb text "null" to null', `error = 'null'`],
    ['a jsonb object to an empty list', `output = jsonb_set(output, '{empty}', '[]')`],
    ['a time by a microsecond', `at = at + interval '1 microsecond'`],
    ['a time to infinity', `expires_at = 'infinity'`],
    ['a time to before Christ', `expires_at = '0044-03-15 BC'`],
    ['a bigint by one beyond 2^53', `memory_bytes = 9007199254740992`],
    ['a bigint to what rounds to it', `memory_bytes = 9007199254740993`],
    ['a float by its last bit', `metric_value = 0.10000000000000002`],
    ['a float to NaN', `metric_value = 'NaN'`],
    ['a float 0 to -0', `score = '-0'`],
    ['a text to what looks the same', `who = who || U&'\\200B'`],
    [
      'the place where a list begins to count',
      `related_to = ('[0:1]={' || array_to_string(related_to, ',') || '}')::uuid[]`,
    ],
    ['a list to a table', `tags = array[tags]`],
    ['an item of a list to nothing', `tags[1] = null`],
    ['the item "NULL" of a list to nothing', `tags[4] = null`],
  ])('or respelled: %s', async (_what, set) => {
    await tamper(`update ledger.universal_registry set ${set} where id = $1 and seq = 2`, [FULL]);
    expect(await problems()).toEqual(['full 2 hash']);
  });

  it('or an empty jsonb column to the JSON null', async () => {
    await tamper(`update ledger.universal_registry set input = 'null' where id = $1`, [SPARSE]);
    expect(await problems()).toEqual(['sparse 0 hash']);
  });
});

describe('a superuser who removes rows is found:', () => {
  it.each<[what: string, where: string, expected: string[]]>([
    ['the only version', `id = '${SPARSE}'`, ['sparse 0 missing']],
    ['the first version', `id = '${FULL}' and seq = 0`, ['full 0 missing']],
    ['a middle version', `id = '${FULL}' and seq = 1`, ['full 1 missing']],
    ['the last version', `id = '${FULL}' and seq = 2`, ['full 2 missing']],
    ['two versions', `id = '${FULL}' and seq < 2`, ['full 0 missing', 'full 1 missing']],
    ['a whole span', `id = '${FULL}'`, ['full 0 missing', 'full 1 missing', 'full 2 missing']],
  ])('%s', async (_what, where, expected) => {
    await tamper(`delete from ledger.universal_registry where ${where}`);
    expect((await problems()).sort()).toEqual(expected);
  });

  it('everything', async () => {
    await admin.query('truncate ledger.universal_registry');
    const report = await verifyLedger(auditor, trustedKeys, nodeEd25519);
    expect(report).toMatchObject({ ok: false, checked: 0 });
    expect(report.problems.map((problem) => problem.class)).toEqual(Array(ROWS).fill('missing'));
  });

  it('a middle version together with its witness', async () => {
    await tamper(`delete from ledger.universal_registry where id = $1 and seq = 1`, [FULL]);
    await tamper(`delete from ledger.registry_witness where id = $1 and seq = 1`, [FULL]);
    expect(await problems()).toEqual(['full 1 missing']);
  });

  it('the witness of one row, or of all', async () => {
    await tamper(`delete from ledger.registry_witness where id = $1`, [SPARSE]);
    expect(await problems()).toEqual(['sparse 0 chain']);
    await admin.query('truncate ledger.registry_witness');
    expect(await problems()).toHaveLength(ROWS);
  });
});

/** Put a sealed span in the place of the row with its id and seq, as only a superuser can. */
async function replace(span: SealedSpan): Promise<void> {
  await admin.query('delete from ledger.universal_registry where id = $1 and seq = $2', [span.id, span.seq]);
  await insert(span);
}

async function insert(span: SealedSpan): Promise<void> {
  await admin.query(
    `insert into ledger.universal_registry overriding system value
     select (jsonb_populate_record(null::ledger.universal_registry,
       $1::jsonb || jsonb_build_object('position', coalesce((select s.position from safe.registry s where s.id = $2 and s.seq = $3), 999),
                                       'tx_id', coalesce((select s.tx_id from safe.registry s where s.id = $2 and s.seq = $3), '9')))).*`,
    [JSON.stringify(span), span.id, span.seq],
  );
}

describe('a superuser who puts rows together anew is found:', () => {
  it('a row signed again with a key that nobody trusts', async () => {
    await replace(sealSpan(hashable({ id: SPARSE, who: 'mallory' }), strangerSigner));
    expect(await problems()).toEqual(['sparse 0 key', 'sparse 0 chain']);
  });

  it('a row signed again with a trusted key: only the witness knows', async () => {
    await replace(sealSpan(hashable({ id: SPARSE, who: 'mallory' }), runtimeSigner));
    expect(await problems()).toEqual(['sparse 0 chain']);
  });

  it('a version signed again, so that the next one no longer follows', async () => {
    await replace(sealSpan(hashable({ id: FOREIGN, who: 'mallory' }, BOB), runtimeSigner));
    expect(await problems()).toEqual(['foreign 0 chain', 'foreign 1 chain']);
  });

  it('a row that was never appended', async () => {
    const smuggled = sealSpan(hashable(), runtimeSigner);
    await insert(smuggled);
    expect(await problems()).toEqual([`${smuggled.id} 0 chain`]);
  });

  it('something that governs, signed with the runtime key', async () => {
    const system = { entity_type: 'function', owner_id: 'system', tenant_id: 'system', visibility: 'public' };
    await admin.query('alter table ledger.universal_registry enable always trigger check_appended');
    const [good, bad] = [sealSpan(hashable(system), rootSigner), sealSpan(hashable(system), runtimeSigner)];
    await admin.query(`select ledger.append('system', 'system', $1)`, [JSON.stringify([good, bad])]);
    await admin.query('alter table ledger.universal_registry disable trigger all');
    expect(await problems()).toEqual([`${bad.id} 0 key`]);
  });

  it('prev_hash and curr_hash swapped', async () => {
    await tamper(
      `update ledger.universal_registry set prev_hash = curr_hash, curr_hash = prev_hash where id = $1 and seq = 1`,
      [FULL],
    );
    expect(await problems()).toEqual(['full 1 hash', 'full 1 signature', 'full 1 chain', 'full 2 chain']);
  });

  it('two spans with their ids swapped', async () => {
    await withoutKeys(async () => {
      await tamper(
        `update ledger.universal_registry
            set id = case id when $1::uuid then $2::uuid else $1::uuid end, seq = case id when $1::uuid then 1 else 0 end
          where id = $1 or (id = $2 and seq = 1)`,
        [SPARSE, FOREIGN],
      );
      const named = await problems();
      expect(named).toEqual(
        expect.arrayContaining(['sparse 0 hash', 'sparse 0 chain', 'foreign 1 hash', 'foreign 1 chain']),
      );
      expect(named).toHaveLength(4);
    });
  });

  it('two versions of one span swapped', async () => {
    await withoutKeys(async () => {
      await tamper(`update ledger.universal_registry set seq = 3 - seq where id = $1 and seq > 0`, [FULL]);
      const named = await problems();
      expect(named).toEqual(expect.arrayContaining(['full 1 hash', 'full 1 chain', 'full 2 hash', 'full 2 chain']));
      expect(named).toHaveLength(4);
    });
  });

  it('the content of two rows swapped, each keeping its proof', async () => {
    await tamper(
      `update ledger.universal_registry r set priority = s.priority from safe.registry s
        where r.id = $1 and s.id = $1 and r.seq > 0 and s.seq = 3 - r.seq`,
      [FULL],
    );
    expect(await problems()).toEqual(['full 1 hash', 'full 2 hash']);
  });

  it('a row that is there twice', async () => {
    await withoutKeys(async () => {
      await admin.query(
        `insert into ledger.universal_registry overriding system value select * from safe.registry where id = $1`,
        [SPARSE],
      );
      expect(await problems()).toEqual(['sparse 0 chain']);
    });
  });
});

/** Take the table's keys away for a while; what was done meanwhile is undone with them gone. */
async function withoutKeys(run: () => Promise<void>): Promise<void> {
  const { rows } = await admin.query<{ definition: string }>(
    `select indexdef as definition from pg_indexes where schemaname = 'ledger' and tablename = 'universal_registry' and indexdef like '%UNIQUE%'
       and indexname <> 'universal_registry_pkey'`,
  );
  await admin.query('alter table ledger.universal_registry drop constraint universal_registry_pkey');
  await admin.query('drop index ledger.universal_registry_timeline');
  try {
    await run();
  } finally {
    await admin.query('truncate ledger.universal_registry');
    await admin.query(
      'alter table ledger.universal_registry add constraint universal_registry_pkey primary key (id, seq)',
    );
    for (const { definition } of rows) await admin.query(definition);
  }
}
