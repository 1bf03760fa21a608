import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect } from 'vitest';

const NOT_FOUND = {
  __type: 'ResourceNotFoundException',
  Message: "Secrets Manager can't find the specified secret.",
};

/** A Secrets Manager on loopback that knows how values are read and written, and looks closely at how it is asked. */
export class SecretsManager {
  /** What each holds as `AWSCURRENT`. */
  readonly secrets = new Map<string, string>();
  /** The same as `AWSPENDING`. */
  readonly pending = new Map<string, string>();
  /** Those that are there and hold nothing, as Terraform makes them. */
  readonly empty = new Set<string>();
  /** ARNs in the order in which they were asked for. */
  readonly asked: string[] = [];
  /** Those that were given another version. */
  readonly written: string[] = [];
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
          'content-type': 'application/x-amz-json-1.1',
          'x-amz-date': expect.stringMatching(/^\d{8}T\d{6}Z$/),
          authorization: expect.stringMatching(
            /^AWS4-HMAC-SHA256 Credential=test-key\/\d{8}\/eu-central-1\/secretsmanager\/aws4_request, SignedHeaders=[a-z0-9;-]*host[a-z0-9;-]*, Signature=[0-9a-f]{64}$/,
          ),
        });
      } catch (fault) {
        this.faults.push(fault);
      }
      const answer = this.#answer(String(request.headers['x-amz-target']), JSON.parse(body)) ?? NOT_FOUND;
      response.writeHead(answer === NOT_FOUND ? 400 : 200, { 'Content-Type': 'application/x-amz-json-1.1' });
      response.end(JSON.stringify(answer));
    });
  }

  /** Fields as the API's reference has them; null where the secret, or its version of that label, is not there. */
  #answer(target: string, fields: Record<string, unknown>): object | null {
    const {
      SecretId,
      Name,
      SecretString,
      VersionStage,
      VersionStages,
      ClientRequestToken: VersionId,
      ...rest
    } = fields;
    const id = String(SecretId ?? Name);
    const described = { ARN: id, Name: id.split(':').at(-1), VersionId: VersionId ?? '1' };
    if (Object.keys(rest).length > 0) this.faults.push(rest);
    switch (target) {
      case 'secretsmanager.GetSecretValue': {
        this.asked.push(id);
        const stage = VersionStage ?? 'AWSCURRENT';
        const text = (stage === 'AWSPENDING' ? this.pending : this.secrets).get(id);
        if (text === undefined) return null;
        return { ...described, SecretString: text, VersionStages: [stage], CreatedDate: 1.7e9 };
      }
      case 'secretsmanager.PutSecretValue':
        if (!this.secrets.has(id) && !this.empty.has(id)) return null;
        break;
      case 'secretsmanager.CreateSecret':
        if (this.secrets.has(id) || id.startsWith('arn:')) this.faults.push(`${id} cannot be made`);
        break;
      default:
        this.faults.push(target);
    }
    if (!/^[\w-]{32,64}$/.test(String(VersionId))) this.faults.push(`ClientRequestToken ${VersionId}`);
    this.written.push(id);
    const stages = (VersionStages ?? ['AWSCURRENT']) as string[];
    if (stages.includes('AWSCURRENT')) this.secrets.set(id, String(SecretString));
    if (stages.includes('AWSPENDING')) this.pending.set(id, String(SecretString));
    return { ...described, VersionStages: stages };
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
