import { randomBytes, randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import type pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { ExportPart, ExportReader, type RowName } from '../../src/ledger/export-file.ts';
import {
  appendSpans,
  exportLedger,
  type ImportOptions,
  importLedger,
  type Line,
  rebuildDerived,
  rowAt,
  verifyLedger,
} from '../../src/ledger/index.ts';
import { nodeEd25519 } from '../../src/span/ed25519-node.ts';
import { COLUMN_TYPES, type SealedSpan, type StoredSpan, sealSpan } from '../../src/span/index.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { rootSigner, runtimeSigner, strangerSigner, trustedKeys } from '../support/keys.ts';
import { ALAN, ALICE, BOB, contextOf, draft, FULL_DRAFT, hashable, nextVersion } from '../support/spans.ts';

const options: ImportOptions = { keys: trustedKeys, scheme: nodeEd25519 };
const SYSTEM = { userId: 'system', tenantId: 'system' };

let source: TestDatabase;
/** Rows that the source has. */
let exported: string[];
let target: TestDatabase;
/** Two versions of a span of which the later one stands before the other in the timeline. */
let swapped: { id: string };

beforeAll(async () => {
  source = await createTestDatabase();
  await fill(source);
  exported = await exportAll(source);
});
beforeEach(async () => {
  await target?.close();
  target = await createTestDatabase();
});
afterAll(async () => {
  await source?.close();
  await target?.close();
});

/** What a ledger may hold: all columns, all kinds of text, chains, deletions, tenants, and transactions in any order. */
async function fill({ open, connect }: TestDatabase): Promise<void> {
  const [app, seeder] = [open('loglineos_app', { connectionsMax: 8 }), open('loglineos_seeder')];
  const full = randomUUID();
  for (let seq = 0; seq < 3; seq++) {
    await appendSpans(app, [{ ...FULL_DRAFT, id: full, visibility: 'tenant', priority: seq }], contextOf(ALICE));
  }
  const [text] = fc.sample(
    fc.string({ unit: 'binary', maxLength: 200 }).filter((s) => s.isWellFormed() && !s.includes('\0')),
    1,
  );
  const content = {
    '\\': 1,
    '"': '\u2028\u2029\u0085\r\n',
    '': [text as string, '😀', 'ç', 1e-7, 1.5e300 / 1e290],
    __proto: null,
  };
  await appendSpans(app, [draft({ name: 'ação\u2028"\\', content, tags: ['NULL', '', '"{},\\'] })], contextOf(BOB));
  const [deleted] = await appendSpans(app, [draft()], contextOf(ALAN));
  await appendSpans(app, [draft({ id: deleted?.id as string, is_deleted: true })], contextOf(ALAN));
  await appendSpans(seeder, [draft({ visibility: 'public', entity_type: 'manifest' })], contextOf(SYSTEM, rootSigner));

  const functionId = randomUUID();
  const scheduled = {
    entity_type: 'function',
    status: 'scheduled',
    code: 'return 1',
    expires_at: '2027-01-01T00:00:00.000Z',
  };
  await appendSpans(app, [draft({ ...scheduled, id: functionId, seq: 0 })], contextOf(ALICE));
  for (const status of [null, 'complete', 'error', 'dead', 'cancelled']) {
    const id = randomUUID();
    const request = draft({ id, entity_type: 'request', parent_id: functionId, status: 'scheduled', priority: 3 });
    await appendSpans(app, [request], contextOf(ALICE));
    if (status !== null)
      await appendSpans(app, [{ ...request, status, scheduled_at: '2099-01-01T00:00:00.000Z' }], contextOf(ALICE));
  }
  const policyId = randomUUID();
  const policy = draft({
    id: policyId,
    seq: 0,
    entity_type: 'policy',
    status: 'active',
    code: 'x',
    content: { trigger: 'span' },
  });
  await appendSpans(app, [policy], contextOf(ALICE));
  await appendSpans(
    app,
    [draft({ entity_type: 'execution', did: 'ran_function', started_at: '2026-11-23T10:00:00.000Z' })],
    contextOf(ALICE),
  );
  const seen = await placeOfNewest(await connect('admin'));
  await appendSpans(
    app,
    [draft({ metadata: { policy: { id: policyId, seq: 0, ...seen, day: '2026-11-22' } } })],
    contextOf(ALICE),
  );

  // A transaction that began first and committed last: its version stands before the one that it follows.
  const [early, late] = [await connect('loglineos_app'), await connect('loglineos_app')];
  const first = sealSpan(hashable({ entity_type: 'swapped' }), runtimeSigner);
  swapped = first;
  await early.query('begin; select pg_current_xact_id()');
  await append(late, [first, sealSpan(hashable(), runtimeSigner)]);
  await append(early, [sealSpan(hashable(), runtimeSigner), nextVersion(first, { did: 'changed' })]);
  await early.query('commit');

  await Promise.all(Array.from({ length: 6 }, (_, writer) => write(writer)));
  async function write(writer: number): Promise<void> {
    const client = await connect('loglineos_app');
    for (let i = 0; i < 15; i++) {
      await client.query('begin');
      if ((i + writer) % 2 === 0) await client.query('select pg_current_xact_id()');
      for (let n = 0; n < 2; n++) {
        await sleep(Math.random() * 4);
        await append(client, [sealSpan(hashable({ entity_type: 'interleaved' }), runtimeSigner)]);
      }
      await client.query('commit');
    }
  }
}

async function append(client: pg.Client, spans: SealedSpan[]): Promise<void> {
  await client.query(`select ledger.append('alice', 'acme', $1)`, [JSON.stringify(spans)]);
}

async function placeOfNewest(admin: pg.Client): Promise<{ tx_id: string; position: string }> {
  const { rows } = await admin.query(
    'select tx_id::text, position::text from ledger.universal_registry order by tx_id desc, position desc limit 1',
  );
  return rows[0];
}

/** The lines of an export, once all rows have settled: other tests' transactions hold the end of the timeline back. */
async function exportAll(database: TestDatabase, after: RowName | null = null): Promise<string[]> {
  const auditor = database.open('loglineos_auditor');
  const admin = database.open('admin');
  const text = 'select count(*)::int as rows from ledger.universal_registry where position > $1';
  const [all] = await admin.query<{ rows: number }>({ text, values: [after?.position ?? 0] });
  for (;;) {
    let lines = '';
    for await (const page of exportLedger(auditor, after)) lines += page.text;
    const found = lines.trimEnd().split('\n');
    if (found.length - 2 === all?.rows) return found;
    await sleep(20);
  }
}

async function* asLines(lines: string[]): AsyncGenerator<Line> {
  for (const text of lines) yield { text, bytesUntil: 0, isWhole: true };
}

function importInto(database: TestDatabase, lines: string[], more: Partial<ImportOptions> = {}) {
  const admin = database.open('admin', { connectionsMax: 2 });
  return importLedger(admin, asLines(lines), { ...options, ...more });
}

/** The same rows with other content, as whoever changes a file and knows its format would write them. */
function rewritten(lines: string[], change: (rows: string[]) => string[]): string[] {
  const part = new ExportPart(null);
  const rows = change(lines.slice(1, -1));
  for (const row of rows) part.addRow(row);
  return [part.beginLine, ...rows, part.endLine];
}

async function rowsOf(database: TestDatabase): Promise<unknown[]> {
  const admin = database.open('admin');
  return admin.query({
    text: `select to_jsonb(r) - 'tx_id' as said from ledger.universal_registry r order by r.tx_id, r.position`,
  });
}

async function countOf(database: TestDatabase): Promise<number> {
  return (await rowsOf(database)).length;
}

async function derivedOf({ open }: TestDatabase): Promise<unknown> {
  const admin = open('admin');
  const read = async (text: string) => admin.query({ text });
  return {
    usage: await read('select * from ledger.daily_usage order by 1, 2'),
    queue: await read(
      'select request_id, tenant_id, owner_id, function_id, position, priority, state, due_at from ledger.request_queue order by 1',
    ),
    schedule: await read('select function_id, seq, done_until from ledger.schedule order by 1'),
    expiry: await read('select span_id, expires_at from ledger.expiry order by 1'),
    policies: await read(`select c.policy_id, c.seq, c.position, r.id as stands_on from ledger.policy_cursor c
      left join ledger.universal_registry r on (r.tx_id, r.position) = (c.tx_id, c.position) order by 1`),
  };
}

describe('an imported ledger', () => {
  it('has the same rows in the same order, whatever their transactions did, and proves itself', async () => {
    const rows = exported.slice(1, -1).map((line) => JSON.parse(line) as StoredSpan);
    // The ledger is what this test is about: every column is used, positions descend, a later version comes first.
    expect(new Set(rows.flatMap((row) => Object.keys(row)))).toEqual(new Set(Object.keys(COLUMN_TYPES)));
    expect(rows.filter((row, i) => row.position < (rows[i - 1]?.position ?? 0)).length).toBeGreaterThan(3);
    expect(rows.filter(({ id }) => id === swapped.id).map(({ seq }) => seq)).toEqual([1, 0]);

    expect(await importInto(target, exported)).toEqual({ rows: rows.length, there: 0, beyond: 0 });
    expect(await rowsOf(target)).toEqual(await rowsOf(source));
    const again = await exportAll(target);
    const unplaced = (line: string) => ({ ...JSON.parse(line), tx_id: null });
    expect(again.slice(1, -1).map(unplaced)).toEqual(exported.slice(1, -1).map(unplaced));
    const report = await verifyLedger(target.open('loglineos_auditor'), trustedKeys, nodeEd25519);
    expect(report).toEqual({ ok: true, checked: rows.length, problems: [] });
  });

  it('goes on as any ledger does: behind its last position, with the tables that are derived', async () => {
    await importInto(target, exported);
    await rebuildDerived({ url: source.adminUrl });
    await rebuildDerived({ url: target.adminUrl });
    const derived = await derivedOf(target);
    expect(derived).toEqual(await derivedOf(source));
    expect(derived).toMatchObject({ policies: [{ stands_on: expect.any(String) }], queue: { length: 3 } });

    const last = Math.max(...exported.slice(1, -1).map((line) => (JSON.parse(line) as StoredSpan).position));
    await appendSpans(target.open('loglineos_app'), [draft()], contextOf(ALICE));
    const more = await exportAll(target);
    expect(JSON.parse(more.at(-2) as string).position).toBeGreaterThan(last);
  });

  it('keeps the order also where it has one transaction for each row, in a property', async () => {
    const rows = exported.slice(1, -1);
    const singles = rows.filter((line) => (JSON.parse(line) as StoredSpan).entity_type === 'interleaved').slice(0, 30);
    const order = fc.shuffledSubarray(singles, { minLength: 5 });
    await fc.assert(
      fc.asyncProperty(order, async (chosen) => {
        const database = await createTestDatabase();
        try {
          await importInto(
            database,
            rewritten(exported, () => chosen),
          );
          const found = (await exportAll(database)).slice(1, -1).map((line) => JSON.parse(line).position);
          expect(found).toEqual(chosen.map((line) => JSON.parse(line).position));
        } finally {
          await database.close();
        }
      }),
      { numRuns: 4 },
    );
  });

  it('takes a second import for nothing, one that goes on behind it, and none that does not', async () => {
    const middle = Math.floor(exported.length / 2);
    const start = rewritten(exported, (rows) => rows.slice(0, middle));
    const last = readAll(start).last as RowName;
    const rest = await exportAll(source).then(async () => {
      const place = JSON.parse(start.at(-1) as string).end.cursor;
      const auditor = source.open('loglineos_auditor');
      expect(await rowAt(auditor, place)).toEqual(last);
      let text = '';
      for await (const page of exportLedger(auditor, last)) text += page.text;
      return text.trimEnd().split('\n');
    });
    const rows = exported.length - 2;
    await expect(importInto(target, rest)).rejects.toMatchObject({ code: 'LEDGER_DIFFERS' });
    expect(await importInto(target, start)).toMatchObject({ rows: middle, there: 0 });
    expect(await importInto(target, start)).toMatchObject({ rows: middle, there: middle });
    // What it has not yet is named, and a dry run writes nothing.
    const missing: number[] = [];
    const dry = { isDryRun: true, onMissing: ({ position }: StoredSpan) => missing.push(position) };
    expect(await importInto(target, exported, dry)).toEqual({ rows, there: middle, beyond: 0 });
    expect(missing).toEqual(exported.slice(middle + 1, -1).map((line) => JSON.parse(line).position));
    expect(await countOf(target)).toBe(middle);

    expect(await importInto(target, rest)).toMatchObject({ rows: rows - middle, there: 0 });
    expect(await importInto(target, [...start, ...rest])).toMatchObject({ rows, there: rows });
    expect(await rowsOf(target)).toEqual(await rowsOf(source));
    await expect(importInto(target, start)).rejects.toMatchObject({
      code: 'LEDGER_DIFFERS',
      message: `the ledger has ${rows - middle} rows behind those of the export`,
    });
    expect(await importInto(target, start, { isDryRun: true })).toMatchObject({ there: middle, beyond: rows - middle });
  });
});

function readAll(lines: string[]): ExportReader {
  const reader = new ExportReader();
  for (const line of lines) reader.take(line);
  return reader;
}

describe('an import refuses', () => {
  const row = (line: string) => JSON.parse(line) as StoredSpan;
  const indexOf = (rows: string[], type: string, seq = 0) =>
    rows.findIndex((line) => row(line).entity_type === type && row(line).seq === seq);
  const change =
    (type: string, said: object | ((span: StoredSpan) => object), seq = 0) =>
    (rows: string[]) => {
      const index = indexOf(rows, type, seq);
      const span = row(rows[index] as string);
      return rows.with(index, JSON.stringify({ ...span, ...(typeof said === 'function' ? said(span) : said) }));
    };

  it.each<[string, RegExp, (rows: string[]) => string[]]>([
    ['a changed column', /^line \d+: hash: /, change('everything', { priority: 99 }, 2)],
    ['a column that is none', /^line \d+: hash: .*no column "colour"/, change('everything', { colour: 'red' })],
    [
      'a number that a column cannot hold as it stands',
      /^line \d+: hash: /,
      (rows) => {
        const index = indexOf(rows, 'everything');
        return rows.with(index, (rows[index] as string).replace(/"tenth":0.1/, '"tenth":1e400'));
      },
    ],
    ['a signature of nobody', /^line \d+: signature: /, change('everything', { signature: '0'.repeat(128) })],
    ['a key that nobody trusts', /^line \d+: key: /, change('interleaved', () => sealSpan(hashable(), strangerSigner))],
    [
      'a manifest by the runtime key',
      /^line \d+: key: /,
      change('manifest', (span) => {
        const { curr_hash: _hash, signature: _signature, position: _position, tx_id: _txId, ...said } = span;
        return sealSpan(said, runtimeSigner);
      }),
    ],
    [
      'a version that does not follow',
      /^line \d+: chain: /,
      change(
        'everything',
        (span) => {
          const { curr_hash: _hash, signature: _signature, position: _position, tx_id: _txId, ...said } = span;
          return sealSpan({ ...said, prev_hash: '0'.repeat(64) }, runtimeSigner);
        },
        1,
      ),
    ],
    [
      'a version without the one before it',
      /^line \d+: chain: the version before it/,
      (rows) => rows.toSpliced(indexOf(rows, 'everything', 1), 1),
    ],
    [
      'a row that is there twice',
      /^lines \d+ to \d+: .*this version of the span/,
      (rows) => [...rows, JSON.stringify({ ...row(rows[3] as string), position: 999_999 })],
    ],
    ['a position that is there twice', /^line \d+: a row before it/, (rows) => [...rows, rows[3] as string]],
    ['a place that is none', /^line \d+: expected a row/, change('everything', { position: 0 })],
    ['a line that is no JSON', /^line 3: /, (rows) => rows.with(1, '{')],
  ])('%s, and says which line; nothing is written', async (_what, message, tamper) => {
    const lines = rewritten(exported, (rows) => {
      try {
        return tamper(rows);
      } catch (error) {
        throw new Error('the test changed nothing', { cause: error });
      }
    });
    expect(lines).not.toEqual(exported);
    await expect(importInto(target, lines)).rejects.toMatchObject({
      kind: 'integrity',
      message: expect.stringMatching(message),
    });
    expect(await countOf(target)).toBe(0);
  });

  it('an export that breaks off', async () => {
    await expect(importInto(target, exported.slice(0, -1))).rejects.toMatchObject({ code: 'EXPORT_TRUNCATED' });
    expect(await countOf(target)).toBe(0);
    await expect(importInto(target, [])).rejects.toMatchObject({ code: 'EXPORT_TRUNCATED' });
  });

  it('a ledger that is another, or has become one', async () => {
    await appendSpans(target.open('loglineos_app'), [draft()], contextOf(ALICE));
    const refused = importInto(target, exported);
    await expect(refused).rejects.toMatchObject({
      code: 'LEDGER_DIFFERS',
      message: expect.stringMatching(/^line 2: /),
    });
    expect(await countOf(target)).toBe(1);
  });

  it('a ledger that somebody uses, and rows that somebody appends meanwhile', async () => {
    const app = await target.connect('loglineos_app');
    await expect(importInto(target, exported)).rejects.toMatchObject({ code: 'LEDGER_IN_USE' });
    await app.end();
    const admin = await target.connect('admin');
    await append(admin, [sealSpan(hashable(), runtimeSigner)]);
    await admin.query('begin; set local role loglineos_owner');
    await expect(admin.query(`select ledger.import_rows('[]', '0', 0)`)).rejects.toMatchObject({ code: 'LL011' });
  });

  it('a ledger that somebody began to use while rows were written', async () => {
    const [holder, watcher] = [await target.connect('admin'), await target.connect('admin')];
    await holder.query('begin; lock table ledger.universal_registry in share mode'); // rows can be read, not written
    const importing = importInto(target, exported).catch((error: unknown) => error);
    const waiting = `select from pg_locks l join pg_database d on d.oid = l.database
      where d.datname = current_database() and l.relation = 'ledger.universal_registry'::regclass and not l.granted`;
    while ((await watcher.query(waiting)).rowCount === 0) await sleep(5);
    await target.connect('loglineos_app');
    await holder.query('commit');
    expect(await importing).toMatchObject({ code: 'LEDGER_IN_USE' });
    expect(await countOf(target)).toBe(0);
  });

  it('to write what stands behind a row that is bad, and keeps the whole batches before it', async () => {
    const many = Array.from({ length: 1_400 }, (_, i) => ({
      ...sealSpan(hashable(), runtimeSigner),
      position: i + 1,
      tx_id: '700',
    }));
    (many[1_149] as SealedSpan).signature = randomBytes(64).toString('hex');
    const lines = rewritten(exported, () => many.map((span) => JSON.stringify(span)));
    await expect(importInto(target, lines)).rejects.toMatchObject({
      code: 'ROW_NOT_PROVED',
      message: expect.stringMatching(/^line 1151: signature: /),
    });
    expect(await countOf(target)).toBe(1_000);
  });
});

describe('a version that stands far before the one that it follows', () => {
  it('waits for it', async () => {
    const first = sealSpan(hashable(), runtimeSigner);
    const others = Array.from({ length: 2_300 }, () => sealSpan(hashable(), runtimeSigner));
    const rows = [nextVersion(first), ...others, first].map((span, i, all) =>
      JSON.stringify({ ...span, position: i === 0 ? all.length : i, tx_id: i === 0 ? '700' : '701' }),
    );
    await importInto(
      target,
      rewritten(exported, () => rows),
    );
    const found = (await exportAll(target)).slice(1, -1);
    expect(found.map((line) => JSON.parse(line).curr_hash)).toEqual(rows.map((line) => JSON.parse(line).curr_hash));
  });
});

describe('the rights to import', () => {
  const row = () => JSON.stringify([{ ...sealSpan(hashable(), runtimeSigner), position: 7, tx_id: '3' }]);

  it.each(['loglineos_app', 'loglineos_seeder', 'loglineos_auditor'] as const)('are not %s’s', async (role) => {
    const client = await target.connect(role);
    await client.query(`select set_config('app.import', 'on', false)`);
    await expect(client.query(`select ledger.import_rows($1, '0', 0)`, [row()])).rejects.toMatchObject({
      code: '42501',
    });
    await expect(client.query('set role loglineos_owner')).rejects.toMatchObject({ code: '42501' });
  });

  it('let not even the owner put a row before what has settled, or between', async () => {
    const admin = await target.connect('admin');
    for (const txId of ['3', '9999999']) {
      await admin.query('begin; set local role loglineos_owner');
      const rows = JSON.stringify([{ ...JSON.parse(row())[0], tx_id: txId }]);
      await expect(admin.query(`select ledger.import_rows($1, '0', 0)`, [rows])).rejects.toMatchObject({
        code: '42501',
      });
      await admin.query('rollback');
    }
  });
});
