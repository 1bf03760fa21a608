import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { serve } from '@hono/node-server';
import { WebSocketServer } from 'ws';
import { createApi } from '../../src/api/index.ts';
import type { Authenticator } from '../../src/identity/index.ts';
import { appendSpans, Database, listenForTimeline } from '../../src/ledger/index.ts';
import { type LocalSecrets, loginUrl, trustedKeysOf } from '../../src/local/home.ts';
import { SocketServer } from '../../src/local/sockets.ts';
import { appendContext, type Stage0 } from '../../src/stage0/index.ts';
import { TimelineHub } from '../../src/timeline/index.ts';
import type { Figure } from './figures.ts';
import { IDENTITY } from './installation.ts';
import { startWatchers, type Watch } from './stream-watchers.ts';

const SUBSCRIBERS = 200;
const WRITERS = 4;
const BATCH = 5;
const BATCH_EVERY_MS = 100; // 200 spans a second
const MS = 10_000;

const CALLER = { identity: IDENTITY, scopes: ['*'], tokenId: null, expiresAt: null };
const AUTHENTICATOR: Authenticator = { authenticate: async () => CALLER, ended: async () => [] };

/**
 * (i) How long after its commit a span is with a subscriber, p95 in ms: 200 subscribers, 200 spans a second. Against a
 * server of the same library that sends what was committed to 200 sockets without asking the ledger. Smaller is better.
 */
export async function benchStream(stage0: Stage0, adminUrl: string, secrets: LocalSecrets): Promise<Figure> {
  const value = await measureOurs(stage0, loginUrl(adminUrl, 'loglineos_app', secrets), secrets);
  const limit = await measureBare(stage0);
  return { name: 'stream_p95', value, unit: 'ms', limit, ratio: value / limit };
}

async function measureOurs(stage0: Stage0, url: string, secrets: LocalSecrets): Promise<number> {
  const database = new Database({ url, applicationName: 'bench-timeline', connectionsMax: 4 });
  const listen = (onSpans: () => void) => listenForTimeline({ url }, onSpans);
  const timeline = new TimelineHub({
    database,
    authenticator: AUTHENTICATOR,
    listen,
    now: stage0.now,
    log: stage0.log,
  });
  const api = createApi({ stage0, trustedKeys: trustedKeysOf(secrets), authenticator: AUTHENTICATOR, timeline });
  const sockets = new SocketServer((request, env) => api.fetch(request, env), timeline);
  const server = serve({ fetch: api.fetch, port: 0, hostname: '127.0.0.1' });
  server.on('upgrade', (request, stream, head) => void sockets.upgrade(request, stream, head));
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as AddressInfo;
  try {
    return await measure(stage0, () => {}, {
      socketUrl: `ws://127.0.0.1:${port}/ws`,
      sockets: SUBSCRIBERS / 2,
      streamUrl: `http://127.0.0.1:${port}/api/timeline/stream?after=end`,
      streams: SUBSCRIBERS / 2,
    });
  } finally {
    await timeline.stop();
    sockets.close();
    await new Promise((resolve) => server.close(resolve));
    await database.close();
  }
}

async function measureBare(stage0: Stage0): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  const sockets = new WebSocketServer({ server });
  sockets.on('connection', (socket) => socket.on('message', () => socket.send('{"type":"caught_up"}')));
  await new Promise((resolve) => server.once('listening', resolve));
  const socketUrl = `ws://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const send = (spans: object[]) => {
    const messages = spans.map((span) => Buffer.from(JSON.stringify({ type: 'span', span })));
    for (const socket of sockets.clients) for (const message of messages) socket.send(message, { binary: false });
  };
  try {
    return await measure(stage0, send, { socketUrl, sockets: SUBSCRIBERS, streamUrl: '', streams: 0 });
  } finally {
    for (const socket of sockets.clients) socket.terminate();
    await new Promise((resolve) => server.close(resolve));
  }
}

/** @returns p95 over all spans and subscribers. Fails when one got a span twice, or not at all. */
async function measure(
  stage0: Stage0,
  onCommit: (spans: object[]) => void,
  watch: Omit<Watch, 'token'>,
): Promise<number> {
  const endWatch = await startWatchers({ ...watch, token: 'bench' });
  const committedAt: number[] = [];
  let numbers = 0;
  const write = async (delayMs: number) => {
    await sleep(delayMs);
    const started = performance.now();
    for (let n = 0; n < MS / BATCH_EVERY_MS; n++) {
      await sleep(Math.max(0, started + n * BATCH_EVERY_MS - performance.now()));
      const own = Array.from({ length: BATCH }, () => numbers++);
      const spans = own.map((number) => ({
        entity_type: 'note',
        did: 'measured',
        name: `watched-${number}`,
        content: {
          text: 'A note of the size that notes have: a sentence or two, and perhaps a list.',
          list: [1, 2, 3],
        },
      }));
      await appendSpans(stage0.database, spans, appendContext(stage0, IDENTITY));
      const now = performance.timeOrigin + performance.now();
      for (const number of own) committedAt[number] = now;
      onCommit(spans);
    }
  };
  await Promise.all(Array.from({ length: WRITERS }, (_, i) => write((i * BATCH_EVERY_MS) / WRITERS)));
  await sleep(1_000);
  const arrivals = await endWatch();
  if (arrivals.length !== numbers * SUBSCRIBERS)
    throw new Error(`${numbers} spans for ${SUBSCRIBERS} subscribers arrived ${arrivals.length} times`);
  const latencies = arrivals.map(([number, at]) => at - (committedAt[number] as number)).sort((a, b) => a - b);
  return latencies[Math.floor(latencies.length * 0.95)] as number;
}
