import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { appendSpans } from '../../src/ledger/index.ts';
import { auditLocally, startAuditing } from '../../src/local/auditing.ts';
import { nodeEd25519 } from '../../src/span/ed25519-node.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { trustedKeys } from '../support/keys.ts';
import { ALICE, contextOf, draft } from '../support/spans.ts';

let testDatabase: TestDatabase;
let home: string;
beforeAll(async () => {
  testDatabase = await createTestDatabase();
  home = await mkdtemp(join(tmpdir(), 'loglineos-auditing-'));
});
afterAll(async () => {
  await testDatabase.close();
  await rm(home, { recursive: true });
});

const now = () => new Date();

describe('the timer of the auditor', () => {
  it('waits at its end for the run that is at work, and not only for those that were refused since', async () => {
    const database = testDatabase.open('loglineos_auditor', { connectionsMax: 1 });
    const options = { database, keys: trustedKeys, scheme: nodeEd25519, now };
    const held = Promise.withResolvers<void>();
    const holding = database.transaction(ALICE, () => held.promise); // its only connection
    const folder = await mkdtemp(join(home, 'held-'));
    const logged: Record<string, unknown>[] = [];
    const auditing = startAuditing(folder, options, (entry) => logged.push(entry), 50);
    const ended: string[] = [];
    const asked = auditing.run({}, new Date(Date.now() + 5_000)).finally(() => ended.push('run'));
    await new Promise((resolve) => setTimeout(resolve, 300));
    const stopped = auditing.stop().then(() => ended.push('stop'));
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(ended).toEqual([]);
    held.resolve();
    await holding;
    expect(await asked).toMatchObject({ worked: true });
    await stopped;
    expect(logged).toEqual([]);
  });

  it('audits again and again, says what is wrong, and is silent once it was stopped', async () => {
    const options = { database: testDatabase.open('loglineos_auditor'), keys: trustedKeys, scheme: nodeEd25519, now };
    const [appended] = await appendSpans(testDatabase.open('loglineos_app'), [draft()], contextOf(ALICE));
    const logged: Record<string, unknown>[] = [];
    const auditing = startAuditing(home, options, (entry) => logged.push(entry), 50);
    const state = () => auditLocally(home, { ...options, endOfTime: new Date(0), historyMs: 0 }).catch(() => null);
    await expect.poll(async () => (await state())?.anchored_rows, { timeout: 10_000 }).toBe(1);
    expect(logged).toEqual([]);

    const admin = await testDatabase.connect('admin');
    await admin.query(`alter table ledger.universal_registry disable trigger all;
                       update ledger.universal_registry set who = 'mallory'`);
    await expect.poll(() => logged.length, { timeout: 10_000 }).toBeGreaterThan(0);
    expect(logged[0]).toEqual({
      level: 'error',
      message: 'the ledger is not as it was',
      problem_count: 1,
      problems: [{ class: 'hash', id: appended?.id, seq: 0, detail: expect.any(String) }],
    });
    await auditing.stop();
    const before = logged.length;
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(logged.length).toBe(before);
    expect((await state())?.problem_count, 'nobody holds the folder any more').toBe(1);
  });
});
