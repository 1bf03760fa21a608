import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Clock, Provider } from '../../src/provider/index.ts';
import { NOW } from '../support/spans.ts';

export interface Asked {
  method: string | undefined;
  path: string | undefined;
  headers: IncomingHttpHeaders;
  /** The JSON of the body. */
  body: unknown;
}

export type Reply = (response: ServerResponse, asked: Asked) => void;

/** A server on loopback that notes closely how it is asked, and replies as a test says. */
export class ModelServer {
  readonly asked: Asked[] = [];
  #replies: Reply[] = [];
  readonly #server: Server;

  private constructor() {
    this.#server = createServer(async (request, response) => {
      let text = '';
      for await (const chunk of request) text += chunk;
      const { method, url: path, headers } = request;
      const asked = { method, path, headers, body: JSON.parse(text) };
      this.asked.push(asked);
      // The last reply stays.
      const reply = this.#replies.length > 1 ? this.#replies.shift() : this.#replies[0];
      reply?.(response, asked);
    });
  }

  static async start(): Promise<ModelServer> {
    const server = new ModelServer();
    server.#server.listen(0, '127.0.0.1');
    await once(server.#server, 'listening');
    return server;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** What it replies from now on, one after the other; forgets what it was asked. */
  replies(...replies: Reply[]): void {
    this.asked.length = 0;
    this.#replies = replies;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

export function json(body: unknown, status = 200, headers: Record<string, string> = {}): Reply {
  return text(JSON.stringify(body), status, { 'content-type': 'application/json', ...headers });
}

export function text(body: string | Uint8Array, status = 200, headers: Record<string, string> = {}): Reply {
  return (response) => {
    response.writeHead(status, headers);
    response.end(body);
  };
}

/** A clock that only sleeping moves. */
export class TestClock implements Clock {
  readonly slept: number[] = [];
  #ms = Date.parse(NOW);

  now(): Date {
    return new Date(this.#ms);
  }

  async sleep(ms: number): Promise<void> {
    this.slept.push(ms);
    this.#ms += ms;
  }

  random(): number {
    return 0.5;
  }

  in(ms: number): Date {
    return new Date(this.#ms + ms);
  }
}

export function provider(more: Partial<Provider> = {}): Provider {
  return {
    name: 'test',
    api: 'openai',
    baseUrl: 'http://127.0.0.1:1',
    secretName: 'TEST_API_KEY',
    defaultModel: 'chat-1',
    defaultEmbeddingModel: 'embed-1',
    prices: new Map([['chat-1', { in: 400_000, out: 1_600_000 }]]),
    timeoutMs: 5_000,
    maxTokensField: 'max_tokens',
    ...more,
  };
}

/** What an OpenAI-compatible server answers to a chat. */
export function completion(content: string | null, more: object = {}): object {
  return {
    id: 'chatcmpl-1',
    object: 'chat.completion',
    created: 1_796_000_000,
    model: 'chat-1-2026-01-01',
    choices: [
      {
        index: 0,
        message: { role: 'assistant', content, refusal: null, annotations: [] },
        logprobs: null,
        finish_reason: 'stop',
      },
    ],
    usage: { prompt_tokens: 19, completion_tokens: 10, total_tokens: 29, prompt_tokens_details: { cached_tokens: 0 } },
    system_fingerprint: 'fp_1',
    ...more,
  };
}
