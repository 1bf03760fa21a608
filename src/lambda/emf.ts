import { log } from './log.ts';

/** The namespace of all metrics, those that the roles publish too. */
export const METRIC_NAMESPACE = 'LogLineOS';

export interface Measured {
  name: string;
  unit: 'Count' | 'Milliseconds';
  value: number;
}

/**
 * Metrics of a request path: one line in the Embedded Metric Format, of which CloudWatch Logs makes them. Neither a call nor
 * the SDK, which would cost a cold start more than all the rest that it imports.
 *
 * https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
 *
 * @param series the dimensions of each series that every value goes to. What they may be must be bounded: each is paid for.
 * @param about fields of the line that are no metrics; of these any value may be.
 */
export function logMetrics(
  measured: Measured[],
  series: Record<string, string>[],
  about: Record<string, unknown> & { message: string },
): void {
  log({
    ...about,
    ...Object.assign({}, ...series),
    ...Object.fromEntries(measured.map(({ name, value }) => [name, value])),
    _aws: {
      Timestamp: Date.now(),
      CloudWatchMetrics: [
        {
          Namespace: METRIC_NAMESPACE,
          Dimensions: series.map((dimensions) => Object.keys(dimensions)),
          Metrics: measured.map(({ name, unit }) => ({ Name: name, Unit: unit })),
        },
      ],
    },
  });
}
