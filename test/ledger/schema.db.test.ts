import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { COLUMN_TYPES } from '../../src/span/index.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';

let database: TestDatabase;
beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(() => database.close());

describe('the list of columns', () => {
  it('names the 70 columns of the table, in its order and with its types', async () => {
    const admin = await database.connect('admin');
    const { rows } = await admin.query<{ name: string; type: string }>(`
      select attname as name, format_type(atttypid, atttypmod) as type
        from pg_attribute
       where attrelid = 'ledger.universal_registry'::regclass and attnum > 0 and not attisdropped
       order by attnum`);
    expect(rows).toHaveLength(70);
    const types = rows.map(({ name, type }) => [name, type === 'timestamp with time zone' ? 'timestamptz' : type]);
    expect(types).toEqual(Object.entries(COLUMN_TYPES));
  });

  it('leaves every column but the sentence and the proof optional', async () => {
    const admin = await database.connect('admin');
    const { rows } = await admin.query<{ name: string }>(`
      select attname as name from pg_attribute
       where attrelid = 'ledger.universal_registry'::regclass and attnum > 0 and attnotnull order by attnum`);
    expect(rows.map(({ name }) => name)).toEqual([
      ...['id', 'seq', 'position', 'tx_id', 'entity_type', 'who', 'at', 'owner_id', 'tenant_id', 'visibility'],
      ...['curr_hash', 'signature', 'public_key'],
    ]);
  });
});
