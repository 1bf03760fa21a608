import type { IncomingMessage, ServerResponse } from 'node:http';
import { OpenAPIHono, z } from '@hono/zod-openapi';
import { InputError } from '../errors.ts';
import type { Caller } from '../identity/caller.ts';
import { type EndCode, parseStart, type SpanBatch, type TimelineHub } from '../timeline/index.ts';
import type { Variables } from './input.ts';
import { describeRoute, parse, queryOf } from './openapi.ts';
import { StreamQuerySchema } from './schemas.ts';
import { filterOf } from './spans.ts';

const HEARTBEAT_MS = 15_000;
/** What a client that was sent away has not taken by then it will not get. */
const END_GRACE_MS = 1_000;

const HEADERS = {
  'Content-Type': 'text/event-stream; charset=utf-8',
  'Cache-Control': 'no-store',
  'X-Accel-Buffering': 'no', // of nginx and those like it
};

/** What `/openapi.json` says of the stream, also where another process than this one serves it. */
export function describedStream(): OpenAPIHono<Variables> {
  const app = new OpenAPIHono<Variables>();
  describeRoute(app, {
    method: 'get',
    path: '/timeline/stream',
    operationId: 'streamTimeline',
    summary: 'The timeline as it grows: server-sent events',
    description:
      'Every span after `after` is an event `span` whose id is its position; then `caught_up` tells that what follows is ' +
      'new. A connection that was lost goes on behind the header `Last-Event-ID`, without gap or repeat. `end` says why ' +
      'the server ends it: TOKEN_REVOKED, TOKEN_EXPIRED, SLOW_CLIENT or STOPPING.',
    tag: 'Timeline',
    query: StreamQuerySchema,
    status: 200,
    mediaType: 'text/event-stream',
    answer: z.string(),
    example: 'id: 00000000000003f10000000000000a2c\nevent: span\ndata: {"id":"…","seq":0}\n\n',
    problems: [429],
  });
  return app;
}

/** The timeline as server-sent events (WHATWG HTML, 9.2): what is there after a position, then what comes. */
export function streamRoutes(hub: TimelineHub, heartbeatMs = HEARTBEAT_MS): OpenAPIHono<Variables> {
  const app = describedStream();
  const heart = new Heart(heartbeatMs);

  app.get('/timeline/stream', (c) => {
    const { after, ticket: _opened, ...query } = parse(StreamQuerySchema, queryOf(c));
    const lastEventId = c.req.header('Last-Event-ID');
    const start = lastEventId ? parseStart(lastEventId, 'Last-Event-ID') : parseStart(after, 'after');
    if (c.req.method === 'HEAD') return c.body(null, 200, HEADERS); // nobody would read the stream, nor end it
    // A client that takes nothing can only be ended from below: behind Node's own server that is its response.
    const { outgoing } = (c.env ?? {}) as { outgoing?: ServerResponse };
    const stream = new EventStream(() => outgoing?.destroy());
    const connection = hub.connect(c.get('caller'), stream);
    heart.add(stream);
    stream.onClose = () => {
      heart.remove(stream);
      connection.close();
    };
    connection.subscribe(filterOf(query), start, stream);
    return c.body(stream.body, 200, HEADERS);
  });

  return app;
}

/** What a server that takes WebSockets passes to the app, as `env`, to learn who opens one. */
export interface SocketEnv {
  /** The handshake, from where it comes. */
  incoming?: IncomingMessage;
  onSocket?: (caller: Caller) => void;
}

/** Where WebSockets are opened: with the checks of every other route, before anything is upgraded. */
export function socketRoutes(): OpenAPIHono<Variables> {
  const app = new OpenAPIHono<Variables>();
  app.get('/ws', (c) => {
    const { onSocket } = (c.env ?? {}) as SocketEnv;
    if (onSocket === undefined) throw new InputError('UPGRADE_REQUIRED', 'expected a WebSocket handshake');
    onSocket(c.get('caller'));
    return c.body(null, 204);
  });
  return app;
}

/** Spans as events, made once for all who get the same ones. */
const encoded = new WeakMap<SpanBatch, Buffer>();

function encode(batch: SpanBatch): Buffer {
  let bytes = encoded.get(batch);
  if (bytes === undefined) {
    bytes = Buffer.from(batch.spans.map(({ position, json }) => event('span', json, position)).join(''));
    encoded.set(batch, bytes);
  }
  return bytes;
}

function event(name: string, data: string, id?: string): string {
  return `${id === undefined ? '' : `id: ${id}\n`}event: ${name}\ndata: ${data}\n\n`;
}

const HEARTBEAT = Buffer.from(':\n\n');

/** One client's events, as the body of a response. */
class EventStream {
  readonly body: ReadableStream<Uint8Array>;
  onClose: () => void = () => {};
  readonly #destroy: () => void;
  #controller!: ReadableStreamDefaultController<Uint8Array>;
  #waiting: (() => void)[] = [];
  #isOpen = true;

  constructor(destroy: () => void) {
    this.#destroy = destroy;
    this.body = new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          this.#controller = controller;
        },
        pull: () => this.#wake(), // nothing waits
        cancel: () => this.#close(),
      },
      // By bytes; with 1, the stream asks for more exactly when none are left.
      new ByteLengthQueuingStrategy({ highWaterMark: 1 }),
    );
    this.#send(HEARTBEAT); // so that the client sees at once that it is connected
  }

  bufferedBytes(): number {
    return this.#isOpen ? 1 - (this.#controller.desiredSize ?? 1) : 0;
  }

  async drained(): Promise<void> {
    if (this.bufferedBytes() > 0) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  spans(batch: SpanBatch): void {
    this.#send(encode(batch));
  }

  caughtUp(position: string): void {
    this.#send(Buffer.from(event('caught_up', JSON.stringify({ position }), position)));
  }

  beat(): void {
    if (this.bufferedBytes() === 0) this.#send(HEARTBEAT);
  }

  end(code: EndCode): void {
    this.#send(Buffer.from(event('end', JSON.stringify({ code }))));
    const isStuck = this.bufferedBytes() > 0;
    if (this.#isOpen) this.#controller.close();
    if (isStuck) setTimeout(this.#destroy, END_GRACE_MS).unref();
    this.#close();
  }

  #send(bytes: Uint8Array): void {
    if (this.#isOpen) this.#controller.enqueue(bytes);
  }

  #close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#wake();
    this.onClose();
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

/** A comment now and then, so that neither end and nobody between takes silence for the end. One timer for all. */
class Heart {
  readonly #everyMs: number;
  readonly #streams = new Set<EventStream>();
  #timer: NodeJS.Timeout | undefined;

  constructor(everyMs: number) {
    this.#everyMs = everyMs;
  }

  add(stream: EventStream): void {
    this.#streams.add(stream);
    this.#timer ??= setInterval(() => {
      for (const each of this.#streams) each.beat();
    }, this.#everyMs).unref();
  }

  remove(stream: EventStream): void {
    this.#streams.delete(stream);
    if (this.#streams.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}
