import { InputError, UpstreamError } from '../../errors.ts';
import { SandboxChild } from './child-process.ts';
import type { SandboxJob, SandboxResult } from './job.ts';
import { Lifeline } from './lifeline.ts';
import { POLL_MS } from './limits.ts';
import { Pool, type PoolChild } from './pool.ts';
import { RemoteChild, type SandboxFunction } from './remote-child.ts';
import { refusal } from './source.ts';

export interface SandboxOptions {
  /** Children at once: of each kernel compartment (a nesting depth), and of all untrusted compartments together. */
  maxChildren: number;
  /** Runs after which an untrusted child is replaced. */
  maxRunsPerChild: number;
  /** The same for kernel children, which are replaced only because V8 keeps some bookkeeping for ever. */
  maxRunsPerKernelChild: number;
  /** Jobs of one compartment that may wait for a child. */
  maxWaiting: number;
  /** The same for all untrusted compartments together. */
  maxWaitingInAll: number;
  /** An unused child ends after this long, unless `prewarm` asked to keep one. */
  idleMs: number;
  /** Upper bound of a job's `memoryMb`; also sets V8's heap limit and the data limit of each child. */
  maxMemoryMb: number;
  /** Where untrusted code runs, if not in children of this process, and how many invocations of it there are at once. */
  untrusted: SandboxFunction | undefined;
  maxInvocations: number;
}

const DEFAULTS: SandboxOptions = {
  maxChildren: 4,
  // Starting a child takes 80 ms of a processor, a small run half a millisecond: here a seventh of all work is starts.
  maxRunsPerChild: 10_000,
  maxRunsPerKernelChild: 10_000,
  maxWaiting: 256,
  maxWaitingInAll: 2_048,
  idleMs: 60_000,
  maxMemoryMb: 256,
  untrusted: undefined,
  maxInvocations: 32,
};

/**
 * Runs code from rows in child processes, in each of them one run after the other.
 *
 * There is one pool for each kernel compartment and one for all untrusted compartments. A kernel that waits for a
 * nested kernel or an untrusted run therefore never competes with it for a child, and cannot deadlock.
 */
export class Sandbox {
  readonly #options: SandboxOptions;
  readonly #pools = new Map<string, Pool>();
  readonly #lifeline = new Lifeline();
  readonly #children = new Set<PoolChild>();
  #poll: NodeJS.Timeout | undefined;
  #reaper: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: Partial<SandboxOptions> = {}) {
    this.#options = { ...DEFAULTS, ...options };
  }

  /**
   * Runs one job; everything the code does, also breaking a limit, is a result.
   *
   * @throws {UpstreamError} `SANDBOX_BUSY` when too many jobs wait already, or the function has no room;
   * `SANDBOX_UNAVAILABLE` when a child cannot be started and hardened, the function gives no answer that can be one, or
   * the sandbox is closed
   * @throws {InputError} `INPUT_INVALID` when the caller's input is no JSON or too large; `LIMIT_INVALID`
   */
  async run(job: SandboxJob): Promise<SandboxResult> {
    const refused = refusal(job.code);
    if (refused !== undefined) return { ok: false, error: refused, durationMs: 0, memoryBytes: 0 };
    for (const [name, value] of Object.entries(job.limits)) {
      if (!(value >= 0 && Number.isFinite(value))) {
        throw new InputError('LIMIT_INVALID', `${name}: expected a finite number, found ${value}`, { field: name });
      }
    }
    const memoryMb = Math.min(job.limits.memoryMb, this.#options.maxMemoryMb);
    return this.#pool(job.trust, job.compartment).run({ ...job, limits: { ...job.limits, memoryMb } });
  }

  /**
   * Starts a child for the compartment and keeps one from now on, also when it idles or is thrown away. For untrusted
   * code the kept child belongs to no compartment until its first job.
   *
   * @throws {UpstreamError} `SANDBOX_UNAVAILABLE`
   */
  prewarm(trust: SandboxJob['trust'], compartment: string): Promise<void> {
    return this.#pool(trust, compartment).prewarm();
  }

  /**
   * Ends every child. Open runs end as THREW; those that were not alone in their child, those in a function and waiting
   * ones are rejected. Resolves when no process is left.
   */
  async close(): Promise<void> {
    this.#closed = true;
    for (const pool of this.#pools.values()) pool.close();
    clearInterval(this.#poll);
    clearInterval(this.#reaper);
    await Promise.all([...this.#children].map((child) => child.gone));
    await this.#lifeline.close();
  }

  #pool(trust: SandboxJob['trust'], compartment: string): Pool {
    if (this.#closed) throw new UpstreamError('SANDBOX_UNAVAILABLE', 'sandbox: closed');
    const key = trust === 'kernel' ? `kernel\n${compartment}` : 'untrusted';
    let pool = this.#pools.get(key);
    if (pool === undefined) {
      const { untrusted, maxInvocations } = this.#options;
      const remote = trust === 'untrusted' ? untrusted : undefined;
      const options = remote === undefined ? this.#options : { ...this.#options, maxChildren: maxInvocations };
      pool = new Pool(trust, options, {
        start: () => (remote === undefined ? this.#start(trust) : this.#watched(new RemoteChild(remote))),
        busy: () => this.#watch(),
      });
      this.#pools.set(key, pool);
    }
    return pool;
  }

  #start(trust: SandboxJob['trust']): PoolChild {
    const child = new SandboxChild(trust, this.#options.maxMemoryMb);
    const { pid } = child;
    if (pid !== undefined) {
      this.#lifeline.watch(pid);
      child.gone.then(() => this.#lifeline.release(pid));
    }
    return this.#watched(child);
  }

  #watched(child: PoolChild): PoolChild {
    this.#children.add(child);
    child.gone.then(() => this.#children.delete(child));
    this.#watch();
    return child;
  }

  /** One shared clock for all children; it runs, and keeps the process alive, only while something runs. */
  #watch(): void {
    if (this.#poll !== undefined) return;
    this.#poll = setInterval(() => {
      const now = performance.now();
      let busy = false;
      for (const child of this.#children) {
        if (child.state !== 'starting' && child.state !== 'running') continue;
        busy = true;
        child.check(now);
      }
      if (busy) return;
      clearInterval(this.#poll);
      this.#poll = undefined;
    }, POLL_MS);
    if (this.#reaper !== undefined) return;
    this.#reaper = setInterval(
      () => {
        for (const pool of this.#pools.values()) pool.reap(performance.now() - this.#options.idleMs);
      },
      Math.max(POLL_MS, this.#options.idleMs / 4),
    );
    this.#reaper.unref();
  }
}
