import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Caller } from '../../src/identity/caller.ts';
import { appendSpans, type Identity, type SpanDraft } from '../../src/ledger/index.ts';
import { type Client, openSocket } from '../aws/gateway-server.ts';
import { SocketFunctions } from '../lambda/socket-functions.ts';
import { createTestDatabase } from '../support/database.ts';
import { ALAN, ALICE, BOB, contextOf, draft } from '../support/spans.ts';
import { LiveServer } from './live-server.ts';

/** Where the WebSocket is served: what a client can see of it must be the same. */
interface Edge {
  url: string;
  give(identity: Identity, more?: Partial<Caller>): string;
  revoke(token: string): void;
  append(drafts: SpanDraft[], identity: Identity): Promise<unknown>;
  stop(): Promise<void>;
}

async function startLocal(): Promise<Edge> {
  const ledger = await createTestDatabase();
  const live = await LiveServer.start(ledger);
  return {
    url: `${live.url.replace('http', 'ws')}/ws`,
    give: (identity, more) => live.tokens.give(identity, more),
    revoke: (token) => live.tokens.revoked.add(token),
    append: (drafts, identity) => live.append(drafts, identity),
    async stop() {
      await live.stop();
      await ledger.close();
    },
  };
}

async function startFunctions(): Promise<Edge> {
  const functions = await SocketFunctions.start();
  const endOfTime = new Date(Date.now() + 600_000);
  const sending = functions.send(endOfTime);
  return {
    url: functions.server.endpoint.replace('http', 'ws'),
    give: (identity, more) => functions.give(identity, more),
    revoke: (token) => functions.revoked.add(token),
    append: (drafts, identity) => appendSpans(functions.database, drafts, contextOf(identity)),
    async stop() {
      endOfTime.setTime(0);
      await sending;
      await functions.stop();
    },
  };
}

/** What the first edge answered to what is wrong; the second says the same. */
const said = new Map<string, unknown>();

describe.each([
  ['the local stack', startLocal],
  ['the functions in AWS', startFunctions],
])('the WebSocket of %s', (_name, start) => {
  let edge: Edge;
  beforeAll(async () => {
    edge = await start();
  });
  afterAll(() => edge?.stop());

  const clients: Client[] = [];
  afterEach(() => {
    for (const { socket } of clients.splice(0)) socket.terminate();
  });

  async function open(token = edge.give(ALICE)): Promise<Client> {
    const client = await openSocket(`${edge.url}?ticket=${token}`);
    if (typeof client === 'number') throw new Error(`refused: ${client}`);
    clients.push(client);
    return client;
  }

  /** The answer to one message, of that type. */
  async function ask(client: Client, message: unknown, type: string) {
    client.frames.length = 0;
    client.send(message);
    return client.type(type);
  }

  const note = (name: string, more: object = {}) => draft({ name, ...more });
  const names = (client: Client, id = 'default') =>
    client
      .ofType('span')
      .filter((frame) => frame.id === id)
      .map(({ span }) => span.name);

  it('tells what was missed, then so, then what comes, in frames of these fields alone', async () => {
    const name = 'in order';
    await edge.append([note(name), note(name), note('another')], ALICE);
    const client = await open();
    client.send({ action: 'subscribe', filter: { name } });
    const caughtUp = await client.type('caught_up');
    expect(await client.type('subscribed')).toEqual({ type: 'subscribed', id: 'default' });
    expect(caughtUp).toEqual({ type: 'caught_up', id: 'default', position: expect.stringMatching(/^[0-9a-f]{32}$/) });
    await edge.append([note(name), note('another')], ALICE);
    await client.heard(() => client.ofType('span').length === 3);
    for (const frame of client.ofType('span')) {
      expect(Object.keys(frame)).toEqual(['type', 'id', 'position', 'span']);
      expect(frame.span).toMatchObject({ name, owner_id: 'alice', curr_hash: expect.any(String) });
    }
    const places = client.ofType('span').map(({ position }) => position);
    expect(places).toEqual([...new Set(places)].sort());
    expect(client.frames.indexOf(caughtUp)).toBeGreaterThan(client.frames.indexOf(client.ofType('span')[1]));
    expect(client.ofType('caught_up')).toHaveLength(1);

    const again = await open();
    again.send({ action: 'subscribe', id: 'mine', filter: { name }, after: places[0] });
    expect(await again.type('caught_up')).toMatchObject({ id: 'mine' });
    expect(again.ofType('span').map(({ position }) => position)).toEqual(places.slice(1));
  });

  it('begins at the end where that is asked, or where the place never was', async () => {
    await edge.append([note('old')], ALICE);
    for (const after of ['end', 'ffffffffffffffff7fffffffffffffff']) {
      const client = await open();
      client.send({ action: 'subscribe', after });
      await client.type('caught_up');
      await edge.append([note(`new ${after}`)], ALICE);
      await client.type('span');
      expect(names(client)).toEqual([`new ${after}`]);
    }
  });

  it('shows nobody what he may not see', async () => {
    const [alan, bob] = [await open(edge.give(ALAN)), await open(edge.give(BOB))];
    for (const client of [alan, bob]) client.send({ action: 'subscribe', after: 'end' });
    await Promise.all([alan, bob].map((client) => client.type('caught_up')));
    await edge.append([note('private'), note('tenant', { visibility: 'tenant' })], ALICE);
    await edge.append([note('bob')], BOB);
    await Promise.all([alan, bob].map((client) => client.type('span')));
    expect([names(alan), names(bob)]).toEqual([['tenant'], ['bob']]);
    expect(JSON.stringify(bob.frames)).not.toContain('acme');
  });

  it('has subscriptions by their names, each with its filter, and refuses a name that is taken', async () => {
    const client = await open();
    client.send({ action: 'subscribe', id: 'a', filter: { name: 'several' }, after: 'end' });
    client.send({ action: 'subscribe', id: 'b', after: 'end' });
    await client.heard(() => client.ofType('caught_up').length === 2);
    expect(await ask(client, { action: 'subscribe', id: 'a', filter: { name: 'other' } }, 'error')).toEqual({
      type: 'error',
      code: 'SUBSCRIPTION_EXISTS',
      message: 'there is a subscription a already',
      field: 'id',
    });
    await edge.append([note('other'), note('several')], ALICE);
    await client.heard(() => client.ofType('span').length === 3);
    expect([names(client, 'a'), names(client, 'b')]).toEqual([['several'], ['other', 'several']]);

    expect(await ask(client, { action: 'unsubscribe', id: 'b' }, 'unsubscribed')).toEqual({
      type: 'unsubscribed',
      id: 'b',
    });
    await new Promise((resolve) => setTimeout(resolve, 1_200)); // for a second, what was read before may come
    client.send({ action: 'subscribe', id: 'b', filter: { name: 'third' }, after: 'end' });
    await client.type('caught_up');
    await edge.append([note('several'), note('third')], ALICE);
    await client.heard(() => client.ofType('span').length === 2);
    expect([names(client, 'a'), names(client, 'b')]).toEqual([['several'], ['third']]);
  });

  it('has twenty of them at most', async () => {
    const client = await open();
    for (let i = 0; i < 20; i++) await ask(client, { action: 'subscribe', id: `${i}`, after: 'end' }, 'subscribed');
    expect(await ask(client, { action: 'subscribe', id: 'more' }, 'error')).toEqual({
      type: 'error',
      code: 'SUBSCRIPTIONS_EXCEEDED',
      message: 'a connection may have 20 subscriptions',
    });
    await ask(client, { action: 'unsubscribe', id: '7' }, 'unsubscribed');
    await ask(client, { action: 'subscribe', id: 'more', after: 'end' }, 'subscribed');
  });

  it.each<[unknown, string, string?]>([
    ['{', 'JSON_INVALID'],
    ['', 'JSON_INVALID'],
    [Buffer.from('{"action":"ping"}'), 'JSON_INVALID'],
    ['[]', 'FIELD_INVALID'],
    ['null', 'FIELD_INVALID'],
    [{}, 'FIELD_MISSING', 'action'],
    [{ action: 'dance' }, 'FIELD_INVALID', 'action'],
    [{ action: '$connect' }, 'FIELD_INVALID', 'action'],
    [{ action: 'ping', more: 1 }, 'FIELD_UNKNOWN', 'more'],
    [{ action: 'subscribe', id: 7 }, 'FIELD_INVALID', 'id'],
    [{ action: 'subscribe', id: '' }, 'FIELD_INVALID', 'id'],
    [{ action: 'subscribe', id: 'x'.repeat(65) }, 'FIELD_INVALID', 'id'],
    [{ action: 'subscribe', after: 'x' }, 'FIELD_INVALID', 'after'],
    [{ action: 'subscribe', after: {} }, 'FIELD_INVALID', 'after'],
    [{ action: 'subscribe', filter: [] }, 'FIELD_INVALID', 'filter'],
    [{ action: 'subscribe', filter: { colour: 'red' } }, 'FIELD_UNKNOWN', 'filter.colour'],
    [{ action: 'subscribe', filter: { parent_id: 'x' } }, 'FIELD_INVALID', 'filter.parent_id'],
    [{ action: 'subscribe', filter: { from: '2026-13-01T00:00:00Z' } }, 'FIELD_INVALID', 'filter.from'],
    [{ action: 'subscribe', filter: { status: 'a\0' } }, 'FIELD_INVALID', 'filter.status'],
    [{ action: 'subscribe', user_id: 'bob' }, 'FIELD_UNKNOWN', 'user_id'],
    [{ action: 'unsubscribe', id: 'unknown' }, 'SUBSCRIPTION_NOT_FOUND', 'id'],
    [{ action: 'unsubscribe', id: '__proto__' }, 'SUBSCRIPTION_NOT_FOUND', 'id'],
    [{ action: 'ping', filler: 'x'.repeat(32 * 1024) }, 'MESSAGE_TOO_LARGE'],
  ])('answers what is wrong with %j, and lives on', async (message, code, field) => {
    const client = await open();
    if (Buffer.isBuffer(message)) client.socket.send(message, { binary: true });
    else client.send(message);
    const error = await client.type('error');
    expect(error).toEqual({ type: 'error', code, message: expect.any(String), ...(field ? { field } : {}) });
    const key = JSON.stringify(message);
    expect(error).toEqual(said.get(key) ?? error);
    said.set(key, error);
    expect(await ask(client, { action: 'ping' }, 'pong')).toEqual({ type: 'pong' });
  });

  it('is closed by a message of more than 128 KiB', async () => {
    const client = await open();
    client.send({ action: 'ping', filler: 'x'.repeat(128 * 1024) });
    expect(await client.closed).toBe(1009);
  });

  it.each(['TOKEN_REVOKED', 'TOKEN_EXPIRED'])('ends within a second after a credential does: %s', async (code) => {
    const expiresAt = code === 'TOKEN_EXPIRED' ? new Date(Date.now() + 2_000) : null;
    const token = edge.give(ALICE, { expiresAt });
    const [client, other] = [await open(token), await open()];
    for (const each of [client, other]) each.send({ action: 'subscribe', after: 'end' });
    await Promise.all([client, other].map((each) => each.type('caught_up')));
    if (expiresAt === null) edge.revoke(token);
    const endedAt = expiresAt?.getTime() ?? Date.now();
    expect(await client.type('end')).toEqual({ type: 'end', code });
    expect(Date.now() - endedAt).toBeLessThan(1_000);
    await client.closed;
    await edge.append([note('after the end')], ALICE);
    await other.type('span');
    expect(names(client)).toEqual([]);
  });

  it('is not opened for who shows nothing that is known', async () => {
    for (const query of ['', '?ticket=unknown']) expect(await openSocket(`${edge.url}${query}`)).toBe(401);
  });
});
