import { UpstreamError } from '../../errors.ts';
import { NotAlone, type SandboxJob, type SandboxResult } from './job.ts';
import { ALONE_MS, CHILD_BUSY_MS_MAX, COMPILED_MAX, TENURE_MS } from './limits.ts';
import type { SandboxOptions } from './sandbox.ts';

interface Waiting {
  job: SandboxJob;
  /** It has no result because it was with others. */
  isAlone?: true;
  resolve: (result: SandboxResult) => void;
  reject: (error: unknown) => void;
}

/** Where jobs run: a process, or an invocation of the function that stands in for one. */
export interface PoolChild {
  /** Set by the first job; before that it may serve any compartment. */
  compartment: string | undefined;
  readonly state: 'starting' | 'idle' | 'running' | 'dead';
  readonly runs: number;
  readonly busyMs: number;
  readonly idleSince: number;
  /** Different pieces of code it has compiled. */
  readonly scripts: number;
  /** Settles when it can take a job. */
  readonly ready: Promise<void>;
  /** Resolves when nothing of it is left. */
  readonly gone: Promise<void>;
  /** Whether it can have the job now: it is idle, or others that it got in this turn leave room. */
  takes(job: SandboxJob): boolean;
  /** @throws {NotAlone} (rejects) it was not alone, and has no result. */
  run(job: SandboxJob): Promise<SandboxResult>;
  /** Looks at the clock, while it starts or runs. */
  check(now: number): void;
  kill(): void;
}

interface PoolHost {
  start: () => PoolChild;
  /** Something runs now: the shared clock must tick. */
  busy: () => void;
}

/**
 * The children that share one bound, and the jobs that wait for them.
 *
 * Between compartments it is fair. One without a child comes before all that have one, and among those the one that
 * has had no turn for longest. It gets a child even from another that has work for it, once that one has had it for a
 * while. A compartment takes more children only as long as at least as many stay for others, so slow code of one never
 * holds more than half of them. Within a compartment it is first come, first served.
 */
export class Pool {
  readonly #trust: SandboxJob['trust'];
  readonly #options: SandboxOptions;
  readonly #host: PoolHost;
  readonly #children = new Set<PoolChild>();
  /** Waiting jobs by compartment, never an empty list; the compartment whose last run ended first comes first. */
  readonly #waiting = new Map<string, Waiting[]>();
  #waitingInAll = 0;
  /** Compartments whose runs go one by one for a while, by performance.now(): some of them were not as quick as before. */
  readonly #aloneUntil = new Map<string, number>();
  #keepOne = false;
  #closed = false;

  constructor(trust: SandboxJob['trust'], options: SandboxOptions, host: PoolHost) {
    this.#trust = trust;
    this.#options = options;
    this.#host = host;
  }

  run(job: SandboxJob): Promise<SandboxResult> {
    const { maxWaiting, maxWaitingInAll } = this.#options;
    const queue = this.#waiting.get(job.compartment) ?? [];
    if (queue.length >= maxWaiting || this.#waitingInAll >= maxWaitingInAll) {
      const most = queue.length >= maxWaiting ? `${maxWaiting} jobs of ${job.compartment}` : `${maxWaitingInAll} jobs`;
      throw new UpstreamError('SANDBOX_BUSY', `sandbox: at most ${most} may wait`);
    }
    const { promise, resolve, reject } = Promise.withResolvers<SandboxResult>();
    queue.push({ job, resolve, reject });
    this.#waiting.set(job.compartment, queue);
    this.#waitingInAll += 1;
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
    const now = performance.now();
    for (const [compartment, until] of this.#aloneUntil) if (until <= now) this.#aloneUntil.delete(compartment);
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
    while (this.#waiting.size > 0) this.#rejectFirst(closed());
  }

  /** Gives children to the compartments that wait, and starts or makes room for those that are still missing. */
  #dispatch(): void {
    if (this.#closed) return;
    const children = [...this.#children];
    const unowned = children.filter((child) => child.compartment === undefined);
    // One that is ready before one that still starts, and is only promised.
    unowned.sort((a, b) => Number(a.state === 'starting') - Number(b.state === 'starting'));
    const promised = new Map<string, number>();
    const provide = (compartment: string): boolean => {
      const child = unowned.shift() ?? this.#start();
      if (child === undefined) return false;
      if (child.state === 'idle') this.#serve(child, compartment);
      else promised.set(compartment, (promised.get(compartment) ?? 0) + 1);
      return true;
    };

    for (const compartment of this.#waiting.keys()) {
      if (!children.some((child) => child.compartment === compartment) && !provide(compartment)) break;
    }
    for (const child of children) {
      if (child.state === 'idle' && child.compartment !== undefined) this.#serve(child, child.compartment);
    }
    growth: for (const [compartment, queue] of this.#waiting) {
      while (queue.length > (promised.get(compartment) ?? 0) && this.#mayGrow(compartment, promised)) {
        if (!provide(compartment)) break growth;
      }
    }

    const hasSpare = [...this.#children].some((child) => this.#isSpare(child));
    if (this.#keepOne && !hasSpare && this.#children.size < this.#options.maxChildren) this.#start();
  }

  /** Whether at least as many children stay for others, in use by nobody, as the compartment has with one more. */
  #mayGrow(compartment: string, promised: ReadonlyMap<string, number>): boolean {
    if (this.#trust === 'kernel') return true;
    let own = 1 + (promised.get(compartment) ?? 0);
    let taken = 1;
    for (const count of promised.values()) taken += count;
    for (const child of this.#children) {
      if (child.state !== 'running') continue;
      taken += 1;
      if (child.compartment === compartment) own += 1;
    }
    return this.#options.maxChildren - taken >= own;
  }

  /** What `prewarm` keeps: any child of a kernel, but of untrusted code only one that belongs to nobody yet. */
  #isSpare(child: PoolChild): boolean {
    return this.#trust === 'kernel' || child.compartment === undefined;
  }

  /** Starts a child, for which another may have to give way: the one that idles longest of those that can be missed. */
  #start(): PoolChild | undefined {
    if (this.#children.size >= this.#options.maxChildren) {
      const idle = [...this.#children].filter((child) => child.state === 'idle' && this.#canBeMissed(child));
      const [oldest] = idle.sort((a, b) => a.idleSince - b.idleSince);
      if (oldest === undefined) return undefined;
      this.#drop(oldest);
    }
    let child: PoolChild;
    try {
      child = this.#host.start();
    } catch (cause) {
      queueMicrotask(() =>
        this.#notStarted(new UpstreamError('SANDBOX_UNAVAILABLE', 'sandbox: no child started', { cause })),
      );
      return undefined;
    }
    this.#children.add(child);
    child.ready.then(
      () => this.#dispatch(),
      (error) => {
        if (this.#children.delete(child)) this.#notStarted(error);
      },
    );
    child.gone.then(() => {
      if (this.#children.delete(child)) this.#dispatch();
    });
    return child;
  }

  /** One waiting job pays for one failed start, so a broken machine answers everybody instead of trying for ever. */
  #notStarted(error: unknown): void {
    this.#rejectFirst(error);
    if (this.#waiting.size > 0) this.#dispatch();
  }

  #canBeMissed({ compartment = '', busyMs }: PoolChild): boolean {
    return !this.#waiting.has(compartment) || busyMs >= TENURE_MS;
  }

  #first(compartment: string): Waiting | undefined {
    const queue = this.#waiting.get(compartment);
    const first = queue?.shift();
    if (first !== undefined) this.#waitingInAll -= 1;
    if (queue?.length === 0) this.#waiting.delete(compartment);
    return first;
  }

  #rejectFirst(error: unknown): void {
    const [compartment] = this.#waiting.keys();
    if (compartment !== undefined) this.#first(compartment)?.reject(error);
  }

  /** Gives a child the first job of the compartment that can still run, and those behind it that may go along. */
  #serve(child: PoolChild, compartment: string): void {
    const queue = this.#waiting.get(compartment) ?? [];
    let share = Math.ceil(queue.length / this.#options.maxChildren); // the other children get theirs
    let isAlone = (this.#aloneUntil.get(compartment) ?? 0) > performance.now();
    for (let next = queue[0]; next !== undefined; next = queue[0]) {
      isAlone ||= next.isAlone === true;
      if (child.state !== 'idle' && (isAlone || share <= 0 || this.#usedUp(child) || !child.takes(next.job))) return;
      this.#first(compartment);
      this.#give(child, next);
      share -= 1;
    }
  }

  /** Back before those that have not had their turn yet, with nobody beside it. */
  #again(waiting: Waiting): void {
    const { job, reject } = waiting;
    if (this.#closed) {
      reject(closed());
      return;
    }
    this.#aloneUntil.set(job.compartment, performance.now() + ALONE_MS);
    const queue = this.#waiting.get(job.compartment) ?? [];
    const before = queue.findIndex(({ isAlone }) => isAlone !== true);
    queue.splice(before < 0 ? queue.length : before, 0, { ...waiting, isAlone: true });
    this.#waiting.set(job.compartment, queue);
    this.#waitingInAll += 1;
  }

  #give(child: PoolChild, waiting: Waiting): void {
    const { job, resolve, reject } = waiting;
    if (job.mayBegin?.() === false) {
      reject(new UpstreamError('SANDBOX_BUSY', 'sandbox: it waited for a child until it was too late to begin'));
      return;
    }
    if ((job.deadlineAt ?? Infinity) <= performance.now()) {
      const error = { code: 'TIMEOUT', message: 'time: used up while it waited for a free sandbox' } as const;
      resolve({ ok: false, error, durationMs: 0, memoryBytes: 0 });
      return;
    }
    child.compartment = job.compartment;
    let result: Promise<SandboxResult>;
    try {
      result = child.run(job);
    } catch (error) {
      reject(error);
      return;
    }
    this.#host.busy();
    result.then(resolve, (error) => (error instanceof NotAlone ? this.#again(waiting) : reject(error)));
    const ended = () => {
      const queue = this.#waiting.get(job.compartment);
      if (queue !== undefined) {
        this.#waiting.delete(job.compartment);
        this.#waiting.set(job.compartment, queue);
      }
      // Another job may have got the child between its result and this turn; then it goes after that one.
      if (child.state === 'dead' || (child.state === 'idle' && this.#usedUp(child))) this.#drop(child);
      this.#dispatch();
    };
    result.then(ended, ended);
  }

  #usedUp(child: PoolChild): boolean {
    const runsMax = this.#trust === 'kernel' ? this.#options.maxRunsPerKernelChild : this.#options.maxRunsPerChild;
    return child.runs >= runsMax || child.busyMs >= CHILD_BUSY_MS_MAX || child.scripts >= COMPILED_MAX;
  }

  #drop(child: PoolChild): void {
    this.#children.delete(child);
    child.kill();
  }
}

function closed(): UpstreamError {
  return new UpstreamError('SANDBOX_UNAVAILABLE', 'sandbox: closed');
}
