import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createApi } from '../../src/api/index.ts';
import { appendSpans, type SpanDraft } from '../../src/ledger/index.ts';
import { nodeEd25519 } from '../../src/span/ed25519-node.ts';
import { type AnyJson, Installation } from '../stage0/installation.ts';
import { trustedKeys } from '../support/keys.ts';
import { ALICE, contextOf, draft } from '../support/spans.ts';
import { asAlice, asBob, authenticatorOf, Caller, expectProblem } from './http.ts';

const VERSIONS = 1_500;

let installation: Installation;
let alice: Caller;
let bob: Caller;
/** A span of so many versions. */
let id: string;
/** Signatures that were checked since others last had their turn. */
let inTurn: string[] = [];
/** All such lists that were not empty. */
let turns: string[][] = [];
beforeAll(async () => {
  installation = await Installation.create();
  const scheme: typeof nodeEd25519 = {
    ...nodeEd25519,
    verify(...given) {
      inTurn.push(Buffer.from(given[0]).toString('hex'));
      return nodeEd25519.verify(...given);
    },
  };
  const app = createApi({
    stage0: installation.container({ scheme }),
    trustedKeys,
    authenticator: authenticatorOf((token) => (token === 'token-of-alice' ? ALICE : { userId: 'bob', tenantId: 'b' })),
  });
  [alice, bob] = [new Caller(app, asAlice), new Caller(app, asBob)];
  id = await append(Array.from({ length: VERSIONS }, () => ({})));
});
afterAll(() => installation?.close());

async function append(versions: Partial<SpanDraft>[]): Promise<string> {
  const made = randomUUID();
  for (let i = 0; i < versions.length; i += 500) {
    const drafts = versions.slice(i, i + 500).map((more) => draft({ id: made, ...more } as never));
    await appendSpans(installation.stage0.database, drafts, contextOf(ALICE));
  }
  return made;
}

/** All pages of a route, one after the other. */
async function pagesOf(path: string, query = ''): Promise<AnyJson[]> {
  const pages: AnyJson[] = [];
  for (let after = ''; ; ) {
    const page = await alice.get(`${path}?${query}${after}`);
    pages.push(page);
    if (page.next === null) return pages;
    after = `&after=${page.next}`;
  }
}

const seqs = (pages: AnyJson[]) => pages.flatMap(({ versions }) => versions.map(({ seq }: AnyJson) => seq));
const all = Array.from({ length: VERSIONS }, (_, i) => i);

describe.each(['versions', 'verify'])('GET /api/spans/{id}/%s of a span with many versions', (route) => {
  const path = () => `/api/spans/${id}/${route}`;

  it('answers them by pages, each once and in order', async () => {
    const pages = await pagesOf(path());
    expect(pages.map(({ versions, next }) => [versions.length, next])).toEqual([
      [1_000, 999],
      [500, null],
    ]);
    expect(seqs(pages)).toEqual(all);
    expect(pages.every((page) => page.id === id && page.ok !== false)).toBe(true);
    expect(seqs(await pagesOf(path(), 'limit=500'))).toEqual(all);
    expect((await pagesOf(path(), 'limit=500')).length).toBe(3); // no empty one at the end
  });

  it('goes on behind any version, and beyond the last there is nothing', async () => {
    const one = await alice.get(`${path()}?after=17&limit=1`);
    expect([seqs([one]), one.next]).toEqual([[18], 18]);
    for (const after of [VERSIONS - 1, VERSIONS, 2 ** 31 - 1])
      expect(await alice.get(`${path()}?after=${after}`)).toMatchObject({ id, versions: [], next: null });
  });

  it.each(['after=-1', 'after=', 'after=1.5', 'after=00', `after=${2 ** 31}`, 'after=1&after=2', 'after=end'])(
    'refuses ?%s',
    async (query) => {
      await expectProblem(alice.request(`${path()}?${query}`), 400, 'FIELD_INVALID', 'after');
    },
  );

  it('refuses more than a page, and what it does not know', async () => {
    await expectProblem(alice.request(`${path()}?limit=1001`), 400, 'FIELD_INVALID', 'limit');
    await expectProblem(alice.request(`${path()}?before=1`), 400, 'FIELD_UNKNOWN', 'before');
  });

  it('tells who may not see it nothing, wherever he begins', async () => {
    for (const query of ['', '?after=0', `?after=${VERSIONS}`])
      await expectProblem(bob.request(`${path()}${query}`), 404, 'SPAN_NOT_FOUND', 'id');
  });

  it('ends a page after some megabytes', async () => {
    const content = { text: 'x'.repeat(900_000) } as never;
    const large = await append(Array.from({ length: 14 }, () => ({ content })));
    const pages = await pagesOf(`/api/spans/${large}/${route}`);
    expect(seqs(pages)).toEqual(Array.from({ length: 14 }, (_, i) => i));
    expect(pages.length).toBeGreaterThan(1);
    expect(Math.max(...pages.map(({ versions }) => versions.length))).toBeLessThan(12);
  });

  it('goes on behind a version that fills a page by itself', async () => {
    const content = { numbers: Array(15_000).fill(1e-300) } as never; // 300 characters each, where Postgres writes them
    const large = await append([{ content }, { content }, {}]);
    const first = await alice.get(`/api/spans/${large}/${route}`);
    const second = await alice.get(`/api/spans/${large}/${route}?after=0`);
    const third = await alice.get(`/api/spans/${large}/${route}?after=1`);
    expect([first, second, third].map((page) => [seqs([page]), page.next])).toEqual([
      [[0], 0],
      [[1], 1],
      [[2], null],
    ]);
  });
});

describe('a proof by pages', () => {
  /** What is proved while others take their turns as often as they get them. */
  async function turnsOf(run: () => Promise<unknown>): Promise<string[][]> {
    let isOver = false;
    turns = [];
    const others = (async () => {
      while (!isOver) {
        inTurn = [];
        await new Promise((resolve) => setImmediate(resolve));
        if (inTurn.length > 0) turns.push(inTurn);
      }
    })();
    await run();
    isOver = true;
    await others;
    return turns;
  }

  it('lets others have their turn between the versions', async () => {
    const found = await turnsOf(() => alice.get(`/api/spans/${id}/verify`));
    expect(found.flat()).toHaveLength(1_000);
    expect(Math.max(...found.map(({ length }) => length))).toBeLessThan(500);
  });

  it('is one of two at a time, however many are asked for at once', async () => {
    const { versions } = await alice.get(`/api/spans/${id}/versions`);
    const pageOf = new Map<string, number>(
      versions.map(({ signature, seq }: AnyJson) => [signature, Math.floor((seq - 1) / 80)]),
    );
    const found = await turnsOf(() =>
      Promise.all(Array.from({ length: 12 }, (_, i) => alice.get(`/api/spans/${id}/verify?after=${i * 80}&limit=80`))),
    );
    expect(found.flat()).toHaveLength(12 * 80);
    const pages = found.map((signatures) => new Set(signatures.map((signature) => pageOf.get(signature))).size);
    expect(Math.max(...pages)).toBeLessThanOrEqual(2);
  });

  it('links the first version of a page to the last of the page before', async () => {
    const forged = await append([{}, {}, {}, {}]);
    const sql = `update ledger.universal_registry set prev_hash = repeat('a', 64) where id = $1 and seq = 2`;
    await installation.tamper(sql, [forged]);
    const pages = await pagesOf(`/api/spans/${forged}/verify`, 'limit=2');
    expect(pages.map(({ ok }) => ok)).toEqual([true, false]);
    expect(pages[1].problems.map(({ seq, class: its }: AnyJson) => [seq, its])).toContainEqual([2, 'chain']);
  });

  it('finds what is missing at the seam of two pages', async () => {
    const cut = await append([{}, {}, {}, {}]);
    await installation.tamper('delete from ledger.universal_registry where id = $1 and seq = 1', [cut]);
    const [first, second] = await pagesOf(`/api/spans/${cut}/verify`, 'limit=1');
    expect([first.ok, first.next]).toEqual([true, 0]);
    expect(second).toMatchObject({
      ok: false,
      versions: [{ seq: 2, ok: true }],
      problems: [{ seq: 1, class: 'missing' }],
    });
  });
});
