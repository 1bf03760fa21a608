import { setTimeout as sleep } from 'node:timers/promises';
import type { Tick } from './tick.ts';

/** So long what has just finished waits for others, so that they travel and are written together. */
const GATHER_MS = 5;
const GATHER_MAX = 64;

/** Outcomes of runs that a kernel has not heard of yet. */
export class FinishedList {
  readonly #tick: Tick;
  #finished: object[] = [];
  #running = 0;
  #wake: (() => void) | undefined;

  constructor(tick: Tick) {
    this.#tick = tick;
  }

  begin(): void {
    this.#running += 1;
  }

  add(outcome: object): void {
    this.#running -= 1;
    this.#finished.push(outcome);
    if (this.#finished.length === 1 || this.#finished.length === GATHER_MAX || this.#running === 0) this.#wake?.();
  }

  /**
   * What finished, at most as many as are worth writing together: the rest come next, while these are written. Waits at
   * most `waitMs` for the first, or until there may be new work to claim.
   */
  async take(waitMs: number): Promise<object[]> {
    if (this.#finished.length === 0) await Promise.race([this.#next(), this.#tick.wait(waitMs)]);
    if (this.#finished.length > 0 && this.#finished.length < GATHER_MAX && this.#running > 0) {
      await Promise.race([this.#next(), sleep(GATHER_MS)]);
    }
    return this.#finished.splice(0, GATHER_MAX);
  }

  #next(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }
}
