import type { ApiGatewayManagementApiClient } from '@aws-sdk/client-apigatewaymanagementapi';
import { UpstreamError } from '../errors.ts';

/** Throttled or full, a post is repeated by the SDK, after waits that double and differ by chance. */
const ATTEMPTS_MAX = 3;
const CALL_MS_MAX = 6_000;
/** Connections are served side by side. */
const SOCKETS_MAX = 200;

/** What became of a frame: `slow` when the connection, or all of them, took no more for as long as we tried. */
export type Posted = 'sent' | 'gone' | 'slow';

/** The connections of a WebSocket API, which are reached through its `@connections`. */
export class Sockets {
  readonly #endpoint: string;
  #client: ApiGatewayManagementApiClient | undefined;

  /** @param endpoint `https://{api}.execute-api.{region}.amazonaws.com/{stage}` */
  constructor(endpoint: string) {
    this.#endpoint = endpoint;
  }

  /** @throws {UpstreamError} `SOCKETS_UNAVAILABLE` */
  async post(connectionId: string, frame: string): Promise<Posted> {
    const { PostToConnectionCommand } = await import('@aws-sdk/client-apigatewaymanagementapi');
    return this.#send((client, options) =>
      client.send(new PostToConnectionCommand({ ConnectionId: connectionId, Data: Buffer.from(frame) }), options),
    );
  }

  /** End a connection from our side. @throws {UpstreamError} `SOCKETS_UNAVAILABLE` */
  async close(connectionId: string): Promise<void> {
    const { DeleteConnectionCommand } = await import('@aws-sdk/client-apigatewaymanagementapi');
    await this.#send((client, options) =>
      client.send(new DeleteConnectionCommand({ ConnectionId: connectionId }), options),
    );
  }

  async #send(
    send: (client: ApiGatewayManagementApiClient, options: { abortSignal: AbortSignal }) => Promise<unknown>,
  ): Promise<Posted> {
    const sdk = await import('@aws-sdk/client-apigatewaymanagementapi');
    this.#client ??= new sdk.ApiGatewayManagementApiClient({
      endpoint: this.#endpoint,
      maxAttempts: ATTEMPTS_MAX,
      requestHandler: { httpsAgent: { maxSockets: SOCKETS_MAX } },
    });
    try {
      await send(this.#client, { abortSignal: AbortSignal.timeout(CALL_MS_MAX) });
      return 'sent';
    } catch (error) {
      // By the status: the SDK gives the exception its name only where a header says it.
      const status = (error as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode;
      if (status === 410) return 'gone';
      if (status === 429 || (error as Error).name === 'AbortError' || (error as Error).name === 'TimeoutError')
        return 'slow';
      throw new UpstreamError('SOCKETS_UNAVAILABLE', `@connections took nothing: ${(error as Error).name} ${status}`);
    }
  }
}
