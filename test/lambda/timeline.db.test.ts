import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { RemoteFunction } from '../../src/aws/lambda.ts';
import type { Caller } from '../../src/identity/caller.ts';
import { type CallerFields, callerFields } from '../../src/lambda/caller-fields.ts';
import type { Connections } from '../../src/lambda/connections.ts';
import type { FanOutCounts, FanOutOptions } from '../../src/lambda/fan-out.ts';
import type { TimelineAnswer } from '../../src/lambda/timeline-pages.ts';
import { appendSpans, type Identity, type SpanDraft } from '../../src/ledger/index.ts';
import type { Client, GatewayServer } from '../aws/gateway-server.ts';
import { runtimeSigner } from '../support/keys.ts';
import { ALAN, ALICE, BOB, draft } from '../support/spans.ts';
import { FunctionProcess } from './function-process.ts';
import { READER, reader, SocketFunctions } from './socket-functions.ts';

let functions: SocketFunctions;
let server: GatewayServer;
let connections: Connections;
beforeAll(async () => {
  functions = await SocketFunctions.start();
  ({ server, connections } = functions);
});
afterAll(() => functions?.stop());

const credential = (identity: Identity, more: Partial<Caller> = {}) => functions.give(identity, more);

let stopped: Promise<FanOutCounts>[] = [];
let stopAt: Date;
beforeEach(() => {
  stopAt = new Date(Date.now() + 60_000);
  functions.logged.length = 0;
});
afterEach(async () => {
  stopAt.setTime(0);
  await Promise.all(stopped);
  stopped = [];
  for (const { socket } of server.gateway.connections.values()) socket.terminate();
  await expect.poll(() => server.gateway.connections.size).toBe(0);
  for (const { id } of await connections.list(new Date())) await connections.remove(id);
});

/** A sender at work until the test ends, or until that time. */
function send({ endOfTime = stopAt, ...more }: Partial<FanOutOptions> = {}): Promise<FanOutCounts> {
  const counts = functions.send(endOfTime, more);
  stopped.push(counts);
  return counts;
}

async function connect(token: string, subscription?: object): Promise<Client> {
  const client = (await server.connect(`?ticket=${token}`)) as Client;
  expect(typeof client).toBe('object');
  if (subscription !== undefined) client.send({ action: 'subscribe', ...subscription });
  return client;
}

function append(drafts: SpanDraft[], identity: Identity = ALICE) {
  return appendSpans(functions.database, drafts, { identity, signer: runtimeSigner, now: () => new Date() });
}

let noted = 0;
/** Spans of a name of their own, by which they are told from those of other tests. */
async function appendNotes(count: number, name: string, identity: Identity = ALICE, more: object = {}) {
  for (let i = 0; i < count; i++) await append([draft({ name, this: `note ${++noted}`, ...more })], identity);
}

const namesOf = (client: Client) => client.ofType('span').map(({ span }) => span.this);

describe('a subscriber', () => {
  it('gets what it missed, hears that it caught up, then what comes, each once and in order', async () => {
    await appendNotes(130, 'one');
    const client = await connect(credential(ALICE), { id: 'mine', filter: { name: 'one' } });
    expect(await client.type('subscribed')).toEqual({ type: 'subscribed', id: 'mine' });
    void send();
    const caughtUp = await client.type('caught_up');
    expect(client.ofType('span')).toHaveLength(130);
    expect(client.frames.at(-1)).toBe(caughtUp);
    const startedAt = performance.now();
    await appendNotes(3, 'one');
    await appendNotes(1, 'another');
    await appendNotes(1, 'one');
    await expect.poll(() => client.ofType('span').length, { timeout: 5_000 }).toBe(134);
    expect(performance.now() - startedAt).toBeLessThan(3_000);

    const frames = client.ofType('span');
    const places = frames.map(({ position }) => position);
    expect(places).toEqual([...new Set(places)].sort());
    expect(new Set(namesOf(client)).size).toBe(134);
    expect(frames.at(-1)).toMatchObject({
      type: 'span',
      id: 'mine',
      position: expect.stringMatching(/^[0-9a-f]{32}$/),
      span: { name: 'one', owner_id: 'alice', curr_hash: expect.stringMatching(/^[0-9a-f]{64}$/) },
    });
    expect(client.ofType('caught_up')).toEqual([{ type: 'caught_up', id: 'mine', position: caughtUp.position }]);
    expect(functions.logged).toEqual([]);

    const [saved] = await connections.list(new Date());
    const later = await connect(credential(ALICE), { filter: { name: 'one' }, after: places[131] });
    await later.type('caught_up');
    expect(namesOf(later)).toEqual(namesOf(client).slice(132));
    expect(String(saved?.subscriptions[0]?.position) >= String(places.at(-1))).toBe(true);
  });

  it('that begins at the end gets only what comes', async () => {
    await appendNotes(3, 'two');
    void send();
    const client = await connect(credential(ALICE), { filter: { name: 'two' }, after: 'end' });
    await client.type('caught_up');
    await appendNotes(2, 'two');
    await expect.poll(() => client.ofType('span').length, { timeout: 5_000 }).toBe(2);
  });

  it('gets nothing that its identity may not see, whatever it asks for', async () => {
    const name = 'three';
    await appendNotes(1, name, ALICE, { visibility: 'private' });
    await appendNotes(1, name, ALICE, { visibility: 'tenant' });
    await appendNotes(1, name, BOB, { visibility: 'private' });
    void send();
    const open = (identity: Identity) => connect(credential(identity), { filter: { name } });
    const [alice, alan, bob] = await Promise.all([open(ALICE), open(ALAN), open(BOB)]);
    await Promise.all([alice, alan, bob].map((client) => client.type('caught_up')));
    await appendNotes(1, name, ALICE, { visibility: 'tenant' });
    await appendNotes(1, name, BOB, { visibility: 'tenant' });
    await appendNotes(1, name, ALAN, { visibility: 'private' });
    const owners = (client: Client) => client.ofType('span').map(({ span }) => `${span.owner_id} ${span.visibility}`);
    await expect
      .poll(() => [alice, alan, bob].map((each) => owners(each).length), { timeout: 5_000 })
      .toEqual([3, 3, 2]);
    expect(owners(alice)).toEqual(['alice private', 'alice tenant', 'alice tenant']);
    expect(owners(alan)).toEqual(['alice tenant', 'alice tenant', 'alan private']);
    expect(owners(bob)).toEqual(['bob private', 'bob tenant']);
    expect(JSON.stringify(bob.frames)).not.toContain('acme');
  });

  it('has several subscriptions, and soon gets no more for one that it ended', async () => {
    void send();
    const client = await connect(credential(ALICE), { id: 'a', filter: { name: 'four' }, after: 'end' });
    client.send({ action: 'subscribe', id: 'b', filter: { name: 'four' }, after: 'end' });
    client.send({ action: 'subscribe', id: 'c', filter: { name: 'none' }, after: 'end' });
    await client.heard(() => client.ofType('caught_up').length === 3);
    await appendNotes(1, 'four');
    await client.heard(() => client.ofType('span').length === 2);
    client.send({ action: 'unsubscribe', id: 'a' });
    await client.type('unsubscribed');
    expect((await connections.list(new Date()))[0]?.subscriptions).toHaveLength(2);
    await new Promise((resolve) => setTimeout(resolve, 1_200)); // the sender looks once a second
    await appendNotes(1, 'four');
    await client.heard(() => client.ofType('span').length === 3);
    expect(
      client
        .ofType('span')
        .map(({ id }) => id)
        .sort(),
    ).toEqual(['a', 'b', 'b']);
  });

  it('gets of a span that no frame holds which one it is, to be fetched', async () => {
    void send();
    const client = await connect(credential(ALICE), { filter: { name: 'five' }, after: 'end' });
    await client.type('caught_up');
    const sizes = [1_000, 90_000, 300_000, 90_000, 900_000];
    const [, , large] = await append(sizes.map((n) => draft({ name: 'five', content: { text: 'ü'.repeat(n / 2) } })));
    await client.heard(() => client.ofType('span').length === 5);
    const frames = client.ofType('span');
    expect(frames.map(({ truncated }) => truncated === true)).toEqual([false, false, true, false, true]);
    expect(frames[2]).toEqual({
      type: 'span',
      id: 'default',
      position: expect.stringMatching(/^[0-9a-f]{32}$/),
      span: {
        id: large?.id,
        seq: 0,
        position: expect.any(Number),
        tx_id: expect.any(String),
        at: expect.any(String),
        curr_hash: large?.curr_hash,
      },
      truncated: true,
    });
    for (const answer of functions.answers) expect(JSON.stringify(answer).length).toBeLessThan(6 * 1024 * 1024);
  });
});

describe('a connection', () => {
  it('is refused without a credential, and with one that may not read spans', async () => {
    expect(await server.connect('')).toBe(401);
    expect(await server.connect('?ticket=unknown')).toBe(401);
    expect(await server.connect(`?ticket=${credential(ALICE, { scopes: ['spans:append', 'boot'] })}`)).toBe(403);
    expect(await connections.list(new Date())).toEqual([]);
    await connect(credential(ALICE, { scopes: ['*'] }));
    expect(await connections.list(new Date())).toMatchObject([{ caller: { user_id: 'alice', tenant_id: 'acme' } }]);
  });

  it('is forgotten when it is closed', async () => {
    const client = await connect(credential(ALICE));
    expect(await connections.list(new Date())).toHaveLength(1);
    client.socket.close();
    await expect.poll(() => connections.list(new Date())).toEqual([]);
  });

  it('does not see why something of ours failed', async () => {
    const client = await connect(credential(ALICE));
    const [connection] = await connections.list(new Date());
    await functions.dynamodb.whileAway(async () => {
      client.send({ action: 'subscribe' });
      expect(await client.type('error')).toEqual({
        type: 'error',
        code: 'INTERNAL',
        message: 'something failed on our side',
      });
      expect(await server.connect(`?ticket=${credential(ALICE)}`)).toBe(500);
    });
    client.frames.length = 0;
    client.send({ action: 'subscribe' });
    await client.type('subscribed');
    await connections.remove(String(connection?.id));
    client.send({ action: 'subscribe', id: 'late' });
    expect(await client.type('error')).toMatchObject({ code: 'CONNECTION_GONE' });
  });

  it('that is gone without a word is forgotten at its next frame', async () => {
    const client = await connect(credential(ALICE), { filter: { name: 'gone' }, after: 'end' });
    const healthy = await connect(credential(ALICE), { filter: { name: 'gone' }, after: 'end' });
    const counts = send();
    await Promise.all([client.type('caught_up'), healthy.type('caught_up')]);
    const [id] = server.gateway.connections.keys();
    server.gateway.connections.delete(String(id)); // API Gateway knows it no more, and told nobody
    await appendNotes(1, 'gone');
    await healthy.type('span');
    await expect.poll(async () => (await connections.list(new Date())).length).toBe(1);
    stopAt.setTime(0);
    expect((await counts).ended).toEqual({ GONE: 1 });
  });

  it('whose token is revoked is told so within a second, and gets nothing more', async () => {
    void send();
    const token = credential(ALICE);
    const [ended, idle, other] = await Promise.all([
      connect(token, { filter: { name: 'six' }, after: 'end' }),
      connect(token),
      connect(credential(ALICE), { filter: { name: 'six' }, after: 'end' }),
    ]);
    await Promise.all([ended.type('caught_up'), other.type('caught_up')]);
    functions.revoked.add(token);
    const revokedAt = performance.now();
    await appendNotes(1, 'six');
    expect(await ended.type('end')).toEqual({ type: 'end', code: 'TOKEN_REVOKED' });
    expect(await idle.type('end')).toEqual({ type: 'end', code: 'TOKEN_REVOKED' });
    expect(performance.now() - revokedAt).toBeLessThan(1_000);
    await Promise.all([ended.closed, idle.closed]);
    await other.type('span');
    expect(ended.ofType('span')).toEqual([]);
    await expect.poll(async () => (await connections.list(new Date())).length).toBe(1);
  });

  it('whose token expires is told so within a second', async () => {
    void send();
    const expiresAt = new Date(Date.now() + 1_500);
    const client = await connect(credential(ALICE, { expiresAt }), { after: 'end' });
    await client.type('end');
    expect(Date.now() - expiresAt.getTime()).toBeLessThan(1_000);
    expect(client.frames.at(-1)).toEqual({ type: 'end', code: 'TOKEN_EXPIRED' });
  });

  it('that does not read is dropped, and others do not wait for it', async () => {
    const counts = send();
    const lazy = await connect(credential(ALICE), { filter: { name: 'seven' }, after: 'end' });
    const eager = await connect(credential(ALICE), { filter: { name: 'seven' }, after: 'end' });
    await Promise.all([lazy.type('caught_up'), eager.type('caught_up')]);
    lazy.socket.pause();
    let slowest = 0;
    for (let i = 5; i <= 300 && (await connections.list(new Date())).length === 2; i += 5) {
      const startedAt = performance.now();
      await append(Array.from({ length: 5 }, () => draft({ name: 'seven', content: { text: 'x'.repeat(95_000) } })));
      await eager.heard(() => eager.ofType('span').length === i);
      slowest = Math.max(slowest, performance.now() - startedAt);
    }
    await expect.poll(async () => (await connections.list(new Date())).length, { timeout: 10_000 }).toBe(1);
    expect(slowest).toBeLessThan(1_500);
    stopAt.setTime(0);
    expect((await counts).ended).toEqual({ SLOW_CLIENT: 1 });
  });
});

describe('senders', () => {
  it('work one at a time: nothing is sent twice, and when one ends the next goes on', async () => {
    const first = send({ endOfTime: new Date(Date.now() + 3_000) });
    const client = await connect(credential(ALICE), { filter: { name: 'eight' }, after: 'end' });
    await client.type('caught_up');
    const second = send();
    const writing = (async () => {
      for (let i = 0; i < 100; i++) {
        await appendNotes(1, 'eight');
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    })();
    const counts = await first;
    await writing;
    await client.heard(() => client.ofType('span').length >= 100);
    stopAt.setTime(0);
    const after = await second;
    expect(namesOf(client)).toEqual([...new Set(namesOf(client))]);
    expect(client.ofType('span')).toHaveLength(100);
    expect(counts.frames).toBeGreaterThan(10);
    expect(after.frames).toBeGreaterThan(10);
    expect(counts.frames + after.frames).toBe(101);
  });

  it('take over from one that was killed: everything arrives, and at most a page again', async () => {
    await appendNotes(60, 'nine');
    const env = {
      ...functions.dynamodb.env,
      AWS_ENDPOINT_URL_LAMBDA: String(process.env.AWS_ENDPOINT_URL_LAMBDA),
      CONNECTIONS_TABLE: String(process.env.CONNECTIONS_TABLE),
      READER_FUNCTION: READER,
      SOCKETS_ENDPOINT: server.endpoint,
    };
    const bundle = new URL('../../src/lambda/timeline-sender.ts', import.meta.url).pathname;
    const killed = new FunctionProcess(bundle, env, 60_000);
    killed.invoke({}).catch(() => {});
    const client = await connect(credential(ALICE), { filter: { name: 'nine' } });
    await client.heard(() => client.ofType('span').length >= 5);
    await killed.kill();
    const heard = client.ofType('span').length;
    expect(heard).toBeLessThan(60);
    void send();
    await client.type('caught_up', 20_000);
    const numbers = namesOf(client).map((name) => Number(name.slice(5)));
    const first = Number(numbers[0]);
    // In order up to where it was killed, then again in order from some place before.
    const [before, after] = [numbers.slice(0, heard), numbers.slice(heard)];
    expect(before).toEqual(before.map((_, i) => first + i));
    expect(after).toEqual(after.map((_, i) => Number(after[0]) + i));
    expect(after[0]).toBeLessThanOrEqual(first + heard);
    expect(after.at(-1)).toBe(first + 59);
  });

  it('ask once for all that go on together, and in parts when there are too many', async () => {
    const identities = Array.from({ length: 45 }, (_, i) => ({ userId: `user-${i}`, tenantId: 'crowd' }));
    const subscription = { filter: { name: 'ten' }, after: 'end' };
    const clients = await Promise.all([
      ...identities.map((identity) => connect(credential(identity), subscription)),
      ...Array.from({ length: 30 }, () => connect(credential(identities[0] as Identity), subscription)),
    ]);
    void send();
    await Promise.all(clients.map((client) => client.type('caught_up')));
    functions.answers.length = 0;
    await append([draft({ name: 'ten', visibility: 'tenant' })], { userId: 'user-0', tenantId: 'crowd' });
    await Promise.all(clients.map((client) => client.type('span')));
    for (const client of clients) expect(client.ofType('span')).toHaveLength(1);
    const pages = functions.answers.flatMap((answer) => answer.pages).filter(({ spans }) => spans.length > 0);
    // One for each identity, and a few for connections that were a round behind.
    expect(pages.length).toBeLessThan(60);
    expect(Math.max(...functions.answers.map((answer) => answer.pages.length))).toBeLessThanOrEqual(40);
  });

  it('go on after the reader failed', async () => {
    let failures = 0;
    void send({
      read: async (question) => {
        if (failures < 2 && question.groups.length > 0) {
          failures++;
          return new RemoteFunction('no-such-function').invoke(question, 5_000) as Promise<TimelineAnswer>;
        }
        return (await reader.invoke(question, 5_000)) as TimelineAnswer;
      },
    });
    const client = await connect(credential(ALICE), { filter: { name: 'eleven' }, after: 'end' });
    await client.type('caught_up');
    expect(failures).toBe(2);
    expect(functions.logged).toMatchObject([
      { message: 'a round failed', error: expect.stringContaining('function no-such-function gave no answer') },
      { message: 'a round failed' },
    ]);
  });
});

describe('the reader', () => {
  const ask = (group: object) =>
    reader.invoke(
      {
        groups: [{ user_id: 'alice', tenant_id: 'acme', filter: {}, after: 'end', caught_up: true, ...group }],
        callers: [],
        wait_ms: 1_000,
      },
      5_000,
    );

  it('believes no filter and no place that a client could not have asked for', async () => {
    for (const [group, code] of [
      [{ filter: { 'id is not null or r.name': 'x' } }, 'FIELD_UNKNOWN'],
      [{ filter: { name: 7 } }, 'FIELD_INVALID'],
      [{ filter: null }, 'FIELD_INVALID'],
      [{ after: "' or true --" }, 'CURSOR_INVALID'],
    ] as const) {
      await expect(ask(group), code).rejects.toMatchObject({
        code: 'FUNCTION_FAILED',
        message: `function ${READER} failed: ${code}`,
      });
    }
  });

  it('waits a second for something new, and answers when it is there', async () => {
    const { pages } = (await ask({ caught_up: false })) as TimelineAnswer;
    const after = pages[0]?.position;
    expect(pages).toEqual([{ spans: [], position: after, caught_up: true }]);
    const startedAt = performance.now();
    expect(await ask({ after })).toEqual({ pages, ended: [] });
    expect(performance.now() - startedAt).toBeGreaterThan(950);

    const asked = ask({ after });
    await new Promise((resolve) => setTimeout(resolve, 300));
    const appendedAt = performance.now();
    await appendNotes(1, 'twelve');
    expect(await asked).toMatchObject({ pages: [{ spans: [{ span: { name: 'twelve' } }], caught_up: true }] });
    expect(performance.now() - appendedAt).toBeLessThan(400);
  });
});

describe('a caller', () => {
  it('is the same after it was text', () => {
    const fields = (caller: Caller): CallerFields => callerFields(caller);
    expect(fields({ identity: ALICE, scopes: ['a', 'b'], tokenId: null, expiresAt: null })).toEqual({
      user_id: 'alice',
      tenant_id: 'acme',
      scopes: 'a b',
      token_id: '',
      expires_at: '',
    });
  });
});
