import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { sealSpan } from '../../src/span/index.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { runtimeSigner } from '../support/keys.ts';
import { ALAN, ALICE, BOB, hashable } from '../support/spans.ts';
import {
  type LiveOptions,
  LiveServer,
  named,
  openClient,
  SseClient,
  TRANSPORTS,
  until,
  WsClient,
} from './live-server.ts';

let ledger: TestDatabase;
beforeAll(async () => {
  ledger = await createTestDatabase();
});
afterAll(() => ledger.close());

const servers: LiveServer[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.stop();
});

async function start(options: LiveOptions = {}): Promise<LiveServer> {
  const server = await LiveServer.start(ledger, options);
  servers.push(server);
  return server;
}

/** Names that no other test uses. */
let last = 0;
function names(count: number): string[] {
  last += 1;
  return Array.from({ length: count }, (_, i) => `span-${last}-${i}`);
}

describe.each(TRANSPORTS)('a subscriber over %s', (transport) => {
  const open = (server: LiveServer, token: string, query?: Record<string, string>) =>
    openClient(transport, server, token, query);

  it('gets what is there, then is told so, then gets what comes', async () => {
    const server = await start();
    const [before, after] = [names(3), names(3)];
    await server.append(
      before.map((name) => named(name)),
      ALICE,
    );
    const client = await open(server, server.tokens.give(ALICE));
    await until(() => client.names.includes(before[2]), 'what is there');
    const { position } = await client.other('caught_up');
    expect(String(position) >= String(client.spans.at(-1)?.position)).toBe(true);
    for (const name of after) await server.append([named(name)], ALICE);
    await until(() => client.names.includes(after[2]), 'what comes');
    expect(client.names.slice(-6)).toEqual([...before, ...after]);
    expect(client.spans.map(({ position }) => position)).toEqual(
      [...new Set(client.spans.map(({ position }) => position))].sort(),
    );
  });

  it('gets only what is new from the end on', async () => {
    const server = await start();
    await server.append([named('old')], ALICE);
    const client = await open(server, server.tokens.give(ALICE), { after: 'end' });
    const [name] = names(1);
    await server.append([named(name as string)], ALICE);
    await until(() => client.spans.length > 0, 'what comes');
    expect(client.names).toEqual([name]);
  });

  it('gets what its filter lets through, of what is there and of what comes', async () => {
    const server = await start();
    const [a, b, c, d] = names(4) as [string, string, string, string];
    await server.append([named(a, { status: 'on' }), named(b, { status: 'off' })], ALICE);
    const client = await open(server, server.tokens.give(ALICE), { status: 'on' });
    await server.append([named(c, { status: 'off' }), named(d, { status: 'on' })], ALICE);
    await until(() => client.names.includes(d), 'what comes');
    expect(client.names.slice(-2)).toEqual([a, d]);
    expect(client.names).not.toContain(b);
    expect(client.names).not.toContain(c);
  });

  it('sees its own, its tenant’s and public spans, and no others', async () => {
    const server = await start();
    const clients = [];
    for (const identity of [ALICE, ALAN, BOB])
      clients.push(await open(server, server.tokens.give(identity), { after: 'end' }));
    const [hers, theirs, bobs, everybodys] = names(4) as [string, string, string, string];
    await server.append([named(hers), named(theirs, { visibility: 'tenant' })], ALICE);
    await server.append([named(bobs)], BOB);
    const seeder = await ledger.connect('loglineos_seeder');
    const published = sealSpan(hashable({ name: everybodys, visibility: 'public' }, ALICE), runtimeSigner);
    await seeder.query(`select ledger.append('alice', 'acme', $1)`, [JSON.stringify([published])]);
    for (const client of clients) await until(() => client.names.includes(everybodys), 'what is public');
    expect(clients.map((client) => client.names)).toEqual([
      [hers, theirs, everybodys],
      [theirs, everybodys],
      [bobs, everybodys],
    ]);
  });

  it('is sent away within a second when its token is revoked; others with other tokens stay', async () => {
    const server = await start();
    const [revoked, kept] = [server.tokens.give(ALICE), server.tokens.give(ALICE)];
    const [client, other] = [await open(server, revoked, { after: 'end' }), await open(server, kept, { after: 'end' })];
    server.tokens.revoked.add(revoked);
    const revokedAt = performance.now();
    expect(await client.other('end', 2_000)).toMatchObject({ code: 'TOKEN_REVOKED' });
    expect(performance.now() - revokedAt).toBeLessThan(1_000);
    const [name] = names(1) as [string];
    await server.append([named(name)], ALICE);
    await until(() => other.names.includes(name), 'the other one’s span');
    expect(client.names).not.toContain(name);
    await untilClosed(client);
  });

  it('is sent away when its token expires', async () => {
    const server = await start({ limits: { checkMs: 50 } });
    const token = server.tokens.give(ALICE, { expiresAt: new Date(Date.now() + 1_500) });
    const client = await open(server, token, { after: 'end' });
    expect(client.others.map(({ type }) => type)).not.toContain('end');
    expect(await client.other('end', 4_000)).toMatchObject({ code: 'TOKEN_EXPIRED' });
    await untilClosed(client);
  });

  it('is sent away when nobody can tell any more whether its token holds', async () => {
    const server = await start({ limits: { checkMs: 50, uncheckedMs: 300 } });
    const client = await open(server, server.tokens.give(ALICE));
    server.tokens.failure = new Error('the database is away');
    expect(await client.other('end', 2_000)).toMatchObject({ code: 'STOPPING' });
  });

  it('is told when the server stops, which does not wait for it', async () => {
    const server = await start();
    const client = await open(server, server.tokens.give(ALICE));
    const stoppedAt = performance.now();
    await servers.splice(0)[0]?.stop();
    expect(performance.now() - stoppedAt).toBeLessThan(1_500);
    expect(await client.other('end')).toMatchObject({ code: 'STOPPING' });
    await untilClosed(client);
  });
});

async function untilClosed(client: SseClient | WsClient): Promise<void> {
  if (client instanceof SseClient) return until(() => client.isOver, 'the end of the stream');
  await until(() => client.closeCode !== null, 'the close');
  const { code } = await client.other('end');
  expect(client.closeCode).toBe({ STOPPING: 1001, SLOW_CLIENT: 1013 }[String(code)] ?? 1008);
}

describe('an event stream', () => {
  it('goes on behind Last-Event-ID, which wins over `after`', async () => {
    const server = await start();
    const token = server.tokens.give(ALICE);
    const all = names(5);
    await server.append(
      all.map((name) => named(name)),
      ALICE,
    );
    const client = await SseClient.open(server, token);
    await until(() => client.names.includes(all[4]), 'all');
    client.close();
    const second = client.spans.find(({ name }) => name === all[1])?.position as string;
    const again = await SseClient.open(server, token, '?after=end', { 'Last-Event-ID': second });
    await until(() => again.spans.length === 3, 'the rest');
    await again.other('caught_up');
    expect(again.names).toEqual(all.slice(2));
  });

  it('says something now and then while there is nothing to say', async () => {
    const server = await start({ heartbeatMs: 50 });
    const client = await SseClient.open(server, server.tokens.give(ALICE), '?after=end');
    await until(() => client.comments >= 3, 'heartbeats');
  });

  it.each([
    ['?after=0', {}, 'FIELD_INVALID', 'after'],
    [`?after=${'f'.repeat(32)}`, {}, 'FIELD_INVALID', 'after'],
    ['', { 'Last-Event-ID': 'nonsense' }, 'FIELD_INVALID', 'Last-Event-ID'],
    ['?colour=red', {}, 'FIELD_UNKNOWN', 'colour'],
    ['?parent_id=me', {}, 'FIELD_INVALID', 'parent_id'],
  ])('refuses %s %j', async (query, headers, code, field) => {
    const server = await start();
    const response = await fetch(`${server.url}/api/timeline/stream${query}`, {
      headers: { Authorization: `Bearer ${server.tokens.give(ALICE)}`, ...(headers as object) },
    });
    expect([response.status, await response.json()]).toMatchObject([400, { code, field }]);
  });

  it('refuses who has as many as there may be, until one of them is closed', async () => {
    const limits = { connectionsPerIdentityMax: 2, connectionsPerTenantMax: 3, connectionsMax: 4 };
    const server = await start({ limits });
    const [alice, alan, bob] = [ALICE, ALAN, BOB].map((who) => server.tokens.give(who)) as [string, string, string];
    for (let i = 0; i < 3; i++) {
      const headers = { Authorization: `Bearer ${alice}` };
      const head = await fetch(`${server.url}/api/timeline/stream`, { method: 'HEAD', headers });
      expect(head.status).toBe(200); // and takes no place
    }
    const first = await SseClient.open(server, alice);
    await SseClient.open(server, alice);
    await expect(SseClient.open(server, alice)).rejects.toThrow(/429.*CONNECTIONS_EXCEEDED.*you have/);
    await SseClient.open(server, alan);
    await expect(SseClient.open(server, alan)).rejects.toThrow(/429.*CONNECTIONS_EXCEEDED.*your tenant has/);
    await SseClient.open(server, bob);
    await expect(SseClient.open(server, bob)).rejects.toThrow(/429.*CONNECTIONS_EXCEEDED.*server has/);
    first.close();
    let isOpen = false;
    while (!isOpen)
      isOpen = await SseClient.open(server, alice).then(
        () => true,
        () => false,
      );
  });
});

describe('a WebSocket', () => {
  it('is not opened without a token, with another method of HTTP, or elsewhere', async () => {
    const server = await start();
    const refused = (path: string, headers: Record<string, string> = {}) =>
      new Promise<number | undefined>((resolve) => {
        const socket = new WebSocket(`${server.url.replace('http', 'ws')}${path}`, { headers });
        socket.on('unexpected-response', (_request, response) => resolve(response.statusCode));
        socket.on('open', () => resolve(undefined));
        socket.on('error', () => {});
      });
    const authorized = { Authorization: `Bearer ${server.tokens.give(ALICE)}` };
    expect(await refused('/ws')).toBe(401);
    expect(await refused('/ws', { Authorization: 'Bearer unknown' })).toBe(401);
    expect(await refused('/elsewhere', authorized)).toBe(404);
    const plain = await fetch(`${server.url}/ws`, { headers: authorized });
    expect([plain.status, await plain.json()]).toMatchObject([426, { code: 'UPGRADE_REQUIRED' }]);
  });

  it('is cut off when it does not answer pings', async () => {
    const server = await start({ heartbeatMs: 100 });
    const token = server.tokens.give(ALICE);
    const [client, deaf] = [await WsClient.open(server, token), await WsClient.open(server, token)];
    deaf.socket.pause();
    await sleep(500);
    deaf.socket.resume();
    await until(() => deaf.closeCode === 1006, 'the end of the deaf one');
    expect(client.closeCode).toBeNull();
  });

  it.each<[string, (client: WsClient) => void]>([
    ['asks and asks', (client) => client.say({ action: 'x'.repeat(50) })],
    ['pings and pings', (client) => client.socket.ping('x'.repeat(125))],
  ])('is sent away when it %s, and does not read the answers', async (_what, send) => {
    const server = await start({ limits: { backlogBytesMax: 128 * 1024, drainMs: 60_000 } });
    const client = await WsClient.open(server, server.tokens.give(ALICE));
    client.socket.pause();
    for (let i = 0; i < 200; i++) {
      for (let n = 0; n < 500; n++) send(client);
      await sleep(5);
    }
    await sleep(1_500);
    client.socket.resume();
    await until(() => client.closeCode !== null, 'the end');
  });
});
