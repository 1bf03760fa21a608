/** Lets so many through at a time; the others wait, in a line for each key, and the lines move by turns. */
export class Turnstile {
  #free: number;
  /** Whose turn is next stands first. */
  readonly #lines = new Map<string, (() => void)[]>();

  constructor(places: number) {
    this.#free = places;
  }

  async pass<T>(key: string, run: () => Promise<T>): Promise<T> {
    if (this.#free === 0) await new Promise<void>((resolve) => this.#wait(key, resolve));
    else this.#free -= 1;
    try {
      return await run();
    } finally {
      const next = this.#next();
      if (next === undefined) this.#free += 1;
      else next();
    }
  }

  #wait(key: string, resolve: () => void): void {
    const line = this.#lines.get(key);
    if (line === undefined) this.#lines.set(key, [resolve]);
    else line.push(resolve);
  }

  #next(): (() => void) | undefined {
    for (const [key, line] of this.#lines) {
      const next = line.shift();
      this.#lines.delete(key);
      if (line.length > 0) this.#lines.set(key, line); // behind the others
      return next;
    }
    return undefined;
  }
}
