import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Client, type StreamOptions } from '../../src/client/index.ts';
import { readEvents, type ServerSentEvent } from '../../src/client/server-sent-events.ts';

const TOKEN = 'llt_a-secret-of-tests';
const at = (n: number) => n.toString(16).padStart(32, '0');

async function eventsOf(chunks: Uint8Array[]): Promise<ServerSentEvent[]> {
  const events: ServerSentEvent[] = [];
  for await (const event of readEvents(
    (async function* () {
      yield* chunks;
    })(),
  ))
    events.push(event);
  return events;
}

/** Bytes cut at these places. */
function cut(bytes: Uint8Array, places: number[]): Uint8Array[] {
  const ends = [...new Set(places.map((place) => place % (bytes.length + 1)))].sort((a, b) => a - b);
  return [0, ...ends].map((start, i) => bytes.subarray(start, ends[i] ?? bytes.length));
}

describe('events of a stream', () => {
  const line = fc.string({ unit: 'grapheme' }).map((text) => text.replaceAll(/[\r\n]/g, ' '));
  const event = fc.record({
    name: fc.constantFrom('span', 'caught_up'),
    data: fc.array(line, { minLength: 1 }),
    id: line,
  });

  it('are the same wherever the bytes are cut, and whatever lines end in', async () => {
    const places = fc.array(fc.nat(), { maxLength: 40 });
    const ending = fc.constantFrom('\n', '\r\n', '\r');
    await fc.assert(
      fc.asyncProperty(fc.array(event), places, ending, async (events, cuts, eol) => {
        const text = events.map(({ name, data, id }) =>
          [': heartbeat', `event: ${name}`, `id: ${id}`, ...data.map((part) => `data: ${part}`), '', ''].join(eol),
        );
        const bytes = new TextEncoder().encode(text.join(''));
        const told = events.map(({ name, data, id }) => ({ event: name, data: data.join('\n'), id }));
        expect(await eventsOf(cut(bytes, cuts))).toEqual(told);
        expect(await eventsOf([...bytes].map((byte) => Uint8Array.of(byte)))).toEqual(told);
      }),
    );
  });

  it('that are not whole when the stream ends are none', async () => {
    const whole = new TextEncoder().encode('event: span\nid: 1\ndata: {"a":"é"}\n\n');
    for (let length = 0; length < whole.length; length++)
      expect(await eventsOf([whole.subarray(0, length)])).toEqual([]);
    expect(await eventsOf([whole])).toHaveLength(1);
  });
});

/** A server of the contract: what it does with each connection, in turn; the last again and again. */
let server: Server;
let client: Client;
let heard: { url: string; headers: IncomingMessage['headers']; closed: Promise<unknown> }[];
let turns: ((response: ServerResponse, request: IncomingMessage) => void | Promise<void>)[];
beforeEach(async () => {
  heard = [];
  server = createServer(async (request, response) => {
    heard.push({ url: request.url as string, headers: request.headers, closed: once(response, 'close') });
    const turn = turns[Math.min(heard.length, turns.length) - 1] as (typeof turns)[number];
    await turn(response, request);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  client = new Client({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, token: TOKEN });
});
afterEach(() => {
  server.closeAllConnections();
  server.close();
});

const spanEvent = (n: number, eol = '\n') =>
  `event: span${eol}id: ${at(n)}${eol}data: {"id":"span ${n} é"}${eol}${eol}`;
const caughtUp = (n: number) => `event: caught_up\nid: ${at(n)}\ndata: {"position":"${at(n)}"}\n\n`;
const endEvent = (code: string) => `event: end\ndata: {"code":"${code}"}\n\n`;
const open = (response: ServerResponse) => response.writeHead(200, { 'Content-Type': 'text/event-stream' });
const says =
  (...parts: string[]) =>
  (response: ServerResponse) => {
    open(response);
    for (const part of parts) response.write(part);
  };
const problem = (status: number, code: string) => (response: ServerResponse) => {
  response.writeHead(status).end(JSON.stringify({ code, detail: 'why', field: 'after' }));
};

/** The first spans of a stream, by their places. */
async function take(count: number, options: StreamOptions = {}): Promise<string[]> {
  const places: string[] = [];
  if (count === 0) return places;
  for await (const { position, span } of client.stream(options)) {
    expect(span.id).toBe(`span ${Number.parseInt(position, 16)} é`);
    places.push(position);
    if (places.length === count) break;
  }
  return places;
}

const places = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => at(from + i));

describe('a stream of the client', () => {
  it('says the token in a header alone, what it wants in the query, and where it begins as the last event', async () => {
    turns = [says(spanEvent(8))];
    await take(1, { after: at(7), filter: { entity_type: 'a&b', status: undefined } });
    expect(heard[0]).toMatchObject({
      url: '/api/timeline/stream?entity_type=a%26b',
      headers: { authorization: `Bearer ${TOKEN}`, 'last-event-id': at(7) },
    });
    expect(heard[0]?.url).not.toContain(TOKEN);
    await take(1);
    expect(heard[1]?.headers).not.toHaveProperty('last-event-id');
  });

  it('yields each span once, in order, however often and wherever the connection drops', async () => {
    const count = 12;
    const dropsAfter = [1, 30, 130, 61, 200, 95, 400, 2000];
    turns = [
      async (response, request) => {
        open(response);
        const last = Number.parseInt((request.headers['last-event-id'] as string | undefined) ?? '0', 16);
        // What was told last comes again: whoever resumes may meet a server that is not sure.
        const events = Array.from({ length: count - Math.max(last, 1) + 1 }, (_, i) =>
          spanEvent(Math.max(last, 1) + i, '\r\n'),
        );
        const bytes = Buffer.from(events.join('')).subarray(0, dropsAfter[heard.length - 1] ?? 2000);
        for (let i = 0; i < bytes.length; i += 7) {
          response.write(bytes.subarray(i, i + 7));
          await sleep(0);
        }
        response.destroy();
      },
    ];
    expect(await take(count)).toEqual(places(1, count));
    expect(heard.length).toBeGreaterThan(3);
  });

  it('asks once where the end is, and then misses nothing though the first connections fail', async () => {
    turns = [
      (response) => void response.end(JSON.stringify({ spans: [], position: at(4) })),
      (response) => void response.destroy(),
      problem(503, 'DATABASE_UNAVAILABLE'),
      says(spanEvent(5)),
    ];
    const away: string[] = [];
    expect(await take(1, { after: 'end', onAway: ({ code }) => away.push(code) })).toEqual([at(5)]);
    expect(heard.map(({ url, headers }) => [url, headers['last-event-id']])).toEqual([
      ['/api/timeline?after=end', undefined],
      ['/api/timeline/stream', at(4)],
      ['/api/timeline/stream', at(4)],
      ['/api/timeline/stream', at(4)],
    ]);
    expect(away).toEqual(['UNREACHABLE', 'DATABASE_UNAVAILABLE']);
  });

  it('says when it has caught up, and goes on from there', async () => {
    turns = [
      (response) => {
        says(spanEvent(1), caughtUp(6))(response);
        response.end();
      },
      says(': heartbeat\n\n', spanEvent(7)),
    ];
    const caught: string[] = [];
    expect(await take(2, { onCaughtUp: (position) => caught.push(position) })).toEqual([at(1), at(7)]);
    expect(caught).toEqual([at(6)]);
    expect(heard[1]?.headers['last-event-id']).toBe(at(6));
  });

  it.each(['TOKEN_REVOKED', 'TOKEN_EXPIRED'])(
    'ends with an error when the server says %s, and never comes back',
    async (code) => {
      turns = [says(spanEvent(1), endEvent(code))];
      await expect(take(2)).rejects.toMatchObject({ kind: 'access', code });
      await sleep(300);
      expect(heard).toHaveLength(1);
    },
  );

  it.each(['STOPPING', 'SLOW_CLIENT'])('goes on in another connection when the server says %s', async (code) => {
    turns = [says(spanEvent(1), endEvent(code)), says(spanEvent(2))];
    const away: string[] = [];
    expect(await take(2, { onAway: (error) => away.push(error.code) })).toEqual(places(1, 2));
    expect(away).toEqual([code]);
  });

  it.each([
    [400, 'FIELD_INVALID', 'input'],
    [401, 'TOKEN_INVALID', 'access'],
    [403, 'SCOPE_MISSING', 'access'],
    [429, 'TOO_MANY_SUBSCRIBERS', 'governance'],
  ])('ends with the error of a refusal: %s %s', async (status, code, kind) => {
    turns = [problem(status, code)];
    await expect(take(1)).rejects.toMatchObject({ kind, code });
    expect(heard).toHaveLength(1);
  });

  it('ends when it is told to, while it waits for a span or for a server, and leaves no connection', async () => {
    turns = [says(spanEvent(1))];
    const waiting = new AbortController();
    setTimeout(() => waiting.abort(), 150);
    expect(await take(2, { signal: waiting.signal })).toEqual([at(1)]);
    await heard[0]?.closed;

    turns = [(response) => void response.destroy()];
    const away = new AbortController();
    setTimeout(() => away.abort(), 150);
    expect(await take(1, { signal: away.signal })).toEqual([]);
    expect(await take(1, { signal: AbortSignal.abort() })).toEqual([]);
  });

  it('leaves no connection when nobody reads on', async () => {
    turns = [says(spanEvent(1), spanEvent(2))];
    expect(await take(1)).toEqual([at(1)]);
    await heard[0]?.closed;
  });
});
