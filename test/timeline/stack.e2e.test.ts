import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import type { Ready } from '../../src/local/stack.ts';
import type { Span } from '../../src/span/index.ts';
import { createHome, StackProcess } from '../local/stack-process.ts';
import { hashable, nextVersion } from '../support/spans.ts';
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

it('keeps streams alive, and checks who watches, while every connection of HTTP waits for something slow', async () => {
  const created = await post('/api/tokens', { name: 'among slow lists', scopes: ['spans:read'] });
  const [kept, ended] = [
    await SseClient.open(ready, ready.token),
    await SseClient.open(ready, created.token as string),
  ];
  const [locker, admin] = [new pg.Client(ready.admin_database_url), new pg.Client(ready.admin_database_url)];
  await Promise.all([locker.connect(), admin.connect()]);
  try {
    await locker.query('begin; lock table ledger.request_queue in access exclusive mode');
    const stop = new AbortController();
    const slow = Array.from({ length: 40 }, () =>
      fetch(`${ready.url}/api/metrics`, {
        headers: { Authorization: `Bearer ${ready.token}` },
        signal: stop.signal,
      }).catch(() => {}),
    );
    const waiting = `select count(*)::int as n from pg_stat_activity
                      where application_name = 'loglineos-local' and wait_event_type = 'Lock'`;
    await expect.poll(async () => (await admin.query(waiting)).rows[0].n, { timeout: 5_000 }).toBe(20);
    await sleep(6_500); // longer than credentials may be unchecked
    expect([...kept.others, ...ended.others].filter(({ type }) => type === 'end')).toEqual([]);

    // Nothing can be revoked over HTTP now; what counts is that there is another version.
    const token = (await admin.query('select * from ledger.universal_registry where id = $1', [created.id])).rows[0];
    const app = new pg.Client(ready.database_url);
    await app.connect();
    const { owner_id, tenant_id, curr_hash, entity_type } = token;
    const said = { id: created.id, entity_type, owner_id, tenant_id, status: 'revoked' };
    const version = nextVersion({ ...hashable(said as Span), curr_hash } as never);
    await app.query('select ledger.append($1, $2, $3)', [owner_id, tenant_id, JSON.stringify([version])]);
    const revokedAt = performance.now();
    expect(await ended.other('end')).toMatchObject({ code: 'TOKEN_REVOKED' });
    expect(performance.now() - revokedAt).toBeLessThan(1_000);
    await until(() => kept.spans.some(({ id }) => id === created.id), 'the span');
    expect(kept.isOver).toBe(false);
    await app.end();
    stop.abort();
    await Promise.all(slow);
  } finally {
    await Promise.all([locker.end(), admin.end()]);
    kept.close();
  }
});

it('tells who watches that it stops, and stops', async () => {
  const [sse, ws] = [await SseClient.open(ready, ready.token), await WsClient.open(ready, ready.token)];
  await ws.subscribe();
  const ended = stack.kill('SIGTERM');
  for (const client of [sse, ws]) expect(await client.other('end', 8_000)).toMatchObject({ code: 'STOPPING' });
  await until(() => ws.closeCode === 1001, 'the close');
  expect(await ended).toMatchObject({ code: 0 });
});
