import { type AuditReport, audit, parseOrder } from '../audit/index.ts';
import { putMetrics } from '../aws/index.ts';
import { Database } from '../ledger/index.ts';
import { loadBlake3 } from '../span/blake3-wasm.ts';
import { nodeEd25519 } from '../span/ed25519-node.ts';
import { useBlake3 } from '../span/index.ts';
import { AnchorTable } from './anchor-table.ts';
import { connectionOptions, readAuditorConfig } from './config.ts';
import { METRIC_NAMESPACE } from './emf.ts';
import { loggedFunctionError } from './function-error.ts';
import { beginInvocation, type InvocationContext, log } from './log.ts';

/** Time kept back of what Lambda gives, to write down how far the audit came, and to publish it. */
const ENDING_MS = 8_000;
/** Of each run, for history: the database has other things to do. */
const HISTORY_MS = 20_000;

const config = readAuditorConfig(process.env);
const database = new Database({ ...connectionOptions(config.database), applicationName: 'loglineos-auditor' });
const store = new AnchorTable(config.auditTable);
const ready = loadBlake3().then(useBlake3);

/**
 * `loglineos-auditor`: verify what is new and a part of history. What is wrong with the ledger is an answer, a line in the
 * log and `AuditProblems`, not an error of the function: that is what keeps it from telling.
 */
export async function handler(event: unknown, context: InvocationContext): Promise<AuditReport> {
  beginInvocation(context);
  const endOfTime = new Date(Date.now() + context.getRemainingTimeInMillis() - ENDING_MS);
  try {
    await ready;
    const report = await audit(
      {
        database,
        keys: config.trustedKeys,
        scheme: nodeEd25519,
        store,
        now: () => new Date(),
        endOfTime,
        historyMs: HISTORY_MS,
      },
      parseOrder(event),
    );
    log({ level: report.ok ? 'info' : 'error', message: 'the ledger was audited', ...report });
    if (report.worked) await publish(report);
    return report;
  } catch (error) {
    throw loggedFunctionError(error);
  }
}

async function publish({ problem_count, new_rows, history_rows, lag_rows }: AuditReport): Promise<void> {
  const at = new Date();
  const point = (name: string, value: number) =>
    ({ name, value, unit: 'Count', dimensions: { Environment: config.environment }, at }) as const;
  try {
    await putMetrics(METRIC_NAMESPACE, [
      point('AuditRuns', 1),
      point('AuditProblems', problem_count),
      point('AuditedSpans', new_rows + history_rows),
      ...(lag_rows === null ? [] : [point('AuditLagSpans', lag_rows)]),
    ]);
  } catch (error) {
    log({ level: 'warn', message: 'metrics were not published', error: String(error) });
  }
}
