import { randomUUID } from 'node:crypto';
import type pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { ConflictError } from '../../src/errors.ts';
import { appendSpans, type Identity, readVersions } from '../../src/ledger/index.ts';
import { checkChain, type SealedSpan, type Span, sealSpan } from '../../src/span/index.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { rootSigner, runtimeSigner } from '../support/keys.ts';
import { ALAN, ALICE, BOB, contextOf, draft, hashable, nextVersion } from '../support/spans.ts';

let database: TestDatabase;
let admin: pg.Client;
let app: pg.Client;
let seeder: pg.Client;
/** Version 0 of a span of ALICE's, in the ledger. */
let first: SealedSpan;

beforeAll(async () => {
  database = await createTestDatabase();
  admin = await database.connect('admin');
  app = await database.connect('loglineos_app');
  seeder = await database.connect('loglineos_seeder');
});
afterAll(() => database.close());

beforeEach(async () => {
  first = sealSpan(hashable({ visibility: 'tenant', input: { a: 1 } }), runtimeSigner);
  expect(await append([first])).toBe('appended');
});

/** What the database itself says to rows, whatever was checked before: an SQLSTATE, or `appended`. */
async function append(rows: object[], identity: Identity = ALICE, client: pg.Client = app): Promise<string> {
  const before = await countRows();
  try {
    await client.query('select ledger.append($1, $2, $3)', [identity.userId, identity.tenantId, JSON.stringify(rows)]);
    return 'appended';
  } catch (error) {
    expect(await countRows()).toBe(before);
    return (error as pg.DatabaseError).code as string;
  }
}

async function countRows(): Promise<number> {
  const { rows } = await admin.query<{ n: number }>(
    'select (select count(*) from ledger.universal_registry)::int + (select count(*) from ledger.registry_witness)::int as n',
  );
  return rows[0]?.n as number;
}

/** Refused by row level security, or by the rule of the versions: either way somebody who may not. */
const NOT_YOURS = /^(42501|LL003)$/;

describe('the next version', () => {
  it('is accepted when it is the latest + 1 and names its hash', async () => {
    const second = nextVersion(first, { status: 'done' });
    expect(await append([second])).toBe('appended');
    expect(await append([nextVersion(second), nextVersion(nextVersion(second))])).toBe('appended');
  });

  it('may not leave a gap', async () => {
    expect(await append([nextVersion(first, { seq: 2 })])).toBe('LL002');
    expect(await append([nextVersion(nextVersion(first))])).toBe('LL002');
    expect(await append([nextVersion(first), nextVersion(nextVersion(first), { seq: 3 })])).toBe('LL002');
  });

  it('may not be one that is there', async () => {
    expect(await append([first])).toBe('23505');
    expect(await append([nextVersion(first)])).toBe('appended');
    expect(await append([nextVersion(first, { status: 'another' })])).toBe('23505');
  });

  it('may not name another hash than the one before it has', async () => {
    expect(await append([nextVersion(first, { prev_hash: 'ab'.repeat(32) })])).toBe('LL004');
    const second = nextVersion(first);
    expect(await append([second, nextVersion(second, { prev_hash: first.curr_hash })])).toBe('LL004');
  });

  it('may not come before the one that it follows', async () => {
    const second = nextVersion(first);
    const third = nextVersion(second);
    expect(await append([third, second])).toBe('LL004');
    expect(await append([second, third])).toBe('appended');
  });

  it('may not come without a prev_hash, nor a first one with it, nor below zero', async () => {
    expect(await append([nextVersion(first, { prev_hash: null })])).toMatch(/^(23514|LL004)$/);
    expect(await append([sealSpan(hashable({ prev_hash: first.curr_hash }), runtimeSigner)])).toMatch(
      /^(23514|LL004)$/,
    );
    expect(await append([sealSpan(hashable({ seq: -1 }), runtimeSigner)])).toMatch(/^(23514|LL004)$/);
    expect(await append([sealSpan(hashable({ seq: -1, prev_hash: first.curr_hash }), runtimeSigner)])).toMatch(
      /^(23514|LL004)$/,
    );
  });

  it('may not change tenant, owner or entity type', async () => {
    expect(await append([nextVersion(first, { entity_type: 'manifest' })])).toBe('LL003');
    expect(await append([nextVersion(first, { owner_id: 'alan' })], ALAN)).toBe('LL003');
    expect(await append([nextVersion(first, { owner_id: 'alan' })])).toBe('42501');
    expect(await append([nextVersion(first, { tenant_id: 'bolt' })], { userId: 'alice', tenantId: 'bolt' })).toBe(
      'LL003',
    );
  });

  it('may not be somebody else’s, who knows all of the span', async () => {
    for (const identity of [ALAN, BOB]) {
      const mine = { owner_id: identity.userId, tenant_id: identity.tenantId };
      expect(await append([nextVersion(first, mine)], identity)).toMatch(NOT_YOURS);
      expect(await append([nextVersion(first)], identity)).toMatch(NOT_YOURS);
    }
    const hidden = sealSpan(hashable({ visibility: 'private' }), runtimeSigner);
    expect(await append([hidden])).toBe('appended');
    expect(await append([nextVersion(hidden, { owner_id: 'alan' })], ALAN)).toBe('LL003');
  });

  it.each([
    ['function', 'scheduled', 'select from ledger.schedule where function_id = $1 for update'],
    ['policy', 'active', 'select from ledger.policy_cursor where policy_id = $1 for update'],
  ])('of somebody else’s %s that is %s is refused without a wait for its place', async (entity_type, status, lock) => {
    const mine = sealSpan(hashable({ entity_type, status, code: 'return 1', visibility: 'tenant' }), runtimeSigner);
    expect(await append([mine])).toBe('appended');
    await admin.query('begin');
    expect((await admin.query(lock, [mine.id])).rowCount).toBe(1);
    for (const identity of [ALAN, BOB]) {
      for (const next of [status, 'retired']) {
        const theirs = { status: next, owner_id: identity.userId, tenant_id: identity.tenantId };
        expect(await append([nextVersion(mine, theirs)], identity)).toBe('LL003');
      }
    }
    await admin.query('rollback');
  });

  it('binds an administrator, and a replica, too', async () => {
    for (const role of ['origin', 'replica']) {
      await admin.query(`set session_replication_role = ${role}`);
      expect(await append([nextVersion(first, { seq: 2 })], ALICE, admin)).toBe('LL002');
      expect(await append([nextVersion(first, { tenant_id: 'bolt' })], ALICE, admin)).toBe('LL003');
      expect(await append([nextVersion(first, { prev_hash: 'ab'.repeat(32) })], ALICE, admin)).toBe('LL004');
    }
    await admin.query('reset session_replication_role');
  });

  it('of a public span is public, and for publishers only', async () => {
    const identity = { userId: 'press', tenantId: 'paper' };
    const published = sealSpan(hashable({ visibility: 'public' }, identity), rootSigner);
    expect(await append([published], identity, seeder)).toBe('appended');
    expect(await append([nextVersion(published, { visibility: 'private' })], identity)).toBe('LL003');
    expect(await append([nextVersion(published)], identity)).toBe('42501');
    expect(await append([nextVersion(published, { is_deleted: true })], identity, seeder)).toBe('appended');
  });
});

describe('a version that fewer may see than the one before', () => {
  it.each([
    ['tenant', 'private'],
    ['public', 'tenant'],
  ] as const)('is refused: %s, then %s', async (before, after) => {
    const span = sealSpan(hashable({ visibility: before }), runtimeSigner);
    expect(await append([span], ALICE, before === 'public' ? seeder : app)).toBe('appended');
    expect(await append([nextVersion(span, { visibility: after })], ALICE, seeder)).toBe('LL003');
  });
});

describe('a row', () => {
  it.each(['curr_hash', 'signature', 'public_key'])(
    'without %s is refused, or with one that is not lower-case hex of its size',
    async (column) => {
      const span = sealSpan(hashable(), runtimeSigner) as Span;
      const value = span[column as 'curr_hash'] as string;
      const bad = [
        null,
        undefined,
        '',
        value.slice(2),
        `${value}00`,
        value.toUpperCase().replace(/^./, 'A'),
        `zz${value.slice(2)}`,
        ` ${value.slice(1)}`,
      ];
      for (const malformed of bad) {
        expect(await append([{ ...span, [column]: malformed }]), String(malformed)).toMatch(
          /^(23502|23514|22\w\w\w|LL007)$/,
        );
      }
    },
  );

  it('spoils the whole batch that it is in', async () => {
    const good = sealSpan(hashable(), runtimeSigner);
    const { signature, ...unsigned } = sealSpan(hashable(), runtimeSigner);
    expect(await append([good, unsigned])).toBe('23502');
    expect(await append([good, nextVersion(first, { seq: 5 })])).toBe('LL002');
    expect(await append([good])).toBe('appended');
  });

  it('gets its position and tx_id from the database, whatever it says', async () => {
    const forged = { ...sealSpan(hashable(), runtimeSigner), position: 1, tx_id: '3' };
    await app.query('begin');
    await app.query(`select ledger.append('alice', 'acme', $1)`, [JSON.stringify([forged])]);
    const { rows } = await app.query(
      'select position, tx_id, pg_current_xact_id() as now from ledger.universal_registry where id = $1',
      [forged.id],
    );
    await app.query('commit');
    expect(rows[0].tx_id).toBe(rows[0].now);
    expect(Number(rows[0].position)).toBeGreaterThan(1);
  });

  it('cannot be inserted with a position or tx_id of the writer’s own', async () => {
    const span = sealSpan(hashable(), runtimeSigner);
    const insert = async (client: pg.Client, more: object, overriding = ''): Promise<string> => {
      const row = { ...span, ...more };
      const names = Object.keys(row).map((name) => `"${name}"`);
      await client.query(
        `begin; select set_config('app.user_id', 'alice', true), set_config('app.tenant_id', 'acme', true)`,
      );
      try {
        await client.query(
          `insert into ledger.universal_registry (${names}) ${overriding} values (${names.map((_, i) => `$${i + 1}`)})`,
          Object.values(row),
        );
        return 'inserted';
      } catch (error) {
        return (error as pg.DatabaseError).code as string;
      } finally {
        await client.query('rollback');
      }
    };
    expect(await insert(app, {})).toBe('inserted');
    expect(await insert(app, { position: 1 }, 'overriding system value')).toBe('42501');
    expect(await insert(admin, { position: -5 }, 'overriding system value')).toBe('LL008');
    expect(await insert(app, { tx_id: '3' })).toBe('42501');
    expect(await insert(admin, { position: 1 })).toBe('428C9');
    await admin.query('set role loglineos_owner');
    expect(await insert(admin, {})).toBe('inserted');
    expect(await insert(admin, { tx_id: '3' })).toMatch(/^(42501|LL005)$/);
    await admin.query('reset role');
  });
});

describe('eight writers on one span', () => {
  const WRITERS = 8;

  it('all succeed when they name no seq, and leave one dense, linked chain', async () => {
    const { id } = first;
    const writers = Array.from({ length: WRITERS }, () => database.open('loglineos_app', { connectionsMax: 1 }));
    const each = 4;
    await Promise.all(
      writers.map(async (writer, i) => {
        for (let turn = 0; turn < each; turn++) {
          await appendSpans(writer, [draft({ id, metadata: { writer: i, turn } })], contextOf(ALICE));
        }
      }),
    );
    const versions = await readVersions(writers[0] as (typeof writers)[0], ALICE, id);
    expect(versions.map(({ seq }) => seq)).toEqual(Array.from({ length: WRITERS * each + 1 }, (_, seq) => seq));
    expect(
      versions.map((version, i) => checkChain(version, versions[i - 1])).filter((problem) => problem !== null),
    ).toEqual([]);
    const told = versions.slice(1).map(({ metadata }) => JSON.stringify(metadata));
    expect(new Set(told).size).toBe(WRITERS * each);
  });

  it('lose with a clear conflict but one, when they name the same seq', async () => {
    const { id } = first;
    const writers = Array.from({ length: WRITERS }, () => database.open('loglineos_app', { connectionsMax: 1 }));
    const outcomes = await Promise.allSettled(
      writers.map((writer, i) =>
        appendSpans(writer, [draft({ id, seq: 1, metadata: { writer: i } })], contextOf(ALICE)),
      ),
    );
    const losers = outcomes.filter((outcome) => outcome.status === 'rejected').map(({ reason }) => reason);
    expect(losers).toHaveLength(WRITERS - 1);
    for (const loser of losers) {
      expect(loser).toBeInstanceOf(ConflictError);
      expect(loser).toMatchObject({ code: 'SEQ_TAKEN', field: 'seq' });
    }
    expect(await readVersions(writers[0] as (typeof writers)[0], ALICE, id)).toHaveLength(2);
  });

  it('make one new span when they all name the same new id', async () => {
    const id = randomUUID();
    const writers = Array.from({ length: WRITERS }, () => database.open('loglineos_app', { connectionsMax: 1 }));
    const outcomes = await Promise.allSettled(
      writers.map((writer) => appendSpans(writer, [draft({ id, seq: 0 })], contextOf(ALICE))),
    );
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
  });
});
