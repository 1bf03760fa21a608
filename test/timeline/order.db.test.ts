import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse } from '../../src/api/openapi.ts';
import { StreamQuerySchema } from '../../src/api/schemas.ts';
import { filterOf } from '../../src/api/spans.ts';
import { Fields } from '../../src/fields.ts';
import {
  type Identity,
  listenForTimeline,
  readTimeline,
  type SpanFilter,
  TIMELINE_START,
} from '../../src/ledger/index.ts';
import { type SealedSpan, type StoredSpan, sealSpan } from '../../src/span/index.ts';
import { matchesFilter, readFilter } from '../../src/timeline/filter.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { runtimeSigner } from '../support/keys.ts';
import { ALAN, ALICE, BOB, hashable } from '../support/spans.ts';
import { LiveServer, named, SseClient, until, WsClient } from './live-server.ts';

let ledger: TestDatabase;
let server: LiveServer;
beforeAll(async () => {
  ledger = await createTestDatabase();
  server = await LiveServer.start(ledger);
});
afterAll(async () => {
  await server?.stop();
  await ledger?.close();
});

/** All that is settled, as one identity sees it. */
async function readAll(identity: Identity, database = ledger.open('loglineos_app')): Promise<StoredSpan[]> {
  const all: StoredSpan[] = [];
  for (let after = TIMELINE_START; ; ) {
    const { spans, position } = await readTimeline(database, identity, after, 1_000);
    if (spans.length === 0) return all;
    all.push(...spans);
    after = position;
  }
}

function sealed(name: string, identity: Identity, visibility: 'private' | 'tenant'): SealedSpan {
  return sealSpan(hashable({ name, visibility }, identity), runtimeSigner);
}

/** How long eight write while fifty watch. */
const WRITING_S = Number(process.env.LOGLINEOS_WRITING_S ?? 8);

const APPEND = 'select ledger.append($1, $2, $3)';

/** A writer whose transactions last as long as they like, so that they commit in another order than they began. */
async function write(identity: Identity, label: string, until: number): Promise<void> {
  const client = await ledger.connect('loglineos_app');
  for (let n = 0; performance.now() < until; n++) {
    await client.query('begin');
    for (let i = 0; i <= n % 3; i++) {
      const span = sealed(`${label}-${n}-${i}`, identity, n % 2 === 0 ? 'private' : 'tenant');
      await client.query(APPEND, [identity.userId, identity.tenantId, JSON.stringify([span])]);
      await sleep(Math.random() * 15);
    }
    await client.query(n % 11 === 10 ? 'rollback' : 'commit');
    await sleep(Math.random() * 40);
  }
}

describe('fifty subscribers that drop and come again while eight write', () => {
  it(`each see every span that they may see once, all in one order: ${WRITING_S} s`, {
    timeout: 60_000 + WRITING_S * 2_000,
  }, async () => {
    const writers: Identity[] = [ALICE, ALICE, ALICE, ALAN, ALAN, BOB, BOB, BOB];
    const endOfWriting = performance.now() + WRITING_S * 1_000;
    const writing = Promise.all(writers.map((who, i) => write(who, `writer${i}`, endOfWriting)));
    const watchers = Array.from({ length: 50 }, (_, i) => [ALICE, ALAN, BOB][i % 3] as Identity);
    let isWritten = false;
    let drops = 0;
    const seen = watchers.map(async (identity, i) => {
      const token = server.tokens.give(identity);
      const positions: string[] = [];
      const ids: string[] = [];
      const take = (client: SseClient | WsClient) => {
        for (const span of client.spans) {
          positions.push(span.position);
          ids.push(span.id);
        }
      };
      while (!isWritten) {
        const client = await openAfter(i % 2 === 0 ? SseClient : WsClient, token, positions.at(-1));
        const stays = performance.now() + Math.random() * 1_500;
        while (performance.now() < stays && !isWritten) await sleep(20);
        client.close();
        take(client);
        drops += 1;
      }
      const last = await openAfter(SseClient, token, positions.at(-1));
      await last.other('caught_up', 30_000); // all fifty come at once
      await sleep(300);
      take(last);
      last.close();
      return { positions, ids, identity };
    });
    await writing;
    await sleep(200);
    isWritten = true;
    const results = await Promise.all(seen);
    for (const { positions, ids, identity } of results) {
      expect(positions).toEqual([...positions].sort());
      expect(ids).toEqual((await readAll(identity)).map(({ id }) => id));
    }
    expect(results[0]?.ids.length).toBeGreaterThan(100);
    expect(drops).toBeGreaterThan(100);
    expect(server.logged).toEqual([]);
  });

  async function openAfter(kind: typeof SseClient | typeof WsClient, token: string, after: string | undefined) {
    if (kind === SseClient)
      return SseClient.open(server, token, '', after === undefined ? {} : { 'Last-Event-ID': after });
    const client = await WsClient.open(server, token);
    client.say({ action: 'subscribe', ...(after === undefined ? {} : { after }) });
    return client;
  }
});

describe('new spans', () => {
  it('are read once for all who watch as the same identity', async () => {
    const token = server.tokens.give(ALICE);
    const clients = await Promise.all(Array.from({ length: 40 }, () => SseClient.open(server, token, '?after=end')));
    for (const client of clients) await client.other('caught_up');
    await sleep(1_500); // what came before is read
    const before = server.database.transactions;
    await server.append([named('read once')], ALICE);
    for (const client of clients) await until(() => client.names.includes('read once'), 'the span');
    await sleep(500);
    // Once, and once more to see that there is nothing else; other tests' transactions may split that.
    expect(server.database.transactions - before).toBeLessThanOrEqual(4);
    for (const client of clients) client.close();
  });

  it('are not missed when they settle between the last read of who catches up and the first look', async () => {
    const live = await LiveServer.start(ledger);
    let reads = 0;
    live.database.afterTransaction = async () => {
      reads += 1;
      if (reads !== 2) return; // the end was read, and what comes after it
      await live.append([named('in between')], ALICE);
      while (!(await readAll(ALICE)).some(({ name }) => name === 'in between')) await sleep(5);
    };
    const client = await SseClient.open(live, live.tokens.give(ALICE), '?after=end');
    await until(() => client.spans.length > 0, 'the span');
    expect(client.names).toEqual(['in between']);
    await live.stop();
  });

  it('come all, however many and large they are', async () => {
    const client = await SseClient.open(server, server.tokens.give(ALICE), '?after=end');
    await client.other('caught_up');
    const many = Array.from({ length: 1_000 }, (_, i) => `many-${i}`);
    await server.append(
      many.map((name) => named(name)),
      ALICE,
    );
    const large = Array.from({ length: 40 }, (_, i) => `large-${i}`);
    for (let i = 0; i < large.length; i += 20) {
      const content = { text: 'x'.repeat(700_000) } as never;
      await server.append(
        large.slice(i, i + 20).map((name) => named(name, { content })),
        ALICE,
      );
    }
    await until(() => client.names.length >= 1_040, 'all');
    expect(client.names).toEqual([...many, ...large]);
    client.close();
  });

  it('come when nobody tells of them, too', async () => {
    const deaf = await LiveServer.start(ledger, { listens: false });
    const client = await SseClient.open(deaf, deaf.tokens.give(ALICE), '?after=end');
    await client.other('caught_up');
    await sleep(2_000); // it looks once a second now
    await deaf.append([named('unannounced')], ALICE);
    const at = performance.now();
    await until(() => client.names.includes('unannounced'), 'the span');
    expect(performance.now() - at).toBeLessThan(1_300);
    await deaf.stop();
  });

  it('come at once after a silence, also when the connection that listens was cut before', async () => {
    const token = server.tokens.give(ALICE);
    const client = await SseClient.open(server, token, '?after=end');
    await client.other('caught_up');
    const lags: number[] = [];
    for (let i = 0; i < 4; i++) {
      await sleep(1_600 + i * 150); // long enough to sleep
      const at = performance.now();
      await server.append([named(`after silence ${i}`)], ALICE);
      await until(() => client.names.includes(`after silence ${i}`), 'the span');
      lags.push(performance.now() - at);
    }
    expect(lags.toSorted((a, b) => a - b)[1]).toBeLessThan(200); // a second is what looking alone takes

    const admin = await ledger.connect('admin');
    const cut = `select pg_terminate_backend(pid) from pg_stat_activity
                  where application_name = 'loglineos-listen' and datname = current_database()`;
    expect((await admin.query(cut)).rowCount).toBeGreaterThan(0);
    await sleep(1_600);
    const at = performance.now();
    await server.append([named('after the cut')], ALICE);
    await until(() => client.names.includes('after the cut'), 'the span');
    expect(performance.now() - at).toBeLessThan(1_300);
    client.close();
  });

  it('wait for a transaction that began before them, and then come in the order of the timeline', async () => {
    const client = await SseClient.open(server, server.tokens.give(ALICE), '?after=end');
    await client.other('caught_up');
    const slow = await ledger.connect('loglineos_app');
    const early = sealed('early', ALICE, 'private');
    await slow.query('begin');
    await slow.query(APPEND, ['alice', 'acme', JSON.stringify([early])]);
    await server.append([named('late')], ALICE);
    await sleep(1_200); // beyond what a reader sleeps
    expect(client.names).toEqual([]);
    await slow.query('commit');
    await until(() => client.spans.length === 2, 'both', 500);
    expect(client.names).toEqual(['early', 'late']);
    client.close();
  });

  it('come to who names a place that never was, and to those beside him', async () => {
    const lost = await SseClient.open(server, server.tokens.give(ALICE), '?after=ffffffffffffffff7fffffffffffffff');
    await lost.other('caught_up');
    const client = await SseClient.open(server, server.tokens.give(ALICE), '?after=end');
    await client.other('caught_up');
    await server.append([named('beyond')], ALICE);
    await until(() => lost.spans.length + client.spans.length === 2, 'each its span');
    for (const each of [lost, client]) {
      expect(each.names).toEqual(['beyond']);
      each.close();
    }
  });

  it('make appends notify only while somebody sleeps over the timeline', async () => {
    const quiet = await createTestDatabase();
    const live = await LiveServer.start(quiet);
    let rings = 0;
    const stop = listenForTimeline({ url: quiet.urls.loglineos_app }, () => {
      rings += 1;
    });
    await until(() => rings === 1, 'to listen'); // said once when it listens
    await live.append([named('unwatched')], ALICE);
    const client = await SseClient.open(live, live.tokens.give(ALICE));
    await client.other('caught_up');
    for (let i = 0; i < 20; i++) await live.append([named(`busy ${i}`)], ALICE);
    await until(() => client.names.includes('busy 19'), 'the last');
    expect(rings).toBe(1);
    await sleep(2_000);
    await live.append([named('after a silence')], ALICE);
    await until(() => rings === 2, 'the bell');
    client.close();
    await sleep(1_500);
    const { rows } = await (await quiet.connect('admin')).query('select from ledger.timeline_bell');
    expect(rows).toHaveLength(0);
    await stop();
    await live.stop();
    await quiet.close();
  });
});

describe('catching up', () => {
  it('waits for no more than a turn of each other tenant, however many of them catch up and how far', async () => {
    const shared = await createTestDatabase();
    const live = await LiveServer.start(shared);
    const many = Array.from({ length: 1_000 }, (_, i) => named(`long ${i}`));
    for (let i = 0; i < 3; i++) await live.append(many, ALICE);
    await live.append(
      Array.from({ length: 5 }, () => named('short')),
      BOB,
    );
    // All begin at the start: sixty of hers, each with some turns to wait for, and one of his.
    const hers = await WsClient.open(live, live.tokens.give(ALICE));
    const others = await Promise.all([2, 3].map(() => WsClient.open(live, live.tokens.give(ALICE))));
    for (const client of [hers, ...others])
      for (let i = 0; i < 20; i++) client.say({ action: 'subscribe', id: `${i}`, filter: { name: `long ${i}` } });
    await until(() => live.database.tenants.length > 40, 'reads of hers');
    const his = await WsClient.open(live, live.tokens.give(BOB));
    const before = live.database.tenants.length;
    await his.subscribe();
    const since = live.database.tenants.slice(before);
    const [her, him] = [ALICE, BOB].map(({ tenantId }) => since.filter((tenant) => tenant === tenantId).length);
    expect(his.names).toEqual(Array(5).fill('short'));
    // A turn is two reads at first: where the end is, and what is there.
    expect(him).toBeGreaterThan(1);
    expect(her).toBeLessThan(30);
    expect(hers.others.filter(({ type }) => type === 'caught_up').length).toBeLessThan(20); // they still were at it
    for (const client of [hers, his, ...others]) client.close();
    await live.stop();
    await shared.close();
  });
});

describe('a filter', () => {
  const instants = ['2026-11-23T09:59:59.999Z', '2026-11-23T10:00:00.000Z', '2026-11-23T10:00:00.001Z'];
  const ids = ['7d9f3c52-5a0e-4b6d-9a53-0c1f6f0a2b11', 'b2c1a9e4-6f1d-4a57-8a60-2f6f5d1c9e22'];
  const maybe = <T>(...values: T[]) => fc.constantFrom(undefined, ...values);
  const filters: fc.Arbitrary<SpanFilter> = fc.record({
    entity_type: maybe('note', 'task'),
    status: maybe('on', 'On', 'ö', 'o\u0308'),
    name: maybe('a', 'a ', ''),
    parent_id: maybe(...ids),
    caused_by: maybe(...ids),
    trace_id: maybe('t1', 't2'),
    owner_id: maybe('alice', 'alan'),
    visibility: maybe('private', 'tenant'),
    from: maybe(...instants),
    to: maybe(...instants),
  });

  it('lets through here what it lets through in the database', { timeout: 60_000 }, async () => {
    const small = await createTestDatabase();
    const database = small.open('loglineos_app');
    const spans = fc.sample(fc.record({ filter: filters, at: fc.constantFrom(...instants) }), {
      numRuns: 400,
      seed: 7,
    });
    for (const identity of [ALICE, ALAN]) {
      const rows = spans
        .filter((_, i) => i % 2 === (identity === ALICE ? 0 : 1))
        .map(({ filter: { owner_id: _owner, from: _from, to: _to, ...columns }, at }) =>
          sealSpan(hashable({ ...JSON.parse(JSON.stringify(columns)), at }, identity), runtimeSigner),
        );
      await database.query({ text: APPEND, values: [identity.userId, identity.tenantId, JSON.stringify(rows)] });
    }
    await sleep(300);
    const all = await readAll(ALICE, database);
    let matched = 0;
    for (const filter of fc.sample(filters, { numRuns: 300, seed: 8 })) {
      const few = Object.fromEntries(Object.entries(filter).filter((_, i) => (matched + i) % 3 === 0)) as SpanFilter;
      for (const each of [filter, few]) {
        const found: StoredSpan[] = [];
        for (let after = TIMELINE_START; ; ) {
          const page = await readTimeline(database, ALICE, after, 1_000, each);
          found.push(...page.spans);
          if (page.position === after) break;
          after = page.position;
        }
        expect(all.filter((span) => matchesFilter(each, span)).map(({ id }) => id)).toEqual(found.map(({ id }) => id));
        matched += found.length;
      }
    }
    expect(matched).toBeGreaterThan(1_000);
    await small.close();
  });

  it('is read alike from a query and from a message', () => {
    const texts = ['', 'x', 'x'.repeat(200), 'x'.repeat(201), 'a\0', '\ud800', 'ö'];
    const uuids = ['7D9F3C52-5A0E-4B6D-9A53-0C1F6F0A2B11', 'x', ''];
    const times = ['2026-01-31T12:00:00Z', '2026-01-31T12:00+01:00', '2026-02-31T12:00:00Z', '2026-01-31', 'now', ''];
    const fields = {
      ...Object.fromEntries(['entity_type', 'status', 'name', 'trace_id', 'owner'].map((name) => [name, texts])),
      ...Object.fromEntries(['parent_id', 'caused_by'].map((name) => [name, uuids])),
      ...Object.fromEntries(['from', 'to'].map((name) => [name, times])),
      visibility: ['private', 'tenant', 'public', 'secret', ''],
      colour: ['red'],
    };
    const outcome = (read: () => SpanFilter) => {
      try {
        return JSON.stringify(Object.entries(JSON.parse(JSON.stringify(read()))).sort());
      } catch (error) {
        return (error as { code: string }).code;
      }
    };
    for (const [name, values] of Object.entries(fields)) {
      for (const value of values) {
        const said = { [name]: value };
        const ofMessage = outcome(() => {
          const given = new Fields(said, 'filter');
          const filter = readFilter(given);
          given.end();
          return filter;
        });
        const { after: _after, ticket: _ticket, ...none } = {} as { after?: string; ticket?: string };
        expect([said, ofMessage]).toEqual([
          said,
          outcome(() => filterOf({ ...none, ...parse(StreamQuerySchema, said) })),
        ]);
      }
    }
  });
});
