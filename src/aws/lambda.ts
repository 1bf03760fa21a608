import type { LambdaClient } from '@aws-sdk/client-lambda';
import { UpstreamError } from '../errors.ts';

/**
 * Invoke a function and wait for its answer. Never repeated by the SDK: whoever calls knows whether it may be.
 *
 * @param name or ARN.
 * @throws {UpstreamError} `FUNCTION_FAILED`, with the code that the function failed by, or why there was no answer.
 */
export async function invokeFunction(name: string, event: unknown, timeoutMs: number): Promise<unknown> {
  const sdk = await import('@aws-sdk/client-lambda');
  client ??= new sdk.LambdaClient({ maxAttempts: 1 });
  const command = new sdk.InvokeCommand({ FunctionName: name, Payload: JSON.stringify(event) });
  let text: string;
  let failed: string | undefined;
  try {
    const answer = await client.send(command, { abortSignal: AbortSignal.timeout(timeoutMs) });
    text = answer.Payload?.transformToString() ?? 'null';
    failed = answer.FunctionError;
  } catch (error) {
    throw new UpstreamError('FUNCTION_FAILED', `function ${name} gave no answer: ${(error as Error).name}`);
  }
  const answer = JSON.parse(text);
  if (failed === undefined) return answer;
  throw new UpstreamError('FUNCTION_FAILED', `function ${name} failed: ${answer?.errorType ?? failed}`);
}

let client: LambdaClient | undefined;
