import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { gunzipSync } from 'node:zlib';
import { expect } from 'vitest';

/** A PutMetricData as it arrived. */
export interface PutMetricData {
  Namespace: string;
  MetricData: {
    MetricName: string;
    Unit: string;
    /** In seconds. */
    Timestamp: number;
    Dimensions: { Name: string; Value: string }[];
    Value?: number;
    Values?: number[];
    Counts?: number[];
  }[];
}

/** The error of a service that speaks AWS JSON 1.0. */
export function serviceError(status: number, name: string, message: string) {
  return (response: ServerResponse) => {
    response.writeHead(status, {
      'Content-Type': 'application/x-amz-json-1.0',
      'x-amzn-query-error': `${name};Sender`,
    });
    response.end(JSON.stringify({ __type: `com.amazonaws.cloudwatch#${name}`, message }));
  };
}

/**
 * A CloudWatch on loopback that knows PutMetricData, and looks closely at how it is asked. The SDK speaks AWS JSON 1.0 to it,
 * compressed from 10 KiB on.
 */
export class MetricsEndpoint {
  readonly puts: PutMetricData[] = [];
  /** Bodies as they came, and all headers: where a secret would be seen. */
  readonly seen: string[] = [];
  /** What was wrong with a request, if anything. */
  readonly faults: unknown[] = [];
  encodings: (string | undefined)[] = [];
  /** How the next requests are answered instead, each once; one that does not answer is never answered. */
  readonly failures: ((response: ServerResponse) => void)[] = [];
  readonly #server: Server;

  private constructor() {
    this.#server = createServer(async (request, response) => {
      const body = await bytes(request);
      const encoding = request.headers['content-encoding'];
      const text = (encoding === 'gzip' ? gunzipSync(body) : body).toString();
      this.seen.push(JSON.stringify(request.headers), text);
      try {
        expect(request.method).toBe('POST');
        expect(request.url).toBe('/');
        expect(request.headers).toMatchObject({
          'x-amz-target': 'GraniteServiceVersion20100801.PutMetricData',
          'content-type': 'application/x-amz-json-1.0',
          'content-length': String(body.length),
          'x-amz-date': expect.stringMatching(/^\d{8}T\d{6}Z$/),
          'x-amz-content-sha256': createHash('sha256').update(body).digest('hex'),
          authorization: expect.stringMatching(
            /^AWS4-HMAC-SHA256 Credential=test-key\/\d{8}\/eu-central-1\/monitoring\/aws4_request, SignedHeaders=[a-z0-9;-]*host[a-z0-9;-]*, Signature=[0-9a-f]{64}$/,
          ),
        });
        expect(Object.keys(JSON.parse(text)).sort()).toEqual(['MetricData', 'Namespace']);
      } catch (fault) {
        this.faults.push(fault);
      }
      const fail = this.failures.shift();
      if (fail !== undefined) return fail(response);
      this.encodings.push(encoding);
      this.puts.push(JSON.parse(text));
      response.writeHead(200, { 'Content-Type': 'application/x-amz-json-1.0' });
      response.end('{}');
    });
  }

  /** Started, and what the SDK of this process finds. */
  static async start(): Promise<MetricsEndpoint> {
    const endpoint = new MetricsEndpoint();
    endpoint.#server.listen(0, '127.0.0.1');
    await once(endpoint.#server, 'listening');
    Object.assign(process.env, {
      AWS_REGION: 'eu-central-1',
      AWS_ACCESS_KEY_ID: 'test-key',
      AWS_SECRET_ACCESS_KEY: 'test-secret',
      AWS_ENDPOINT_URL_CLOUDWATCH: `http://127.0.0.1:${(endpoint.#server.address() as AddressInfo).port}`,
    });
    return endpoint;
  }

  /** What the last call held of a metric: one value for each of its series, by the values of its dimensions. */
  last(name: string): Record<string, unknown> {
    const data = this.puts.at(-1)?.MetricData.filter(({ MetricName }) => MetricName === name) ?? [];
    return Object.fromEntries(
      data.map(({ Dimensions, Value, Values, Counts }) => [
        Dimensions.map(({ Value }) => Value).join(' '),
        Value ?? Object.fromEntries(Values?.map((value, i) => [value, Counts?.[i]]) ?? []),
      ]),
    );
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

async function bytes(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks);
}
