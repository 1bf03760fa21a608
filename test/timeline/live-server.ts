import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ServerType, serve } from '@hono/node-server';
import { OpenAPIHono } from '@hono/zod-openapi';
import { WebSocket } from 'ws';
import type { Variables } from '../../src/api/input.ts';
import { problemResponse } from '../../src/api/problem.ts';
import { socketRoutes, streamRoutes } from '../../src/api/stream.ts';
import { AccessError } from '../../src/errors.ts';
import type { Authenticator, Caller } from '../../src/identity/caller.ts';
import { appendSpans, Database, type Identity, listenForTimeline, type SpanDraft } from '../../src/ledger/index.ts';
import { SocketServer } from '../../src/local/sockets.ts';
import type { StoredSpan } from '../../src/span/index.ts';
import { type HubOptions, TimelineHub } from '../../src/timeline/index.ts';
import type { TestDatabase } from '../support/database.ts';
import { contextOf, draft } from '../support/spans.ts';

/** Longer than anything takes that comes at all. */
const UNTIL_MS = 30_000;

/** Tokens that tests hand out and take back. */
export class TestTokens implements Pick<Authenticator, 'ended'> {
  readonly callers = new Map<string, Caller>();
  readonly revoked = new Set<string>();
  /** How often somebody asked, and for how many. */
  readonly asked: number[] = [];
  failure: Error | null = null;

  give(identity: Identity, more: Partial<Caller> = {}): string {
    const token = `token-${this.callers.size}`;
    this.callers.set(token, { identity, scopes: ['*'], tokenId: token, expiresAt: null, ...more });
    return token;
  }

  async ended(callers: Caller[]): Promise<Caller[]> {
    this.asked.push(callers.length);
    if (this.failure !== null) throw this.failure;
    return callers.filter(({ tokenId }) => tokenId !== null && this.revoked.has(tokenId));
  }
}

/** Counts reads of the timeline (each is a transaction), and lets a test do something behind one of them. */
class WatchedDatabase extends Database {
  transactions = 0;
  /** Whose they were, one after the other. */
  readonly tenants: string[] = [];
  afterTransaction: () => Promise<unknown> = async () => {};

  override async transaction<T>(...given: Parameters<typeof Database.prototype.transaction<T>>): Promise<T> {
    this.transactions += 1;
    this.tenants.push(given[0].tenantId);
    const result = await super.transaction<T>(...given);
    await this.afterTransaction();
    return result;
  }
}

export interface LiveOptions extends Pick<HubOptions, 'limits'> {
  heartbeatMs?: number;
  /** Whether it hears of appends, or only looks. */
  listens?: boolean;
}

/** The timeline over HTTP and WebSocket, on a database of a test's own. */
export class LiveServer {
  readonly ledger: TestDatabase;
  readonly tokens = new TestTokens();
  readonly logged: Record<string, unknown>[] = [];
  readonly hub: TimelineHub;
  readonly url: string;
  /** That of the readers. */
  readonly database: WatchedDatabase;
  readonly #sockets: SocketServer;
  readonly #server: ServerType;
  readonly #database: Database;

  static async start(ledger: TestDatabase, options: LiveOptions = {}): Promise<LiveServer> {
    let server: ServerType | undefined;
    const live = await new Promise<LiveServer>((resolve) => {
      const made = { fetch: (_request: Request, _env: object): Response | Promise<Response> => new Response() };
      server = serve(
        { fetch: (request, env) => made.fetch(request, env), port: 0, hostname: '127.0.0.1' },
        ({ port }: AddressInfo) => resolve(new LiveServer(ledger, server as ServerType, port, options, made)),
      );
    });
    return live;
  }

  private constructor(
    ledger: TestDatabase,
    server: ServerType,
    port: number,
    { limits = {}, heartbeatMs, listens = true }: LiveOptions,
    made: { fetch: (request: Request, env: object) => Response | Promise<Response> },
  ) {
    this.ledger = ledger;
    this.url = `http://127.0.0.1:${port}`;
    this.#server = server;
    this.#database = ledger.open('loglineos_app');
    this.database = new WatchedDatabase({
      url: ledger.urls.loglineos_app,
      applicationName: 'test',
      connectionsMax: 4,
    });
    this.hub = new TimelineHub({
      database: this.database,
      authenticator: this.tokens,
      listen: (onSpans) => (listens ? listenForTimeline({ url: ledger.urls.loglineos_app }, onSpans) : async () => {}),
      now: () => new Date(),
      log: (entry) => this.logged.push(entry),
      limits,
    });
    const app = new OpenAPIHono<Variables>();
    app.onError((error, c) => problemResponse(c, error, (entry) => this.logged.push(entry)));
    app.use(async (c, next) => {
      const shown = c.req.header('Authorization')?.replace('Bearer ', '') ?? c.req.query('ticket');
      const caller = this.tokens.callers.get(shown ?? '');
      if (caller === undefined) throw new AccessError('TOKEN_INVALID', 'this token is not known');
      c.set('caller', caller);
      await next();
    });
    app.route('/api', streamRoutes(this.hub, heartbeatMs));
    app.route('/', socketRoutes());
    made.fetch = (request, env) => app.fetch(request, env);
    this.#sockets = new SocketServer((request, env) => app.fetch(request, env), this.hub, heartbeatMs);
    server.on('upgrade', (request, stream, head) => void this.#sockets.upgrade(request, stream, head));
  }

  append(drafts: SpanDraft[], identity: Identity): Promise<unknown> {
    return appendSpans(this.#database, drafts, contextOf(identity));
  }

  async stop(): Promise<void> {
    await this.hub.stop();
    this.#sockets.close();
    await new Promise((resolve) => this.#server.close(resolve));
    await this.database.close();
  }
}

/** What a client got. */
export class Received {
  readonly spans: { position: string; id: string; name: string | undefined }[] = [];
  readonly others: { type: string; [field: string]: unknown }[] = [];

  get names(): (string | undefined)[] {
    return this.spans.map(({ name }) => name);
  }

  add(position: string, { id, name }: StoredSpan): void {
    this.spans.push({ position, id, name: name as string | undefined });
  }

  /** The first of this type; fails when none comes. */
  async other(type: string, ms = UNTIL_MS): Promise<{ type: string; [field: string]: unknown }> {
    await until(() => this.others.some((each) => each.type === type), `a ${type}`, ms);
    return this.others.find((each) => each.type === type) as { type: string };
  }
}

export async function until(isTrue: () => boolean, what: string, ms = UNTIL_MS): Promise<void> {
  const deadline = performance.now() + ms;
  while (!isTrue()) {
    if (performance.now() > deadline) throw new Error(`waited ${ms} ms in vain for ${what}`);
    await sleep(5);
  }
}

/** A client of the event stream, that parses what the standard says a stream is. */
export class SseClient extends Received {
  readonly #stop = new AbortController();
  comments = 0;
  lastEventId = '';
  isOver = false;

  static async open(
    server: { url: string },
    token: string,
    query = '',
    headers: Record<string, string> = {},
  ): Promise<SseClient> {
    const client = new SseClient();
    const response = await fetch(`${server.url}/api/timeline/stream${query}`, {
      headers: { Authorization: `Bearer ${token}`, ...headers },
      signal: client.#stop.signal,
    });
    if (response.status !== 200) throw new Error(`${response.status} ${await response.text()}`);
    void client.#read(response.body as ReadableStream<Uint8Array>);
    return client;
  }

  close(): void {
    this.#stop.abort();
  }

  async #read(body: ReadableStream<Uint8Array>): Promise<void> {
    let rest = '';
    try {
      for await (const text of body.pipeThrough(new TextDecoderStream())) {
        const blocks = (rest + text).split('\n\n');
        rest = blocks.pop() as string;
        for (const block of blocks) this.#event(block);
      }
    } catch {
      // closed, by us or by the server
    }
    this.isOver = true;
  }

  #event(block: string): void {
    if (block.startsWith(':')) this.comments += 1;
    else {
      const { event, data, id } = Object.fromEntries(block.split('\n').map((line) => line.split(/: (.*)/s)));
      if (id !== undefined) this.lastEventId = id;
      if (event === 'span') this.add(id, JSON.parse(data));
      else this.others.push({ type: event, ...JSON.parse(data) });
    }
  }
}

/** A client of the WebSocket. */
export class WsClient extends Received {
  readonly socket: WebSocket;
  closeCode: number | null = null;

  private constructor(socket: WebSocket) {
    super();
    this.socket = socket;
    socket.on('message', (data) => {
      const frame = JSON.parse(String(data));
      if (frame.type === 'span') this.add(frame.position, frame.span);
      else this.others.push(frame);
    });
    socket.on('close', (code) => {
      this.closeCode = code;
    });
    socket.on('error', () => {});
  }

  static async open(server: { url: string }, token: string): Promise<WsClient> {
    const socket = new WebSocket(`${server.url.replace('http', 'ws')}/ws`, {
      headers: { Authorization: `Bearer ${token}` },
    });
    const client = new WsClient(socket);
    await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
    return client;
  }

  close(): void {
    this.socket.terminate();
  }

  say(message: unknown): void {
    this.socket.send(typeof message === 'string' ? message : JSON.stringify(message));
  }

  async subscribe(message: object = {}): Promise<void> {
    this.say({ action: 'subscribe', ...message });
    await this.other('caught_up');
  }
}

export const TRANSPORTS = ['SSE', 'WebSocket'] as const;

/** A client that has caught up. `query` is a filter, and `after`. */
export async function openClient(
  transport: (typeof TRANSPORTS)[number],
  server: { url: string },
  token: string,
  query: Record<string, string> = {},
): Promise<SseClient | WsClient> {
  if (transport === 'SSE') {
    const client = await SseClient.open(server, token, `?${new URLSearchParams(query)}`);
    await client.other('caught_up');
    return client;
  }
  const client = await WsClient.open(server, token);
  const { after, ...filter } = query;
  await client.subscribe({ filter, ...(after === undefined ? {} : { after }) });
  return client;
}

export function named(name: string, more: Partial<SpanDraft> = {}): SpanDraft {
  return draft({ name, ...more } as never);
}
