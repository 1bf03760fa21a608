import { join } from 'node:path';
import { type AuditOptions, type AuditOrder, type AuditReport, audit } from '../audit/index.ts';
import { LogLineError } from '../errors.ts';
import { AnchorFiles } from './anchor-files.ts';

const AUDIT_EVERY_MS = 60_000;
/** A run of the timer shares the process with all others: what it leaves is for the next. */
const RUN_MS = 5_000;
const HISTORY_MS = 1_000;
const PROBLEMS_LOGGED_MAX = 10;

/**
 * An audit with the anchors of a local folder.
 *
 * @throws {ConflictError} `ALREADY_RUNNING`: another auditor is at work in this folder.
 */
export async function auditLocally(
  home: string,
  options: Omit<AuditOptions, 'store'>,
  order: AuditOrder = {},
): Promise<AuditReport> {
  const store = await AnchorFiles.open(join(home, 'audit'));
  try {
    return await audit({ ...options, store }, order);
  } finally {
    await store.close();
  }
}

export interface Auditing {
  /** A run beside those of the timer. */
  run(order: AuditOrder, endOfTime: Date): Promise<AuditReport>;
  /** Resolves when no run is at work any more. */
  stop(): Promise<void>;
}

/** What the schedule of the auditor does in AWS. */
export function startAuditing(
  home: string,
  options: Pick<AuditOptions, 'database' | 'keys' | 'scheme' | 'now'>,
  log: (entry: Record<string, unknown>) => void,
  everyMs = AUDIT_EVERY_MS,
): Auditing {
  const stop = new AbortController();
  const run = (order: AuditOrder, endOfTime: Date, historyMs = RUN_MS) =>
    auditLocally(home, { ...options, endOfTime, historyMs, stop: stop.signal }, order);
  /** All: of two at once the later one is refused, and ends first. */
  const running = new Set<Promise<unknown>>();
  const tracked = <T>(work: Promise<T>): Promise<T> => {
    running.add(work);
    return work.finally(() => running.delete(work));
  };
  const timer = setInterval(() => {
    const work = run({}, new Date(options.now().getTime() + RUN_MS), HISTORY_MS)
      .then(({ ok, problem_count, problems }) => {
        const [message, named] = ['the ledger is not as it was', problems.slice(0, PROBLEMS_LOGGED_MAX)];
        if (!ok) log({ level: 'error', message, problem_count, problems: named });
      })
      .catch((error) => {
        if (error instanceof LogLineError && error.code === 'ALREADY_RUNNING') return;
        if (!stop.signal.aborted) log({ level: 'error', message: 'the audit failed', error: String(error) });
      });
    void tracked(work);
  }, everyMs);
  return {
    run: (order, endOfTime) => tracked(run(order, endOfTime)),
    async stop() {
      clearInterval(timer);
      stop.abort();
      await Promise.allSettled(running);
    },
  };
}
