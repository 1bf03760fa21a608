import { afterAll, beforeAll, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import type { Ready } from '../../src/local/stack.ts';
import { createHome, StackProcess } from '../local/stack-process.ts';
import { SseClient, until, WsClient } from './live-server.ts';

let remove: () => Promise<void>;
let stack: StackProcess;
let ready: Ready;
beforeAll(async () => {
  const created = await createHome();
  remove = created.remove;
  ({ stack, ready } = await StackProcess.start(created.home));
});
afterAll(() => remove?.());

async function post(path: string, body: object, status = 201): Promise<Record<string, string>> {
  const response = await fetch(`${ready.url}${path}`, {
    method: 'POST',
    headers: { Authorization: `Bearer ${ready.token}`, 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
  });
  const text = await response.text();
  expect(response.status, text).toBe(status);
  return JSON.parse(text);
}

it('shows what happens, over both transports, by token and by ticket', async () => {
  const { ticket } = await post('/api/tickets', {});
  const [sse, ws] = [await SseClient.open(ready, ready.token), await WsClient.open(ready, ready.token)];
  await ws.subscribe({ filter: { name: 'seen' } });
  const byTicket = new WebSocket(`${ready.ws_url}?ticket=${ticket}`);
  const frames: { type: string }[] = [];
  byTicket.on('message', (data) => frames.push(JSON.parse(String(data))));
  await new Promise((resolve) => byTicket.once('open', resolve));
  byTicket.send('{"action":"ping"}');
  await sse.other('caught_up');
  expect(sse.names).toContain('run_code_kernel');

  const postedAt = performance.now();
  await post('/api/spans', { entity_type: 'note', name: 'seen' });
  await until(() => sse.names.includes('seen') && ws.names.includes('seen'), 'the span');
  expect(performance.now() - postedAt).toBeLessThan(1_000);
  expect(ws.names).toEqual(['seen']);
  await until(() => frames.some(({ type }) => type === 'pong'), 'the pong');
  byTicket.terminate();
  sse.close();
  ws.socket.terminate();
});

it('asks for a scope before anything is upgraded', async () => {
  const created = await post('/api/tokens', { name: 'append only', scopes: ['spans:append'] });
  const token = created.token as string;
  await expect(SseClient.open(ready, token)).rejects.toThrow(/403.*SCOPE_MISSING.*spans:read/);
  await expect(WsClient.open(ready, token)).rejects.toThrow(/403/);
});

it('sends away within a second whose API token is revoked', async () => {
  const created = await post('/api/tokens', { name: 'to be revoked', scopes: ['spans:read'] });
  const token = created.token as string;
  const [sse, ws] = [await SseClient.open(ready, token), await WsClient.open(ready, token)];
  await sse.other('caught_up');
  await post(`/api/tokens/${created.id}/revoke`, {}, 200);
  const revokedAt = performance.now();
  for (const client of [sse, ws]) expect(await client.other('end')).toMatchObject({ code: 'TOKEN_REVOKED' });
  expect(performance.now() - revokedAt).toBeLessThan(1_000);
});

it('tells who watches that it stops, and stops', async () => {
  const [sse, ws] = [await SseClient.open(ready, ready.token), await WsClient.open(ready, ready.token)];
  await ws.subscribe();
  const ended = stack.kill('SIGTERM');
  for (const client of [sse, ws]) expect(await client.other('end', 8_000)).toMatchObject({ code: 'STOPPING' });
  await until(() => ws.closeCode === 1001, 'the close');
  expect(await ended).toMatchObject({ code: 0 });
});
