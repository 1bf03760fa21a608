import { describe, expect, it } from 'vitest';
import { WorkCounters } from '../../src/work/index.ts';

/** As many values as CloudWatch takes for one point. */
const VALUES_MAX = 150;

describe('durations', () => {
  const durationsOf = (...ms: number[]) => {
    const counters = new WorkCounters();
    for (const each of ms) counters.executed('complete', each);
    return counters.take().durations;
  };

  it('are told at most 6 % off, from a tenth of a millisecond to half an hour', () => {
    for (let ms = 0.1; ms < 30 * 60_000; ms *= 1.003) {
      const [told] = durationsOf(ms).keys();
      expect(Math.abs((told as number) / ms - 1), `${ms} ms`).toBeLessThan(0.065);
    }
  });

  it('have never more values than a point may have, and none that CloudWatch refuses', () => {
    const many = Array.from({ length: 20_000 }, (_, i) => 10 ** ((i / 20_000) * 14 - 6));
    const told = durationsOf(0, -1, Number.MAX_VALUE, ...many);
    expect(told.size).toBe(VALUES_MAX);
    for (const value of told.keys()) expect(value).toBeGreaterThanOrEqual(0.1);
    for (const value of told.keys()) expect(value).toBeLessThan(2 ** 40);
    expect([...told.values()].reduce((sum, count) => sum + count)).toBe(many.length + 3);
  });

  it('of what was not run are not told', () => {
    const counters = new WorkCounters();
    counters.executed('not_run', 7);
    const { executions, durations } = counters.take();
    expect(executions).toEqual(new Map([['not_run', 1]]));
    expect(durations).toEqual(new Map());
  });
});
