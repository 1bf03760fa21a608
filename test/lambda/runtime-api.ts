import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { json, text } from 'node:stream/consumers';

/** How an invocation ended: what the runtime posted, or that it did not in time. */
export interface Ended {
  response?: string;
  // biome-ignore lint/suspicious/noExplicitAny: JSON that a test looks into
  error?: any;
  timedOut?: true;
}

/**
 * As much of Lambda's Runtime API as its Runtime Interface Client asks for, and the one container behind it.
 *
 * Source: AWS Lambda developer guide, "Using the Lambda runtime API for custom runtimes", version 2018-06-01.
 */
export class RuntimeApi {
  readonly #server: Server;
  readonly #container: ChildProcess;
  /** The runtime waits for an event; init is over. */
  #next = Promise.withResolvers<ServerResponse>();
  #ended = Promise.withResolvers<Ended>();
  readonly #exited: Promise<unknown>;
  output = '';

  /** @param client the Runtime Interface Client's file; `folder` holds the bundle, as Lambda unpacks it. */
  static async start(client: string, folder: string, env: Record<string, string>): Promise<RuntimeApi> {
    const server = createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new RuntimeApi(server, client, folder, env);
  }

  private constructor(server: Server, client: string, folder: string, env: Record<string, string>) {
    this.#server = server;
    server.on('request', (request, response) => void this.#answer(request, response));
    const { port } = server.address() as AddressInfo;
    this.#container = spawn(process.execPath, [client], {
      cwd: folder,
      env: {
        AWS_LAMBDA_RUNTIME_API: `127.0.0.1:${port}`,
        AWS_LAMBDA_FUNCTION_NAME: 'the-function',
        AWS_LAMBDA_FUNCTION_VERSION: '$LATEST',
        AWS_LAMBDA_FUNCTION_MEMORY_SIZE: '1024',
        AWS_LAMBDA_LOG_GROUP_NAME: '/aws/lambda/the-function',
        AWS_LAMBDA_LOG_STREAM_NAME: '2026/11/26/[$LATEST]0',
        LAMBDA_TASK_ROOT: folder,
        _HANDLER: 'index.handler',
        ...env,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const stream of [this.#container.stdout, this.#container.stderr]) {
      stream?.on('data', (chunk) => {
        this.output += chunk;
      });
    }
    this.#exited = once(this.#container, 'close').then(() => {
      this.#ended.resolve({ error: { errorType: 'Runtime.ExitError', errorMessage: this.output } });
    });
  }

  get pid(): number {
    return this.#container.pid ?? 0;
  }

  /** Resolves with nothing when the function is there, or with the error that its start failed by. */
  async initialized(): Promise<Ended | undefined> {
    return Promise.race([this.#next.promise.then(() => undefined), this.#ended.promise]);
  }

  /** One invocation; the container is killed when it takes longer, as Lambda does. */
  async invoke(event: unknown, timeoutMs = 10_000): Promise<Ended> {
    const response = await this.#next.promise;
    this.#next = Promise.withResolvers();
    this.#ended = Promise.withResolvers();
    response
      .writeHead(200, {
        'Content-Type': 'application/json',
        'Lambda-Runtime-Aws-Request-Id': '8476a536-e9f4-11e8-9739-2dfe598c3fcd',
        'Lambda-Runtime-Deadline-Ms': String(Date.now() + timeoutMs),
        'Lambda-Runtime-Invoked-Function-Arn': 'arn:aws:lambda:eu-central-1:123456789012:function:the-function',
        'Lambda-Runtime-Trace-Id': 'Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=1',
      })
      .end(JSON.stringify(event));
    const timer = setTimeout(() => {
      this.#ended.resolve({ timedOut: true });
      this.#container.kill('SIGKILL');
    }, timeoutMs);
    return this.#ended.promise.finally(() => clearTimeout(timer));
  }

  async stop(): Promise<void> {
    this.#container.kill('SIGKILL');
    await this.#exited;
    this.#server.closeAllConnections();
    this.#server.close();
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const operation = request.url?.split('/').at(-1);
    if (operation === 'next') return this.#next.resolve(response);
    this.#ended.resolve(operation === 'response' ? { response: await text(request) } : { error: await json(request) });
    response.writeHead(202).end('{"status":"OK"}');
  }
}
