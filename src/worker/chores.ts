import { reapLostBoots, type Stage0 } from '../stage0/index.ts';
import type { Chore } from './shift.ts';

const REAP_EVERY_MS = 5_000;
/** How far back the reaper looks; what is older, an earlier look has seen. */
const REAP_WINDOW_MS = 15 * 60 * 1000;

/** End the boots that nobody ended, see `reapLostBoots`. One role does it for all. */
export function reapChore(stage0: Stage0): Chore {
  return {
    name: 'the reaper',
    everyMs: REAP_EVERY_MS,
    run: async () => {
      const now = stage0.now();
      const reaped = await reapLostBoots(stage0, new Date(now.getTime() - REAP_WINDOW_MS), now);
      if (reaped > 0) stage0.log({ level: 'warn', message: 'boots were lost', count: reaped });
    },
  };
}
