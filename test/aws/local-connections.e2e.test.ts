import { once } from 'node:events';
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
