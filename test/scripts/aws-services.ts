import { createHash, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { expect } from 'vitest';

interface Alias {
  version: number;
  description: string;
  revision: string;
}

interface Configuration {
  zip: Buffer;
  variables: Record<string, string>;
}

interface LambdaFunction {
  latest: Configuration;
  /** The first is version 1. */
  versions: Configuration[];
  live: Alias | undefined;
}

/** What Terraform is told, as `terraform.mjs` passes it on. */
interface Variables {
  artifact_bucket: string;
  artifact_keys: Record<string, string>;
}

const BUCKET = 'artefacts';
const DATE = '/2015-03-31/functions/';

/**
 * As much of S3 and of the Lambda API as a deployment asks, on loopback, and a close look at how it asks. A function is run
 * by the local stack, unless its zip says that it is `broken`, or what it `answers`. Terraform's part is played by `terraform.mjs`, which makes functions here.
 *
 * Sources: AWS Lambda API reference; Amazon S3 API reference.
 */
export class AwsServices {
  readonly functions = new Map<string, LambdaFunction>();
  readonly objects = new Map<string, Buffer>();
  /** What changed something or ran something, in order. */
  readonly log: string[] = [];
  /** What was wrong with a request, if anything. */
  readonly faults: unknown[] = [];
  /** How often an alias was changed; after so many changes, none is answered any more. */
  aliasChanges = 0;
  aliasChangesMax = Number.POSITIVE_INFINITY;
  /** Called before an alias is changed. */
  beforeAliasChange: (name: string) => void = () => {};
  /** Awaited before a function is invoked, and before it is looked up which version that is. */
  beforeInvocation: (name: string, qualifier: string | null) => Promise<void> = async () => {};
  readonly #server: Server;
  readonly #stack: string;

  private constructor(stack: string) {
    this.#stack = stack;
    this.#server = createServer(async (request, response) => {
      const body = await buffer(request);
      const { pathname, searchParams } = new URL(request.url as string, 'http://aws');
      if (pathname === '/terraform') {
        this.#apply(JSON.parse(body.toString()));
        return response.end();
      }
      const isLambda = pathname.startsWith(DATE);
      try {
        checkSignature(request, body, isLambda ? 'lambda' : 's3');
      } catch (fault) {
        this.faults.push(fault);
      }
      if (!isLambda) return this.#s3(request, response, pathname, body);
      const [name = '', ...operation] = pathname.slice(DATE.length).split('/').map(decodeURIComponent);
      return this.#lambda(response, `${request.method} ${operation.join('/')}`, name, body, searchParams);
    });
  }

  /**
   * @param stack URL of a local stack.
   * @param before whose zips and functions are there from the beginning.
   */
  static async start(stack: string, before?: AwsServices): Promise<AwsServices> {
    const services = new AwsServices(stack);
    for (const [key, zip] of before?.objects ?? []) services.objects.set(key, zip);
    for (const [name, { latest, versions, live }] of before?.functions ?? []) {
      services.functions.set(name, { latest, versions: [...versions], live: live && { ...live } });
    }
    services.#server.listen(0, '127.0.0.1');
    await once(services.#server, 'listening');
    return services;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  get env(): Record<string, string> {
    return {
      AWS_REGION: 'eu-central-1',
      AWS_ACCESS_KEY_ID: 'test-key',
      AWS_SECRET_ACCESS_KEY: 'test-secret',
      AWS_ENDPOINT_URL: this.url,
      ARTIFACT_BUCKET: BUCKET,
    };
  }

  /** Version and text of what each alias points to, all that differ. */
  live(): string[] {
    const said = [...this.functions.values()].map(({ live, versions }) => {
      const text = /release \w+/.exec(String(versions[(live?.version ?? 0) - 1]?.zip))?.[0];
      return `version ${live?.version}: ${text}`;
    });
    return [...new Set(said)].sort();
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /** What the modules of `infra/` do: code by its key, `publish`, an alias that is made once and then left alone. */
  #apply({ artifact_bucket, artifact_keys }: Variables): void {
    expect(artifact_bucket).toBe(BUCKET);
    for (const [name, key] of Object.entries(artifact_keys)) {
      const zip = this.objects.get(key);
      if (zip === undefined) throw new Error(`no object ${key}`);
      const made = this.functions.get(name) ?? {
        latest: { zip, variables: { ENVIRONMENT: 'dev' } },
        versions: [],
        live: undefined,
      };
      made.latest = { ...made.latest, zip };
      const version = publish(made);
      made.live ??= { version, description: '', revision: randomUUID() };
      this.functions.set(name, made);
    }
    this.log.push('terraform apply');
  }

  #s3(request: IncomingMessage, response: ServerResponse, pathname: string, body: Buffer): void {
    const key = pathname.slice(`/${BUCKET}/`.length);
    if (pathname.startsWith('/of-others/')) {
      response.writeHead(403).end();
    } else if (!pathname.startsWith(`/${BUCKET}/`)) {
      response.writeHead(404, { 'Content-Type': 'application/xml' });
      response.end('<Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist</Message></Error>');
    } else if (request.method === 'HEAD') {
      response.writeHead(this.objects.has(key) ? 200 : 404).end();
    } else {
      if (request.headers['x-amz-checksum-sha256'] !== sha256(body, 'base64')) this.faults.push(`checksum of ${key}`);
      this.log.push(`put ${key}`);
      this.objects.set(key, body);
      response.writeHead(200, { ETag: '"an-etag"' }).end();
    }
  }

  async #lambda(response: ServerResponse, operation: string, name: string, body: Buffer, query: URLSearchParams) {
    const json = (status: number, value: object, type?: string) => {
      response.writeHead(status, { 'Content-Type': 'application/json', ...(type && { 'x-amzn-ErrorType': type }) });
      response.end(JSON.stringify(value));
    };
    const refuse = (status: number, type: string, Message: string) => json(status, { Type: 'User', Message }, type);
    const found = this.functions.get(name);
    if (found === undefined) return refuse(404, 'ResourceNotFoundException', `Function not found: ${name}`);
    const input = operation.startsWith('P') && !operation.includes('invocations') ? JSON.parse(body.toString()) : {};

    switch (operation) {
      case 'GET configuration': {
        const qualifier = query.get('Qualifier');
        const said = qualifier === null ? found.latest : found.versions[Number(qualifier) - 1];
        if (said === undefined) return refuse(404, 'ResourceNotFoundException', `no version ${qualifier}`);
        return json(200, configuration(name, said, qualifier ?? '$LATEST'));
      }
      case 'PUT code': {
        this.log.push(`update ${name}`);
        found.latest = { ...found.latest, zip: Buffer.from(input.ZipFile, 'base64') };
        return json(200, configuration(name, found.latest, '$LATEST'));
      }
      case 'POST versions': {
        if (input.CodeSha256 !== sha256(found.latest.zip, 'base64')) {
          return refuse(
            400,
            'InvalidParameterValueException',
            'CodeSHA256 is different from current CodeSHA256 in $LATEST',
          );
        }
        const before = found.versions.length;
        const version = publish(found);
        if (version > before) this.log.push(`publish ${name} ${version}`);
        return json(201, configuration(name, found.latest, String(version)));
      }
      case 'GET aliases/live':
        if (found.live === undefined) return refuse(404, 'ResourceNotFoundException', 'no alias live');
        return json(200, alias(found.live));
      case 'PUT aliases/live': {
        this.beforeAliasChange(name);
        const { live } = found;
        if (live === undefined) return refuse(404, 'ResourceNotFoundException', 'no alias live');
        if (input.RevisionId !== undefined && input.RevisionId !== live.revision) {
          return refuse(
            412,
            'PreconditionFailedException',
            'The Revision Id provided does not match the latest Revision Id',
          );
        }
        if (this.aliasChanges === this.aliasChangesMax) return;
        this.aliasChanges++;
        if (input.FunctionVersion !== undefined) {
          this.log.push(`move ${name} ${live.version} ${input.FunctionVersion}`);
        }
        found.live = {
          version: Number(input.FunctionVersion ?? live.version),
          description: input.Description ?? live.description,
          revision: randomUUID(),
        };
        return json(200, alias(found.live));
      }
      case 'POST invocations': {
        const qualifier = query.get('Qualifier');
        await this.beforeInvocation(name, qualifier);
        const version = qualifier === 'live' ? found.live?.version : Number(qualifier);
        const code = found.versions[(version ?? 0) - 1];
        if (code === undefined) return refuse(404, 'ResourceNotFoundException', `no version ${qualifier}`);
        this.log.push(`invoke ${name}:${qualifier}`);
        response.setHeader('X-Amz-Executed-Version', String(version));
        if (code.zip.includes('broken')) {
          response.setHeader('X-Amz-Function-Error', 'Unhandled');
          return json(200, { errorType: 'SCHEMA_MISSING', errorMessage: 'this code is broken', trace: [] });
        }
        const said = / answers (.*)$/.exec(code.zip.toString())?.[1];
        if (said !== undefined) return json(200, JSON.parse(said));
        const ran = await fetch(`${this.#stack}${DATE}${name}/invocations`, {
          method: 'POST',
          body: new Uint8Array(body),
        });
        const error = ran.headers.get('X-Amz-Function-Error');
        if (error !== null) response.setHeader('X-Amz-Function-Error', error);
        return json(ran.status, (await ran.json()) as object);
      }
      default:
        this.faults.push(`${operation} of ${name}`);
        return refuse(404, 'UnknownOperationException', operation);
    }
  }
}

/** No new version where nothing changed since the last one. */
function publish(made: LambdaFunction): number {
  const last = made.versions.at(-1);
  const isSame =
    last?.zip.equals(made.latest.zip) && JSON.stringify(last.variables) === JSON.stringify(made.latest.variables);
  if (!isSame) made.versions.push({ ...made.latest });
  return made.versions.length;
}

function configuration(FunctionName: string, { zip, variables }: Configuration, Version: string) {
  return {
    FunctionName,
    Version,
    CodeSha256: sha256(zip, 'base64'),
    Environment: { Variables: variables },
    State: 'Active',
    LastUpdateStatus: 'Successful',
  };
}

function alias({ version, description, revision }: Alias) {
  return { Name: 'live', FunctionVersion: String(version), Description: description, RevisionId: revision };
}

function checkSignature({ headers }: IncomingMessage, body: Buffer, service: string): void {
  expect(headers).toMatchObject({
    'x-amz-date': expect.stringMatching(/^\d{8}T\d{6}Z$/),
    'x-amz-content-sha256': sha256(body, 'hex'),
    authorization: expect.stringMatching(
      new RegExp(
        `^AWS4-HMAC-SHA256 Credential=test-key/\\d{8}/eu-central-1/${service}/aws4_request, SignedHeaders=[a-z0-9;-]*host[a-z0-9;-]*, Signature=[0-9a-f]{64}$`,
      ),
    ),
  });
}

function sha256(bytes: Buffer, encoding: 'hex' | 'base64'): string {
  return createHash('sha256').update(bytes).digest(encoding);
}
