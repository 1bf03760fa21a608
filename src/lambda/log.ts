/** What Lambda says of an invocation, as far as it is used. */
export interface InvocationContext {
  getRemainingTimeInMillis(): number;
  functionName: string;
  awsRequestId: string;
}

/** A container has one invocation at a time. */
let invocation: { function?: string; request_id?: string; trace_id?: string | undefined } = {};

/** From here on every line says which function, which invocation and which trace it belongs to. */
export function beginInvocation({ functionName, awsRequestId }: InvocationContext, traceId = xrayTraceId()): void {
  invocation = { function: functionName, request_id: awsRequestId, trace_id: traceId };
}

/** One JSON object a line on standard output, which Lambda hands to CloudWatch Logs. */
export function log(entry: Record<string, unknown>): void {
  const line = { time: new Date().toISOString(), level: 'info', ...invocation, ...entry };
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

/** The trace that AWS X-Ray sees the invocation in, as the 32 hex digits that a span says. */
export function xrayTraceId(): string | undefined {
  const root = /Root=1-([0-9a-f]{8})-([0-9a-f]{24})/.exec(process.env._X_AMZN_TRACE_ID ?? '');
  return root === null ? undefined : `${root[1]}${root[2]}`;
}
