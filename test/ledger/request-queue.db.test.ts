import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { ConflictError, InputError } from '../../src/errors.ts';
import {
  appendOnce,
  appendSpans,
  type ClaimedRequest,
  claimRequests,
  closeRequests,
  type Database,
  extendLeases,
  type Identity,
  lockRequests,
  type QueueLimits,
  rebuildDerived,
  releaseRequests,
  type SpanDraft,
} from '../../src/ledger/index.ts';
import { type HashableSpan, type SealedSpan, type StoredSpan, sealSpan } from '../../src/span/index.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { ALAN, ALICE, BOB, contextOf, hashable, nextVersion, OTHER_ALICE } from '../support/spans.ts';

const FUNCTION = randomUUID();
const LEASE_MS = 10_000;
const NO_LIMITS: QueueLimits = { daily: 1_000_000, concurrency: 1_000_000, tenants: {} };

let testDatabase: TestDatabase | undefined;
let database: Database;
let admin: Database;
async function openDatabase(): Promise<void> {
  await testDatabase?.close();
  testDatabase = await createTestDatabase();
  database = testDatabase.open('loglineos_app', { connectionsMax: 12 });
  admin = testDatabase.open('admin');
}
beforeAll(openDatabase);
afterAll(() => testDatabase?.close());
beforeEach(async () => {
  await admin.query({ text: 'delete from ledger.request_queue' });
  await admin.query({ text: 'delete from ledger.daily_usage' });
});

interface Place {
  request_id: string;
  tenant_id: string;
  state: string;
  takeovers: number;
  leased_until: Date | null;
}

const draft = (more: Partial<SpanDraft> = {}): SpanDraft =>
  ({ entity_type: 'request', parent_id: FUNCTION, status: 'scheduled', ...more }) as SpanDraft;

/** Requests in the order of the drafts. */
async function request(drafts: Partial<SpanDraft>[], identity: Identity = ALICE): Promise<string[]> {
  const whole = drafts.map((more) => draft({ id: randomUUID(), seq: 0, ...more }));
  const context = { ...contextOf(identity), now: () => new Date() };
  return (await appendSpans(database, whole, context)).map(({ id }) => id);
}

const many = (count: number): Partial<SpanDraft>[] => Array.from({ length: count }, () => ({}));

function claim(
  limit: number,
  more: { now?: Date; reserve?: number; limits?: Partial<QueueLimits> } = {},
): Promise<ClaimedRequest[]> {
  const { now = new Date(), reserve = 0, limits } = more;
  return claimRequests(database, { now, limit, reserve, leaseMs: LEASE_MS, limits: { ...NO_LIMITS, ...limits } });
}

const idsOf = (claims: ClaimedRequest[]) => claims.map(({ request: { id } }) => id);
const claimsOf = (claims: ClaimedRequest[]) => claims.map(({ request: { id }, fence }) => ({ requestId: id, fence }));
const later = (ms: number) => new Date(Date.now() + ms);

function version({ request: { position, tx_id, ...before } }: ClaimedRequest, more: object): SealedSpan {
  return nextVersion(before as SealedSpan, more);
}

function close(claims: ClaimedRequest[], more: object = { status: 'complete' }, identity = ALICE): Promise<string[]> {
  const rows = claims.map((one) => JSON.stringify(version(one, more)));
  return closeRequests(database, identity, claimsOf(claims), rows);
}

const places = (): Promise<Place[]> =>
  admin.query({ text: 'select * from ledger.request_queue order by position' }) as Promise<unknown> as Promise<Place[]>;

/** As if their workers had not been heard of for the time of a lease. */
async function expire(claims?: ClaimedRequest[]): Promise<void> {
  const text = `update ledger.request_queue set leased_until = clock_timestamp()
                 where state = 'leased' and ($1::uuid[] is null or request_id = any($1))`;
  await admin.query({ text, values: [claims === undefined ? null : idsOf(claims)] });
}

async function leasedForMs(): Promise<number> {
  const text = `select (extract(epoch from min(leased_until) - clock_timestamp()) * 1000)::float8 as ms
                  from ledger.request_queue where state = 'leased'`;
  return (await admin.query<{ ms: number }>({ text }))[0]?.ms as number;
}

async function statesOf(): Promise<string[]> {
  return (await places()).map(({ state }) => state);
}

async function versions(id: string): Promise<StoredSpan[]> {
  const text = 'select * from ledger.universal_registry where id = $1 order by seq';
  return (await admin.query({ text, values: [id] })) as unknown as StoredSpan[];
}

async function usage(tenantId: string): Promise<number> {
  const text = 'select coalesce(sum(executions), 0)::int as n from ledger.daily_usage where tenant_id = $1';
  return (await admin.query<{ n: number }>({ text, values: [tenantId] }))[0]?.n ?? 0;
}

describe('a claim', () => {
  it('takes what is due by priority, then first come, first served', async () => {
    const [first, urgent, second, low, alsoUrgent] = await request([
      {},
      { priority: 5 },
      {},
      { priority: -1 },
      { priority: 5 },
    ]);
    expect(idsOf(await claim(3))).toEqual([urgent, alsoUrgent, first]);
    expect(idsOf(await claim(10))).toEqual([second, low]);
    expect(await claim(10)).toEqual([]);
  });

  it('keeps the place of what failed, and gives a new one to what is redriven', async () => {
    const [a, b] = await request([{}, {}]);
    const claims = await claim(2);
    await close(claims.slice(0, 1), { status: 'error', scheduled_at: null });
    await close(claims.slice(1), { status: 'dead' });
    const [c] = await request([{}]);
    await appendSpans(database, [draft({ id: b as string })], contextOf());
    expect(idsOf(await claim(10))).toEqual([a, c, b]);
  });

  it('leaves what is not due', async () => {
    const due = later(60_000);
    const [id] = await request([{ scheduled_at: due.toISOString() }]);
    expect(await statesOf()).toEqual(['delayed']);
    expect(await claim(1)).toEqual([]);
    expect(await claim(1, { now: new Date(due.getTime() - 1) })).toEqual([]);
    expect(idsOf(await claim(1, { now: due }))).toEqual([id]);
  });

  it('lets nobody’s few that are due wait behind the many of another', async () => {
    const due = { scheduled_at: later(3_600_000).toISOString() };
    for (let i = 0; i < 3; i++) await request(Array(700).fill(due));
    const few = await request(Array(10).fill({ scheduled_at: later(3_601_000).toISOString() }), BOB);
    const claims = await claim(100, { now: later(3_602_000) });
    const bobs = idsOf(claims.filter(({ request: { tenant_id } }) => tenant_id === BOB.tenantId));
    expect(bobs.sort()).toEqual([...few].sort());
    const count = async (state: string) => (await statesOf()).filter((one) => one === state).length;
    expect(await count('delayed'), 'not all at once').toBeGreaterThan(1_000);
    await claim(1, { now: later(3_602_000) });
    await claim(1, { now: later(3_602_000) });
    expect(await count('delayed')).toBe(0);
  });

  it('takes no more than it can hold: about 8 MB, or one request', async () => {
    const input = 'x'.repeat(1_000_000);
    const large = await request(Array(12).fill({ input }));
    await request([{ input }, {}], BOB);
    const claims = await claim(100);
    const of = (tenantId: string) => claims.filter(({ request: { tenant_id } }) => tenant_id === tenantId).length;
    expect(of('acme') + of('bolt')).toBeGreaterThan(6);
    expect(of('acme')).toBeLessThanOrEqual(9);
    expect(of('bolt')).toBe(2);
    const rest = await claim(100);
    expect(of('acme') + rest.length).toBe(large.length);
  });

  it('draws a higher fence each time, and says how many workers were lost', async () => {
    await request([{}]);
    const [first] = await claim(1);
    expect(await claim(1)).toEqual([]);
    await expire();
    const [second] = await claim(1);
    expect(BigInt(second?.fence as string)).toBeGreaterThan(BigInt(first?.fence as string));
    expect([first?.takeovers, second?.takeovers]).toEqual([0, 1]);
  });

  it('holds for as long as its worker is heard of', async () => {
    await request([{}]);
    const claims = await claim(1);
    await expire();
    await extendLeases(database, claimsOf(claims), 5 * LEASE_MS);
    expect(await claim(1)).toEqual([]);
    expect(await leasedForMs()).toBeGreaterThan(5 * LEASE_MS - 2_000);
    await expire();
    expect(await claim(1)).toHaveLength(1);
    await extendLeases(database, claimsOf(claims), 100 * LEASE_MS);
    expect(await leasedForMs(), 'whoever lost it cannot keep it').toBeLessThanOrEqual(LEASE_MS);
  });

  it.each([-3_600_000, 3_600_000])('holds by the clock of the database, not that of a worker %i ms off', async (ms) => {
    await request([{ scheduled_at: later(-7_200_000).toISOString() }]);
    await claim(1, { now: later(ms) });
    const leasedFor = await leasedForMs();
    expect(leasedFor).toBeGreaterThan(LEASE_MS - 2_000);
    expect(leasedFor).toBeLessThanOrEqual(LEASE_MS);
    expect(await claim(1, { now: later(3_600_000) })).toEqual([]);
  });

  it('that is given back is there at once, and is nobody else’s fault', async () => {
    await request([{}]);
    const claims = await claim(1);
    await releaseRequests(database, claimsOf(claims));
    const again = await claim(1);
    expect(again.map(({ takeovers }) => takeovers)).toEqual([0]);
    await releaseRequests(database, claimsOf(claims));
    expect(await statesOf(), 'given back by whoever has lost it').toEqual(['leased']);
  });

  it('by eight at once gives each request to one of them', async () => {
    for (const identity of [ALICE, BOB]) await request(many(300), identity);
    const taken: string[] = [];
    const worker = async () => {
      for (;;) {
        const claims = await claim(17);
        if (claims.length === 0) return;
        taken.push(...idsOf(claims));
      }
    };
    await Promise.all(Array.from({ length: 8 }, worker));
    expect(taken).toHaveLength(600);
    expect(new Set(taken).size).toBe(600);
  });

  it('shares what it may take between the tenants, and asks those first of whom least is worked on', async () => {
    await request(many(50));
    await claim(10);
    await request(many(3), BOB);
    const tenants = (claims: ClaimedRequest[]) => claims.map(({ request: { tenant_id } }) => tenant_id);
    for (let look = 0; look < 8; look++) {
      const claims = await claim(1);
      expect(tenants(claims)).toEqual([BOB.tenantId]);
      await releaseRequests(database, claimsOf(claims));
    }
    await claim(1);
    expect(tenants(await claim(4)).sort()).toEqual(['acme', 'acme', 'bolt', 'bolt']);
    expect(tenants(await claim(40))).toHaveLength(38);
  });

  it('keeps a reserve for tenants of whom nothing is worked on yet', async () => {
    await request(many(50));
    expect(await claim(10, { reserve: 4 }), 'of nobody anything').toHaveLength(10);
    expect(await claim(10, { reserve: 4 })).toHaveLength(6);
    expect(await claim(4, { reserve: 4 })).toEqual([]);
    await request(many(3), BOB);
    const claims = await claim(4, { reserve: 4 });
    expect(claims.map(({ request: { tenant_id } }) => tenant_id)).toEqual([BOB.tenantId, BOB.tenantId]);
  });

  it('takes everything of one tenant where there is no other', async () => {
    await request(many(20));
    expect(await claim(20)).toHaveLength(20);
  });

  it('never takes more of a tenant than may be worked on at once, however many claim', async () => {
    await request(many(100));
    await request(many(100), BOB);
    const limits = { concurrency: 7, tenants: { bolt: { concurrency: 3 } } };
    const claims = (await Promise.all(Array.from({ length: 8 }, () => claim(50, { limits })))).flat();
    const acme = claims.filter(({ request: { tenant_id } }) => tenant_id === 'acme');
    expect([acme.length, claims.length - acme.length]).toEqual([7, 3]);
    await close(acme.slice(0, 2));
    expect(await claim(50, { limits })).toHaveLength(2);
  });

  it('passes over what its owner is changing at this moment', async () => {
    const [changing, other] = await request([{}, {}]);
    await database.transaction(ALICE, async (query) => {
      await lockRequests(query, [changing as string]);
      expect(idsOf(await claim(2))).toEqual([other]);
    });
  });
});

describe("a tenant's day", () => {
  it('is taken from as far as it goes; the others are claimed to be closed', async () => {
    await request(many(5));
    const claims = await claim(5, { limits: { daily: 3 } });
    expect(claims.map(({ isGranted, quota }) => [isGranted, quota.used, quota.limit])).toEqual([
      [true, 1, 3],
      [true, 2, 3],
      [true, 3, 3],
      [false, 3, 3],
      [false, 3, 3],
    ]);
    expect(await usage('acme')).toBe(3);
  });

  it('is taken from once for an attempt, whoever works on it, and again for the next', async () => {
    await request([{}]);
    await claim(1);
    await expire();
    const again = await claim(1, { limits: { daily: 1 } });
    expect(again.map(({ isGranted }) => isGranted)).toEqual([true]);
    expect(await usage('acme')).toBe(1);
    await close(again, { status: 'error', attempt: 1 });
    expect((await claim(1, { limits: { daily: 1 } })).map(({ isGranted }) => isGranted)).toEqual([false]);
    await expire();
    expect((await claim(1, { limits: { daily: 2 } })).map(({ isGranted }) => isGranted)).toEqual([true]);
    expect(await usage('acme')).toBe(2);
  });

  it('gets back what was closed without a run, in the statement that closes it', async () => {
    await request(many(4));
    const claims = await claim(4, { limits: { daily: 3 } });
    const rows = (some: ClaimedRequest[]) => some.map((one) => JSON.stringify(version(one, { status: 'dead' })));
    const unused = idsOf(claims);
    const closing = (some: ClaimedRequest[]) => closeRequests(database, ALICE, claimsOf(some), rows(some), unused);
    expect(await closing(claims.slice(0, 1))).toEqual([]);
    expect(await usage('acme')).toBe(2);
    expect(await closing(claims), 'one of them is closed already').toEqual(unused.slice(0, 1));
    expect(await usage('acme')).toBe(2);
    expect(await closing(claims.slice(1))).toEqual([]);
    expect(await usage('acme')).toBe(0);
  });

  it.each<[string, object]>([
    ['is cancelled', { status: 'cancelled' }],
    ['is deleted', { is_deleted: true }],
    ['is given up', { status: 'dead' }],
  ])('gets back what an attempt took that was given back and %s while it waited', async (_, more) => {
    const [id] = await request(many(3));
    const claims = await claim(3);
    await releaseRequests(database, claimsOf(claims));
    expect(await usage('acme')).toBe(3);
    await appendSpans(database, [draft({ id: id as string, ...more })], contextOf());
    expect(await usage('acme')).toBe(2);
    const [waiting] = await request([{}]);
    await appendSpans(database, [draft({ id: waiting as string, ...more })], contextOf());
    expect(await usage('acme'), 'what never took one gives none back').toBe(2);
  });

  it('gets nothing back for what is cancelled while a worker has it: it may have run', async () => {
    const [id] = await request([{}]);
    await claim(1);
    await appendSpans(database, [draft({ id: id as string, status: 'cancelled' })], contextOf());
    expect(await usage('acme')).toBe(1);
  });

  it('of none at all grants nothing, but to what asks to pass it', async () => {
    const [plain, forced] = await request([{}, { metadata: { force: { signature: 'whatever' } } }]);
    const claims = await claim(2, { limits: { tenants: { acme: { daily: 0 } } } });
    const granted = new Map(claims.map(({ request: { id }, isGranted }) => [id, isGranted]));
    expect([granted.get(plain as string), granted.get(forced as string)]).toEqual([false, true]);
    expect(await usage('acme')).toBe(1);
  });

  it('is each tenant’s own', async () => {
    await request(many(2));
    await request(many(2), BOB);
    const claims = await claim(4, { limits: { daily: 1, tenants: { bolt: { daily: 2 } } } });
    const granted = claims.filter(({ isGranted }) => isGranted).map(({ request: { tenant_id } }) => tenant_id);
    expect(granted.sort()).toEqual(['acme', 'bolt', 'bolt']);
  });
});

describe('closing', () => {
  it('writes everything while the claim holds, and takes the request out of the queue', async () => {
    const [id] = await request([{}]);
    expect(await close(await claim(1))).toEqual([]);
    expect((await versions(id as string)).map(({ status }) => status)).toEqual(['scheduled', 'complete']);
    expect(await places()).toEqual([]);
  });

  it('with an older fence is refused and writes nothing, for the others either', async () => {
    await request([{}, {}]);
    const late = await claim(2);
    await expire(late.slice(0, 1));
    const taken = await claim(2);
    expect(idsOf(taken)).toEqual(idsOf(late.slice(0, 1)));
    const count = async () => (await admin.query({ text: 'select 1 from ledger.universal_registry' })).length;
    const before = await count();
    expect(await close(late)).toEqual(idsOf(taken));
    expect(await count()).toBe(before);
    expect(await close(taken)).toEqual([]);
    expect(await close(taken), 'a second time').toEqual(idsOf(taken));
    expect(await count()).toBe(before + 1);
  });

  it('is refused after the claim was given back', async () => {
    await request([{}]);
    const released = await claim(1);
    await releaseRequests(database, claimsOf(released));
    expect(await close(released)).toEqual(idsOf(released));
    expect(await close(await claim(1))).toEqual([]);
  });

  it('is done once by eight that close the same claim at once', async () => {
    const [id] = await request([{}]);
    const claims = await claim(1);
    const lost = await Promise.all(Array.from({ length: 8 }, () => close(claims)));
    expect(lost.filter(({ length }) => length === 0)).toHaveLength(1);
    expect(await versions(id as string)).toHaveLength(2);
  });

  it('by two workers of overlapping claims never waits for ever', async () => {
    await request(many(40));
    const claims = await claim(40);
    const both = [claims, [...claims].reverse()];
    const lost = await Promise.all(both.map((some) => close(some)));
    expect(lost.map(({ length }) => length).sort()).toEqual([0, 40]);
  });

  it('loses against a version that the owner appends meanwhile, with nothing written', async () => {
    const [id] = await request([{}]);
    const claims = await claim(1);
    await appendSpans(database, [draft({ id: id as string, status: 'cancelled' })], contextOf());
    expect(await close(claims)).toEqual([id]);
    expect((await versions(id as string)).map(({ status }) => status)).toEqual(['scheduled', 'cancelled']);
  });

  it('of one owner’s requests does not write for another', async () => {
    const [id] = await request([{}], ALICE);
    const claims = await claim(1);
    for (const stranger of [ALAN, BOB, OTHER_ALICE]) {
      await expect(close(claims, { status: 'complete' }, stranger)).rejects.toMatchObject({ code: 'NOT_PERMITTED' });
    }
    expect(await versions(id as string)).toHaveLength(1);
    expect(await close(claims)).toEqual([]);
  });
});

describe('the versions of a request', () => {
  const append = (id: string, more: Partial<SpanDraft>) => appendSpans(database, [draft({ id, ...more })], contextOf());

  it.each(['complete', 'cancelled'])('end with %s', async (end) => {
    const [id] = await request([{}]);
    await append(id as string, { status: end });
    for (const status of ['scheduled', 'error', 'complete', 'dead', 'cancelled']) {
      const refused = append(id as string, { status });
      await expect(refused).rejects.toBeInstanceOf(ConflictError);
      await expect(refused).rejects.toMatchObject({ code: 'REQUEST_CLOSED' });
    }
    expect(await versions(id as string)).toHaveLength(2);
    expect(await places()).toEqual([]);
  });

  it('go from dead to scheduled and nowhere else', async () => {
    const [id] = await request([{}]);
    await append(id as string, { status: 'dead' });
    expect(await statesOf()).toEqual(['dead']);
    expect(await claim(1)).toEqual([]);
    for (const status of ['error', 'complete', 'dead', 'cancelled']) {
      await expect(append(id as string, { status })).rejects.toMatchObject({ code: 'REQUEST_CLOSED' });
    }
    await append(id as string, { status: 'scheduled' });
    expect(idsOf(await claim(1))).toEqual([id]);
  });

  it('are nobody else’s to change, who learns so at once and is in nobody’s way', async () => {
    const [id] = (await request([{ visibility: 'tenant' }])) as [string];
    const [{ position, tx_id, ...first }] = (await versions(id)) as [StoredSpan];
    await database.transaction(ALICE, async (query) => {
      await lockRequests(query, [id]);
      for (const { userId, tenantId } of [ALAN, BOB]) {
        for (const status of ['scheduled', 'error', 'cancelled', 'dead']) {
          const other = { status, owner_id: userId, tenant_id: tenantId };
          const rows = JSON.stringify([nextVersion(first as SealedSpan, other)]);
          const refused = database.query({
            text: 'select ledger.append($1, $2, $3)',
            values: [userId, tenantId, rows],
          });
          await expect(refused).rejects.toMatchObject({ code: 'NOT_YOUR_SPAN' });
        }
      }
      await appendOnce(query, [draft({ id, status: 'cancelled' })], contextOf(ALICE));
    });
    expect((await versions(id)).map(({ status }) => status)).toEqual(['scheduled', 'cancelled']);
    expect(await places()).toEqual([]);
  });

  it('end once whatever the order of the rows that say so', async () => {
    const begun = (id: string) =>
      sealSpan({ ...hashable(), ...draft({ id, seq: 0 }) } as HashableSpan, contextOf().signer);
    for (const order of [
      [2, 1, 3],
      [2, 1],
      [3, 2, 1],
      [1, 2, 3],
      [1, 2],
    ]) {
      const id = randomUUID();
      const chain = [begun(id)];
      for (const status of ['complete', 'scheduled', 'scheduled']) {
        chain.push(nextVersion(chain.at(-1) as SealedSpan, { status }));
      }
      await admin.query({ text: 'delete from ledger.request_queue' });
      const rows = (seqs: number[]) => JSON.stringify(seqs.map((seq) => chain[seq]));
      const append = (seqs: number[]) =>
        database.query({ text: 'select ledger.append($1, $2, $3)', values: ['alice', 'acme', rows(seqs)] });
      await append([0]);
      await expect(append(order)).rejects.toMatchObject({ code: 'REQUEST_CLOSED' });
      await expect(append([0, ...order])).rejects.toBeInstanceOf(ConflictError);
      expect(await versions(id)).toHaveLength(1);
      expect(idsOf(await claim(1))).toEqual([id]);
    }
  });

  it.each(['error', 'complete', 'dead', 'cancelled', 'running', ''])('do not begin with "%s"', async (status) => {
    await expect(request([{ status }])).rejects.toBeInstanceOf(InputError);
    expect(await places()).toEqual([]);
  });

  it('name a function', async () => {
    await expect(request([{ parent_id: null }])).rejects.toMatchObject({
      code: 'CONSTRAINT_VIOLATED',
      field: 'parent_id',
    });
  });

  it('that are deleted wait for nothing', async () => {
    const [id] = await request([{}]);
    await append(id as string, { is_deleted: true });
    expect(await places()).toEqual([]);
  });

  it('make two ends only once, of sixteen that try', async () => {
    const [id] = await request([{}]);
    const ends = await Promise.allSettled(
      Array.from({ length: 16 }, (_, i) => append(id as string, { status: i % 2 === 0 ? 'complete' : 'cancelled' })),
    );
    expect(ends.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    expect(await versions(id as string)).toHaveLength(2);
  });
});

describe('the queue', () => {
  it('is locked by a tenant only where it is that tenant’s', async () => {
    const [id] = await request([{}]);
    await database.transaction(BOB, async (query) => {
      await lockRequests(query, [id as string]);
      expect(idsOf(await claim(1))).toEqual([id]);
    });
  });

  it('cannot be read or written by the application itself, nor worked on by a kernel’s own statements', async () => {
    for (const text of [
      'select * from ledger.request_queue',
      "update ledger.request_queue set state = 'ready'",
      'delete from ledger.request_queue',
    ]) {
      await expect(database.query({ text }), text).rejects.toMatchObject({ code: 'NOT_PERMITTED' });
    }
    const text = `select * from ledger.claim_requests(now(), 1, 0, 1000, current_date, '{}')`;
    const asKernel = database.transaction(ALICE, (query) => query({ text }), { role: 'loglineos_kernel' });
    await expect(asKernel).rejects.toMatchObject({ code: 'NOT_PERMITTED' });
  });

  it('takes no place for what was rolled back', async () => {
    await expect(
      database.transaction(ALICE, async (query) => {
        await appendOnce(query, [draft()], contextOf());
        throw new Error('on second thoughts');
      }),
    ).rejects.toThrow('on second thoughts');
    expect(await places()).toEqual([]);
  });
});

describe('the queue made anew from the ledger', () => {
  beforeEach(openDatabase);
  const rebuild = () => rebuildDerived({ url: (testDatabase as TestDatabase).adminUrl });

  it('is what it was', async () => {
    await request([
      { priority: 3 },
      {},
      {},
      {},
      { scheduled_at: later(60_000).toISOString() },
      { metadata: { force: 1 } },
    ]);
    await request([{}, {}], BOB);
    const claims = (await claim(4)).filter(({ request: { tenant_id } }) => tenant_id === 'acme');
    await close(claims.slice(0, 1), { status: 'error', attempt: 1, scheduled_at: later(30_000).toISOString() });
    await close(claims.slice(1, 2), { status: 'dead' });
    const content = () =>
      admin.query({
        text: `select request_id, tenant_id, owner_id, function_id, position, priority, due_at, is_forced, bytes,
                      case state when 'leased' then 'ready' else state end as state
                 from ledger.request_queue order by request_id`,
      });
    const before = await content();
    expect(new Set(before.map(({ state }) => state))).toEqual(new Set(['ready', 'delayed', 'dead']));
    await rebuild();
    expect(await content()).toEqual(before);
  });

  it('knows no claim that was made before', async () => {
    await request([{}]);
    const claimed = await claim(1);
    await rebuild();
    expect(await close(claimed)).toEqual(idsOf(claimed));
    expect(await close(await claim(1))).toEqual([]);
  });

  it('while others append, claim and close loses nothing, and does nothing twice', async () => {
    const ids = await request(many(400));
    let isDone = false;
    const worker = async () => {
      while (!isDone || (await places()).length > 0) {
        const claims = await claim(8);
        if (claims.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
        // As a worker does it: those that were lost are left out.
        const lost = new Set(await close(claims));
        if (lost.size > 0) await close(claims.filter(({ request: { id } }) => !lost.has(id)));
      }
    };
    // The derived tables in an order of their own, of those that a rebuild takes.
    const expiring = { entity_type: 'note', expires_at: later(60_000).toISOString() };
    const appender = async () => {
      while (!isDone) ids.push(...(await request([expiring, { id: randomUUID() }])).slice(1));
    };
    const workers = [...Array.from({ length: 4 }, worker), appender(), appender()];
    const rebuilds = [];
    for (let i = 0; i < 5; i++) {
      rebuilds.push(
        await rebuild().then(
          () => 'done',
          (error: { code: string }) => error.code,
        ),
      );
      await new Promise((resolve) => setTimeout(resolve, 30));
    }
    isDone = true;
    await Promise.all(workers);
    expect(rebuilds).toEqual(Array(5).fill('done'));
    const text = `select id from ledger.universal_registry where status = 'complete'`;
    expect((await admin.query({ text })).map(({ id }) => id).sort()).toEqual([...ids].sort());
  });
});
