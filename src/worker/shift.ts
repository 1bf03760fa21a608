import { randomUUID } from 'node:crypto';
import { endShift, holdShift, readPlacedVersions } from '../ledger/index.ts';
import { type Admission, type BootAnswer, BootFailed, boot, type Shift, type Stage0 } from '../stage0/index.ts';
import { WorkCounters } from '../work/index.ts';
import type { Role } from './roles.ts';

/** A single role's lease, and how often it is renewed and governance is looked at. */
const LEASE_MS = 10_000;
const WATCH_MS = 1_000;
/** Kept back at the end of a shift, to record what became of the last work. */
const ENDING_MS = 5_000;
/** Before another shift begins after one that failed, or while somebody else holds the role. */
const PAUSE_MS = 2_000;

/** Something beside the work that is to be done now and then while a shift lasts. */
export interface Chore {
  name: string;
  everyMs: number;
  run: () => Promise<unknown>;
}

export interface ShiftOptions {
  /** When the shift is ended, whatever it is doing. */
  endOfTime: Date;
  /** Aborts when the host is being stopped: what is open may still end. */
  stop?: AbortSignal;
  /** Calls back whenever there may be new work; returns how to stop that. */
  onWork?: (listener: () => void) => () => void;
  chores?: Chore[];
  counters?: WorkCounters;
}

/**
 * Boot a role's kernel to work until the end of time, or until it may not any more.
 *
 * @returns how the boot ended; null when somebody else holds the role.
 * @throws {LogLineError} the kernel may not boot, see `boot`.
 */
export async function workShift(stage0: Stage0, role: Role, options: ShiftOptions): Promise<BootAnswer | null> {
  const holder = randomUUID();
  const hold = () => holdShift(stage0.database, role.name, holder, LEASE_MS);
  if (role.isSingle && !(await hold())) return null;
  const shift = new WatchedShift(stage0, role, options, role.isSingle ? hold : async () => true);
  try {
    const identity = { userId: role.name, tenantId: 'system' };
    const request = { boot_function_id: role.kernelId, identity, input: null };
    return await boot(stage0, request, { endOfTime: options.endOfTime, shift });
  } finally {
    await shift.end();
    // Not told, the lease runs out by itself.
    if (role.isSingle) await endShift(stage0.database, role.name, holder).catch(() => {});
  }
}

/** What the invocation of a role answers; `worked` is false while somebody else has the role. */
export type ShiftAnswer =
  | { worked: false }
  | { worked: true; boot_event_id: string; execution_id: string; output: unknown };

/**
 * A shift as a Lambda invocation.
 *
 * @throws {BootFailed} it ran and did not end well.
 */
export async function invokeShift(stage0: Stage0, role: Role, options: ShiftOptions): Promise<ShiftAnswer> {
  const answer = await workShift(stage0, role, options);
  if (answer === null) return { worked: false };
  if (!answer.ok) throw new BootFailed(answer);
  const { boot_event_id, execution_id, output } = answer;
  return { worked: true, boot_event_id, execution_id, output };
}

/** One shift after the other until the host stops: the schedule of a host that has none. */
export async function workShifts(
  stage0: Stage0,
  role: Role,
  shiftMs: number,
  options: Omit<ShiftOptions, 'endOfTime'> & { stop: AbortSignal },
): Promise<void> {
  while (!options.stop.aborted) {
    const answer = await workShift(stage0, role, {
      ...options,
      endOfTime: new Date(stage0.now().getTime() + shiftMs),
    }).catch((error) => {
      if (!options.stop.aborted)
        stage0.log({ level: 'error', message: 'a shift failed', role: role.name, error: String(error) });
      return null;
    });
    if (answer !== null && !answer.ok)
      stage0.log({ level: 'error', message: 'a shift failed', role: role.name, ...answer.error });
    if (answer?.ok !== true && !options.stop.aborted) await pause(PAUSE_MS, options.stop);
  }
}

class WatchedShift implements Shift {
  readonly counters: WorkCounters;
  readonly #stage0: Stage0;
  readonly #role: Role;
  readonly #options: ShiftOptions;
  readonly #hold: () => Promise<boolean>;
  readonly #timer: NodeJS.Timeout;
  readonly #undo: (() => void)[] = [];
  readonly #choreDueAt = new Map<Chore, number>();
  readonly #busyChores = new Map<Chore, Promise<unknown>>();
  #watching: Promise<void> = Promise.resolve();
  #admission: Admission | undefined;
  #isOver = false;
  #hasWork = false;
  readonly #waiting = new Set<() => void>();

  constructor(stage0: Stage0, role: Role, options: ShiftOptions, hold: () => Promise<boolean>) {
    this.#stage0 = stage0;
    this.#role = role;
    this.#options = options;
    this.#hold = hold;
    this.counters = options.counters ?? new WorkCounters();
    const onStop = () => this.#hear();
    options.stop?.addEventListener('abort', onStop);
    this.#undo.push(() => options.stop?.removeEventListener('abort', onStop));
    if (role.isWoken && options.onWork !== undefined) this.#undo.push(options.onWork(() => this.#hear()));
    let isWatching = false;
    this.#timer = setInterval(() => {
      if (isWatching) return;
      isWatching = true;
      this.#watching = this.#watch().finally(() => {
        isWatching = false;
      });
    }, WATCH_MS);
  }

  admitted(admission: Admission): void {
    this.#admission = admission;
  }

  isOver(): boolean {
    const { endOfTime, stop } = this.#options;
    const policy = this.#admission?.manifest.policy;
    const needsMs = ENDING_MS + (policy === undefined ? 0 : this.#role.longestStepMs(policy));
    this.#isOver ||= stop?.aborted === true || this.#stage0.now().getTime() + needsMs > endOfTime.getTime();
    return this.#isOver;
  }

  /** A hint that came while nobody waited counts for the next wait. Over, it still waits: for what is open. */
  async wait(ms: number): Promise<void> {
    if (this.#hasWork) {
      this.#hasWork = false;
      return;
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, ms);
    this.#waiting.add(resolve);
    await promise;
    clearTimeout(timer);
    this.#waiting.delete(resolve);
  }

  async end(): Promise<void> {
    clearInterval(this.#timer);
    for (const undo of this.#undo) undo();
    await this.#watching;
    await Promise.all(this.#busyChores.values());
  }

  #hear(): void {
    this.#hasWork = true;
    this.#ring();
  }

  #ring(): void {
    for (const resolve of this.#waiting) resolve();
  }

  /** Fails closed: who cannot see that it may still work, ends. The next shift is a new boot, with all its checks. */
  async #watch(): Promise<void> {
    try {
      if (this.#isOver || ((await this.#isGovernanceUnchanged()) && (await this.#hold()))) return this.#doChores();
      this.#stage0.log({ level: 'info', message: 'a shift ends early', role: this.#role.name });
    } catch (error) {
      this.#stage0.log({ level: 'warn', message: 'a shift ends early', role: this.#role.name, error: String(error) });
    }
    this.#isOver = true;
    this.#hear();
  }

  /** Manifest and kernel are still the very rows that this shift was admitted by. */
  async #isGovernanceUnchanged(): Promise<boolean> {
    if (this.#admission === undefined) return true; // not booted yet
    const { rowVersions } = this.#admission;
    const identity = { userId: this.#role.name, tenantId: 'system' };
    const placed = await readPlacedVersions(this.#stage0.database, identity, [...rowVersions.keys()]);
    return [...rowVersions].every(([id, rowVersion]) => placed.get(id)?.rowVersion === rowVersion);
  }

  /** Beside the watch, which must not wait for them. */
  #doChores(): void {
    for (const chore of this.#options.chores ?? []) {
      const now = performance.now();
      if (this.#busyChores.has(chore) || now < (this.#choreDueAt.get(chore) ?? 0)) continue;
      this.#choreDueAt.set(chore, now + chore.everyMs);
      const done = chore
        .run()
        .catch((error) => {
          const message = `${chore.name} failed`;
          this.#stage0.log({ level: 'error', message, role: this.#role.name, error: String(error) });
        })
        .finally(() => this.#busyChores.delete(chore));
      this.#busyChores.set(chore, done);
    }
  }
}

function pause(ms: number, stop: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      stop.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    stop.addEventListener('abort', done);
  });
}
