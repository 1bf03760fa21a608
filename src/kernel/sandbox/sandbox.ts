import { InputError, UpstreamError } from '../../errors.ts';
import { SandboxChild } from './child-process.ts';
import type { SandboxJob, SandboxResult } from './job.ts';
import { Lifeline } from './lifeline.ts';
import { CHILD_BUSY_MS_MAX, COMPILED_MAX, POLL_MS } from './limits.ts';
import { refusal } from './source.ts';

export interface SandboxOptions {
  /** Children at once: of each kernel compartment (a nesting depth), and of all untrusted compartments together. */
  maxChildren: number;
  /** Runs after which an untrusted child is replaced. */
  maxRunsPerChild: number;
  /** The same for kernel children, which are replaced only because V8 keeps some bookkeeping for ever. */
  maxRunsPerKernelChild: number;
  /** Jobs that may wait for a child, for each of the bounds above. */
  maxWaiting: number;
  /** An unused child ends after this long, unless `prewarm` asked to keep one. */
  idleMs: number;
  /** Upper bound of a job's `memoryMb`; also sets V8's heap limit and the data limit of each child. */
  maxMemoryMb: number;
}

const DEFAULTS: SandboxOptions = {
  maxChildren: 4,
  maxRunsPerChild: 200,
  maxRunsPerKernelChild: 10_000,
  maxWaiting: 256,
  idleMs: 60_000,
  maxMemoryMb: 256,
};

/**
 * Runs code from rows in child processes, one run at a time in each.
 *
 * There is one pool for each kernel compartment and one for all untrusted compartments. A kernel that waits for a
 * nested kernel or an untrusted run therefore never competes with it for a child, and cannot deadlock.
 */
export class Sandbox {
  readonly #options: SandboxOptions;
  readonly #pools = new Map<string, Pool>();
  readonly #lifeline = new Lifeline();
  readonly #children = new Set<SandboxChild>();
  #poll: NodeJS.Timeout | undefined;
  #reaper: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: Partial<SandboxOptions> = {}) {
    this.#options = { ...DEFAULTS, ...options };
  }

  /**
   * Runs one job; everything the code does, also breaking a limit, is a result.
   *
   * @throws {UpstreamError} `SANDBOX_BUSY` when too many jobs wait already; `SANDBOX_UNAVAILABLE` when a child cannot
   * be started and hardened, or the sandbox is closed
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

  /** Ends every child; open runs end as THREW, waiting ones are rejected. Resolves when no process is left. */
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
      pool = new Pool(trust, this.#options, {
        start: () => this.#start(trust),
        busy: () => this.#watch(),
      });
      this.#pools.set(key, pool);
    }
    return pool;
  }

  #start(trust: SandboxJob['trust']): SandboxChild {
    const child = new SandboxChild(trust, this.#options.maxMemoryMb);
    const { pid } = child;
    this.#children.add(child);
    if (pid !== undefined) this.#lifeline.watch(pid);
    child.gone.then(() => {
      this.#children.delete(child);
      if (pid !== undefined) this.#lifeline.release(pid);
    });
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

interface Waiting {
  job: SandboxJob;
  resolve: (result: SandboxResult | Promise<SandboxResult>) => void;
  reject: (error: unknown) => void;
}

interface PoolHost {
  start: () => SandboxChild;
  /** Something runs now: the shared clock must tick. */
  busy: () => void;
}

/** The children that share one bound, and the jobs that wait for them, first come first served. */
class Pool {
  readonly #trust: SandboxJob['trust'];
  readonly #options: SandboxOptions;
  readonly #host: PoolHost;
  readonly #children = new Set<SandboxChild>();
  #waiting: Waiting[] = [];
  #keepOne = false;
  #closed = false;

  constructor(trust: SandboxJob['trust'], options: SandboxOptions, host: PoolHost) {
    this.#trust = trust;
    this.#options = options;
    this.#host = host;
  }

  run(job: SandboxJob): Promise<SandboxResult> {
    if (this.#waiting.length >= this.#options.maxWaiting) {
      throw new UpstreamError('SANDBOX_BUSY', `sandbox: at most ${this.#options.maxWaiting} jobs may wait`);
    }
    const { promise, resolve, reject } = Promise.withResolvers<SandboxResult>();
    this.#waiting.push({ job, resolve, reject });
    this.#dispatch();
    return promise;
  }

  async prewarm(): Promise<void> {
    this.#keepOne = true;
    this.#dispatch();
    const [child] = this.#children;
    if (child === undefined) throw new UpstreamError('SANDBOX_UNAVAILABLE', 'sandbox: no child could be started');
    await child.ready;
  }

  reap(idleBefore: number): void {
    for (const child of [...this.#children]) {
      if (child.state !== 'idle' || child.idleSince >= idleBefore) continue;
      const spares = [...this.#children].filter((other) => this.#isSpare(other));
      if (this.#keepOne && spares.length === 1 && spares[0] === child) continue;
      this.#drop(child);
    }
  }

  close(): void {
    this.#closed = true;
    for (const child of [...this.#children]) this.#drop(child);
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { reject } of waiting) reject(new UpstreamError('SANDBOX_UNAVAILABLE', 'sandbox: closed'));
  }

  /** Gives idle children to waiting jobs, and starts or makes room for the children that are still missing. */
  #dispatch(): void {
    const unserved: Waiting[] = [];
    for (const waiting of this.#waiting) {
      const child = this.#idleFor(waiting.job.compartment);
      if (child === undefined) unserved.push(waiting);
      else this.#give(child, waiting);
    }
    this.#waiting = unserved;
    if (this.#closed) return;
    let missing = unserved.length;
    for (const child of this.#children) if (child.state === 'starting') missing -= 1;
    for (; missing > 0 && this.#room(); missing -= 1) this.#start();
    const hasSpare = [...this.#children].some((child) => this.#isSpare(child));
    if (this.#keepOne && !hasSpare && this.#children.size < this.#options.maxChildren) {
      this.#start();
    }
  }

  /** What `prewarm` keeps: any child of a kernel, but of untrusted code only one that belongs to nobody yet. */
  #isSpare(child: SandboxChild): boolean {
    return this.#trust === 'kernel' || child.compartment === undefined;
  }

  #idleFor(compartment: string): SandboxChild | undefined {
    let unused: SandboxChild | undefined;
    for (const child of this.#children) {
      if (child.state !== 'idle') continue;
      if (child.compartment === compartment) return child;
      if (child.compartment === undefined) unused = child;
    }
    return unused;
  }

  /** Whether one more child may start; the child that idles longest gives way. All idle ones belong to others here. */
  #room(): boolean {
    if (this.#children.size < this.#options.maxChildren) return true;
    let oldest: SandboxChild | undefined;
    for (const child of this.#children) {
      if (child.state === 'idle' && (oldest === undefined || child.idleSince < oldest.idleSince)) oldest = child;
    }
    if (oldest === undefined) return false;
    this.#drop(oldest);
    return true;
  }

  #start(): void {
    let child: SandboxChild;
    try {
      child = this.#host.start();
    } catch (cause) {
      this.#waiting.shift()?.reject(new UpstreamError('SANDBOX_UNAVAILABLE', 'sandbox: no child started', { cause }));
      return;
    }
    this.#children.add(child);
    child.ready.then(
      () => this.#dispatch(),
      (error) => {
        if (!this.#children.delete(child)) return;
        // One waiting job pays for one failed start, so a broken machine answers everybody instead of trying for ever.
        this.#waiting.shift()?.reject(error);
        if (this.#waiting.length > 0) this.#dispatch();
      },
    );
    child.gone.then(() => {
      if (this.#children.delete(child)) this.#dispatch();
    });
  }

  #give(child: SandboxChild, waiting: Waiting): void {
    if ((waiting.job.deadlineAt ?? Infinity) <= performance.now()) {
      const error = { code: 'TIMEOUT', message: 'time: used up while it waited for a free sandbox' } as const;
      waiting.resolve({ ok: false, error, durationMs: 0, memoryBytes: 0 });
      return;
    }
    child.compartment = waiting.job.compartment;
    let result: Promise<SandboxResult>;
    try {
      result = child.run(waiting.job);
    } catch (error) {
      waiting.reject(error);
      return;
    }
    this.#host.busy();
    waiting.resolve(result);
    result.then(() => {
      // Another job may have got the child between its result and this turn; then it goes after that one.
      if (child.state === 'dead' || (child.state === 'idle' && this.#usedUp(child))) this.#drop(child);
      this.#dispatch();
    });
  }

  #usedUp(child: SandboxChild): boolean {
    const runsMax = this.#trust === 'kernel' ? this.#options.maxRunsPerKernelChild : this.#options.maxRunsPerChild;
    return child.runs >= runsMax || child.busyMs >= CHILD_BUSY_MS_MAX || child.scripts >= COMPILED_MAX;
  }

  #drop(child: SandboxChild): void {
    this.#children.delete(child);
    child.kill();
  }
}
