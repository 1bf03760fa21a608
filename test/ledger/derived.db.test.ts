import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  appendSpans,
  type Database,
  readLostBoots,
  rebuildDerived,
  releaseExecution,
  reserveExecution,
  verifyLedger,
} from '../../src/ledger/index.ts';
import { nodeEd25519 } from '../../src/span/ed25519-node.ts';
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
