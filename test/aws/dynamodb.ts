import { once } from 'node:events';
import { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { CreateTableCommand, DynamoDBClient, waitUntilTableExists } from '@aws-sdk/client-dynamodb';
import dynalite from 'dynalite';

/** A DynamoDB on loopback, in memory. */
export class DynamoDb {
  readonly #server: Server;
  readonly env: Record<string, string>;
  #tables = 0;

  private constructor(server: Server) {
    this.#server = server;
    this.env = {
      AWS_REGION: 'eu-central-1',
      AWS_ACCESS_KEY_ID: 'test-key',
      AWS_SECRET_ACCESS_KEY: 'test-secret',
      AWS_ENDPOINT_URL_DYNAMODB: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    };
  }

  /** Started, and what the SDK of this process finds. */
  static async start(): Promise<DynamoDb> {
    const server = dynalite({ createTableMs: 0 });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const dynamodb = new DynamoDb(server);
    Object.assign(process.env, dynamodb.env);
    return dynamodb;
  }

  /** An empty table of connections; returns its name. */
  async createConnectionsTable(): Promise<string> {
    return this.createTable('connection_id');
  }

  /** An empty table with this partition key; returns its name. */
  async createTable(partitionKey: string): Promise<string> {
    const client = new DynamoDBClient({});
    const TableName = `${partitionKey}s-${++this.#tables}`;
    await client.send(
      new CreateTableCommand({
        TableName,
        BillingMode: 'PAY_PER_REQUEST',
        AttributeDefinitions: [{ AttributeName: partitionKey, AttributeType: 'S' }],
        KeySchema: [{ AttributeName: partitionKey, KeyType: 'HASH' }],
      }),
    );
    await waitUntilTableExists({ client, maxWaitTime: 10, minDelay: 0.05, maxDelay: 0.1 }, { TableName });
    client.destroy();
    return TableName;
  }

  /** Nobody listens where it was, meanwhile. */
  async whileAway(run: () => Promise<void>): Promise<void> {
    const { port } = this.#server.address() as AddressInfo;
    // Of the HTTP server alone: dynalite's own would end the store.
    this.#server.closeAllConnections();
    await new Promise((resolve) => Server.prototype.close.call(this.#server, resolve));
    try {
      await run();
    } finally {
      Server.prototype.listen.call(this.#server, { port, host: '127.0.0.1' });
      await once(this.#server, 'listening');
    }
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
