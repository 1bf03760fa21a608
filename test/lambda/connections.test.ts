import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Table } from '../../src/aws/dynamodb.ts';
import { UpstreamError } from '../../src/errors.ts';
import { type Connection, Connections } from '../../src/lambda/connections.ts';
import { SUBSCRIPTIONS_MAX } from '../../src/timeline/index.ts';
import { DynamoDb } from '../aws/dynamodb.ts';

const NOW = new Date('2026-11-25T10:00:00.000Z');
const START = '0'.repeat(32);
const LATER = '1'.repeat(32);
const ALICE = { user_id: 'alice', tenant_id: 'acme', scopes: 'spans:read', token_id: '', expires_at: '' };

let dynamodb: DynamoDb;
let name: string;
let connections: Connections;
beforeAll(async () => {
  dynamodb = await DynamoDb.start();
});
afterAll(() => dynamodb.stop());
beforeEach(async () => {
  name = await dynamodb.createConnectionsTable();
  connections = new Connections(name);
});

const subscribe = (id: string, subscriptionId: string) =>
  connections.subscribe(id, subscriptionId, '{"status":"done"}', START);
const only = async () => {
  const all = await connections.list(NOW);
  expect(all).toHaveLength(1);
  return all[0] as Connection;
};

describe('a connection', () => {
  it('is listed with who it speaks for and what it asked for, until it is removed', async () => {
    await connections.open('one', ALICE, NOW);
    expect(await connections.list(NOW)).toEqual([{ id: 'one', caller: ALICE, subscriptions: [] }]);
    await subscribe('one', 'a name of #1.2');
    expect((await only()).subscriptions).toEqual([
      {
        id: 'a name of #1.2',
        key: expect.any(String),
        filter: '{"status":"done"}',
        position: START,
        caughtUp: false,
      },
    ]);
    await connections.remove('one');
    await connections.remove('one');
    expect(await connections.list(NOW)).toEqual([]);
  });

  it('is not listed after two hours, or a minute after its credential ended, whenever DynamoDB deletes it', async () => {
    await connections.open('long', ALICE, NOW);
    await connections.open('short', { ...ALICE, expires_at: '2026-11-25T10:05:00.000Z' }, NOW);
    const listedAfter = async (minutes: number) =>
      (await connections.list(new Date(NOW.getTime() + minutes * 60_000))).map(({ id }) => id).sort();
    expect(await listedAfter(5)).toEqual(['long', 'short']);
    expect(await listedAfter(7)).toEqual(['long']);
    expect(await listedAfter(122)).toEqual([]);
  });

  it('has as many subscriptions as it may, each of another name', async () => {
    await connections.open('one', ALICE, NOW);
    for (let i = 1; i < SUBSCRIPTIONS_MAX; i++) await subscribe('one', `s${i}`);
    await expect(subscribe('one', 's1')).rejects.toMatchObject({ code: 'SUBSCRIPTION_EXISTS', field: 'id' });
    await subscribe('one', 'last');
    await expect(subscribe('one', 'more')).rejects.toMatchObject({ code: 'SUBSCRIPTIONS_EXCEEDED' });
    await expect(subscribe('one', 'last')).rejects.toMatchObject({ code: 'SUBSCRIPTION_EXISTS', field: 'id' });
    await connections.unsubscribe('one', 'last');
    await expect(connections.unsubscribe('one', 'last')).rejects.toMatchObject({
      code: 'SUBSCRIPTION_NOT_FOUND',
      field: 'id',
    });
    await subscribe('one', 'more');
    const ids = (await only()).subscriptions.map(({ id }) => id);
    expect([ids.length, ids.includes('more'), ids.includes('last')]).toEqual([SUBSCRIPTIONS_MAX, true, false]);
  });

  it('that is not there cannot subscribe, and is not made by it', async () => {
    await expect(subscribe('nobody', 'a')).rejects.toMatchObject({ code: 'CONNECTION_GONE' });
    await expect(connections.unsubscribe('nobody', 'a')).rejects.toMatchObject({ code: 'SUBSCRIPTION_NOT_FOUND' });
    expect(await connections.list(NOW)).toEqual([]);
  });

  it('moves on from where it was read, and not when it is elsewhere or began again', async () => {
    await connections.open('one', ALICE, NOW);
    await subscribe('one', 'a');
    const [before] = (await only()).subscriptions;
    await connections.move('one', before as never, LATER, true);
    expect((await only()).subscriptions).toEqual([{ ...before, position: LATER, caughtUp: true }]);
    await connections.move('one', before as never, '2'.repeat(32), true);
    expect((await only()).subscriptions).toMatchObject([{ position: LATER }]);
    await connections.unsubscribe('one', 'a');
    await subscribe('one', 'a');
    await connections.move('one', before as never, LATER, true);
    expect((await only()).subscriptions).toMatchObject([{ position: START, caughtUp: false }]);
    await connections.unsubscribe('one', 'a');
    await connections.move('one', before as never, LATER, true);
    expect((await only()).subscriptions).toEqual([]);
  });

  it('is one of many: all pages are listed', async () => {
    const filler = 'x'.repeat(250_000);
    await Promise.all(
      Array.from({ length: 6 }, (_, i) => connections.open(`c${i}`, { ...ALICE, user_id: filler }, NOW)),
    );
    expect((await connections.list(NOW)).map(({ id }) => id).sort()).toEqual(['c0', 'c1', 'c2', 'c3', 'c4', 'c5']);
  });
});

describe('sending', () => {
  const until = (ms: number) => new Date(NOW.getTime() + ms);

  it('is one sender’s until it ends, or does not hold it any more; and is no connection', async () => {
    expect(await connections.holdSending('first', NOW, until(100))).toBe(true);
    expect(await connections.holdSending('second', NOW, until(100))).toBe(false);
    expect(await connections.holdSending('first', until(50), until(200))).toBe(true);
    expect(await connections.holdSending('second', until(150), until(300))).toBe(false);
    expect(await connections.holdSending('second', until(201), until(300))).toBe(true);
    await connections.endSending('first');
    expect(await connections.holdSending('first', until(202), until(300))).toBe(false);
    await connections.endSending('second');
    expect(await connections.holdSending('first', until(203), until(300))).toBe(true);
    expect(await connections.list(NOW)).toEqual([]);
  });

  it('is taken by one of those that ask at the same moment', async () => {
    const held = await Promise.all(
      Array.from({ length: 8 }, (_, i) => connections.holdSending(`s${i}`, NOW, until(100))),
    );
    expect(held.filter(Boolean)).toHaveLength(1);
  });
});

describe('a table', () => {
  it('that gives no answer says so without a word of the service’s', async () => {
    const error = await new Table('no-such-table').scan().catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(UpstreamError);
    expect(error).toMatchObject({
      code: 'TABLE_UNAVAILABLE',
      message: 'table no-such-table gave no answer: ResourceNotFoundException',
    });
    expect((error as Error).cause).toBeUndefined();
  });

  it('gives back what was put in', async () => {
    const table = new Table(name);
    const item = { connection_id: 'x', text: '', yes: true, no: false, zero: 0, half: 0.5, deep: { er: { a: 'b' } } };
    await table.put(item);
    expect(await table.scan()).toEqual([item]);
  });
});
