import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { getRequestListener } from '@hono/node-server';
import { WebSocket } from 'ws';
import { createConnectionsApi } from '../../src/local/connections-api.ts';
import { type GatewayOptions, SocketGateway } from './socket-gateway.ts';

// biome-ignore lint/suspicious/noExplicitAny: a frame; the test says what it expects
type Frame = any;

/** A WebSocket API on loopback, with its `@connections`. */
export class GatewayServer {
  readonly gateway: SocketGateway;
  /** `METHOD path` of what came to `@connections`. */
  readonly calls: string[] = [];
  readonly #server: Server;
  readonly #clients: Client[] = [];

  private constructor(options: GatewayOptions) {
    this.gateway = new SocketGateway(options);
    const api = createConnectionsApi(this.gateway.connections);
    this.#server = createServer(
      getRequestListener((request) => {
        this.calls.push(`${request.method} ${new URL(request.url).pathname}`);
        return api.fetch(request);
      }),
    );
    this.#server.on('upgrade', (request, stream, head) => void this.gateway.upgrade(request, stream, head));
  }

  static async start(options: GatewayOptions): Promise<GatewayServer> {
    const server = new GatewayServer(options);
    server.#server.listen(0, '127.0.0.1');
    await once(server.#server, 'listening');
    Object.assign(process.env, {
      AWS_REGION: 'eu-central-1',
      AWS_ACCESS_KEY_ID: 'test-key',
      AWS_SECRET_ACCESS_KEY: 'test-secret',
    });
    return server;
  }

  /** What the SDK is told. */
  get endpoint(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/local`;
  }

  /** @returns an open connection, or the status it was refused with. */
  async connect(query = '', headers: Record<string, string> = {}): Promise<Client | number> {
    const opened = await openSocket(`${this.endpoint.replace('http', 'ws')}${query}`, headers);
    if (typeof opened !== 'number') this.#clients.push(opened);
    return opened;
  }

  async stop(): Promise<void> {
    for (const client of this.#clients) client.socket.terminate();
    this.gateway.close();
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

/** @returns an open connection, or the status it was refused with. */
export function openSocket(url: string, headers: Record<string, string> = {}): Promise<Client | number> {
  const socket = new WebSocket(url, { headers });
  const client = new Client(socket);
  const { promise, resolve } = Promise.withResolvers<Client | number>();
  socket.on('open', () => resolve(client));
  socket.on('unexpected-response', (_request, response) => resolve(response.statusCode ?? 0));
  socket.on('error', () => {});
  return promise;
}

/** A WebSocket client that keeps what it hears. */
export class Client {
  readonly socket: WebSocket;
  readonly frames: Frame[] = [];
  readonly closed: Promise<number>;
  #onChange = () => {};

  constructor(socket: WebSocket) {
    this.socket = socket;
    socket.on('message', (data) => {
      this.frames.push(JSON.parse(String(data)));
      this.#onChange();
    });
    this.closed = new Promise((resolve) => socket.on('close', resolve));
  }

  send(frame: unknown): void {
    this.socket.send(typeof frame === 'string' ? frame : JSON.stringify(frame));
  }

  /** The first frame that is so, among those heard and those to come. */
  async heard(isIt: (frame: Frame) => boolean, timeoutMs = 30_000): Promise<Frame> {
    const endOfTime = Date.now() + timeoutMs;
    for (;;) {
      const frame = this.frames.find(isIt);
      if (frame !== undefined) return frame;
      if (Date.now() > endOfTime) throw new Error(`not heard; but ${JSON.stringify(this.frames).slice(0, 2_000)}`);
      await Promise.race([
        new Promise<void>((resolve) => {
          this.#onChange = resolve;
        }),
        new Promise((resolve) => setTimeout(resolve, 50)),
      ]);
    }
  }

  type(type: string, timeoutMs?: number): Promise<Frame> {
    return this.heard((frame) => frame.type === type, timeoutMs);
  }

  ofType(type: string): Frame[] {
    return this.frames.filter((frame) => frame.type === type);
  }
}
