import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { type ServerType, serve } from '@hono/node-server';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createApi } from '../../src/api/index.ts';
import { Client, type StreamedSpan } from '../../src/client/index.ts';
import { createAuthenticator } from '../../src/identity/index.ts';
import { listenForTimeline } from '../../src/ledger/index.ts';
import { TimelineHub } from '../../src/timeline/index.ts';
import { Installation, RUN_CODE } from '../stage0/installation.ts';
import { trustedKeys } from '../support/keys.ts';
import { ALICE } from '../support/spans.ts';

const TOKEN = 'llt_of-a-local-start';

let installation: Installation;
let api: ReturnType<typeof createApi>;
let timeline: TimelineHub;
let server: ServerType;
let client: Client;
beforeAll(async () => {
  installation = await Installation.create();
  await installation.seed();
  const { stage0 } = installation;
  const authenticator = createAuthenticator({ ...stage0, trustedKeys, local: { token: TOKEN, identity: ALICE } });
  const url = installation.ledger.urls.loglineos_app;
  timeline = new TimelineHub({ ...stage0, authenticator, listen: (onSpans) => listenForTimeline({ url }, onSpans) });
  api = createApi({ stage0, trustedKeys, authenticator, timeline });
  server = await listen(0);
  client = clientOf(TOKEN);
});
afterAll(async () => {
  await timeline?.stop();
  server?.close();
  await installation?.close();
});

async function listen(port: number): Promise<ServerType> {
  const listening = serve({ fetch: api.fetch, port, hostname: '127.0.0.1' });
  await once(listening, 'listening');
  return listening;
}

function clientOf(token: string): Client {
  return new Client({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, token });
}

describe('the client, with the real routes', () => {
  it('says who it is, boots, appends, finds, reads and proves', async () => {
    expect(await client.me()).toMatchObject({ user_id: ALICE.userId, tenant_id: ALICE.tenantId });
    expect(await client.boot(RUN_CODE, { code: 'return input + 1', input: 1 })).toMatchObject({
      output: { result: 2 },
    });
    const { id } = await client.append({ entity_type: 'note', name: 'of the client', status: 'open' });
    await client.append({ id, entity_type: 'note', name: 'of the client', status: 'closed' });
    expect((await client.spans({ name: 'of the client', from: '2020-01-01T00:00:00Z' })).spans).toMatchObject([{ id }]);
    expect(await client.span(id)).toMatchObject({ id, seq: 1, status: 'closed' });
    expect((await client.versions(id)).versions.map(({ status }) => status)).toEqual(['open', 'closed']);
    expect(await client.verify(id)).toMatchObject({ id, ok: true });
    const { position } = await client.timeline('end');
    expect(await client.timeline(position)).toEqual({ spans: [], position });
  });

  it('asks for runs, sees how they go, cancels them and lets them begin again', async () => {
    const fn = await client.append({ entity_type: 'function', name: 'order', code: 'return 1' });
    const { request_id } = await client.execute({ span_id: fn.id, input: { price: 20 }, delay_ms: 60_000 });
    expect(await client.request(request_id)).toMatchObject({ state: 'delayed', input: { price: 20 } });
    expect((await client.requests({ function_id: fn.id, state: 'delayed' })).requests).toMatchObject([
      { id: request_id },
    ]);
    expect((await client.metrics(1)).queue).toMatchObject({ delayed: 1 });
    expect(await client.cancel({ filter: { function_id: fn.id } })).toEqual({
      changed: [request_id],
      unchanged: [],
      before: null,
    });
    expect(await client.redrive({ ids: [request_id] })).toMatchObject({ changed: [] });
  });

  it('reads the manifest, and makes, lists and revokes tokens and tickets', async () => {
    expect((await client.manifest()).content.allowed_boot_ids).toContain(RUN_CODE);
    const { token, ...made } = await client.createToken({ name: 'reports', scopes: ['spans:read'] });
    expect((await client.tokens()).tokens).toContainEqual(made);
    const reader = clientOf(token);
    expect(await reader.me()).toMatchObject({ user_id: ALICE.userId });
    await expect(reader.append({ entity_type: 'note' })).rejects.toMatchObject({
      kind: 'access',
      code: 'SCOPE_MISSING',
    });
    expect((await reader.ticket()).ticket).toMatch(/./);
    expect(await client.revokeToken(made.id)).toMatchObject({ status: 'revoked' });
    await expect(reader.me()).rejects.toMatchObject({ code: 'TOKEN_REVOKED' });
  });
});

describe('a stream of the client, with the real timeline', () => {
  const note = (n: number) => client.append({ entity_type: 'note', name: `n${n}`, trace_id: 'streamed' });
  const names = (streamed: StreamedSpan[]) => streamed.map(({ span }) => span.name);

  it('tells what was there and what comes, and goes on when the server was away, without gap or repeat', async () => {
    const told: StreamedSpan[] = [];
    const stop = new AbortController();
    const caught: string[] = [];
    const away: string[] = [];
    await note(0);
    const streaming = (async () => {
      const options = { filter: { trace_id: 'streamed' }, signal: stop.signal };
      const stream = client.stream({
        ...options,
        onCaughtUp: (position) => caught.push(position),
        onAway: ({ code }) => away.push(code),
      });
      for await (const one of stream) told.push(one);
    })();
    await expect.poll(() => caught.length).toBe(1);
    // It settles when no older transaction of the server is left, of whatever database.
    await expect.poll(() => names(told)).toEqual(['n0']);
    await note(1);
    await expect.poll(() => names(told)).toEqual(['n0', 'n1']);

    const { port } = server.address() as AddressInfo;
    server.close();
    (server as unknown as { closeAllConnections(): void }).closeAllConnections();
    await installation.runCode({ code: 'return 1' }); // something that the filter lets pass by
    await expect.poll(() => away.length).toBeGreaterThan(0);
    server = await listen(port);
    await note(2);
    await expect.poll(() => names(told), { timeout: 10_000 }).toEqual(['n0', 'n1', 'n2']);
    expect(told.map(({ position }) => position)).toEqual(told.map(({ position }) => position).toSorted());
    stop.abort();
    await streaming;
  });

  it('ends with an error within a second when its token is revoked', async () => {
    const { token, id } = await client.createToken({ name: 'watcher', scopes: ['spans:read'] });
    let caughtUp = () => {};
    const isCaughtUp = new Promise<void>((resolve) => {
      caughtUp = resolve;
    });
    const streaming = (async () => {
      for await (const _one of clientOf(token).stream({ filter: { name: 'none' }, onCaughtUp: caughtUp })) break;
    })();
    streaming.catch(() => {});
    await isCaughtUp;
    await client.revokeToken(id);
    const revokedAt = Date.now();
    await expect(streaming).rejects.toMatchObject({ kind: 'access', code: 'TOKEN_REVOKED' });
    expect(Date.now() - revokedAt).toBeLessThan(1_500);
  });
});
