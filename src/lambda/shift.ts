import { listenForWork } from '../ledger/index.ts';
import { invokeShift, type Role, reapChore, type ShiftAnswer } from '../worker/index.ts';
import { buildStage0 } from './build-stage0.ts';
import { connectionOptions, readStage0Config } from './config.ts';
import { loggedFunctionError } from './function-error.ts';
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

  return async (_event: unknown, context: { getRemainingTimeInMillis(): number }): Promise<ShiftAnswer> => {
    const endOfTime = new Date(Date.now() + context.getRemainingTimeInMillis() - ENDING_MS);
    try {
      const built = await stage0();
      return await invokeShift(built, role, {
        endOfTime,
        onWork: (listener) => {
          const end = listenForWork(connectionOptions(config.database), listener);
          return () => void end();
        },
        chores: role.name === 'observer' ? [reapChore(built)] : [],
      });
    } catch (error) {
      throw loggedFunctionError(error);
    }
  };
}
