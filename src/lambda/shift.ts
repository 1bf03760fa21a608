import { putMetrics } from '../aws/index.ts';
import { listenForWork } from '../ledger/index.ts';
import { createPublisher, WorkCounters } from '../work/index.ts';
import { invokeShift, type Role, reapChore, type ShiftAnswer } from '../worker/index.ts';
import { buildStage0 } from './build-stage0.ts';
import { connectionOptions, readStage0Config } from './config.ts';
import { METRIC_NAMESPACE } from './emf.ts';
import { loggedFunctionError } from './function-error.ts';
import { beginInvocation, type InvocationContext, log } from './log.ts';
import { onceUnlessItFails } from './once.ts';

/** Time kept back of what Lambda gives, to append the execution of a shift that used up the rest. */
const ENDING_MS = 3_000;
/** Claims, results, heartbeats and the watch go side by side. */
const CONNECTIONS_MAX = 4;

/** The handler of a role: an invocation, started by a schedule, is one shift. While another has the role it ends at once. */
export function shiftHandler(role: Role) {
  const name = `loglineos-${role.name}`;
  const config = readStage0Config(process.env);
  const stage0 = onceUnlessItFails(() => buildStage0(config, name, 'kernel:shift', CONNECTIONS_MAX));
  const counters = new WorkCounters();

  return async (_event: unknown, context: InvocationContext): Promise<ShiftAnswer> => {
    const endOfTime = new Date(Date.now() + context.getRemainingTimeInMillis() - ENDING_MS);
    beginInvocation(context);
    try {
      const built = await stage0();
      const { database, now } = built;
      const put = (metrics: Parameters<typeof putMetrics>[1]) => putMetrics(METRIC_NAMESPACE, metrics);
      const { environment } = config;
      const publisher = createPublisher({ role: role.name, environment, database, counters, put, now, log });
      const answer = await invokeShift(built, role, {
        endOfTime,
        onWork: (listener) => {
          const end = listenForWork(connectionOptions(config.database), listener);
          return () => void end();
        },
        chores: [publisher, ...(role.name === 'observer' ? [reapChore(built)] : [])],
        counters,
      });
      if (answer.worked) await publisher.run(); // what was counted since
      return answer;
    } catch (error) {
      throw loggedFunctionError(error);
    }
  };
}
