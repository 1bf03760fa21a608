import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { AnchorTable } from '../../src/lambda/anchor-table.ts';
import { DynamoDb } from '../aws/dynamodb.ts';

let dynamodb: DynamoDb;
let table: AnchorTable;
beforeAll(async () => {
  dynamodb = await DynamoDb.start();
});
afterAll(() => dynamodb.stop());
beforeEach(async () => {
  table = new AnchorTable(await dynamodb.createTable('id'));
});

describe('a table of anchors', () => {
  it('gives back what was added, and nothing for what was not', async () => {
    expect(await table.read('anchor#1#000000000001')).toBeNull();
    expect(await table.add('anchor#1#000000000001', '{"rows":1000}')).toBe(true);
    expect(await table.read('anchor#1#000000000001')).toBe('{"rows":1000}');
    expect(await table.read('anchor#1#000000000002')).toBeNull();
  });

  it('never adds over what is there', async () => {
    await table.add('a', 'first');
    expect(await table.add('a', 'second')).toBe(false);
    expect(await table.add('a', 'first')).toBe(false);
    expect(await table.read('a')).toBe('first');
  });

  it('replaces what is still what it was, and makes nothing of nothing', async () => {
    expect(await table.replace('state', 'old', 'new')).toBe(false);
    expect(await table.read('state')).toBeNull();
    await table.add('state', 'old');
    expect(await table.replace('state', 'older', 'new')).toBe(false);
    expect(await table.read('state')).toBe('old');
    expect(await table.replace('state', 'old', 'new')).toBe(true);
    expect(await table.read('state')).toBe('new');
  });

  it('lets one of those through that write at the same moment', async () => {
    const texts = Array.from({ length: 8 }, (_, i) => `text ${i}`);
    const added = await Promise.all(texts.map((text) => table.add('state', text)));
    expect(added.filter(Boolean)).toHaveLength(1);
    const before = (await table.read('state')) as string;
    const replaced = await Promise.all(texts.map((text) => table.replace('state', before, `${text} again`)));
    expect(replaced.filter(Boolean)).toHaveLength(1);
  });

  it('that is not there is no empty one', async () => {
    await expect(new AnchorTable('no-such-table').read('state')).rejects.toMatchObject({ code: 'TABLE_UNAVAILABLE' });
    await expect(new AnchorTable('no-such-table').add('state', '{}')).rejects.toMatchObject({
      code: 'TABLE_UNAVAILABLE',
    });
  });
});
