import type { LambdaClient, LambdaClientConfig } from '@aws-sdk/client-lambda';
import { UpstreamError } from '../errors.ts';

/** What a function may call its error: anything else is left out of ours, since a function may answer what it likes. */
const ERROR_TYPE = /^[\w.]{1,64}$/;

/**
 * A Lambda function that is invoked and waited for. Never repeated by the SDK, which would send again what has run, or
 * runs still: whoever calls knows whether it may be. The SDK is loaded at the first call (see `secrets.ts`).
 */
export class RemoteFunction {
  readonly #name: string;
  readonly #config: LambdaClientConfig;
  #client: LambdaClient | undefined;

  /** @param name or ARN. */
  constructor(name: string, config: LambdaClientConfig = {}) {
    this.#name = name;
    this.#config = config;
  }

  /**
   * @param payload JSON.
   * @returns the answer as text: whoever trusts it parses it.
   * @throws {UpstreamError} `FUNCTION_BUSY`: it was not run, too many run already; `FUNCTION_UNREACHABLE`: there was no
   * answer of the service, it ran or did not; `FUNCTION_FAILED`, with the code that it failed by, or why it was not run.
   */
  async invokeForText(payload: string, signal: AbortSignal): Promise<string> {
    const name = this.#name;
    const sdk = await import('@aws-sdk/client-lambda');
    this.#client ??= new sdk.LambdaClient({ ...this.#config, maxAttempts: 1 });
    const command = new sdk.InvokeCommand({ FunctionName: name, Payload: payload });
    let text: string;
    let failed: string | undefined;
    try {
      const answer = await this.#client.send(command, { abortSignal: signal });
      text = answer.Payload?.transformToString() ?? 'null';
      failed = answer.FunctionError;
    } catch (error) {
      const { name: why, $metadata } = error as Error & { $metadata?: { httpStatusCode?: number } };
      const status = $metadata?.httpStatusCode;
      const code =
        status === 429
          ? 'FUNCTION_BUSY'
          : status === undefined && !signal.aborted
            ? 'FUNCTION_UNREACHABLE'
            : 'FUNCTION_FAILED';
      throw new UpstreamError(code, `function ${name} gave no answer: ${why}`);
    }
    if (failed === undefined) return text;
    throw new UpstreamError('FUNCTION_FAILED', `function ${name} failed: ${errorTypeOf(text) ?? failed}`);
  }

  /** The same, of a function that is trusted. */
  async invoke(event: unknown, timeoutMs: number): Promise<unknown> {
    return JSON.parse(await this.invokeForText(JSON.stringify(event), AbortSignal.timeout(timeoutMs)));
  }
}

function errorTypeOf(text: string): string | undefined {
  try {
    const { errorType } = JSON.parse(text);
    return typeof errorType === 'string' && ERROR_TYPE.test(errorType) ? errorType : undefined;
  } catch {
    return undefined;
  }
}
