import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { ALICE } from '../support/spans.ts';
import { LiveServer, named, openClient, TRANSPORTS, until } from './live-server.ts';

let ledger: TestDatabase;
let server: LiveServer;
beforeAll(async () => {
  ledger = await createTestDatabase();
});
afterAll(() => ledger.close());
afterEach(() => server.stop());

it.each(TRANSPORTS)(
  'a subscriber over %s is dropped when it stops reading, and others are not delayed',
  async (transport) => {
    server = await LiveServer.start(ledger, { limits: { bufferBytesMax: 256 * 1024, drainMs: 400 } });
    const token = server.tokens.give(ALICE);
    const other = await openClient(transport, server, token, { after: 'end' });
    const stuck = await openStuck(transport, server, token);
    const big = 'x'.repeat(200_000);
    const lags: number[] = [];
    for (let i = 0; i < 60 && !stuck.isClosed(); i++) {
      const name = `span ${i}`;
      await server.append([named(name, { content: { big } } as never)], ALICE);
      const at = performance.now();
      await until(() => other.names.includes(name), 'a span');
      lags.push(performance.now() - at);
      await sleep(20);
    }
    await until(stuck.isClosed, 'the end of who does not read', 3_000);
    expect(Math.max(...lags)).toBeLessThan(1_000);
  },
);

/** One that opens, and then takes nothing from its socket. */
async function openStuck(transport: string, server: LiveServer, token: string): Promise<{ isClosed: () => boolean }> {
  const { hostname, port } = new URL(server.url);
  const socket = connect(Number(port), hostname);
  socket.on('error', () => {});
  const hello = [`Host: ${hostname}`, `Authorization: Bearer ${token}`];
  if (transport === 'SSE') {
    socket.write(`GET /api/timeline/stream?after=end HTTP/1.1\r\n${hello.join('\r\n')}\r\n\r\n`);
    await new Promise((resolve) => socket.once('data', resolve));
  } else {
    const key = ['Upgrade: websocket', 'Connection: Upgrade', 'Sec-WebSocket-Version: 13'];
    const all = [...hello, ...key, `Sec-WebSocket-Key: ${Buffer.alloc(16).toString('base64')}`];
    socket.write(`GET /ws HTTP/1.1\r\n${all.join('\r\n')}\r\n\r\n`);
    await new Promise((resolve) => socket.once('data', resolve));
    const text = Buffer.from('{"action":"subscribe","after":"end"}');
    socket.write(Buffer.concat([Buffer.from([0x81, 0x80 | text.length, 0, 0, 0, 0]), text]));
    await new Promise((resolve) => socket.once('data', resolve));
  }
  socket.pause();
  // A paused socket is told of its end when it is written to.
  const nothing = transport === 'SSE' ? '\r\n' : Buffer.from([0x89, 0x80, 0, 0, 0, 0]);
  const timer = setInterval(() => socket.write(nothing), 100);
  socket.on('close', () => clearInterval(timer));
  return { isClosed: () => socket.destroyed };
}
