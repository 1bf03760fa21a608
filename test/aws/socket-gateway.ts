import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { type WebSocket, WebSocketServer } from 'ws';
import {
  keepConnection,
  type LiveConnection,
  newConnectionId,
  PAYLOAD_BYTES_MAX,
} from '../../src/local/connections-api.ts';

const STAGE = 'local';

/** What an integration hears of a connection, as far as ours look. */
export interface SocketEvent {
  requestContext: SocketContext;
  /** At `$connect` alone. */
  headers?: Record<string, string>;
  queryStringParameters?: Record<string, string> | null;
  body?: string;
  isBase64Encoded: boolean;
}

interface SocketContext {
  routeKey: string;
  eventType: 'CONNECT' | 'MESSAGE' | 'DISCONNECT';
  connectionId: string;
  requestId: string;
  connectedAt: number;
  requestTimeEpoch: number;
  apiId: string;
  stage: string;
  domainName: string;
  identity: { sourceIp: string; userAgent: string };
  authorizer?: Record<string, unknown> | undefined;
  disconnectStatusCode?: number;
  disconnectReason?: string;
}

/** What a REQUEST authorizer answers. */
export interface AuthorizerAnswer {
  principalId: string;
  policyDocument: { Statement: { Effect: string }[] };
  context?: Record<string, unknown>;
}

export interface GatewayOptions {
  /** @throws an error `Unauthorized`, which makes it a 401. */
  authorize: (event: SocketEvent & { type: 'REQUEST'; methodArn: string }) => Promise<AuthorizerAnswer>;
  /** The integrations, by their routes: `$connect`, `$disconnect`, `$default` and values of `action`. */
  routes: Record<string, (event: SocketEvent) => Promise<{ statusCode: number; body?: string }>>;
}

/**
 * A WebSocket API as API Gateway runs it: its events to integrations that are Lambda functions in AWS, and their answers
 * back to the client (as with route responses). Routes by `$request.body.action`.
 *
 * Source: Amazon API Gateway developer guide, "WebSocket APIs".
 */
export class SocketGateway {
  readonly connections = new Map<string, LiveConnection>();
  readonly #options: GatewayOptions;
  readonly #server = new WebSocketServer({ noServer: true, maxPayload: PAYLOAD_BYTES_MAX });

  constructor(options: GatewayOptions) {
    this.#options = options;
  }

  /** For the `upgrade` of an HTTP server. */
  async upgrade(request: IncomingMessage, stream: Duplex, head: Buffer): Promise<void> {
    stream.on('error', () => stream.destroy());
    const id = newConnectionId();
    const url = new URL(request.url ?? '/', 'http://localhost');
    const context: Omit<SocketContext, 'routeKey' | 'eventType' | 'requestId' | 'requestTimeEpoch'> = {
      connectionId: id,
      connectedAt: Date.now(),
      apiId: STAGE,
      stage: STAGE,
      domainName: request.headers.host ?? 'localhost',
      identity: { sourceIp: request.socket.remoteAddress ?? '', userAgent: request.headers['user-agent'] ?? '' },
    };
    const connect: SocketEvent = {
      requestContext: this.#context(context, '$connect', 'CONNECT'),
      headers: Object.fromEntries(Object.entries(request.headers).map(([name, value]) => [name, String(value)])),
      queryStringParameters: url.search === '' ? null : Object.fromEntries(url.searchParams),
      isBase64Encoded: false,
    };
    const refused = await this.#connect(connect).catch(() => 500);
    if (refused !== null) return refuse(stream, refused);
    const { authorizer } = connect.requestContext;
    this.#server.handleUpgrade(request, stream, head, (socket) => {
      keepConnection(this.connections, id, socket, request);
      socket.on('error', () => {}); // a message too long; the close that follows says it
      socket.on('message', (data, isBinary) => {
        const body = Buffer.from(data as Buffer).toString(isBinary ? 'base64' : 'utf8');
        const routeKey = this.#routeOf(isBinary ? '' : body);
        const requestContext = this.#context({ ...context, authorizer }, routeKey, 'MESSAGE');
        void this.#message(socket, { requestContext, body, isBase64Encoded: isBinary });
      });
      socket.on('close', (code, reason) => {
        const ended = { disconnectStatusCode: code, disconnectReason: reason.toString() };
        const requestContext = this.#context({ ...context, authorizer, ...ended }, '$disconnect', 'DISCONNECT');
        void this.#options.routes.$disconnect?.({ requestContext, isBase64Encoded: false }).catch(() => {});
      });
    });
  }

  close(): void {
    for (const { socket } of this.connections.values()) socket.close(1001);
    this.#server.close();
  }

  /** @returns the status it is refused with; null when it is open. */
  async #connect(event: SocketEvent): Promise<number | null> {
    const methodArn = `arn:aws:execute-api:local:000000000000:${STAGE}/${STAGE}/$connect`;
    let answer: AuthorizerAnswer;
    try {
      answer = await this.#options.authorize({ ...event, type: 'REQUEST', methodArn });
    } catch (error) {
      return (error as Error).message === 'Unauthorized' ? 401 : 500;
    }
    if (!answer.policyDocument.Statement.every(({ Effect }) => Effect === 'Allow')) return 403;
    event.requestContext.authorizer = { principalId: answer.principalId, ...answer.context };
    const { statusCode } = (await this.#options.routes.$connect?.(event)) ?? { statusCode: 200 };
    return statusCode < 300 ? null : statusCode;
  }

  #routeOf(body: string): string {
    try {
      const action: unknown = JSON.parse(body)?.action;
      if (typeof action === 'string' && !action.startsWith('$') && Object.hasOwn(this.#options.routes, action))
        return action;
    } catch {
      // not JSON: as any other that no route is for
    }
    return '$default';
  }

  async #message(socket: WebSocket, event: SocketEvent): Promise<void> {
    const { connectionId, requestId, routeKey } = event.requestContext;
    const failed = (message: string) => JSON.stringify({ message, connectionId, requestId });
    const integration = this.#options.routes[routeKey];
    const body =
      integration === undefined
        ? failed('Forbidden')
        : await integration(event).then(
            (answer) => answer.body,
            () => failed('Internal server error'),
          );
    if (body !== undefined && body !== '') socket.send(body);
  }

  #context(
    about: Omit<SocketContext, 'routeKey' | 'eventType' | 'requestId' | 'requestTimeEpoch'>,
    routeKey: string,
    eventType: SocketContext['eventType'],
  ): SocketContext {
    return { ...about, routeKey, eventType, requestId: randomUUID(), requestTimeEpoch: Date.now() };
  }
}

function refuse(stream: Duplex, status: number): void {
  stream.end(`HTTP/1.1 ${status} Refused\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
}
