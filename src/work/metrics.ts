import { type Database, readQueueSnapshot } from '../ledger/index.ts';

/** A point of a series. */
export interface Metric {
  name: string;
  unit: 'Count' | 'Milliseconds';
  /** Each combination is a series of its own that is paid for: never a tenant, an owner or an id among them. */
  dimensions: Record<string, string>;
  at: Date;
  /** What was measured, or how often each value was. */
  value: number | Map<number, number>;
}

export type ExecutionStatus = 'complete' | 'error' | 'timeout' | 'not_run';
/** What became of a claimed request: its new status, `error` for one that is tried again; or it went back, or to another. */
export type ClosedStatus = 'complete' | 'error' | 'dead' | 'released' | 'lost';

/**
 * Durations are counted in 150 buckets, as many values as a point may have: from 0.1 ms to 35 minutes, each 12 % wider than
 * the one before. So percentiles can be told (a sum with its extremes could not), at most 6 % off.
 */
const BUCKETS = 150;
const SHORTEST_MS = 0.1;
const BUCKET_RATIO = 1.12;

interface Counted {
  executions: Map<ExecutionStatus, number>;
  closed: Map<ClosedStatus, number>;
  durations: Map<number, number>;
}

/** What the work of a shift counts, until it is taken to be published. */
export class WorkCounters {
  #counted = nothingCounted();

  /** A function was run, or could not be. */
  executed(status: ExecutionStatus, durationMs: number): void {
    add(this.#counted.executions, status, 1);
    if (status !== 'not_run') add(this.#counted.durations, bucketOf(durationMs), 1);
  }

  /** A claimed request was closed, or went back. */
  closed(status: ClosedStatus): void {
    add(this.#counted.closed, status, 1);
  }

  /** All that was counted since it was taken last. */
  take(): Counted {
    const counted = this.#counted;
    this.#counted = nothingCounted();
    return counted;
  }

  /** What was taken and did not arrive. */
  putBack({ executions, closed, durations }: Counted): void {
    for (const [status, count] of executions) add(this.#counted.executions, status, count);
    for (const [status, count] of closed) add(this.#counted.closed, status, count);
    for (const [bucket, count] of durations) add(this.#counted.durations, bucket, count);
  }
}

function nothingCounted(): Counted {
  return { executions: new Map(), closed: new Map(), durations: new Map() };
}

function add<K>(counts: Map<K, number>, key: K, count: number): void {
  counts.set(key, (counts.get(key) ?? 0) + count);
}

/** The value that stands for a bucket, in ms: its middle, to three digits. */
function bucketOf(durationMs: number): number {
  const bucket = Math.round(Math.log(Math.max(durationMs, SHORTEST_MS) / SHORTEST_MS) / Math.log(BUCKET_RATIO));
  return Number((SHORTEST_MS * BUCKET_RATIO ** Math.min(bucket, BUCKETS - 1)).toPrecision(3));
}

/**
 * The metrics of one moment.
 *
 * The queue and the policies are the system's, whichever role looks at them: their series have no role, and where two look
 * in the same minute the average and the maximum stay true. What was counted is the role's, and so is `TickHeartbeat`, always
 * 1: it is the one that an alarm misses.
 *
 * @throws {UpstreamError} the database did not answer.
 */
async function collectMetrics(
  database: Database,
  at: Date,
  counted: Counted,
  { role, environment }: { role: string; environment: string },
): Promise<Metric[]> {
  const { queue, policies } = await readQueueSnapshot(database, at);
  const ofSystem = { Environment: environment };
  const ofRole = { ...ofSystem, Role: role };
  const point = (
    name: string,
    value: Metric['value'],
    dimensions: Metric['dimensions'],
    unit: Metric['unit'] = 'Count',
  ): Metric => ({ name, unit, dimensions, at, value });
  const byStatus = (name: string, counts: Map<string, number>) =>
    [...counts].map(([status, count]) => point(name, count, { ...ofRole, Status: status }));

  const { oldest_ready_ms, ...depths } = queue;
  return [
    point('TickHeartbeat', 1, ofRole),
    ...Object.entries(depths).map(([state, depth]) => point('QueueDepth', depth, { ...ofSystem, State: state })),
    // The database's clock and ours may differ by a little: nothing has waited less than no time.
    point('QueueOldestAge', Math.max(0, oldest_ready_ms ?? 0), ofSystem, 'Milliseconds'),
    point('PolicyLagSpans', policies.lag_spans, ofSystem),
    point('PolicyLag', policies.lag_ms, ofSystem, 'Milliseconds'),
    point('PoliciesPaused', policies.paused, ofSystem),
    ...byStatus('Executions', counted.executions),
    ...byStatus('RequestsClosed', counted.closed),
    ...(counted.durations.size === 0 ? [] : [point('ExecutionDuration', counted.durations, ofRole, 'Milliseconds')]),
  ];
}

interface PublisherOptions {
  role: string;
  environment: string;
  database: Database;
  counters: WorkCounters;
  put: (metrics: Metric[]) => Promise<void>;
  now: () => Date;
  log: (entry: Record<string, unknown>) => void;
}

/** CloudWatch keeps a value for each minute. At this pace no minute is without one, also when a call is late or fails. */
const PUBLISH_EVERY_MS = 20_000;

/**
 * A chore of a shift: publish the role's metrics, all in one call. It is run once more when the shift has ended, for what was
 * counted since. It never fails; what did not arrive is logged, and its counts go with the next. A call that arrived
 * without our hearing of it counts twice then.
 */
export function createPublisher({ role, environment, database, counters, put, now, log }: PublisherOptions) {
  return {
    name: 'metrics',
    everyMs: PUBLISH_EVERY_MS,
    async run(): Promise<void> {
      const counted = counters.take();
      try {
        await put(await collectMetrics(database, now(), counted, { role, environment }));
      } catch (error) {
        counters.putBack(counted);
        log({ level: 'warn', message: 'metrics were not published', role, error: String(error) });
      }
    },
  };
}
