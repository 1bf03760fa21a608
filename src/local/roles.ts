import { EventEmitter } from 'node:events';
import { type ConnectionOptions, listenForWork } from '../ledger/index.ts';
import type { Stage0 } from '../stage0/index.ts';
import { invokeShift, ROLES, reapChore, workShifts } from '../worker/index.ts';
import type { LambdaFunction } from './lambda-api.ts';

/** A shift of the local stack; one follows the other. */
const SHIFT_MS = 10 * 60 * 1000;

/** How long a stop waits for functions that run. */
const STOP_GRACE_MS = 3_000;

export interface Roles {
  /** Take no new work; what is open may still end, for a while. What does not is ended with the sandbox, and run again later. */
  stop(): Promise<void>;
  /** Resolves when the last shift is recorded. */
  ended: Promise<unknown>;
}

/** What schedules and invocations do in AWS: every role at work, one shift after the other, woken at once by new work. */
export function startRoles(stage0: Stage0, connection: ConnectionOptions): Roles {
  const stop = new AbortController();
  const bell = new EventEmitter().setMaxListeners(0);
  const endListening = listenForWork(connection, () => bell.emit('work'));
  const onWork = (listener: () => void) => {
    bell.on('work', listener);
    return () => bell.off('work', listener);
  };
  const shifts = Object.values(ROLES).map((role) =>
    workShifts(stage0, role, SHIFT_MS, {
      stop: stop.signal,
      onWork,
      chores: role.name === 'observer' ? [reapChore(stage0)] : [],
    }),
  );
  const ended = Promise.all(shifts);
  return {
    ended,
    async stop() {
      stop.abort();
      await endListening();
      await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, STOP_GRACE_MS).unref())]);
    },
  };
}

/** The roles by their names in AWS, for whoever wants one more shift. */
export function roleFunctions(stage0: Stage0): Record<string, LambdaFunction> {
  return Object.fromEntries(
    Object.values(ROLES).map((role) => [
      `loglineos-${role.name}`,
      (_event: unknown, endOfTime: Date) => invokeShift(stage0, role, { endOfTime }),
    ]),
  );
}
