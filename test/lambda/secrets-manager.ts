import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect } from 'vitest';

/** A Secrets Manager on loopback that knows GetSecretValue, and looks closely at how it is asked. */
export class SecretsManager {
  readonly secrets = new Map<string, string>();
  /** ARNs in the order in which they were asked for. */
  readonly asked: string[] = [];
  /** What was wrong with a request, if anything. */
  readonly faults: unknown[] = [];
  readonly #server: Server;

  private constructor() {
    this.#server = createServer(async (request, response) => {
      const body = await text(request);
      try {
        expect(request.method).toBe('POST');
        expect(request.url).toBe('/');
        expect(request.headers).toMatchObject({
          'x-amz-target': 'secretsmanager.GetSecretValue',
          'content-type': 'application/x-amz-json-1.1',
          'x-amz-date': expect.stringMatching(/^\d{8}T\d{6}Z$/),
          authorization: expect.stringMatching(
            /^AWS4-HMAC-SHA256 Credential=test-key\/\d{8}\/eu-central-1\/secretsmanager\/aws4_request, SignedHeaders=[a-z0-9;-]*host[a-z0-9;-]*, Signature=[0-9a-f]{64}$/,
          ),
        });
        expect(Object.keys(JSON.parse(body))).toEqual(['SecretId']);
      } catch (fault) {
        this.faults.push(fault);
      }
      const arn = JSON.parse(body).SecretId;
      this.asked.push(arn);
      const secret = this.secrets.get(arn);
      const answer =
        secret === undefined
          ? { __type: 'ResourceNotFoundException', Message: "Secrets Manager can't find the specified secret." }
          : {
              ARN: arn,
              Name: arn.split(':').at(-1),
              VersionId: '1',
              SecretString: secret,
              VersionStages: ['AWSCURRENT'],
              CreatedDate: 1.7e9,
            };
      response.writeHead(secret === undefined ? 400 : 200, { 'Content-Type': 'application/x-amz-json-1.1' });
      response.end(JSON.stringify(answer));
    });
  }

  static async start(): Promise<SecretsManager> {
    const manager = new SecretsManager();
    manager.#server.listen(0, '127.0.0.1');
    await once(manager.#server, 'listening');
    return manager;
  }

  /** A secret with these fields; returns its ARN. */
  put(name: string, fields: object | string): string {
    const arn = `arn:aws:secretsmanager:eu-central-1:123456789012:secret:${name}`;
    this.secrets.set(arn, typeof fields === 'string' ? fields : JSON.stringify(fields));
    return arn;
  }

  get env(): Record<string, string> {
    return {
      AWS_REGION: 'eu-central-1',
      AWS_ACCESS_KEY_ID: 'test-key',
      AWS_SECRET_ACCESS_KEY: 'test-secret',
      AWS_ENDPOINT_URL_SECRETS_MANAGER: `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`,
    };
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

async function text(request: IncomingMessage): Promise<string> {
  let body = '';
  for await (const chunk of request) body += chunk;
  return body;
}
