import { type Context, Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import { functionError } from '../lambda/function-error.ts';
import { parseJson } from '../span/index.ts';

/** A function as Lambda runs it: an event, and the time it has. */
export type LambdaFunction = (event: unknown, endOfTime: Date) => Promise<unknown>;

/** Below this path is the Lambda API; the date is its version. */
export const LAMBDA_API_PATH = '/2015-03-31/';

/** Lambda's own limit on a synchronous invocation's payload. */
const PAYLOAD_BYTES_MAX = 6 * 1024 * 1024;
const ASYNC_PAYLOAD_BYTES_MAX = 1024 * 1024;
const FUNCTION_TIMEOUT_MS = 90_000;

/**
 * The Invoke operation of the Lambda API, as the `aws` command speaks it, over the functions of this process. Like the
 * embedded Postgres it trusts whoever reaches loopback; in AWS, IAM stands in front.
 *
 * Source: AWS Lambda API reference, Invoke.
 */
export function createLambdaApi(
  functions: Record<string, LambdaFunction>,
  log: (entry: Record<string, unknown>) => void,
  timeoutMs = FUNCTION_TIMEOUT_MS,
): Hono {
  const app = new Hono();

  // Reaching loopback is not enough for a web page in the user's browser, which can post there too.
  app.use(async (c, next) => {
    if (isFromBrowser(c)) {
      return serviceError(403, 'AccessDeniedException', 'Browsers may not invoke functions');
    }
    return next();
  });

  // Refused while it arrives: nobody's gigabyte is read first. The operation itself names the limit that was passed.
  app.use(bodyLimit({ maxSize: PAYLOAD_BYTES_MAX, onError: () => tooLarge('RequestResponse', PAYLOAD_BYTES_MAX) }));

  app.post(`${LAMBDA_API_PATH}functions/:name/invocations`, async (c) => {
    const name = functionName(c.req.param('name'));
    const run = Object.hasOwn(functions, name) ? functions[name] : undefined;
    if (run === undefined) return serviceError(404, 'ResourceNotFoundException', `Function not found: ${name}`);

    const type = c.req.header('X-Amz-Invocation-Type') ?? 'RequestResponse';
    const payload = await c.req.arrayBuffer();
    if (type === 'Event' && payload.byteLength > ASYNC_PAYLOAD_BYTES_MAX)
      return tooLarge(type, ASYNC_PAYLOAD_BYTES_MAX);
    let event: unknown;
    try {
      const text = new TextDecoder('utf-8', { fatal: true }).decode(payload);
      event = text === '' ? {} : parseJson(text);
    } catch {
      return serviceError(400, 'InvalidRequestContentException', 'Could not parse request body into json');
    }

    const endOfTime = new Date(Date.now() + timeoutMs);
    switch (type) {
      case 'DryRun':
        return new Response(null, { status: 204 });
      case 'Event':
        void run(event, endOfTime).catch((error) =>
          log({ level: 'error', function: name, error: functionError(error).message }),
        );
        return new Response(null, { status: 202 });
      case 'RequestResponse':
        return invoke(run, event, endOfTime, c.req.header('X-Amz-Log-Type') === 'Tail');
      default:
        return serviceError(400, 'InvalidParameterValueException', `Unknown invocation type ${type}`);
    }
  });

  return app;
}

/** What only browsers send. */
export function isFromBrowser({ req }: Context): boolean {
  return req.header('Origin') !== undefined || req.header('Sec-Fetch-Site') !== undefined;
}

async function invoke(run: LambdaFunction, event: unknown, endOfTime: Date, wantsLog: boolean): Promise<Response> {
  const headers = new Headers({ 'Content-Type': 'application/json', 'X-Amz-Executed-Version': '$LATEST' });
  const startedAt = performance.now();
  let body: unknown;
  try {
    body = await run(event, endOfTime);
  } catch (error) {
    const { name, message } = functionError(error);
    headers.set('X-Amz-Function-Error', 'Unhandled');
    body = { errorType: name, errorMessage: message, trace: [] };
  }
  if (wantsLog) {
    const report = `REPORT Duration: ${(performance.now() - startedAt).toFixed(2)} ms\n`;
    headers.set('X-Amz-Log-Result', Buffer.from(report).toString('base64'));
  }
  return new Response(JSON.stringify(body ?? null), { headers });
}

/** `name`, `name:alias`, `account:function:name` or a whole ARN, each perhaps percent-encoded. */
function functionName(reference: string): string {
  const parts = reference.split(':');
  const marker = parts.indexOf('function');
  return (marker === -1 ? parts[0] : parts[marker + 1]) ?? '';
}

function tooLarge(type: string, limit: number): Response {
  const message = `Payload is too large for the ${type} invocation type (limit ${limit} bytes)`;
  return serviceError(413, 'RequestTooLargeException', message);
}

function serviceError(status: number, type: string, message: string): Response {
  return new Response(JSON.stringify({ Type: 'User', Message: message, message }), {
    status,
    headers: { 'Content-Type': 'application/json', 'x-amzn-ErrorType': type },
  });
}
