import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  appendSpans,
  type Database,
  readFirstPositionSince,
  readLastPosition,
  readRowsSignedBehind,
} from '../../src/ledger/index.ts';
import type { Span } from '../../src/span/index.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { runtimeSigner, strangerSigner } from '../support/keys.ts';
import { ALICE, BOB, contextOf, draft } from '../support/spans.ts';

let testDatabase: TestDatabase;
let auditor: Database;
beforeAll(async () => {
  testDatabase = await createTestDatabase();
  auditor = testDatabase.open('loglineos_auditor');
});
afterAll(() => testDatabase?.close());

const at = (minute: number) => `2026-11-26T14:${String(minute).padStart(2, '0')}:00.000Z`;

describe('where a key is to end', () => {
  it('is found in the order of positions, over all tenants, and not by what clients say of the time', async () => {
    expect([await readLastPosition(auditor), await readFirstPositionSince(auditor, at(0))]).toEqual([0, null]);
    const app = testDatabase.open('loglineos_app');
    const append = (more: Span, identity = ALICE, signer = runtimeSigner) =>
      appendSpans(app, [draft(more)], contextOf(identity, signer));
    await append({ entity_type: 'boot_event', at: at(0) });
    await append({ at: '2999-01-01T00:00:00.000Z' }); // a client's
    await append({ entity_type: 'execution', at: at(1) });
    await append({ entity_type: 'execution', at: at(10) }, BOB);
    await append({ entity_type: 'execution', at: at(2) }, BOB, strangerSigner); // says it was earlier
    await append({ entity_type: 'boot_event', at: at(12) }, ALICE, strangerSigner);
    expect(await readLastPosition(auditor)).toBe(6);
    expect(
      await Promise.all([0, 1, 2, 10, 11, 13].map((minute) => readFirstPositionSince(auditor, at(minute)))),
    ).toEqual([1, 3, 4, 4, 6, null]);
  });

  it('says how many rows the key signed behind it, and which ones first', async () => {
    const { publicKey } = runtimeSigner;
    const behind = await readRowsSignedBehind(auditor, publicKey, 1, 2);
    expect(behind).toMatchObject({ count: 3, rows: [{ position: 2, tenant_id: ALICE.tenantId }, { position: 3 }] });
    expect(await readRowsSignedBehind(auditor, publicKey, 4, 2)).toEqual({ count: 0, rows: [] });
    expect((await readRowsSignedBehind(auditor, strangerSigner.publicKey, 0, 9)).count).toBe(2);
  });

  it('is no business of the app', async () => {
    const app = testDatabase.open('loglineos_app');
    await expect(readLastPosition(app)).rejects.toMatchObject({ kind: 'access' });
  });
});
