import { randomBytes, randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  appendSpans,
  type Cursor,
  cursorOf,
  Database,
  listRequests,
  listSpans,
  readTimeline,
  TIMELINE_START,
} from '../../src/ledger/index.ts';
import { parseCursor } from '../../src/ledger/timeline.ts';
import { nodeEd25519 } from '../../src/span/ed25519-node.ts';
import { type SealedSpan, type StoredSpan, sealSpan, verifySpan } from '../../src/span/index.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { runtimeSigner, trustedKeys } from '../support/keys.ts';
import { ALICE, BOB, contextOf, draft, hashable } from '../support/spans.ts';

let testDatabase: TestDatabase;
let database: Database;
beforeAll(async () => {
  testDatabase = await createTestDatabase();
  database = testDatabase.open('loglineos_app');
});
afterAll(() => testDatabase.close());

const APPEND = `select ledger.append('alice', 'acme', $1)`;

function newSpan(): SealedSpan {
  return sealSpan(hashable(), runtimeSigner);
}

/** All that is settled after a cursor. */
async function readAfter(after: Cursor): Promise<string[]> {
  return (await readTimeline(database, ALICE, after, 1_000)).spans.map(({ id }) => id);
}

/** Where the timeline ends now, once everything appended so far has settled. */
async function settledEnd(): Promise<Cursor> {
  const [marker] = await appendSpans(database, [draft()], contextOf(ALICE));
  return waitFor(marker?.id as string);
}

/** Other tests' transactions on the same server hold the end of the timeline back: wait until a span has settled. */
async function waitFor(id: string): Promise<Cursor> {
  for (let after = TIMELINE_START; ; ) {
    const page = await readTimeline(database, ALICE, after, 1_000);
    const found = page.spans.find((span) => span.id === id);
    if (found !== undefined) return cursorOf(found);
    after = page.position;
    if (page.spans.length === 0) await sleep(10);
  }
}

describe('a cursor', () => {
  it('sorts as text as its place does: transaction first, then position', () => {
    const place = fc.tuple(fc.bigInt({ min: 0n, max: 2n ** 63n - 1n }), fc.bigInt({ min: 0n, max: 2n ** 53n - 1n }));
    const cursorAt = ([txId, position]: [bigint, bigint]) =>
      cursorOf({ tx_id: String(txId), position: Number(position) } as StoredSpan);
    fc.assert(
      fc.property(place, place, (a, b) => {
        const isBefore = a[0] < b[0] || (a[0] === b[0] && a[1] < b[1]);
        expect(cursorAt(a) < cursorAt(b)).toBe(isBefore);
        expect(parseCursor(cursorAt(a))).toEqual({ txId: a[0], position: a[1] });
        expect(cursorAt(a) >= TIMELINE_START).toBe(true);
      }),
    );
  });

  it.each(['', '0', 'x'.repeat(32), 'A'.repeat(32), '0'.repeat(33), `${'0'.repeat(32)}\n`, 'f'.repeat(32)])(
    'is not %j',
    async (cursor) => {
      await expect(readTimeline(database, ALICE, cursor, 1)).rejects.toMatchObject({
        kind: 'input',
        code: 'CURSOR_INVALID',
      });
    },
  );
});

describe('readTimeline', () => {
  it('gives spans in order, page by page, with their proof, and nothing after the last', async () => {
    const start = await settledEnd();
    const appended = await appendSpans(
      database,
      Array.from({ length: 7 }, () => draft()),
      contextOf(ALICE),
    );
    const end = await waitFor(appended[6]?.id as string);
    const pages: string[][] = [];
    let after = start;
    for (;;) {
      const { spans, position } = await readTimeline(database, ALICE, after, 3);
      for (const span of spans) expect(verifySpan(span, trustedKeys, nodeEd25519)).toEqual([]);
      if (spans.length === 0) break;
      pages.push(spans.map(({ id }) => id));
      after = position;
    }
    expect(pages.map(({ length }) => length)).toEqual([3, 3, 1]);
    expect(pages.flat()).toEqual(appended.map(({ id }) => id));
    expect(after).toBe(end);
    expect(await readTimeline(database, ALICE, end, 3)).toEqual({ spans: [], position: end });
  });

  it('skips what the identity may not see, and what is deleted', async () => {
    const start = await settledEnd();
    await appendSpans(database, [draft()], contextOf(BOB));
    const [deleted] = await appendSpans(database, [draft({ is_deleted: true })], contextOf(ALICE));
    const [mine] = await appendSpans(database, [draft()], contextOf(ALICE));
    await waitFor(mine?.id as string);
    expect(await readAfter(start)).toEqual([mine?.id]);
    expect(deleted).toBeDefined();
  });
});

describe('a page of large spans', () => {
  const count = 40;
  let alone: TestDatabase;
  let reader: Database;
  let chunks: number;
  beforeAll(async () => {
    alone = await createTestDatabase();
    reader = alone.open('loglineos_app', { connectionsMax: 1 });
    for (let i = 0; i < count; i++) {
      const input = randomBytes(250_000).toString('hex');
      const request = draft({ entity_type: 'request', status: 'scheduled', parent_id: randomUUID(), input });
      await appendSpans(reader, [request], contextOf(ALICE));
    }
    await chunksRead();
    await reader.transaction(ALICE, (query) => query({ text: 'select input::text from ledger.universal_registry' }));
    chunks = await chunksRead();
  });
  afterAll(() => alone?.close());

  let counted = 0;
  /** Pieces of large values that the one connection has read since the last time. */
  async function chunksRead(): Promise<number> {
    await reader.query({ text: 'select pg_stat_force_next_flush()' });
    const [row] = await reader.query<{ read: number }>({
      text: `select seq_tup_read + idx_tup_fetch as read from pg_stat_all_tables
              where relid = (select reltoastrelid from pg_class where oid = 'ledger.universal_registry'::regclass)`,
    });
    const before = counted;
    counted = row?.read as number;
    return counted - before;
  }

  it.each<[string, () => Promise<unknown[]>]>([
    ['of the timeline', async () => (await readTimeline(reader, ALICE, TIMELINE_START, 1_000)).spans],
    ['of the list', async () => (await listSpans(reader, ALICE, {}, null, 1_000)).spans],
    ['of requests', async () => (await listRequests(reader, ALICE, {}, null, 1_000)).requests],
  ])('%s reads of none that is beyond its end', async (_, read) => {
    await expect.poll(read, { timeout: 10_000 }).toHaveLength(9);
    await chunksRead();
    expect(await read()).toHaveLength(9);
    // Each that it holds is read to be measured and to be sent.
    expect(await chunksRead()).toBe((chunks / count) * 9 * 2);
  });
});

describe('transactions that commit in another order than they began', () => {
  it('hold the timeline back: the first to draw its place is read first, though it commits last', async () => {
    const start = await settledEnd();
    const [a, b] = [await testDatabase.connect('loglineos_app'), await testDatabase.connect('loglineos_app')];
    const [early, late] = [newSpan(), newSpan()];
    await a.query('begin');
    await a.query(APPEND, [JSON.stringify([early])]);
    await b.query(APPEND, [JSON.stringify([late])]);
    expect(await readAfter(start)).toEqual([]);
    await sleep(50);
    expect(await readAfter(start)).toEqual([]);
    await a.query('commit');
    await waitFor(late.id);
    expect(await readAfter(start)).toEqual([early.id, late.id]);
  });

  it('let the rest through when the one that held it back rolls back or dies', async () => {
    const start = await settledEnd();
    const [a, c] = [await testDatabase.connect('loglineos_app'), await testDatabase.connect('loglineos_app')];
    const late = newSpan();
    for (const client of [a, c]) {
      await client.query('begin');
      await client.query(APPEND, [JSON.stringify([newSpan()])]);
    }
    await appendSpans(database, [draft({ id: late.id })], contextOf(ALICE));
    expect(await readAfter(start)).toEqual([]);
    await a.query('rollback');
    expect(await readAfter(start)).toEqual([]);
    const admin = await testDatabase.connect('admin');
    const { rows } = await c.query('select pg_backend_pid() as pid');
    await admin.query('select pg_terminate_backend($1)', [rows[0].pid]);
    await waitFor(late.id);
    expect(await readAfter(start)).toEqual([late.id]);
  });

  it('keep their order when they append inside savepoints', async () => {
    const start = await settledEnd();
    const [a, b] = [await testDatabase.connect('loglineos_app'), await testDatabase.connect('loglineos_app')];
    const [first, dropped, second, other] = [newSpan(), newSpan(), newSpan(), newSpan()];
    await a.query('begin; savepoint one');
    await a.query(APPEND, [JSON.stringify([first])]);
    await b.query(APPEND, [JSON.stringify([other])]);
    await a.query('savepoint two');
    await a.query(APPEND, [JSON.stringify([dropped])]);
    await a.query('rollback to savepoint two; savepoint three');
    await a.query(APPEND, [JSON.stringify([second])]);
    await a.query('commit');
    await waitFor(other.id);
    expect(await readAfter(start)).toEqual([first.id, second.id, other.id]);
  });
});

describe('a later transaction that drew a lower position', () => {
  it('is read after what was read before it: a position forged by an administrator', async () => {
    const start = await settledEnd();
    const admin = await testDatabase.connect('admin');
    const [usual, low] = [newSpan(), newSpan()];
    await admin.query(APPEND, [JSON.stringify([usual])]);
    await waitFor(usual.id);
    const first = await readTimeline(database, ALICE, start, 10);
    expect(first.spans.map(({ id }) => id)).toEqual([usual.id]);

    const row: Record<string, unknown> = { ...low, position: 1 };
    const names = Object.keys(row).map((name) => `"${name}"`);
    await admin.query(
      `insert into ledger.universal_registry (${names}) overriding system value values (${names.map((_, i) => `$${i + 1}`)})`,
      Object.values(row),
    );
    for (;;) {
      const { spans } = await readTimeline(database, ALICE, first.position, 10);
      if (spans.length === 0) {
        await sleep(10);
        continue;
      }
      expect(spans.map(({ id }) => id)).toEqual([low.id]);
      break;
    }
    expect(await readAfter(start)).toEqual([usual.id, low.id]);
  });

  it('is read after what was read before it: sessions that each keep a stock of positions', async () => {
    const admin = await testDatabase.connect('admin');
    await admin.query(`alter sequence ledger.universal_registry_position_seq cache 50`);
    const [a, b] = [await testDatabase.connect('loglineos_app'), await testDatabase.connect('loglineos_app')];
    await a.query(APPEND, [JSON.stringify([newSpan()])]);
    await b.query(APPEND, [JSON.stringify([newSpan()])]);
    const start = await settledEnd();
    const [fromB, fromA] = [newSpan(), newSpan()];
    await b.query(APPEND, [JSON.stringify([fromB])]);
    await waitFor(fromB.id);
    const first = await readTimeline(database, ALICE, start, 10);
    expect(first.spans.map(({ id }) => id)).toEqual([fromB.id]);
    await a.query(APPEND, [JSON.stringify([fromA])]);
    await waitFor(fromA.id);
    const second = await readTimeline(database, ALICE, first.position, 10);
    expect(second.spans.map(({ id }) => id)).toEqual([fromA.id]);
    expect(second.spans[0]?.position).toBeLessThan(first.spans[0]?.position as number);
    await admin.query(`alter sequence ledger.universal_registry_position_seq cache 1`);
  });
});

describe('eight writers with random delays and one reader that is killed and resumed', () => {
  const WRITERS = 8;
  const TRANSACTIONS = 30;

  it('miss nothing, see nothing twice, and agree on one order', async () => {
    const start = await settledEnd();
    const committed = new Set<string>();
    let isWriting = true;
    const writing = Promise.all(Array.from({ length: WRITERS }, (_, i) => write(i, committed))).finally(() => {
      isWriting = false;
    });

    const seen: string[] = [];
    let kills = 0;
    let after = start;
    const admin = await testDatabase.connect('admin');
    for (;;) {
      const wasWriting = isWriting;
      const reader = new Database({ url: testDatabase.urls.loglineos_app, applicationName: 'reader' });
      const isKilled = Math.random() < 0.3;
      try {
        const reading = readTimeline(reader, ALICE, after, 1 + Math.floor(Math.random() * 20));
        if (isKilled)
          await Promise.all([
            reading,
            admin.query(`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'reader'`),
          ]);
        const { spans, position } = await reading;
        // What a reader notes down it notes down together with its cursor; a reader that dies before has read nothing.
        if (isKilled && Math.random() < 0.5) throw new Error('killed before it noted anything down');
        seen.push(...spans.map(({ id }) => id));
        after = position;
        if (spans.length === 0) {
          if (!wasWriting && seen.length >= committed.size) break;
          await sleep(2);
        }
      } catch {
        kills++;
      } finally {
        await reader.close();
      }
    }
    await writing;

    expect(kills).toBeGreaterThan(0);
    expect(seen).toHaveLength(committed.size);
    expect(new Set(seen)).toEqual(committed);
    expect(await readAfter(start)).toEqual(seen);
    // The writers did what this test is about: some committed in another order than they drew their position.
    const { rows } = await admin.query<{ swapped: number }>(`
      select count(*)::int as swapped from (
        select position < lag(position) over (order by tx_id, position) as is_swapped from ledger.universal_registry
      ) ordered where is_swapped`);
    expect(rows[0]?.swapped).toBeGreaterThan(0);
  });

  async function write(seed: number, committed: Set<string>): Promise<void> {
    const client = new pg.Client(testDatabase.urls.loglineos_app);
    await client.connect();
    try {
      for (let i = 0; i < TRANSACTIONS; i++) {
        const ids: string[] = [];
        await client.query('begin');
        // Its transaction number now, its positions later: other writers draw theirs in between.
        if (i % 2 === seed % 2) await client.query('select pg_current_xact_id()');
        for (let n = 1 + Math.floor(Math.random() * 3); n > 0; n--) {
          const span = sealSpan(hashable({ id: randomUUID(), metadata: { seed, i } }), runtimeSigner);
          await client.query('select pg_sleep($1)', [Math.random() * 0.01]);
          await client.query(APPEND, [JSON.stringify([span])]);
          ids.push(span.id);
        }
        await client.query('select pg_sleep($1)', [Math.random() * 0.02]);
        const isKept = Math.random() < 0.75;
        // Noted before the commit: a reader may see it before the answer has arrived here.
        if (isKept) for (const id of ids) committed.add(id);
        await client.query(isKept ? 'commit' : 'rollback');
      }
    } finally {
      await client.end();
    }
  }
});
