import { setTimeout as pause } from 'node:timers/promises';
import { LogLineError, UpstreamError } from '../../errors.ts';
import type { SandboxJob, SandboxResult } from './job.ts';
import { REMOTE_START_MS_MAX } from './limits.ts';
import type { PoolChild } from './pool.ts';
import { readRemoteResult, remoteJobText } from './remote-job.ts';

/** A function that runs untrusted code. */
export interface SandboxFunction {
  /**
   * Sends one job and waits for its result, both as JSON.
   *
   * @throws {UpstreamError} `FUNCTION_BUSY`: it did not run, there is no room; `FUNCTION_UNREACHABLE`: the connection
   * broke; anything else: it failed.
   */
  invokeForText(payload: string, signal: AbortSignal): Promise<string>;
}

/** What did not come through is sent so often, after pauses that double, unless it took longer than this to be refused. */
const ATTEMPTS_MAX = 4;
const PAUSE_MS = 100;
const REFUSAL_MS_MAX = 1_000;

interface Run {
  job: SandboxJob;
  resolve: (result: SandboxResult) => void;
  reject: (error: Error) => void;
  startedAt: number;
  /** When the job's time is up in any case, and when an answer must be there that the function owed long before. */
  deadlineAt: number;
  answerBefore: number;
  abort: AbortController;
}

/**
 * A child elsewhere: one invocation at a time of a function that runs untrusted code. It has no state to keep apart, so
 * it costs nothing to start one; the processes that belong to tenants are behind the function.
 *
 * What fails on the way, or is answered and cannot be a result, is never the code's doing, unless it is too large: it
 * rejects, and the job is as if it had not run.
 */
export class RemoteChild implements PoolChild {
  compartment: string | undefined;
  state: 'idle' | 'running' | 'dead' = 'idle';
  runs = 0;
  busyMs = 0;
  idleSince = performance.now();
  readonly scripts = 0;
  readonly ready = Promise.resolve();
  readonly gone: Promise<void>;
  readonly #function: SandboxFunction;
  readonly #leave: () => void;
  #run: Run | undefined;

  constructor(sandboxFunction: SandboxFunction) {
    this.#function = sandboxFunction;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.gone = promise;
    this.#leave = resolve;
  }

  takes(): boolean {
    return this.state === 'idle';
  }

  /** @throws {InputError} `INPUT_INVALID` when the input is no JSON or too large (thrown at once) */
  run(job: SandboxJob): Promise<SandboxResult> {
    const startedAt = performance.now();
    const deadlineAt = job.deadlineAt ?? Infinity;
    const timeoutMs = Math.min(job.limits.timeoutMs, deadlineAt - startedAt);
    const payload = remoteJobText(job, timeoutMs);
    const { promise, resolve, reject } = Promise.withResolvers<SandboxResult>();
    const answerBefore = startedAt + timeoutMs + REMOTE_START_MS_MAX;
    const run: Run = { job, resolve, reject, startedAt, deadlineAt, answerBefore, abort: new AbortController() };
    this.#run = run;
    this.state = 'running';
    this.runs += 1;
    this.#invoke(payload, run.abort.signal)
      .then((text) => readRemoteResult(text, job, performance.now() - startedAt))
      .then(
        (result) => this.#finish(run, () => resolve(result)),
        (error) => this.#finish(run, () => reject(unavailable(error))),
      );
    return promise;
  }

  check(now: number): void {
    const run = this.#run;
    if (run === undefined) return;
    if (now >= run.deadlineAt) {
      const durationMs = run.deadlineAt - run.startedAt;
      const error = { code: 'TIMEOUT', message: `time: at most ${Math.round(durationMs)} ms` } as const;
      this.#finish(run, () => run.resolve({ ok: false, error, durationMs, memoryBytes: 0 }));
    } else if (now >= run.answerBefore) {
      this.#finish(run, () => run.reject(new UpstreamError('SANDBOX_UNAVAILABLE', 'sandbox: the function is silent')));
    }
  }

  /** An open run is rejected; the function is not waited for. */
  kill(): void {
    const run = this.#run;
    this.state = 'dead';
    if (run !== undefined) {
      this.#finish(run, () => run.reject(new UpstreamError('SANDBOX_UNAVAILABLE', 'sandbox: closed')));
    }
    this.#leave();
  }

  /** The code has no effects, so what may have begun when the connection broke can be sent again. */
  async #invoke(payload: string, signal: AbortSignal): Promise<string> {
    for (let attempt = 1; ; attempt++) {
      const sentAt = performance.now();
      try {
        return await this.#function.invokeForText(payload, signal);
      } catch (error) {
        const { code } = error as { code?: unknown };
        const mayBeRepeated = code === 'FUNCTION_BUSY' || code === 'FUNCTION_UNREACHABLE';
        const isLate = performance.now() - sentAt > REFUSAL_MS_MAX;
        if (!mayBeRepeated || isLate || attempt === ATTEMPTS_MAX || signal.aborted) throw error;
        await pause(PAUSE_MS * 2 ** (attempt - 1) * (0.5 + Math.random()), undefined, { signal });
      }
    }
  }

  /** Whatever comes first ends the run; what comes later finds another one, or none. */
  #finish(run: Run, settle: () => void): void {
    if (this.#run !== run) return;
    this.#run = undefined;
    const now = performance.now();
    this.busyMs += now - run.startedAt;
    this.idleSince = now;
    if (this.state === 'running') this.state = 'idle';
    run.abort.abort();
    settle();
  }
}

function unavailable(error: unknown): UpstreamError {
  if (error instanceof UpstreamError && error.code === 'SANDBOX_UNAVAILABLE') return error;
  const { code, message } = error instanceof LogLineError ? error : { code: '', message: String(error) };
  if (code === 'FUNCTION_BUSY') return new UpstreamError('SANDBOX_BUSY', 'sandbox: the function has no room');
  return new UpstreamError('SANDBOX_UNAVAILABLE', `sandbox: ${message}`, { cause: error });
}
