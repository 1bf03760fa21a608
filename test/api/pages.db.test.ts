import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  appendSpans,
  type Database,
  type Identity,
  listSpans,
  readTimeline,
  readTimelineEnd,
  TIMELINE_START,
} from '../../src/ledger/index.ts';
import { type AnyJson, Installation } from '../stage0/installation.ts';
import { ALICE, BOB, contextOf, draft } from '../support/spans.ts';
import { asAlice, Caller, openApi } from './http.ts';

let installation: Installation;
let alice: Caller;
beforeAll(async () => {
  installation = await Installation.create();
  await installation.seed();
  alice = new Caller(openApi(installation), asAlice);
});
afterAll(() => installation?.close());

const MB = 1024 * 1024;
/** What a Lambda function may answer. */
const LAMBDA_ANSWER_MAX = 6 * MB;

/** All pages of a list, each with its ids, from the newest on; none may be longer than it should. */
async function pagesOf(path: string, items: 'spans' | 'requests'): Promise<string[][]> {
  const pages: string[][] = [];
  for (let before: string | null = ''; before !== null; ) {
    const page: AnyJson = await alice.get(`${path}&limit=1000${before === '' ? '' : `&before=${before}`}`);
    pages.push(page[items].map(({ id }: AnyJson) => id));
    expect(JSON.stringify(page).length).toBeLessThan(LAMBDA_ANSWER_MAX);
    expect(pages.length).toBeLessThan(10);
    before = page.before;
  }
  return pages;
}

describe('pages of large spans', () => {
  // Text that compresses well: what counts is what is read, not what is stored.
  const text = 'x'.repeat(0.9 * MB);
  let ids: string[];
  beforeAll(async () => {
    ids = [];
    for (let i = 0; i < 20; i++) {
      const large = draft({ entity_type: 'large', name: i % 2 === 0 ? 'even' : 'odd', content: { text } });
      const [appended] = await appendSpans(installation.stage0.database, [large], contextOf(ALICE));
      ids.push(appended?.id as string);
    }
  });

  it('end after 4 MB, and the list goes on where they end', async () => {
    const pages = await pagesOf('/api/spans?entity_type=large', 'spans');
    expect(pages.map((page) => page.length)).toEqual([5, 5, 5, 5]);
    expect(pages.flat()).toEqual(ids.toReversed());
  });

  it.each([
    ['', () => ids],
    ['&name=even', () => ids.filter((_id, i) => i % 2 === 0)],
  ])('end after 4 MB in the timeline too%s', async (filter, expected) => {
    const found: string[] = [];
    let after = TIMELINE_START;
    for (let tries = 0; found.length < expected().length && tries < 500; tries++) {
      const page: AnyJson = await alice.get(`/api/timeline?after=${after}&limit=1000${filter}`);
      expect(JSON.stringify(page).length).toBeLessThan(LAMBDA_ANSWER_MAX);
      found.push(
        ...page.spans.filter((span: AnyJson) => span.entity_type === 'large').map(({ id }: AnyJson) => id as string),
      );
      after = page.position;
      // What was just appended settles when no older transaction of the server is open, in whatever database.
      if (page.spans.length === 0) await sleep(20);
    }
    expect(found).toEqual(expected());
  });

  it('hold one span at least, as the last of them does', async () => {
    const [one] = await pagesOf(`/api/spans?entity_type=large&name=odd`, 'spans');
    expect(one).toHaveLength(5);
    const page: AnyJson = await alice.get('/api/spans?entity_type=large&limit=1');
    expect(page.spans.map(({ id }: AnyJson) => id)).toEqual([ids.at(-1)]);
  });

  it.each(['state=ready', 'function_id='])('end after 4 MB of requests, found by %s', async (how) => {
    const fn = await alice.post('/api/spans', { entity_type: 'function', name: how, code: 'return 1' }, 201);
    const requests: string[] = [];
    for (let i = 0; i < 12; i++) {
      requests.push((await alice.post('/api/execute', { span_id: fn.id, input: text }, 202)).request_id);
    }
    const query = how === 'function_id=' ? how + fn.id : `${how}&function_id=${fn.id}`;
    const pages = await pagesOf(`/api/requests?${query}`, 'requests');
    expect(pages.map((page) => page.length)).toEqual([5, 5, 2]);
    expect(pages.flat()).toEqual(requests.toReversed());
  });
});

describe("beside another tenant's many spans", () => {
  const COUNT = 20_000;
  let database: Database;
  beforeAll(async () => {
    await appendSpans(installation.stage0.database, [draft({ name: 'before' })], contextOf(ALICE));
    await installation.admin.query('alter table ledger.universal_registry disable trigger all');
    await installation.admin.query(
      `insert into ledger.universal_registry
              (id, seq, entity_type, who, at, owner_id, tenant_id, visibility, curr_hash, signature, public_key)
       select gen_random_uuid(), 0, 'note', $1, now(), $1, $2, 'tenant', 'h', 's', 'k' from generate_series(1, $3)`,
      [BOB.userId, BOB.tenantId, COUNT],
    );
    await installation.admin.query('alter table ledger.universal_registry enable trigger all');
    await installation.admin.query('analyze ledger.universal_registry');
    await appendSpans(installation.stage0.database, [draft({ name: 'after' })], contextOf(ALICE));
    database = installation.ledger.open('loglineos_app', { connectionsMax: 1 });
  });

  /** Rows of the registry that the one connection has read since the last time, as Postgres counts them. */
  async function rowsRead(): Promise<number> {
    await database.query({ text: 'select pg_stat_force_next_flush()' });
    const [counted] = await database.query<{ rows: number }>({
      text: `select coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) as rows
               from pg_stat_all_tables where relid = 'ledger.universal_registry'::regclass`,
    });
    return counted?.rows as number;
  }

  it.each<[string, (identity: Identity) => Promise<unknown>]>([
    ['the list', (identity) => listSpans(database, identity, {}, null, 1_000)],
    ['a filtered list', (identity) => listSpans(database, identity, { name: 'after' }, null, 1_000)],
    ['the timeline', (identity) => readTimeline(database, identity, TIMELINE_START, 1_000)],
    ['a filtered timeline', (identity) => readTimeline(database, identity, TIMELINE_START, 1_000, { name: 'after' })],
    ['the end of the timeline', (identity) => readTimelineEnd(database, identity)],
  ])('%s reads none of them', async (_what, read) => {
    const before = await rowsRead();
    await read(ALICE);
    const of = (await rowsRead()) - before;
    expect(of).toBeGreaterThan(0);
    expect(of).toBeLessThan(COUNT / 10);
    await read({ userId: 'somebody', tenantId: 'new' });
    expect((await rowsRead()) - before - of).toBeLessThan(COUNT / 10);
  });

  it('both of ours are found, and what is public, once', async () => {
    const own = await listSpans(database, ALICE, { entity_type: 'note' }, null, 1_000);
    expect(own.spans.map(({ name }) => name)).toEqual(['after', 'before']);
    const kernels = async (identity: Identity) =>
      (await listSpans(database, identity, { entity_type: 'function', owner_id: 'system' }, null, 1_000)).spans.map(
        ({ name }) => name,
      );
    const seen = await kernels(ALICE);
    expect(seen).toContain('run_code_kernel');
    expect(new Set(seen).size).toBe(seen.length);
    expect(await kernels({ userId: 'system', tenantId: 'system' })).toEqual(seen);
  });
});
