import { randomUUID } from 'node:crypto';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type AnchorStore, type AuditOptions, type AuditOrder, audit } from '../../src/audit/index.ts';
import { AnchorTable } from '../../src/lambda/anchor-table.ts';
import { appendSpans, type Database } from '../../src/ledger/index.ts';
import { AnchorFiles } from '../../src/local/anchor-files.ts';
import { loadBlake3 } from '../../src/span/blake3-wasm.ts';
import { nodeEd25519 } from '../../src/span/ed25519-node.ts';
import { type SealedSpan, type Signer, sealSpan, useBlake3 } from '../../src/span/index.ts';
import { DynamoDb } from '../aws/dynamodb.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { runtimeSigner, strangerSigner, trustedKeys } from '../support/keys.ts';
import { ALICE, BOB, contextOf, draft, FULL_DRAFT, hashable } from '../support/spans.ts';

let testDatabase: TestDatabase;
let app: Database;
let auditor: Database;
/** A superuser, who can switch every trigger off. */
let admin: pg.Client;
let folder: string;
let store: AnchorFiles;

/** Three versions of a full span, the last deleted; one version of a sparse one; two of another tenant's. */
let [FULL, SPARSE, FOREIGN] = ['', '', ''];
const ROWS = 6;
const SEGMENT_ROWS = 100;
const NOBODY = '00000000-0000-0000-0000-000000000000';

beforeAll(async () => {
  useBlake3(await loadBlake3());
  testDatabase = await createTestDatabase();
  auditor = testDatabase.open('loglineos_auditor');
  admin = await testDatabase.connect('admin');
  app = testDatabase.open('loglineos_app');
  await admin.query('create schema safe');
});
afterAll(() => testDatabase.close());

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'loglineos-anchors-'));
  store = await AnchorFiles.open(folder);
  [FULL, SPARSE, FOREIGN] = [randomUUID(), randomUUID(), randomUUID()];
  for (let seq = 0; seq < 3; seq++) {
    const said = { ...FULL_DRAFT, id: FULL, visibility: 'tenant' as const, priority: seq, is_deleted: seq === 2 };
    await appendSpans(app, [said], contextOf(ALICE));
  }
  await appendSpans(app, [draft({ id: SPARSE, seq: 0 })], contextOf(ALICE));
  await appendSpans(app, [draft({ id: FOREIGN, seq: 0 }), draft({ id: FOREIGN })], contextOf(BOB));
});
afterEach(async () => {
  await tamper('truncate ledger.universal_registry, ledger.registry_witness');
  await store.close();
  await rm(folder, { recursive: true });
});

/** What only a superuser can do, and only without triggers. */
async function tamper(sql: string): Promise<void> {
  const each = (what: string) =>
    `alter table ledger.universal_registry ${what}; alter table ledger.registry_witness ${what}`;
  await admin.query(`${each('disable trigger all')}; ${sql}; ${each('enable trigger all')}`);
}

async function run(order: AuditOrder = {}, more: Partial<AuditOptions> = {}) {
  const endOfTime = new Date(Date.now() + 60_000);
  const options = { database: auditor, keys: trustedKeys, scheme: nodeEd25519, store, historyMs: 10_000, endOfTime };
  return audit({ ...options, segmentRows: SEGMENT_ROWS, now: () => new Date(), ...more }, order);
}

/** What a run names as `span seq class`; of the ledger as a whole, what of it is not as it was anchored. */
async function named(order: AuditOrder = {}, more: Partial<AuditOptions> = {}): Promise<string[]> {
  const report = await run(order, more);
  expect([report.worked, report.ok, report.problem_count]).toEqual([
    true,
    report.problems.length === 0,
    report.problems.length,
  ]);
  const names: Record<string, string> = { [FULL]: 'full', [SPARSE]: 'sparse', [FOREIGN]: 'foreign' };
  const ofLedger = (detail: string) => /ANCHOR_AHEAD|sum|not those/.exec(detail)?.[0];
  return report.problems
    .map((problem) =>
      problem.id === NOBODY
        ? `ledger ${ofLedger(problem.detail)}`
        : `${names[problem.id] ?? 'other'} ${problem.seq} ${problem.class}`,
    )
    .sort();
}

/** Of the ledger as a whole: rows were removed, put in or moved; what was anchored is not what is there. */
const [COUNT, DIGEST, AHEAD] = ['ledger sum', 'ledger not those', 'ledger ANCHOR_AHEAD'];

const update = (set: string, where: string) => `update ledger.universal_registry set ${set} where ${where}`;
const remove = (where: string) => `delete from ledger.universal_registry where ${where}`;
const forget = (where: string) => `delete from ledger.registry_witness where ${where}`;
const full = (seq: number) => `id = '${FULL}' and seq = ${seq}`;
const sparse = () => `id = '${SPARSE}'`;

/** A sealed span as a row at some place, with its witness or without. */
function insert(span: SealedSpan, place: { tx_id: string; position: number }, isWitnessed: boolean): string {
  const row = `'${JSON.stringify({ ...span, ...place }).replaceAll("'", "''")}'::jsonb`;
  return `insert into ledger.universal_registry overriding system value
            select (jsonb_populate_record(null::ledger.universal_registry, ${row})).*;
          ${isWitnessed ? `insert into ledger.registry_witness select (jsonb_populate_record(null::ledger.registry_witness, ${row})).*` : ''}`;
}

/** The only version of the sparse span, signed again with other content, perhaps with its witness. */
function resign(signer: Signer, isWitnessed: boolean): string {
  const span = sealSpan(hashable({ id: SPARSE, who: 'mallory' }), signer);
  const place = { tx_id: sparsePlace.tx_id, position: Number(sparsePlace.position) };
  const witness = `update ledger.registry_witness set curr_hash = '${span.curr_hash}' where ${sparse()}`;
  return [remove(sparse()), insert(span, place, false), isWitnessed ? witness : 'select'].join('; ');
}
let sparsePlace: { tx_id: string; position: string };
const smuggled = () => sealSpan(hashable(), runtimeSigner);

interface Tampering {
  what: string;
  sql: () => string;
  /** What is named when it was done before the first run, and after it. */
  unread: string[];
  anchored: string[];
}

const both = (what: string, sql: () => string, names: string[]): Tampering => ({
  what,
  sql,
  unread: names,
  anchored: names,
});

const TAMPERINGS: Tampering[] = [
  both('a text', () => update(`who = who || ' '`, full(2)), ['full 2 hash']),
  both('a time, by a microsecond', () => update(`at = at + interval '1 microsecond'`, full(0)), ['full 0 hash']),
  both('a nested key', () => update(`input = jsonb_set(input, '{list,2,three}', '4')`, full(1)), ['full 1 hash']),
  both('a number, in how it is written', () => update(`input = jsonb_set(input, '{one}', '1.0')`, full(1)), [
    'full 1 hash',
  ]),
  both('a list', () => update(`tags = tags || ''::text`, full(1)), ['full 1 hash']),
  both('a column that was empty', () => update(`model = 'other'`, sparse()), ['sparse 0 hash']),
  both('a column to nothing', () => update('output = null', full(2)), ['full 2 hash']),
  both('the owner', () => update(`owner_id = 'mallory'`, full(2)), ['full 2 chain', 'full 2 hash']),
  both('the signature', () => update('signature = reverse(signature)', full(2)), ['full 2 signature']),
  both(
    'two signatures, swapped',
    () =>
      update(
        `signature = (select s.signature from ledger.universal_registry s where s.id = '${FULL}' and s.seq = 1 - universal_registry.seq)`,
        `id = '${FULL}' and seq < 2`,
      ),
    ['full 0 signature', 'full 1 signature'],
  ),
  both('the key', () => update(`public_key = '${strangerSigner.publicKey}'`, full(2)), [
    'full 2 hash',
    'full 2 key',
    'full 2 signature',
  ]),
  both('the link to the version before', () => update('prev_hash = reverse(prev_hash)', full(2)), [
    'full 2 chain',
    'full 2 hash',
  ]),
  {
    what: 'the hash',
    sql: () => update('curr_hash = reverse(curr_hash)', full(2)),
    unread: ['full 2 chain', 'full 2 hash', 'full 2 signature'],
    anchored: ['full 2 chain', 'full 2 hash', 'full 2 signature', DIGEST],
  },
  ...[0, 1, 2].map(
    (seq): Tampering => ({
      what: `version ${seq}, removed`,
      sql: () => remove(full(seq)),
      unread: [`full ${seq} missing`],
      anchored: [`full ${seq} missing`, DIGEST, COUNT],
    }),
  ),
  ...[0, 1].map(
    (seq): Tampering => ({
      what: `version ${seq}, removed with its witness`,
      sql: () => `${remove(full(seq))}; ${forget(full(seq))}`,
      unread: [`full ${seq} missing`],
      anchored: [`full ${seq} missing`, DIGEST, COUNT],
    }),
  ),
  {
    what: 'the newest version, removed with its witness: before it was anchored, nobody knows',
    sql: () => `${remove(full(2))}; ${forget(full(2))}`,
    unread: [],
    anchored: [DIGEST, COUNT],
  },
  {
    what: 'a whole span, removed with its witness: before it was anchored, nobody knows',
    sql: () => `${remove(sparse())}; ${forget(sparse())}`,
    unread: [],
    anchored: [DIGEST, COUNT],
  },
  {
    what: 'the last row, removed with its witness: before it was anchored, nobody knows',
    sql: () => `${remove(`id = '${FOREIGN}' and seq = 1`)}; ${forget(`id = '${FOREIGN}' and seq = 1`)}`,
    unread: [],
    anchored: [AHEAD],
  },
  {
    what: 'the last row, removed',
    sql: () => remove(`id = '${FOREIGN}' and seq = 1`),
    unread: ['foreign 1 missing'],
    anchored: ['foreign 1 missing', DIGEST, COUNT],
  },
  {
    what: 'everything, removed',
    sql: () => 'truncate ledger.universal_registry',
    unread: ['foreign 0', 'foreign 1', 'full 0', 'full 1', 'full 2', 'sparse 0'].map((row) => `${row} missing`),
    anchored: [
      ...['foreign 0', 'foreign 1', 'full 0', 'full 1', 'full 2'].map((row) => `${row} missing`),
      ...[DIGEST, COUNT, 'sparse 0 missing'],
    ],
  },
  {
    what: 'everything, removed with the witness',
    sql: () => 'truncate ledger.universal_registry, ledger.registry_witness',
    unread: [],
    anchored: [AHEAD],
  },
  both('the witness of a row, removed', () => forget(sparse()), ['sparse 0 chain']),
  {
    what: 'a row, signed again with a key that nobody trusts',
    sql: () => resign(strangerSigner, true),
    unread: ['sparse 0 key'],
    anchored: [DIGEST, 'sparse 0 key'],
  },
  {
    what: 'a row, signed again with a stolen key',
    sql: () => resign(runtimeSigner, false),
    unread: ['sparse 0 chain'],
    anchored: [DIGEST, 'sparse 0 chain'],
  },
  {
    what: 'a row, signed again with a stolen key, and its witness: before it was anchored, nobody knows',
    sql: () => resign(runtimeSigner, true),
    unread: [],
    anchored: [DIGEST],
  },
  {
    what: 'a row, put in behind the others with a stolen key, without a witness',
    sql: () => insert(smuggled(), { tx_id: '5', position: 1_000_000 }, false),
    unread: ['other 0 chain'],
    anchored: [DIGEST, COUNT, 'other 0 chain'],
  },
  {
    what: 'a row, put in behind the others with a stolen key and a witness: before, nobody knows',
    sql: () => insert(smuggled(), { tx_id: '5', position: 1_000_000 }, true),
    unread: [],
    anchored: [DIGEST, COUNT],
  },
  {
    what: 'a row, moved to an earlier transaction',
    sql: () => update(`tx_id = '3'`, sparse()),
    unread: ['sparse 0 chain'],
    anchored: [DIGEST, 'sparse 0 chain'],
  },
  {
    what: 'a row, moved to another position',
    sql: () => update('position = default', sparse()),
    unread: ['sparse 0 chain'],
    anchored: [DIGEST, COUNT, 'sparse 0 chain'],
  },
  {
    what: 'a row, moved to another transaction with its witness: before it was anchored, nobody knows',
    sql: () => `${update(`tx_id = '3'`, sparse())}; update ledger.registry_witness set tx_id = '3' where ${sparse()}`,
    unread: [],
    anchored: [DIGEST],
  },
  {
    what: 'the last row, moved to the end of time: it hides nothing behind it',
    sql: () => update(`tx_id = '4611686018427387904'`, `id = '${FOREIGN}' and seq = 1`),
    unread: ['foreign 1 chain'],
    anchored: ['foreign 1 chain', DIGEST, COUNT],
  },
];

describe('an auditor', () => {
  it('reads what is new once, and all of a small ledger again in each run', async () => {
    const first = await run();
    expect(first).toEqual({
      worked: true,
      ok: true,
      new_rows: ROWS,
      history_rows: ROWS,
      is_whole: true,
      anchored_rows: ROWS,
      ledger_rows: ROWS,
      lag_rows: 0,
      problems: [],
      problem_count: 0,
    });
    await appendSpans(app, [draft(), draft()], contextOf(BOB));
    expect(await run()).toMatchObject({ ok: true, new_rows: 2, history_rows: ROWS + 2, anchored_rows: ROWS + 2 });
    expect(await run()).toMatchObject({ ok: true, new_rows: 0, history_rows: ROWS + 2, is_whole: true });
  });

  it('finds an empty ledger right, and then what comes', async () => {
    await tamper('truncate ledger.universal_registry, ledger.registry_witness');
    for (let i = 0; i < 2; i++) expect(await run()).toMatchObject({ ok: true, anchored_rows: 0, is_whole: true });
    await appendSpans(app, [draft()], contextOf(ALICE));
    expect(await run()).toMatchObject({ ok: true, new_rows: 1, anchored_rows: 1 });
  });

  it('waits for a transaction that could still put rows in front of others, and misses none', async () => {
    const slow = await testDatabase.connect('admin');
    await slow.query('begin');
    await slow.query(`select ledger.append('alice', 'acme', $1)`, [JSON.stringify([smuggled()])]);
    await appendSpans(app, [draft()], contextOf(BOB));
    expect(await run()).toMatchObject({ ok: true, new_rows: ROWS, lag_rows: 0 });
    await slow.query('commit');
    expect(await run()).toMatchObject({ ok: true, new_rows: 2, anchored_rows: ROWS + 2 });
  });

  it('reads nothing when its time is up, and says how far it is behind', async () => {
    expect(await run({}, { endOfTime: new Date(0) })).toMatchObject({ worked: true, new_rows: 0, lag_rows: ROWS });
    expect(await run({}, { stop: AbortSignal.abort() })).toMatchObject({ worked: true, new_rows: 0, lag_rows: ROWS });
    expect(await run()).toMatchObject({ ok: true, new_rows: ROWS, lag_rows: 0 });
  });

  it('ends with what it has read when its time is up in the middle, and goes on from there', async () => {
    await appendMany(220);
    const now = clock(new Date(), 30);
    const cut = await run({}, { now, endOfTime: new Date(now().getTime() + 100) });
    expect(cut.new_rows).toBeGreaterThan(0);
    expect(cut.new_rows).toBeLessThan(ROWS + 220);
    expect(cut.lag_rows).toBe(ROWS + 220 - cut.new_rows);
    const rest = await run();
    expect(rest).toMatchObject({ ok: true, new_rows: ROWS + 220 - cut.new_rows, history_rows: ROWS + 220 });
    expect((await stateOf(store)).head).toEqual(await headOfAnother());
  });

  it('is one at a time: of two at once, one leaves it to the other, at the first run and later', async () => {
    const dynamodb = await DynamoDb.start();
    try {
      const table = new AnchorTable(await dynamodb.createTable('id'));
      for (const rows of [ROWS, ROWS + 1]) {
        const reports = await Promise.all([run({}, { store: table }), run({}, { store: table })]);
        expect(reports.map(({ worked }) => worked).sort()).toEqual([false, true]);
        expect(reports.find(({ worked }) => worked)).toMatchObject({ ok: true, anchored_rows: rows });
        await appendSpans(app, [draft()], contextOf(BOB));
      }
      expect(await run({}, { store: table })).toMatchObject({ ok: true, new_rows: 1, anchored_rows: ROWS + 2 });
    } finally {
      await dynamodb.stop();
    }
  });

  it('that is killed at any write loses nothing: the next goes on, and comes to the same', async () => {
    await appendMany(60);
    let writes = 0;
    await run({}, { segmentRows: 30, store: failing(store, () => void writes++) });
    const { head } = await stateOf(store);
    expect(writes).toBeGreaterThanOrEqual(8);
    for (let killedAt = 1; killedAt <= writes; killedAt++) {
      for (const isWritten of [false, true]) {
        await store.close();
        await rm(folder, { recursive: true });
        store = await AnchorFiles.open(folder);
        let count = 0;
        const kill = () => {
          if (++count === killedAt) throw new Error('killed');
        };
        await expect(run({}, { segmentRows: 30, store: failing(store, kill, isWritten) })).rejects.toThrow('killed');
        expect(await run({}, { segmentRows: 30 })).toMatchObject({ worked: true, ok: true, anchored_rows: ROWS + 60 });
        expect((await stateOf(store)).head, `killed at write ${killedAt}`).toEqual(head);
      }
    }
  });

  it('takes no state or anchor that it cannot read for a new beginning', async () => {
    await appendMany(100);
    await run();
    const state = (await store.read('state')) as string;
    for (const text of [
      '',
      '{',
      '{}',
      '[]',
      state.replace(/"rows":\d+/, '"rows":-1'),
      state.replace('"chain"', '"x"'),
    ]) {
      await store.replace('state', (await store.read('state')) as string, text);
      await expect(run(), text).rejects.toMatchObject({ code: 'ANCHOR_UNREADABLE', kind: 'integrity' });
    }
    const restarted = await run({ restart: true });
    expect(restarted, 'other anchors than any before').toMatchObject({
      ok: true,
      new_rows: ROWS + 100,
      is_whole: true,
    });
    expect((await stateOf(store)).chain).toBeGreaterThan(1_000_000);
    expect(await readdir(folder)).toContain('anchor-1-000000000001.json');
    await store.replace('state', (await store.read('state')) as string, state);
    expect(await run()).toMatchObject({ ok: true });
    await rm(join(folder, 'anchor-1-000000000001.json'));
    await expect(run()).rejects.toMatchObject({ code: 'ANCHOR_UNREADABLE' });
  });
});

describe('segments', () => {
  beforeEach(() => appendMany(330 - ROWS));

  it('end with every thousandth row, whenever it came, and each has its anchor', async () => {
    await run();
    await appendMany(90);
    await run();
    const files = (await readdir(folder)).filter((name) => name.startsWith('anchor')).sort();
    expect(files).toEqual([1, 2, 3, 4].map((n) => `anchor-1-00000000000${n}.json`));
    const anchors = await Promise.all(files.map((name) => store.read(name.replace('.json', '').replaceAll('-', '#'))));
    expect(anchors.map((text) => JSON.parse(text as string).rows)).toEqual([100, 200, 300, 400]);
    expect((await stateOf(store)).head).toEqual(await headOfAnother());
  });

  it('are read again one after the other, at least one in each run, from where the run before ended', async () => {
    await run({}, { historyMs: 0 });
    const read: number[] = [];
    for (let i = 0; i < 5; i++) read.push((await run({}, { historyMs: 0 })).history_rows);
    expect(read).toEqual([100, 100, 30, 100, 100]);
    expect(await run({ all: true }, { historyMs: 0 })).toMatchObject({ history_rows: 330, is_whole: true });
    expect(await run({}, { historyMs: 0 })).toMatchObject({ history_rows: 100, is_whole: false });
  });

  it('that nobody can read again in one run are read in several, and compared at their end', async () => {
    await run({}, { historyMs: 0 });
    const rows = async (count: number) => {
      const read: number[] = [];
      for (let i = 0; i < count; i++) read.push((await runCut()).history_rows);
      return read;
    };
    expect(await rows(8), 'on from the second segment').toEqual([50, 50, 0, 50, 50, 0, 30, 0]);
    expect(await rows(2)).toEqual([50, 50]);
    expect(await run({}, { historyMs: 0 })).toMatchObject({ ok: true, history_rows: 0, is_whole: false });
    expect(await rows(1)).toEqual([50]);
    const all = { ok: true, history_rows: 50 + 330, is_whole: true };
    expect(await run({ all: true }), 'the rest of a segment is not all of it').toMatchObject(all);
  });

  it('of which only the beginning was read again are those that were anchored, before and behind that place', async () => {
    await run();
    for (const change of [10, 49, 90]) {
      await run({ restart: true });
      const { rows } = await admin.query(
        'select id from ledger.universal_registry order by tx_id, position offset $1 limit 1',
        [change],
      );
      const removal = `${remove(`id = '${rows[0].id}'`)}; ${forget(`id = '${rows[0].id}'`)}`;
      if (change === 10) await tamper(removal);
      await runCut();
      expect((await stateOf(store)).partial.rows).toBe(50);
      if (change !== 10) await tamper(removal);
      const { problems, history_rows } = await run({}, { historyMs: 0 });
      const last = change === 49 ? 99 : 49; // the place is gone with its row: from the beginning
      expect(history_rows, `row ${change}`).toBe(last);
      expect(problems.map(({ detail }) => /^rows \d+ to \d+/.exec(detail)?.[0])).toContain('rows 1 to 100');
    }
  });

  it('that were not read again say that a row is gone, and which segment it was when they are', async () => {
    await run({}, { historyMs: 0 }); // also reads the first segment again
    const { rows } = await admin.query(
      'select id from ledger.universal_registry order by tx_id, position offset 250 limit 1',
    );
    await tamper(`${remove(`id = '${rows[0].id}'`)}; ${forget(`id = '${rows[0].id}'`)}`);
    expect(await named({}, { historyMs: 0 })).toEqual([COUNT]);
    const anchor = JSON.parse((await store.read('anchor#1#000000000002')) as string);
    const report = await run({}, { historyMs: 0 });
    expect(report.problems).toMatchObject([
      { class: 'anchor', id: NOBODY, detail: expect.stringMatching(/1 fewer rows than were anchored/) },
      {
        class: 'anchor',
        id: anchor.last.id,
        seq: anchor.last.seq,
        detail: expect.stringMatching(/^rows 201 to 300 /),
      },
    ]);
  });

  it('whose last row is gone with its witness name it, and those beside them are still read', async () => {
    await run();
    const anchor = JSON.parse((await store.read('anchor#1#000000000002')) as string);
    const { id } = anchor.last;
    await tamper(`${remove(`id = '${id}'`)}; ${forget(`id = '${id}'`)}`);
    const report = await run({ all: true });
    expect(report).toMatchObject({ history_rows: 329, is_whole: true });
    expect(report.problems.map(({ class: c, id, detail }) => [c, id, /rows \d+ to \d+/.exec(detail)?.[0]])).toEqual([
      ['anchor', NOBODY, undefined],
      ['missing', id, undefined],
      ['anchor', JSON.parse((await store.read('anchor#1#000000000001')) as string).last.id, 'rows 101 to 300'],
    ]);
    // And one at a time, from either side.
    for (let i = 0; i < 4; i++) expect((await run({}, { historyMs: 0 })).problems).toEqual(report.problems);
  });

  it('whose last row was moved far away, with its witness, are not read up to there, and the others still are', async () => {
    await appendMany(90);
    await run();
    const { id } = JSON.parse((await store.read('anchor#1#000000000001')) as string).last;
    const set = 'set tx_id = (select max(tx_id) from ledger.universal_registry)';
    await tamper(`update ledger.universal_registry ${set} where id = '${id}';
                  update ledger.registry_witness ${set} where id = '${id}'`);
    const report = await run({ all: true });
    expect(report).toMatchObject({ ok: false, is_whole: true });
    expect(report.history_rows, 'rows of the other segments').toBeLessThan(500);
    const segments = report.problems.map(({ class: c, detail }) => [c, /rows \d+ to \d+/.exec(detail)?.[0]]);
    expect(segments).toEqual([
      ['anchor', 'rows 1 to 100'],
      ['anchor', 'rows 101 to 200'],
      ['anchor', 'rows 301 to 400'],
    ]);
  });

  it('of which another auditor was killed after the anchor, and that were changed since, are as they were anchored', async () => {
    let adds = 0;
    const kill = (what: string) => {
      if (what === 'add' && ++adds === 3) throw new Error('killed'); // the state, and two anchors
    };
    await expect(run({}, { store: failing(store, kill, true) })).rejects.toThrow('killed');
    expect((await stateOf(store)).head.rows).toBe(100);
    const kept = JSON.parse((await store.read('anchor#1#000000000002')) as string);
    const { rows } = await admin.query(
      'select id from ledger.universal_registry order by tx_id, position offset 150 limit 1',
    );
    await tamper(`${remove(`id = '${rows[0].id}'`)}; ${forget(`id = '${rows[0].id}'`)}`);
    const report = await run();
    expect(report.problems.map((problem) => problem.class)).toContain('anchor');
    expect(JSON.parse((await store.read('anchor#1#000000000002')) as string)).toEqual(kept);
    expect(await run()).toMatchObject({ ok: false, anchored_rows: 330, problems: report.problems });
  });
});

describe('problems', () => {
  it('stay open until somebody acknowledges them; then they are known, and what changes again is not', async () => {
    await run();
    await tamper(update(`who = 'mallory'`, full(1)));
    const { problems } = await run();
    expect(problems).toMatchObject([{ id: FULL, seq: 1, class: 'hash' }]);
    await appendSpans(app, [draft()], contextOf(ALICE));
    expect(await run()).toMatchObject({ ok: false, problems, new_rows: 1 });
    expect(await run({ acknowledge: true })).toMatchObject({ ok: true, problems: [] });
    expect(await run()).toMatchObject({ ok: true, history_rows: ROWS + 1 });
    await tamper(update(`who = 'eve'`, full(1)));
    expect(await named()).toEqual(['full 1 hash']);
  });

  it('that nobody sees any more stay open as well', async () => {
    await run();
    await tamper(update(`who = who || ' '`, full(1)));
    expect(await named()).toEqual(['full 1 hash']);
    await tamper(update('who = rtrim(who)', full(1)));
    expect(await named()).toEqual(['full 1 hash']);
    expect(await named({ acknowledge: true })).toEqual([]);
  });

  it('of a row that is gone are acknowledged once, and another one that goes is found', async () => {
    await run();
    await tamper(`${remove(sparse())}; ${forget(sparse())}`);
    expect(await named()).toEqual([DIGEST, COUNT].sort());
    expect(await named({ acknowledge: true })).toEqual([]);
    await appendSpans(app, [draft()], contextOf(ALICE));
    expect(await named()).toEqual([]);
    await tamper(`${remove(full(2))}; ${forget(full(2))}`);
    expect(await named()).toEqual([COUNT]);
  });

  it('are named up to a hundred, and counted beyond', async () => {
    await appendMany(150);
    await tamper(update(`who = 'mallory'`, `entity_type = 'note'`));
    const report = await run();
    expect(report.problems).toHaveLength(100);
    expect(report).toMatchObject({ ok: false, new_rows: ROWS + 150 });
    expect(report.problem_count).toBeGreaterThanOrEqual(153);
    expect((await run({ acknowledge: true })).problems).toHaveLength(53);
    expect(await run({ acknowledge: true })).toMatchObject({ ok: true });
  });

  it('fit in an item of the table, however long what they tell of is, and are told apart from what comes then', async () => {
    await appendMany(50);
    await run();
    const state = (await store.read('state')) as string;
    const known = Array.from({ length: 2_000 }, () => randomUUID().replaceAll('-', ''));
    await store.replace('state', state, JSON.stringify({ ...JSON.parse(state), known }));
    // Each of these characters has six bytes in JSON.
    const long = (end: string) => `repeat(chr(1), 100000) || '${end}'`;
    await tamper(update(`public_key = ${long('a')}, curr_hash = ${long('b')}`, `entity_type = 'note'`));
    const { problems } = await run();
    expect(problems).toHaveLength(100);
    expect(Math.max(...problems.map(({ detail }) => detail.length))).toBe(500);
    expect(Buffer.byteLength((await store.read('state')) as string)).toBeLessThan(400 * 1024);
    expect(100 * (500 * 6 + 200) + 2_000 * 35, 'all as long as may be').toBeLessThan(400 * 1024);

    await tamper(remove(`id <> '${SPARSE}'`));
    await run({ restart: true });
    await run({ acknowledge: true });
    expect(await run()).toMatchObject({ ok: true });
    await tamper(update(`public_key = ${long('c')}`, sparse()));
    expect((await run()).problems.map((problem) => problem.class)).toContain('key');
  });

  it('are those of a key that is not trusted any more, too', async () => {
    await run();
    const keys = { root: trustedKeys.root, runtime: new Map<string, number>() };
    expect(new Set(await named({}, { keys }))).toEqual(
      new Set(['foreign 0 key', 'foreign 1 key', 'full 0 key', 'full 1 key', 'full 2 key', 'sparse 0 key']),
    );
  });
});

describe('a ledger', () => {
  /** As it is now; to be put back later. */
  const keep = () =>
    tamper(`drop table if exists safe.registry, safe.witness;
            create table safe.registry as table ledger.universal_registry;
            create table safe.witness as table ledger.registry_witness`);
  const putBack = () =>
    tamper(`truncate ledger.universal_registry, ledger.registry_witness;
            insert into ledger.universal_registry overriding system value table safe.registry;
            insert into ledger.registry_witness table safe.witness;
            drop table safe.registry, safe.witness`);

  it('that was restored to an earlier moment is behind its anchors, until they begin again', async () => {
    await appendMany(150);
    await keep();
    await appendMany(170);
    await run();
    await putBack();
    await appendSpans(app, [draft(), draft()], contextOf(ALICE));
    const report = await run({ all: true });
    expect(report).toMatchObject({ ok: false, is_whole: false, new_rows: 0, history_rows: ROWS + 152 });
    expect(report).toMatchObject({ anchored_rows: ROWS + 320, ledger_rows: ROWS + 152, lag_rows: 0 });
    const { last } = JSON.parse((await store.read('anchor#1#000000000001')) as string);
    expect(report.problems.map(({ class: c, detail }) => [c, detail.slice(0, 13)])).toEqual([
      ['anchor', 'ANCHOR_AHEAD:'],
    ]);
    expect(report.problems[0]?.detail).toContain('the anchors reach row 326');
    expect(report.problems[0]?.detail).toContain(`row 100 (${last.id} ${last.seq})`);
    expect((await run()).problems).toEqual(report.problems);

    // What it still has is compared: a change is found there as ever.
    await tamper(update(`who = 'mallory'`, full(0)));
    expect(await named()).toEqual(['full 0 hash', AHEAD]);
    await tamper(update(`who = (select who from ledger.universal_registry where ${full(1)})`, full(0)));

    expect(await run({ restart: true })).toMatchObject({ ok: true, new_rows: ROWS + 152, is_whole: true });
    expect(await readdir(folder)).toEqual(
      expect.arrayContaining(['anchor-1-000000000003.json', 'anchor-2-000000000001.json']),
    );
  });

  it('that was exported and imported is what it was, with other transactions', async () => {
    await appendMany(150);
    await run();
    await keep();
    const before = await headOfAnother();
    // As an import does it: in order, some rows in each transaction, positions as they were.
    await tamper(`truncate ledger.universal_registry, ledger.registry_witness;
      create table safe.moved as select r.*, (row_number() over (order by tx_id, position) / 40)::int as batch from safe.registry r`);
    const { rows } = await admin.query('select max(batch) as last from safe.moved');
    for (let batch = 0; batch <= rows[0].last; batch++) {
      await tamper(`alter table safe.moved alter tx_id set default pg_current_xact_id();
        update safe.moved set tx_id = pg_current_xact_id() where batch = ${batch}`);
    }
    await tamper(`alter table safe.moved drop batch;
      insert into ledger.universal_registry overriding system value table safe.moved;
      insert into ledger.registry_witness select id, seq, position, tx_id, curr_hash from safe.moved;
      drop table safe.moved, safe.registry, safe.witness`);
    await appendSpans(app, [draft()], contextOf(ALICE));
    expect(await run({ all: true })).toMatchObject({
      ok: true,
      new_rows: 1,
      history_rows: ROWS + 151,
      is_whole: true,
    });
    expect((await stateOf(store)).head.rows).toBe(before.rows + 1);
  });
});

describe('a superuser who disables triggers is found within one run, whatever was changed:', () => {
  beforeEach(async () => {
    const { rows } = await admin.query(
      `select tx_id::text, position::text from ledger.universal_registry where id = '${SPARSE}'`,
    );
    [sparsePlace] = rows;
  });

  it.each(TAMPERINGS)('$what', async ({ sql, unread, anchored }) => {
    const before = await allRows();
    await tamper(`create table safe.registry as table ledger.universal_registry;
                  create table safe.witness as table ledger.registry_witness`);
    await tamper(sql());
    expect(await allRows(), 'something was tampered with').not.toEqual(before);
    expect(await named(), 'before the first run').toEqual([...unread].sort());

    await tamper(`truncate ledger.universal_registry, ledger.registry_witness;
                  insert into ledger.universal_registry overriding system value table safe.registry;
                  insert into ledger.registry_witness table safe.witness;
                  drop table safe.registry, safe.witness`);
    expect(await named({ restart: true })).toEqual([]);
    await tamper(sql());
    expect(await named(), 'after it').toEqual([...anchored].sort());
    expect(await named(), 'in the next run').toEqual([...anchored].sort());
  });

  const allRows = async () =>
    (
      await admin.query(
        `select r::text from ledger.universal_registry r union all select w::text from ledger.registry_witness w order by 1`,
      )
    ).rows;
});

/** Over as soon as it has read some rows. */
function runCut() {
  let time = Date.now();
  const onProgress = () => {
    time += 60_000;
  };
  const endOfTime = new Date(time + 60_000);
  return run({}, { historyMs: 0, now: () => new Date(time), endOfTime, onProgress });
}

/** So many spans of one tenant. */
async function appendMany(count: number): Promise<void> {
  const spans = Array.from({ length: count }, smuggled);
  await admin.query(`select ledger.append('alice', 'acme', $1)`, [JSON.stringify(spans)]);
}

/** A clock that goes on with each look at it. */
function clock(from: Date, stepMs: number): () => Date {
  let time = from.getTime();
  return () => {
    time += stepMs;
    return new Date(time);
  };
}

async function stateOf(anchors: AnchorStore) {
  return JSON.parse((await anchors.read('state')) as string);
}

/** Where the anchors of the ledger end for an auditor that begins now. */
async function headOfAnother() {
  const other = await mkdtemp(join(tmpdir(), 'loglineos-anchors-'));
  const anchors = await AnchorFiles.open(other);
  try {
    expect(await run({}, { store: anchors })).toMatchObject({ ok: true });
    return (await stateOf(anchors)).head;
  } finally {
    await anchors.close();
    await rm(other, { recursive: true });
  }
}

/** The store, with something that may go wrong at each write: before it, or after it was done. */
function failing(anchors: AnchorStore, onWrite: (what: string) => void, isWritten = false): AnchorStore {
  const write = async (what: string, done: () => Promise<boolean>) => {
    if (!isWritten) onWrite(what);
    const answer = await done();
    if (isWritten) onWrite(what);
    return answer;
  };
  return {
    read: (id) => anchors.read(id),
    add: (id, text) => write('add', () => anchors.add(id, text)),
    replace: (id, before, text) => write('replace', () => anchors.replace(id, before, text)),
  };
}
