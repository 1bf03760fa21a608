import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  appendSpans,
  type Database,
  numberExpiredSpans,
  type PolicyPlace,
  readDueSchedules,
  readExpiredSpans,
  readLostBoots,
  readPolicyWindow,
  rebuildDerived,
  releaseExecution,
  reserveExecution,
  verifyLedger,
} from '../../src/ledger/index.ts';
import { nodeEd25519 } from '../../src/span/ed25519-node.ts';
import type { StoredSpan } from '../../src/span/index.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { trustedKeys } from '../support/keys.ts';
import { ALICE, BOB, contextOf, draft } from '../support/spans.ts';

let testDatabase: TestDatabase;
let database: Database;
let auditor: Database;
beforeAll(async () => {
  testDatabase = await createTestDatabase();
  database = testDatabase.open('loglineos_app', { connectionsMax: 8 });
  auditor = testDatabase.open('loglineos_auditor');
});
afterAll(() => testDatabase.close());

async function usage(): Promise<unknown[]> {
  const admin = testDatabase.open('admin');
  return admin.query({
    text: `select tenant_id, day::text, executions from ledger.daily_usage where executions > 0 order by 1, 2`,
  });
}

describe('the quota of a tenant’s day', () => {
  it('is reserved exactly as often as it allows, by however many at once', async () => {
    const attempts = await Promise.all(
      Array.from({ length: 40 }, () => reserveExecution(database, 'race', '2026-11-23', 25)),
    );
    expect(attempts.filter((reserved) => reserved)).toHaveLength(25);
    expect(await reserveExecution(database, 'race', '2026-11-23', 25)).toBe(false);
    expect(await reserveExecution(database, 'race', '2026-11-24', 25)).toBe(true);
    expect(await reserveExecution(database, 'other', '2026-11-23', 25)).toBe(true);
  });

  it('is given back, and never below zero', async () => {
    expect(await reserveExecution(database, 'back', '2026-11-23', 1)).toBe(true);
    await releaseExecution(database, 'back', '2026-11-23');
    await releaseExecution(database, 'back', '2026-11-23');
    expect(await reserveExecution(database, 'back', '2026-11-23', 1)).toBe(true);
    expect(await reserveExecution(database, 'back', '2026-11-23', 1)).toBe(false);
  });

  it('of zero allows nothing', async () => {
    expect(await reserveExecution(database, 'none', '2026-11-23', 0)).toBe(false);
    expect(await reserveExecution(database, 'none', '2026-11-23', -1)).toBe(false);
  });

  it('cannot be counted by a statement of the application’s own', async () => {
    for (const text of [
      'update ledger.daily_usage set executions = 0',
      'delete from ledger.daily_usage',
      `insert into ledger.daily_usage values ('x', now(), 1)`,
    ]) {
      await expect(database.query({ text })).rejects.toMatchObject({ code: 'NOT_PERMITTED' });
    }
  });
});

describe('rebuildDerived', () => {
  it('counts again what the ledger holds, whatever the table said', async () => {
    const ran = (started_at: string) => draft({ entity_type: 'execution', did: 'ran_function', started_at });
    await appendSpans(
      database,
      [ran('2026-11-22T23:59:59.999Z'), ran('2026-11-23T00:00:00.000Z'), ran('2026-11-23T12:00:00.000Z')],
      contextOf(ALICE),
    );
    const [again] = await appendSpans(database, [ran('2026-11-23T01:00:00.000Z')], contextOf(BOB));
    await appendSpans(
      database,
      [ran('2026-11-23T01:00:00.000Z')].map((said) => ({ ...said, id: again?.id as string })),
      contextOf(BOB),
    );
    await appendSpans(
      database,
      [draft({ entity_type: 'execution', did: 'booted', started_at: '2026-11-23T00:00:00.000Z' })],
      contextOf(BOB),
    );
    await rebuildDerived({ url: testDatabase.adminUrl });
    expect(await usage()).toEqual([
      { tenant_id: 'acme', day: '2026-11-22', executions: 1 },
      { tenant_id: 'acme', day: '2026-11-23', executions: 2 },
      { tenant_id: 'bolt', day: '2026-11-23', executions: 1 },
    ]);
  });

  it('does not depend on the time zone of whoever runs it', async () => {
    const admin = await testDatabase.connect('admin');
    const before = await usage();
    await admin.query(`set time zone 'Pacific/Kiritimati'`);
    await admin.query('begin; set local role loglineos_owner; select ledger.rebuild_derived(); commit');
    expect(await usage()).toEqual(before);
  });

  it('keeps what the witness remembers of a row that has vanished', async () => {
    const [gone] = await appendSpans(database, [draft()], contextOf(ALICE));
    const admin = await testDatabase.connect('admin');
    await admin.query('alter table ledger.universal_registry disable trigger all');
    await admin.query('delete from ledger.universal_registry where id = $1', [gone?.id]);
    await admin.query('alter table ledger.universal_registry enable trigger all');
    await rebuildDerived({ url: testDatabase.adminUrl });
    const report = await verifyLedger(auditor, trustedKeys, nodeEd25519);
    expect(report.problems).toEqual([{ id: gone?.id, seq: 0, class: 'missing', detail: expect.any(String) }]);
  });

  it('is not for the application', async () => {
    await expect(database.query({ text: 'select ledger.rebuild_derived()' })).rejects.toMatchObject({
      code: 'NOT_PERMITTED',
    });
  });
});

describe('readLostBoots', () => {
  const boot = (expires_at: string, execution = randomUUID()) =>
    draft({ entity_type: 'boot_event', related_to: [execution], expires_at });
  const ids = async (after: Date | '-infinity', before: Date | 'infinity', limit = 100) =>
    (await readLostBoots(database, after, before, limit)).map(({ id }) => id);

  it('finds boots of every tenant that are due and have no execution, oldest first', async () => {
    const [execution, ended] = [randomUUID(), randomUUID()];
    const [late] = await appendSpans(database, [boot('2026-11-23T10:00:02.000Z')], contextOf(ALICE));
    const [early] = await appendSpans(database, [boot('2026-11-23T10:00:01.000Z')], contextOf(BOB));
    await appendSpans(
      database,
      [
        { ...boot('2026-11-23T10:00:01.500Z', execution), id: ended },
        draft({ id: execution, seq: 0, entity_type: 'execution', caused_by: ended }),
      ],
      contextOf(ALICE),
    );
    const [running] = await appendSpans(database, [boot('2026-11-23T11:00:00.000Z')], contextOf(ALICE));
    expect(await ids('-infinity', new Date('2026-11-23T10:30:00Z'))).toEqual([early?.id, late?.id]);
    expect(await ids('-infinity', 'infinity')).toEqual([early?.id, late?.id, running?.id]);
    expect(await ids(new Date('2026-11-23T10:00:01.000Z'), new Date('2026-11-23T10:30:00Z'))).toEqual([late?.id]);
    expect(await ids('-infinity', 'infinity', 1)).toEqual([early?.id]);
  });

  it('does not let the transaction that asks see more afterwards', async () => {
    const seen = await database.query({ text: 'select count(*)::int as n from ledger.universal_registry' });
    expect(seen).toEqual([{ n: 0 }]);
  });
});

describe('what policies are shown at once', () => {
  const START: PolicyPlace = { txId: '0', position: '0', day: '2026-11-23' };
  const MB = 1024 * 1024;
  const EXPIRED = '2026-01-01T00:00:00.000Z';

  it('is bounded in bytes as they are read, however well they are compressed, and is never nothing', async () => {
    const large = Array.from({ length: 6 }, () => draft({ content: 'x'.repeat(MB / 2), expires_at: EXPIRED }));
    for (const one of large) await appendSpans(database, [one], contextOf(ALICE));
    const [small] = await appendSpans(database, [draft({ expires_at: EXPIRED })], contextOf(ALICE));
    await numberExpiredSpans(database, new Date(), 1_000);

    const all = await readPolicyWindow(database, START, { spans: 1_000, bytes: 100 * MB });
    expect(all.at(-1)?.id).toBe(small?.id);
    const { tx_id, position } = all.at(-8) as StoredSpan;
    const after = { ...START, txId: String(tx_id), position: String(position) };
    const windowOf = async (bytes: number) => (await readPolicyWindow(database, after, { spans: 100, bytes })).length;
    expect(await windowOf(100 * MB)).toBe(7);
    expect(await windowOf(MB)).toBe(2);
    expect(await windowOf(1)).toBe(1);

    const expiredOf = async (bytes: number) => (await readExpiredSpans(database, START, { spans: 100, bytes })).length;
    expect(await expiredOf(100 * MB)).toBe(7);
    expect(await expiredOf(MB)).toBe(2);
    expect(await expiredOf(1)).toBe(1);
  });
});

describe('functions that run by the clock', () => {
  const scheduled = () =>
    draft({ entity_type: 'function', status: 'scheduled', code: 'return 1', metadata: { schedule: 'PT1S' } });
  const MANY = { userId: 'one', tenantId: 'many' };

  it('take turns between tenants when they are due, and are so many for each', async () => {
    for (let i = 0; i < 1_000; i += 250) {
      await appendSpans(database, Array.from({ length: 250 }, scheduled), contextOf(MANY));
    }
    await expect(appendSpans(database, [scheduled()], contextOf(MANY))).rejects.toMatchObject({
      code: 'CONSTRAINT_VIOLATED',
      field: 'status',
      message: 'a tenant may have 1000 scheduled functions',
    });
    const [own] = await appendSpans(database, [scheduled()], contextOf(BOB));
    const due = await readDueSchedules(database, new Date(), 10);
    expect(due).toHaveLength(10);
    expect(due.map(({ span }) => span.id)).toContain(own?.id);
    // One of them may have another version, or make room for another.
    const id = due.find(({ span }) => span.tenant_id === MANY.tenantId)?.span.id as string;
    await appendSpans(database, [{ ...scheduled(), id }], contextOf(MANY));
    await appendSpans(database, [{ ...scheduled(), id, status: 'active' }], contextOf(MANY));
    await appendSpans(database, [scheduled()], contextOf(MANY));
  });
});
