import { once } from 'node:events';
import { request } from 'node:http';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { Sockets } from '../../src/aws/gateway.ts';
import type { Ready } from '../../src/local/stack.ts';
import { createHome, StackProcess } from '../local/stack-process.ts';
import { Client } from './gateway-server.ts';

let remove: () => Promise<void>;
let ready: Ready;
beforeAll(async () => {
  const created = await createHome();
  remove = created.remove;
  ({ ready } = await StackProcess.start(created.home));
  Object.assign(process.env, {
    AWS_REGION: 'eu-central-1',
    AWS_ACCESS_KEY_ID: 'test-key',
    AWS_SECRET_ACCESS_KEY: 'test-secret',
  });
});
afterAll(() => remove?.());

it('has @connections for its WebSockets, as the SDK speaks it', async () => {
  const socket = new WebSocket(ready.ws_url, { headers: { Authorization: `Bearer ${ready.token}` } });
  const client = new Client(socket);
  const [{ headers }] = await once(socket, 'upgrade');
  const id = String(headers['x-connection-id']);
  const sockets = new Sockets(ready.url);
  await expect.poll(() => sockets.post(id, '{"type":"hello"}')).toBe('sent');
  await client.type('hello');
  expect(await sockets.post('another', '{}')).toBe('gone');
  const browser = { method: 'DELETE', headers: { Origin: 'http://127.0.0.1' } };
  expect((await fetch(`${ready.url}/@connections/${encodeURIComponent(id)}`, browser)).status).toBe(403);
  await sockets.close(id);
  expect(await client.closed).toBe(1000);
  await expect.poll(() => sockets.post(id, '{}')).toBe('gone');
});

it('knows an id that cannot be decoded for nobody’s', async () => {
  expect((await fetch(`${ready.url}/@connections/%`, { method: 'POST', body: '{}' })).status).toBe(410);
});

it('takes a request that offers another protocol for what it is', async () => {
  const headers = {
    Authorization: `Bearer ${ready.token}`,
    'Content-Type': 'application/json',
    Connection: 'Upgrade, HTTP2-Settings',
    Upgrade: 'h2c',
  };
  const sent = request(`${ready.url}/api/spans`, { method: 'POST', headers });
  sent.end(JSON.stringify({ entity_type: 'note', name: 'upgradable' }));
  const [answer] = await once(sent, 'response');
  answer.resume();
  expect(answer.statusCode).toBe(201);
});
