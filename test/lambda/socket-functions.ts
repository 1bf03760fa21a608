import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { getRequestListener } from '@hono/node-server';
import { Sockets } from '../../src/aws/gateway.ts';
import { RemoteFunction } from '../../src/aws/lambda.ts';
import type { Authenticator, Caller } from '../../src/identity/caller.ts';
import { callerFields } from '../../src/lambda/caller-fields.ts';
import { Connections } from '../../src/lambda/connections.ts';
import { type FanOutCounts, type FanOutOptions, fanOut } from '../../src/lambda/fan-out.ts';
import { readPages, type TimelineAnswer } from '../../src/lambda/timeline-pages.ts';
import type { Database, Identity } from '../../src/ledger/index.ts';
import { createLambdaApi } from '../../src/local/lambda-api.ts';
import { DynamoDb } from '../aws/dynamodb.ts';
import { GatewayServer } from '../aws/gateway-server.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';

export const READER = 'loglineos-timeline-reader';
/** As the sender asks it. */
export const reader = new RemoteFunction(READER);
const CONTEXT = { getRemainingTimeInMillis: () => 30_000, functionName: 'the-function', awsRequestId: 'a-request' };

/** The functions of the WebSocket API behind an emulated gateway, with a ledger and tables of a test's own. */
export class SocketFunctions {
  readonly dynamodb: DynamoDb;
  readonly server: GatewayServer;
  readonly ledger: TestDatabase;
  readonly database: Database;
  readonly connections: Connections;
  /** What the reader answered. */
  readonly answers: TimelineAnswer[] = [];
  readonly logged: Record<string, unknown>[] = [];
  readonly revoked = new Set<string>();
  readonly #callers = new Map<string, Caller>();
  readonly #lambda: Server;

  /** Once in a process: what the functions read of their environment, they read once. */
  static async start(): Promise<SocketFunctions> {
    const dynamodb = await DynamoDb.start();
    process.env.CONNECTIONS_TABLE = await dynamodb.createConnectionsTable();
    const { handler } = await import('../../src/lambda/timeline.ts');
    const timeline = (event: Parameters<typeof handler>[0]) => handler(event, CONTEXT);
    const callers = new Map<string, Caller>();
    const server = await GatewayServer.start({
      async authorize({ queryStringParameters }) {
        const caller = callers.get(String(queryStringParameters?.ticket));
        if (caller === undefined) throw new Error('Unauthorized');
        return {
          principalId: caller.identity.userId,
          policyDocument: { Statement: [{ Effect: 'Allow' }] },
          context: { ...callerFields(caller) },
        };
      },
      routes: {
        $connect: timeline,
        $disconnect: timeline,
        $default: timeline,
        subscribe: timeline,
        unsubscribe: timeline,
        ping: timeline,
      },
    });
    const functions = new SocketFunctions(dynamodb, server, await createTestDatabase(), callers);
    functions.#lambda.listen(0, '127.0.0.1');
    await once(functions.#lambda, 'listening');
    const { port } = functions.#lambda.address() as AddressInfo;
    process.env.AWS_ENDPOINT_URL_LAMBDA = `http://127.0.0.1:${port}`;
    return functions;
  }

  private constructor(dynamodb: DynamoDb, server: GatewayServer, ledger: TestDatabase, callers: Map<string, Caller>) {
    this.dynamodb = dynamodb;
    this.server = server;
    this.ledger = ledger;
    this.#callers = callers;
    this.database = ledger.open('loglineos_app', { connectionsMax: 8 });
    this.connections = new Connections(String(process.env.CONNECTIONS_TABLE));
    const api = createLambdaApi({ [READER]: (event) => this.#read(event) }, () => {});
    this.#lambda = createServer(getRequestListener((request) => api.fetch(request)));
  }

  /** A ticket of the tests' own; the identity room has its tests. */
  give(identity: Identity, more: Partial<Caller> = {}): string {
    const token = `token-${this.#callers.size}`;
    this.#callers.set(token, { identity, scopes: ['spans:read'], tokenId: token, expiresAt: null, ...more });
    return token;
  }

  /** A sender at work until that time. */
  send(endOfTime: Date, more: Partial<FanOutOptions> = {}): Promise<FanOutCounts> {
    return fanOut({
      connections: this.connections,
      sockets: new Sockets(this.server.endpoint),
      read: async (question) => (await reader.invoke(question, 5_000)) as TimelineAnswer,
      endOfTime,
      log: (entry) => this.logged.push(entry),
      ...more,
    });
  }

  async stop(): Promise<void> {
    await this.server.stop();
    this.#lambda.closeAllConnections();
    this.#lambda.close();
    await this.ledger.close();
    await this.dynamodb.stop();
  }

  async #read(event: unknown): Promise<TimelineAnswer> {
    const authenticator: Authenticator = {
      authenticate: async (token) => this.#callers.get(token) as Caller,
      ended: async (asked) =>
        asked.filter(
          ({ tokenId, expiresAt }) =>
            this.revoked.has(String(tokenId)) || (expiresAt !== null && expiresAt <= new Date()),
        ),
    };
    const answer = await readPages(
      { database: this.database, authenticator },
      event as Parameters<typeof readPages>[1],
    );
    this.answers.push(answer);
    return answer;
  }
}
