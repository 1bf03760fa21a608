import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { type WebSocket, WebSocketServer } from 'ws';
import type { SocketEnv } from '../api/index.ts';
import type { Caller } from '../identity/caller.ts';
import {
  CLOSE_CODES,
  type Client,
  type Connection,
  type EndCode,
  frames,
  Session,
  type SpanBatch,
  type TimelineHub,
} from '../timeline/index.ts';
import { keepConnection, type LiveConnection, newConnectionId, PAYLOAD_BYTES_MAX } from './connections-api.ts';

const HEARTBEAT_MS = 15_000;
/** A client that was told to go and does not close by then is cut off. */
const END_GRACE_MS = 1_000;

/** The app that opens sockets: it answers a handshake as any request, and calls `onSocket` if it may go on. */
type Fetch = (request: Request, env: SocketEnv) => Response | Promise<Response>;

/** Anything else that would be upgraded (HTTP/2, for one) is a request like any other. */
export function isSocketHandshake({ headers, url }: IncomingMessage): boolean {
  return headers.upgrade?.toLowerCase() === 'websocket' && url?.split('?', 1)[0] === '/ws';
}

/** The timeline over WebSockets (RFC 6455), on an HTTP server that others serve too. */
export class SocketServer {
  readonly #fetch: Fetch;
  readonly #hub: TimelineHub;
  readonly #server = new WebSocketServer({ noServer: true, maxPayload: PAYLOAD_BYTES_MAX });
  readonly #heartbeat: NodeJS.Timeout;
  /** Those that have not been heard of since the last heartbeat. */
  #silent = new Set<WebSocket>();
  /** For `@connections`; a handshake's answer says which one it opened. */
  readonly connections = new Map<string, LiveConnection>();
  readonly #ids = new WeakMap<IncomingMessage, string>();

  constructor(fetch: Fetch, hub: TimelineHub, heartbeatMs = HEARTBEAT_MS) {
    this.#fetch = fetch;
    this.#hub = hub;
    this.#heartbeat = setInterval(() => this.#beat(), heartbeatMs).unref();
    this.#server.on('headers', (headers, request) => headers.push(`X-Connection-Id: ${this.#ids.get(request)}`));
  }

  /** For the `upgrade` of an HTTP server, of what `isSocketHandshake` lets pass. */
  async upgrade(request: IncomingMessage, stream: Duplex, head: Buffer): Promise<void> {
    const onError = () => stream.destroy();
    stream.on('error', onError);
    try {
      let caller: Caller | undefined;
      const response = await this.#fetch(asRequest(request), {
        incoming: request,
        onSocket: (opener) => {
          caller = opener;
        },
      });
      if (caller === undefined) return await refuse(stream, response);
      const opener = caller;
      stream.off('error', onError);
      const id = newConnectionId();
      this.#ids.set(request, id);
      this.#server.handleUpgrade(request, stream, head, (socket) => {
        keepConnection(this.connections, id, socket, request);
        this.#open(socket, stream, opener);
      });
    } catch {
      stream.destroy(); // no request that HTTP knows
    }
  }

  close(): void {
    clearInterval(this.#heartbeat);
    for (const socket of this.#server.clients) socket.terminate();
  }

  #open(socket: WebSocket, stream: Duplex, caller: Caller): void {
    socket.on('error', () => {}); // the close that follows says all there is
    const client = new SocketClient(socket, stream);
    let connection: Connection;
    try {
      connection = this.#hub.connect(caller, client);
    } catch (error) {
      client.send(frames.error(error));
      client.close(CLOSE_CODES.SLOW_CLIENT);
      return;
    }
    const session = new Session(connection, client);
    socket.on('message', (data, isBinary) => {
      this.#silent.delete(socket);
      session.receive(isBinary ? '' : String(data));
    });
    socket.on('pong', () => this.#silent.delete(socket));
    socket.on('close', () => {
      this.#silent.delete(socket);
      connection.close();
    });
  }

  #beat(): void {
    for (const socket of this.#silent) socket.terminate();
    this.#silent = new Set(this.#server.clients);
    for (const socket of this.#silent) socket.ping();
  }
}

/** Messages for one socket. What is sent in one turn leaves in one piece. */
class SocketClient implements Client {
  readonly #socket: WebSocket;
  readonly #stream: Duplex;
  #isCorked = false;

  constructor(socket: WebSocket, stream: Duplex) {
    this.#socket = socket;
    this.#stream = stream;
  }

  send(frame: string | Buffer): void {
    if (this.#socket.readyState !== this.#socket.OPEN) return;
    if (!this.#isCorked) {
      this.#isCorked = true;
      this.#stream.cork();
      process.nextTick(() => {
        this.#isCorked = false;
        this.#stream.uncork();
      });
    }
    this.#socket.send(frame, { binary: false });
  }

  sendSpans(id: string, batch: SpanBatch): void {
    for (const frame of encode(id, batch)) this.send(frame);
  }

  bufferedBytes(): number {
    return this.#socket.bufferedAmount;
  }

  async drained(): Promise<void> {
    if (!this.#stream.writableNeedDrain) return;
    await new Promise<void>((resolve) => {
      const done = () => {
        this.#stream.off('drain', done).off('close', done);
        resolve();
      };
      this.#stream.on('drain', done).on('close', done);
    });
  }

  end(code: EndCode): void {
    this.send(frames.end(code));
    this.close(CLOSE_CODES[code]);
  }

  close(code: number): void {
    this.#socket.close(code);
    setTimeout(() => this.#socket.terminate(), END_GRACE_MS).unref();
  }
}

/** Messages with spans, made once for all whose subscription has the same name. */
const encoded = new WeakMap<SpanBatch, Map<string, Buffer[]>>();

function encode(id: string, batch: SpanBatch): Buffer[] {
  const byId = encoded.get(batch) ?? new Map<string, Buffer[]>();
  encoded.set(batch, byId);
  let messages = byId.get(id);
  if (messages === undefined) {
    messages = batch.spans.map(({ position, json }) => Buffer.from(frames.span(id, position, json)));
    byId.set(id, messages);
  }
  return messages;
}

function asRequest({ url, headers }: IncomingMessage): Request {
  const entries = Object.entries(headers).map(([name, value]) => [name, String(value)] as [string, string]);
  return new Request(new URL(url ?? '/', 'http://localhost'), { headers: entries });
}

/** An answer of the app, on a connection that nobody upgraded. */
async function refuse(stream: Duplex, response: Response): Promise<void> {
  const body = await response.text();
  const headers = new Headers(response.headers);
  headers.set('Connection', 'close');
  headers.set('Content-Length', String(Buffer.byteLength(body)));
  const lines = [...headers].map(([name, value]) => `${name}: ${value}\r\n`).join('');
  stream.end(`HTTP/1.1 ${response.status} ${response.statusText}\r\n${lines}\r\n${body}`);
}
