import type { ServerResponse } from 'node:http';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { putMetrics } from '../../src/aws/index.ts';
import type { Metric } from '../../src/work/index.ts';
import { MetricsEndpoint, serviceError } from './metrics-endpoint.ts';

const AT = new Date('2026-11-23T10:00:00.123Z');
/** What a service says may hold anything: an ARN, a key, a piece of the request. */
const MARK = 'f00dfacef00dface';

let endpoint: MetricsEndpoint;
beforeAll(async () => {
  endpoint = await MetricsEndpoint.start();
});
afterAll(() => endpoint.stop());
afterEach(() => {
  expect(endpoint.faults).toEqual([]);
  expect(endpoint.failures).toEqual([]);
});

function metric(more: Partial<Metric> = {}): Metric {
  return { name: 'Depth', unit: 'Count', dimensions: { Role: 'worker' }, at: AT, value: 7, ...more };
}

describe('metrics', () => {
  it('arrive as one PutMetricData with name, unit, value, time and dimensions', async () => {
    await putMetrics('LogLineOS', [
      metric(),
      metric({ name: 'Age', unit: 'Milliseconds', dimensions: { Role: 'agent', State: 'ready' }, value: 0.5 }),
      metric({ dimensions: {}, value: 0 }),
    ]);
    expect(endpoint.puts).toEqual([
      {
        Namespace: 'LogLineOS',
        MetricData: [
          {
            MetricName: 'Depth',
            Unit: 'Count',
            Dimensions: [{ Name: 'Role', Value: 'worker' }],
            Timestamp: AT.getTime() / 1000,
            Value: 7,
          },
          {
            MetricName: 'Age',
            Unit: 'Milliseconds',
            Dimensions: [
              { Name: 'Role', Value: 'agent' },
              { Name: 'State', Value: 'ready' },
            ],
            Timestamp: AT.getTime() / 1000,
            Value: 0.5,
          },
          { MetricName: 'Depth', Unit: 'Count', Dimensions: [], Timestamp: AT.getTime() / 1000, Value: 0 },
        ],
      },
    ]);
  });

  it('arrive as values with counts when there are many of one', async () => {
    const value = new Map([
      [1.5, 2],
      [250, 1],
    ]);
    await putMetrics('LogLineOS', [metric({ unit: 'Milliseconds', value })]);
    expect(endpoint.puts.at(-1)?.MetricData).toEqual([
      {
        MetricName: 'Depth',
        Unit: 'Milliseconds',
        Dimensions: [{ Name: 'Role', Value: 'worker' }],
        Timestamp: AT.getTime() / 1000,
        Values: [1.5, 250],
        Counts: [2, 1],
      },
    ]);
  });

  it('arrive a thousand at a time, compressed; more than that and none are refused, and nothing is sent', async () => {
    const many = Array.from({ length: 1_000 }, (_, i) => metric({ name: `M${i}`, value: i }));
    await putMetrics('LogLineOS', many);
    expect(endpoint.encodings.at(-1)).toBe('gzip');
    expect(endpoint.puts.at(-1)?.MetricData.map(({ MetricName, Value }) => [MetricName, Value])).toEqual(
      many.map(({ name, value }) => [name, value]),
    );
    const before = endpoint.seen.length;
    await expect(putMetrics('LogLineOS', [...many, metric()])).rejects.toMatchObject({
      code: 'BATCH_SIZE',
      kind: 'input',
    });
    await expect(putMetrics('LogLineOS', [])).rejects.toMatchObject({ code: 'BATCH_SIZE', kind: 'input' });
    expect(endpoint.seen.length).toBe(before);
  });

  it.each<[string, (response: ServerResponse) => void]>([
    ['throttled', serviceError(400, 'Throttling', 'Rate exceeded')],
    ['answered with a 500', serviceError(500, 'InternalServiceFault', 'oops')],
    ['cut off', (response) => response.destroy()],
  ])('are sent once more when they were %s', async (_what, failure) => {
    const before = endpoint.puts.length;
    endpoint.failures.push(failure);
    await putMetrics('LogLineOS', [metric()]);
    expect(endpoint.puts.length).toBe(before + 1);
  });

  it.each<[string, number, (response: ServerResponse) => void, string]>([
    ['throttled again', 2, serviceError(400, 'Throttling', MARK), 'Throttling'],
    ['answered with a 500 again', 2, serviceError(500, 'InternalServiceFault', MARK), 'InternalServiceFault'],
    ['forbidden', 1, serviceError(403, 'AccessDenied', MARK), 'AccessDenied'],
    ['not understood', 1, serviceError(400, 'InvalidParameterValueException', MARK), 'InvalidParameterValueException'],
    ['answered with no JSON', 1, (response) => response.end(`<html>${MARK}`), 'SyntaxError'],
  ])('that are %s are an error that names the cause and nothing else', async (_what, times, failure, name) => {
    const before = endpoint.puts.length;
    for (let i = 0; i < times; i++) endpoint.failures.push(failure);
    const error = await putMetrics('LogLineOS', [metric()]).catch((error) => error);
    expect(error).toMatchObject({ code: 'METRICS_NOT_SENT', kind: 'upstream' });
    expect(error.message).toBe(`CloudWatch took no metrics: ${name}`);
    expect(error.cause).toBeUndefined();
    expect(endpoint.puts.length).toBe(before);
  });

  it('that nobody answers are an error within a few seconds', async () => {
    endpoint.failures.push(() => {});
    const startedAt = Date.now();
    await expect(putMetrics('LogLineOS', [metric()])).rejects.toMatchObject({ code: 'METRICS_NOT_SENT' });
    expect(Date.now() - startedAt).toBeGreaterThan(2_500);
    expect(Date.now() - startedAt).toBeLessThan(5_000);
  });

  it('never carried the secret key', () => {
    expect(endpoint.seen.length).toBeGreaterThan(20);
    expect(endpoint.seen.join('\n')).toContain('test-key');
    expect(endpoint.seen.join('\n')).not.toContain('test-secret');
  });
});
