import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { ApiGatewayManagementApiClient, GetConnectionCommand } from '@aws-sdk/client-apigatewaymanagementapi';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Sockets } from '../../src/aws/gateway.ts';
import { type Client, GatewayServer } from './gateway-server.ts';
import type { GatewayOptions, SocketEvent } from './socket-gateway.ts';

const allow = {
  principalId: 'alice',
  policyDocument: { Statement: [{ Effect: 'Allow' }] },
  context: { tenant: 'acme' },
};
const deny = { ...allow, policyDocument: { Statement: [{ Effect: 'Deny' }] } };

const events: SocketEvent[] = [];
let authorize: GatewayOptions['authorize'];
let server: GatewayServer;
let sockets: Sockets;

beforeEach(async () => {
  events.length = 0;
  authorize = async () => allow;
  const note = async (event: SocketEvent, body?: string) => {
    events.push(event);
    return { statusCode: 200, ...(body === undefined ? {} : { body }) };
  };
  server = await GatewayServer.start({
    authorize: (event) => authorize(event),
    routes: {
      $connect: async (event) =>
        event.queryStringParameters?.full === 'yes' ? { statusCode: 429 } : await note(event),
      $disconnect: (event) => note(event),
      $default: (event) => note(event, '{"what":"else"}'),
      echo: (event) => note(event, event.body),
      silent: (event) => note(event),
      broken: () => Promise.reject(new Error('a secret')),
    },
  });
  sockets = new Sockets(server.endpoint);
});
afterEach(() => server.stop());

const open = async (query = ''): Promise<[Client, string]> => {
  const client = (await server.connect(query, { 'X-Who': 'me' })) as Client;
  return [client, [...server.gateway.connections.keys()].at(-1) as string];
};

describe('a connection', () => {
  it('begins with an event that says who the authorizer let in, and ends with one that says how', async () => {
    const [client, connectionId] = await open('?ticket=t');
    client.socket.close(4000, 'enough');
    await client.closed;
    await expect.poll(() => events.length).toBe(2);
    const requestContext = {
      connectionId,
      apiId: 'local',
      stage: 'local',
      requestId: expect.any(String),
      connectedAt: expect.any(Number),
      domainName: expect.stringMatching(/^127\.0\.0\.1:\d+$/),
      identity: { sourceIp: '127.0.0.1' },
      authorizer: { principalId: 'alice', tenant: 'acme' },
    };
    expect(events).toMatchObject([
      {
        requestContext: { ...requestContext, routeKey: '$connect', eventType: 'CONNECT' },
        queryStringParameters: { ticket: 't' },
        headers: { 'x-who': 'me' },
      },
      {
        requestContext: {
          ...requestContext,
          routeKey: '$disconnect',
          eventType: 'DISCONNECT',
          disconnectStatusCode: 4000,
          disconnectReason: 'enough',
        },
      },
    ]);
  });

  it('is refused as the authorizer, or $connect, says, and then not there', async () => {
    authorize = async () => deny;
    expect(await server.connect()).toBe(403);
    authorize = async () => {
      throw new Error('Unauthorized');
    };
    expect(await server.connect()).toBe(401);
    authorize = async () => {
      throw new Error('the database is away');
    };
    expect(await server.connect()).toBe(500);
    authorize = async () => allow;
    expect(await server.connect('?full=yes')).toBe(429);
    expect([events, server.gateway.connections.size]).toEqual([[], 0]);
  });

  it('has each message go to the route of its action, and back goes what that answers', async () => {
    const [client] = await open();
    for (const frame of [{ action: 'echo', n: 1 }, { action: 'silent' }, { action: 'broken' }, { action: '$connect' }])
      client.send(frame);
    for (const frame of ['no json', 'null', '[]', '{"action":{}}']) client.send(frame);
    client.socket.send(Buffer.from([1, 2, 3]));
    await expect.poll(() => client.frames.length).toBe(8);
    expect(client.frames).toContainEqual({ action: 'echo', n: 1 });
    expect(client.frames.filter(({ what }) => what === 'else')).toHaveLength(6);
    expect(client.frames).toContainEqual({
      message: 'Internal server error',
      connectionId: expect.any(String),
      requestId: expect.any(String),
    });
    const heard = events
      .slice(1)
      .map(({ requestContext, body, isBase64Encoded }) => [requestContext.routeKey, body, isBase64Encoded]);
    expect(heard).toContainEqual(['silent', '{"action":"silent"}', false]);
    expect(heard).toContainEqual(['$default', 'AQID', true]);
  });

  it('is ended by a message that is too long', async () => {
    const [client] = await open();
    client.send(JSON.stringify({ action: 'echo', long: 'x'.repeat(127 * 1024) }));
    await client.heard(({ action }) => action === 'echo');
    client.send('x'.repeat(129 * 1024));
    expect(await client.closed).toBe(1009);
  });
});

describe('@connections, by the SDK', () => {
  it('sends frames in order, says who is there, and ends', async () => {
    const [client, id] = await open();
    for (let n = 0; n < 5; n++) expect(await sockets.post(id, JSON.stringify({ n, text: 'ü€𐍈' }))).toBe('sent');
    await client.heard(({ n }) => n === 4);
    expect(client.frames).toEqual([0, 1, 2, 3, 4].map((n) => ({ n, text: 'ü€𐍈' })));

    const sdk = new ApiGatewayManagementApiClient({ endpoint: server.endpoint });
    const { ConnectedAt, LastActiveAt, Identity } = await sdk.send(new GetConnectionCommand({ ConnectionId: id }));
    expect([ConnectedAt, LastActiveAt]).toEqual([expect.any(Date), expect.any(Date)]);
    expect(Identity?.SourceIp).toBe('127.0.0.1');

    await sockets.close(id);
    expect(await client.closed).toBe(1000);
    await expect.poll(() => sockets.post(id, '{}')).toBe('gone');
    await sockets.close(id);
    expect(server.calls).toContain(`POST /local/@connections/${encodeURIComponent(id)}`);
  });

  it('says of a connection that never was that it is gone', async () => {
    expect(await sockets.post('nobody=', '{}')).toBe('gone');
  });

  it('says so by the status alone, whatever else the answer holds', async () => {
    const bare = createServer((_request, response) => response.writeHead(410).end());
    bare.listen(0, '127.0.0.1');
    await once(bare, 'listening');
    const { port } = bare.address() as AddressInfo;
    expect(await new Sockets(`http://127.0.0.1:${port}`).post('nobody=', '{}')).toBe('gone');
    bare.closeAllConnections();
    bare.close();
  });

  it('refuses a frame that is too long', async () => {
    const [client, id] = await open();
    expect(await sockets.post(id, `"${'x'.repeat(128 * 1024 - 2)}"`)).toBe('sent');
    await expect.poll(() => client.frames.length).toBe(1);
    await expect(sockets.post(id, 'x'.repeat(128 * 1024 + 1))).rejects.toMatchObject({
      code: 'SOCKETS_UNAVAILABLE',
      message: '@connections took nothing: PayloadTooLargeException 413',
    });
    expect(client.frames).toHaveLength(1);
  });

  it('calls a client slow that does not read, after some tries, and others are not held up', async () => {
    const [lazy, lazyId] = await open();
    const [eager, eagerId] = await open();
    lazy.socket.pause();
    const frame = JSON.stringify({ x: 'x'.repeat(100_000) });
    const startedAt = performance.now();
    let posted = 'sent';
    while (posted === 'sent') {
      posted = await sockets.post(lazyId, frame);
      if (posted === 'sent') expect(await sockets.post(eagerId, '{"n":1}')).toBe('sent');
    }
    expect(posted).toBe('slow');
    expect(performance.now() - startedAt).toBeLessThan(10_000);
    const tries = server.calls.filter((call) => call.includes(encodeURIComponent(lazyId))).length;
    expect(tries).toBe(eager.frames.length + 3);
  });

  it('is not for web pages', async () => {
    const [, id] = await open();
    const url = `${server.endpoint}/@connections/${encodeURIComponent(id)}`;
    for (const headers of [{ Origin: 'https://evil.example' }, { 'Sec-Fetch-Site': 'same-origin' }])
      expect((await fetch(url, { method: 'POST', headers, body: 'x' })).status).toBe(403);
    expect((await fetch(url, { method: 'PUT', body: 'x' })).status).toBe(403);
  });
});
