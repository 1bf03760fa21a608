import { randomBytes } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import type { WebSocket } from 'ws';
import { isFromBrowser } from './lambda-api.ts';

/** What API Gateway takes of a message, either way; a client that sends more is cut off. */
export const PAYLOAD_BYTES_MAX = 128 * 1024;
/** What a client has not read yet; beyond that, posts to it are refused. */
const BUFFER_BYTES_MAX = 1024 * 1024;

/** A WebSocket as `@connections` knows it. */
export interface LiveConnection {
  socket: WebSocket;
  connectedAt: Date;
  lastActiveAt: Date;
  sourceIp: string;
  userAgent: string;
}

/** An identifier as API Gateway gives them. */
export function newConnectionId(): string {
  return randomBytes(11).toString('base64');
}

/** Note a connection for `@connections`, until it ends. */
export function keepConnection(
  connections: Map<string, LiveConnection>,
  id: string,
  socket: WebSocket,
  request: IncomingMessage,
): LiveConnection {
  const now = new Date();
  const connection = {
    socket,
    connectedAt: now,
    lastActiveAt: now,
    sourceIp: request.socket.remoteAddress ?? '',
    userAgent: request.headers['user-agent'] ?? '',
  };
  connections.set(id, connection);
  socket.on('message', () => {
    connection.lastActiveAt = new Date();
  });
  socket.on('close', () => connections.delete(id));
  return connection;
}

/** Below this path, after the stage or not, is the management API. */
export const CONNECTIONS_PATH = /^(?:\/[\w-]+)?\/@connections\//;

/**
 * The `@connections` of a WebSocket API, as the SDK and the `aws` command speak it: send to a connection, look at it, end
 * it. Like the Lambda API beside it, it trusts whoever reaches loopback, except web pages; in AWS, IAM stands in front.
 *
 * Source: Amazon API Gateway developer guide, "Use @connections commands in your backend service"; API reference of the
 * API Gateway Management API.
 */
export function createConnectionsApi(connections: ReadonlyMap<string, LiveConnection>): Hono {
  const app = new Hono();

  app.use(async (c, next) => {
    if (isFromBrowser(c)) return serviceError(403, 'ForbiddenException', 'Browsers may not use @connections');
    return next();
  });

  const tooLarge = () => serviceError(413, 'PayloadTooLargeException', '');
  app.use(bodyLimit({ maxSize: PAYLOAD_BYTES_MAX, onError: tooLarge }));

  app.all('*', async (c) => {
    const connection = connections.get(idOf(c.req.path));
    if (connection === undefined || connection.socket.readyState !== connection.socket.OPEN)
      return serviceError(410, 'GoneException', '');
    const { socket, connectedAt, lastActiveAt, sourceIp, userAgent } = connection;
    switch (c.req.method) {
      case 'POST': {
        if (socket.bufferedAmount > BUFFER_BYTES_MAX) return serviceError(429, 'LimitExceededException', '');
        socket.send(Buffer.from(await c.req.arrayBuffer()), { binary: false });
        return new Response(null, { status: 200 });
      }
      case 'GET':
        return c.json({ connectedAt, lastActiveAt, identity: { sourceIp, userAgent } });
      case 'DELETE':
        socket.close(1000);
        return new Response(null, { status: 204 });
      default:
        return serviceError(403, 'MissingAuthenticationTokenException', 'Missing Authentication Token');
    }
  });

  return app;
}

/** Empty for what cannot be decoded: nobody's. */
function idOf(path: string): string {
  try {
    return decodeURIComponent(path.replace(CONNECTIONS_PATH, ''));
  } catch {
    return '';
  }
}

function serviceError(status: number, type: string, message: string): Response {
  return new Response(JSON.stringify({ message }), {
    status,
    headers: { 'Content-Type': 'application/json', 'x-amzn-errortype': type },
  });
}
