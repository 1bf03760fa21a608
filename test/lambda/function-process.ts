import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface, type Interface } from 'node:readline';
import type { Readable } from 'node:stream';

const RUNTIME = new URL('./runtime.mjs', import.meta.url).pathname;

/** What a handler answered, or how it failed. */
export interface Invocation {
  // biome-ignore lint/suspicious/noExplicitAny: what a handler answered; the test says what it expects
  answer?: any;
  error?: { name: string; message: string; stack: string };
}

/** A container of a deployed function: its bundle in a process of its own that has the environment it is given, and no more. */
export class FunctionProcess {
  readonly #child: ChildProcess;
  readonly #answers: AsyncIterator<string>;
  readonly #lines: Interface;
  readonly ended: Promise<number | null>;
  output = '';

  constructor(bundle: string, env: Record<string, string>, remainingMs = 30_000) {
    const stdio = ['pipe', 'pipe', 'pipe', 'pipe'] as const;
    this.#child = spawn(process.execPath, [RUNTIME, bundle, String(remainingMs)], { cwd: '/', env, stdio: [...stdio] });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.on('data', (chunk) => {
        this.output += chunk;
      });
    }
    this.#lines = createInterface({ input: this.#child.stdio[3] as Readable });
    this.#answers = this.#lines[Symbol.asyncIterator]();
    this.#child.stdin?.on('error', () => {}); // it ended before the event came
    this.ended = once(this.#child, 'close').then(([code]) => code);
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  async invoke(event: unknown): Promise<Invocation> {
    this.#child.stdin?.write(`${JSON.stringify(event)}\n`);
    const { value, done } = await this.#answers.next();
    if (done) throw new Error(`the function ended: ${this.output}`);
    this.output += value;
    return JSON.parse(value);
  }

  /** Dies wherever it is. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.ended;
  }

  /** Import only: how the process ends when there is nothing to do. */
  async end(): Promise<number | null> {
    this.#child.stdin?.end();
    return this.ended;
  }
}
