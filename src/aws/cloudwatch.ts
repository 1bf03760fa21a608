import type { MetricDatum } from '@aws-sdk/client-cloudwatch';
import { InputError, UpstreamError } from '../errors.ts';
import type { Metric } from '../work/index.ts';

/** What one PutMetricData takes. */
const METRICS_MAX = 1_000;
/** A call, with what the SDK repeats of it, ends after this: whoever calls has other things to do. */
const CALL_MS_MAX = 3_000;
const ATTEMPTS_MAX = 2;

/**
 * Send metrics, in one PutMetricData. The SDK is loaded at the first call (see `secrets.ts`); the client is kept, and with
 * it the connection.
 *
 * @throws {InputError} `BATCH_SIZE`: none, or more than a call takes. Nothing is sent: cut, some series would end in silence.
 * @throws {UpstreamError} `METRICS_NOT_SENT`; names the cause without a word of the service's.
 */
export async function putMetrics(namespace: string, metrics: Metric[]): Promise<void> {
  if (metrics.length === 0 || metrics.length > METRICS_MAX) {
    throw new InputError('BATCH_SIZE', `a call takes 1 to ${METRICS_MAX} metrics, this has ${metrics.length}`);
  }
  const { CloudWatchClient, PutMetricDataCommand } = await import('@aws-sdk/client-cloudwatch');
  client ??= new CloudWatchClient({ maxAttempts: ATTEMPTS_MAX });
  try {
    await client.send(new PutMetricDataCommand({ Namespace: namespace, MetricData: metrics.map(datumOf) }), {
      abortSignal: AbortSignal.timeout(CALL_MS_MAX),
    });
  } catch (error) {
    throw new UpstreamError('METRICS_NOT_SENT', `CloudWatch took no metrics: ${(error as Error).name}`);
  }
}

let client: import('@aws-sdk/client-cloudwatch').CloudWatchClient | undefined;

function datumOf({ name, unit, dimensions, at, value }: Metric): MetricDatum {
  return {
    MetricName: name,
    Unit: unit,
    Dimensions: Object.entries(dimensions).map(([Name, Value]) => ({ Name, Value })),
    Timestamp: at,
    ...(typeof value === 'number' ? { Value: value } : { Values: [...value.keys()], Counts: [...value.values()] }),
  };
}
