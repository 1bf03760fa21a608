import { EventEmitter } from 'node:events';
import { type ConnectionOptions, listenForWork } from '../ledger/index.ts';
import type { Stage0 } from '../stage0/index.ts';
import { invokeShift, ROLES, reapChore, workShifts } from '../worker/index.ts';
import type { LambdaFunction } from './lambda-api.ts';

/** A shift of the local stack; one follows the other. */
const SHIFT_MS = 10 * 60 * 1000;

/**
 * What schedules and invocations do in AWS: every role at work, one shift after the other, woken at once by new work.
 *
 * @returns how to stop: what is open may still end, and is recorded.
 */
export function startRoles(stage0: Stage0, connection: ConnectionOptions): () => Promise<void> {
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
  return async () => {
    stop.abort();
    await Promise.all(shifts);
    await endListening();
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
