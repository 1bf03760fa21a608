// The module itself is fetched by name where a child is started: importing it would cost every cold start 8 ms.
import type { ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { closeSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs';
import type { Socket } from 'node:net';
import { setPriority } from 'node:os';
import { fileURLToPath } from 'node:url';
import { InputError, LogLineError, UpstreamError } from '../../errors.ts';
import { SYSTEM_CALLS } from '../contract.ts';
import { type LimitCode, NotAlone, type SandboxError, type SandboxJob, type SandboxResult } from './job.ts';
import { answersEach, isNestedAtMost, itemsOf, jsonBytes, parsedFrame } from './json.ts';
import {
  ANSWER_CHARS_MAX,
  CALLS_FRAME_BYTES_MAX,
  CHILD_BASE_MB,
  CHILD_CPU_SECONDS_MAX,
  CHILD_DESCRIPTORS_MAX,
  ERROR_FRAME_BYTES_MAX,
  MEMORY_MB_MIN,
  QUICK_MS,
  RESULT_DEPTH_MAX,
  RUN_FRAME_BYTES_MAX,
  SILENT_LOOKS_MAX,
  START_MS_MAX,
  TOGETHER_BYTES_MAX,
  TOGETHER_MAX,
  UUIDS_AT_START,
  UUIDS_PER_ANSWER,
} from './limits.ts';
import type { PoolChild } from './pool.ts';
import { readings } from './source.ts';

// In a bundle the same file stands beside the bundle, so this expression must stay as it is.
const BOOTSTRAP = fileURLToPath(new URL('./child.cjs', import.meta.url));
const PAGE_BYTES = 4096;
/** Of untrusted code: below the host's, which would otherwise wait for a child whenever it gives it a run. */
const NICENESS = 10;
const O_CLOEXEC = 0o2000000;
const MB = 1024 * 1024;
/** Of a frame from the child: its length, and for how many microseconds the run has gone on. */
const HEAD_BYTES = 8;

/** Fails closed: a limit that cannot be set ends the shell before Node starts. */
const LAUNCH =
  'ulimit -c 0 && ulimit -f 0 && ulimit -t "$1" && ulimit -d "$2" && ulimit -n "$3" && shift 3 && exec "$@"';

/** A piece of code that the child has compiled. */
interface Script {
  id: number;
  /** How long its last run took, in ms. */
  lastMs: number;
}

interface Run {
  job: SandboxJob;
  script: Script;
  resolve: (result: SandboxResult) => void;
  reject: (error: NotAlone) => void;
  sentAt: number;
  memoryBytesMax: number;
  frameBytesMax: number;
  /** With `each`: how many answers are due. */
  items: number | undefined;
  calls: number;
  pending: number;
  answers: string[];
  abort: AbortController | undefined;
}

/**
 * One sandbox process and the conversation with it.
 *
 * starting → idle ⇄ running → dead. For every frame of the parent (a run, or answers to calls) the child owes exactly
 * one, in their order; anything else it sends is an oddity that ends it. A child that is idle may get several quick runs
 * at once: it is woken once for all of them, and so is the parent. What becomes of one that is alone is known to the
 * parent by its own clock and its own look at the memory. Of several it takes only answers: when time, memory or the
 * child itself ends, nobody can say which one it was, and all that have no answer are given back, to run alone.
 */
export class SandboxChild implements PoolChild {
  readonly trust: SandboxJob['trust'];
  /** Set by the first job; before that the child has seen no foreign code and may serve any compartment. */
  compartment: string | undefined;
  state: 'starting' | 'idle' | 'running' | 'dead' = 'starting';
  runs = 0;
  busyMs = 0;
  idleSince = 0;
  /** Settles when the child has hardened itself; rejects with SANDBOX_UNAVAILABLE. */
  readonly ready: Promise<void>;
  /** Resolves when the process is gone. */
  readonly gone: Promise<void>;
  readonly pid: number | undefined;

  readonly #process: ChildProcess;
  readonly #startBefore = performance.now() + START_MS_MAX;
  #statm = -1;
  readonly #statmBuffer = Buffer.alloc(128);
  readonly #scripts = new Map<string, Script>();
  #started: { resolve: () => void; reject: (error: Error) => void };
  /** In their order: the first is under way, or its answer waits to travel with the next ones. */
  readonly #runs: Run[] = [];
  /** Since when the first of them is the first, and how often it was looked at since then. */
  #headSince = 0;
  #silentLooks = 0;
  /** No other run was given with the one that is under way: what becomes of the child is its doing. */
  #wasAlone = true;
  #memory = 0;
  #memoryAtStart = 0;
  #memoryPeak = 0;
  /** Frames that go out at the end of this turn. */
  #unsent: Buffer[] = [];
  #unsentBytes = 0;
  /** Answers that are due. */
  #owed = 1;
  #chunks: Buffer[] = [];
  #chunksBytes = 0;

  constructor(trust: SandboxJob['trust'], memoryMbMax: number) {
    this.trust = trust;
    const ready = Promise.withResolvers<void>();
    this.ready = ready.promise;
    this.#started = ready;
    const gone = Promise.withResolvers<void>();
    this.gone = gone.promise;
    this.#process = launch(trust, memoryMbMax);
    this.pid = this.#process.pid;
    // Whoever wakes it goes on: it is the host that has work for the other children.
    if (trust === 'untrusted' && this.pid !== undefined) setPriority(this.pid, NICENESS);
    const { stdin, stdout } = this.#process as unknown as { stdin: Socket; stdout: Socket };
    this.#process.once('error', (error) => {
      this.#ended(error.message);
      gone.resolve();
    });
    this.#process.once('exit', (code, signal) => {
      this.#ended(signal ?? `exit ${code}`);
      gone.resolve();
    });
    stdin.on('error', () => this.kill());
    stdout.on('error', () => this.kill());
    stdout.on('data', (chunk: Buffer) => this.#receive(chunk));
    // A waiting child must not keep the process alive; a running one is watched by the sandbox's poll, which does.
    this.#process.unref();
    stdin.unref();
    stdout.unref();
    if (this.pid !== undefined) this.#statm = openStatm(this.pid);
  }

  /** Different pieces of code compiled in this child. */
  get scripts(): number {
    return this.#scripts.size;
  }

  /**
   * Whether it can have this job now: it is idle, or it got others in this same turn, and all of them are of code that
   * was quick here the last time. Those travel together, and so do their answers.
   */
  takes(job: SandboxJob): boolean {
    if (this.state === 'idle') return true;
    const [first] = this.#runs;
    return (
      this.trust === 'untrusted' && // a kernel's calls want answers before the next run
      this.#unsentBytes > 0 &&
      this.#unsentBytes < TOGETHER_BYTES_MAX &&
      this.#runs.length < TOGETHER_MAX &&
      isQuick(first?.script) &&
      isQuick(this.#scripts.get(scriptKey(job)))
    );
  }

  /**
   * Runs one job that the child takes. Resolves for everything the code does.
   *
   * @throws {InputError} `INPUT_INVALID` when the input is no JSON or too large (thrown at once)
   * @throws {NotAlone} (rejects) other runs were with it and it has no result; its code may have begun
   */
  run(job: SandboxJob): Promise<SandboxResult> {
    const { frame, script } = this.#runFrame(job);
    const { promise, resolve, reject } = Promise.withResolvers<SandboxResult>();
    const now = performance.now();
    if (this.#runs.length === 0) {
      this.state = 'running';
      this.#wasAlone = true;
      this.#headSince = now;
      this.#silentLooks = 0;
      this.#memory = this.#residentBytes();
      this.#memoryAtStart = this.#memory;
      this.#memoryPeak = this.#memory;
    } else {
      this.#wasAlone = false;
    }
    this.runs += 1;
    this.#runs.push({
      job,
      script,
      resolve,
      reject,
      sentAt: now,
      memoryBytesMax: Math.max(job.limits.memoryMb, MEMORY_MB_MIN) * MB,
      frameBytesMax: Math.max(
        job.limits.outputBytes + 1,
        job.trust === 'kernel' ? CALLS_FRAME_BYTES_MAX + 1 : 0,
        ERROR_FRAME_BYTES_MAX + 1,
      ),
      items: job.each && itemsOf(job.input).length,
      calls: 0,
      pending: 0,
      answers: [],
      abort: undefined,
    });
    this.#send(frame);
    return promise;
  }

  /** Looks at the clock and the memory; called by the sandbox's poll while the child starts or runs. */
  check(now: number): void {
    const [run] = this.#runs;
    if (this.state === 'starting') {
      if (now > this.#startBefore) this.kill();
    } else if (run !== undefined) {
      this.#lookAtMemory();
      const deadlineAt = Math.min(this.#headSince + run.job.limits.timeoutMs, run.job.deadlineAt ?? Infinity);
      if (this.#exceedsMemory(run)) {
        this.#failForMemory(run);
      } else if (now >= deadlineAt) {
        this.#failForTime(deadlineAt - this.#headSince);
      } else if (!this.#wasAlone && ++this.#silentLooks > SILENT_LOOKS_MAX) {
        this.kill(); // one of them is not quick after all, and the others would wait for it
      }
    }
  }

  /** Ends the process at once. A run that is still open ends for this reason, or as {@link NotAlone}. */
  kill(reason = deathReason('killed')): void {
    if (this.state !== 'dead') this.#process.kill('SIGKILL');
    // Whoever waits for `gone` waits with a living event loop.
    this.#process.ref();
    this.#ended('killed', reason);
  }

  #runFrame(job: SandboxJob): { frame: Buffer; script: Script } {
    const key = scriptKey(job);
    const known = this.#scripts.get(key);
    const script = known ?? { id: this.#scripts.size, lastMs: Infinity };
    const header = {
      script: script.id,
      fileName: job.fileName,
      outputBytes: job.limits.outputBytes,
      callsBytes: CALLS_FRAME_BYTES_MAX,
      errorBytes: ERROR_FRAME_BYTES_MAX,
      each: job.each,
      ...(known === undefined ? newCode(job) : undefined),
    };
    const frame = frameOf(`${JSON.stringify(header)}\n${argumentOf(job)}`);
    if (frame.length > RUN_FRAME_BYTES_MAX) {
      throw new InputError('INPUT_INVALID', `input: at most ${RUN_FRAME_BYTES_MAX} bytes with the code`, {
        field: 'input',
      });
    }
    this.#scripts.set(key, script);
    return { frame, script };
  }

  /** What is sent in one turn goes out in one piece. */
  #send(frame: Buffer): void {
    this.#owed += 1;
    this.#unsentBytes += frame.length;
    this.#unsent.push(frame);
    if (this.#unsent.length > 1) return;
    queueMicrotask(() => {
      const { stdin } = this.#process;
      stdin?.write(this.#unsent.length === 1 ? this.#unsent[0] : Buffer.concat(this.#unsent));
      this.#unsent = [];
      this.#unsentBytes = 0;
    });
  }

  #receive(chunk: Buffer) {
    if (this.state === 'dead') return;
    this.#chunks.push(chunk);
    this.#chunksBytes += chunk.length;
    this.#lookAtMemory(); // a run may end between two looks of the poll
    while (this.#chunksBytes > 0) {
      const [first] = this.#chunks;
      if (this.#owed === 0 || first === undefined) return this.#oddity('a frame out of turn');
      if (this.#chunksBytes < HEAD_BYTES) return;
      const head = first.length >= HEAD_BYTES ? first : this.#joined();
      const length = head.readUInt32LE(0);
      if (length === 0 || length > (this.#runs[0]?.frameBytesMax ?? 1)) {
        return this.#oddity(`a frame of ${length} bytes`);
      }
      const size = HEAD_BYTES + length;
      if (this.#chunksBytes < size) return;
      if (this.#chunksBytes > size && this.#owed === 1) return this.#oddity('more than it owes');
      const whole = this.#joined();
      this.#chunks = whole.length > size ? [whole.subarray(size)] : [];
      this.#chunksBytes -= size;
      this.#owed -= 1;
      this.#understand(whole.subarray(0, size));
    }
  }

  #joined(): Buffer {
    if (this.#chunks.length > 1) this.#chunks = [Buffer.concat(this.#chunks)];
    return this.#chunks[0] ?? Buffer.alloc(0);
  }

  #understand(frame: Buffer) {
    const ranMs = frame.readUInt32LE(4) / 1000;
    const kind = String.fromCharCode(frame[HEAD_BYTES] ?? 0);
    const bodyBytes = frame.length - HEAD_BYTES - 1;
    const [run] = this.#runs;
    if (run === undefined) {
      if (kind !== 'H' || this.state !== 'starting') return this.#oddity(`frame ${kind} without a run`);
      this.state = 'idle';
      this.idleSince = performance.now();
      return this.#started.resolve();
    }
    // Between two looks of the poll, or because its answer waited for others in the child.
    if (ranMs > run.job.limits.timeoutMs) return this.#failForTime(run.job.limits.timeoutMs);
    let body: unknown;
    try {
      body = bodyBytes > 0 ? parsedFrame(frame.toString('utf8', HEAD_BYTES + 1)) : undefined;
    } catch {
      return this.#oddity('a frame that is not JSON');
    }
    switch (kind) {
      case 'O':
        if (bodyBytes > run.job.limits.outputBytes) return this.#oddity('a result above its limit');
        if (run.items !== undefined && !answersEach(body, run.items)) return this.#oddity('no answer for each item');
        return this.#result(run, body ?? null, ranMs);
      case 'C':
        return this.#calls(run, body);
      case 'E':
        return this.#finish({ ok: false, error: thrownError(body, run.job) }, ranMs);
      case 'S':
        return this.#finish({ ok: false, error: syntaxError(body, run.job) }, ranMs);
      case 'F':
        return this.#fail('CODE_INVALID', `code: ${expectedForm(run.job)}`);
      case 'N':
        return this.#limit('TIMEOUT', 'time: waits for a promise that never settles');
      case 'B':
        return this.#failForOutput(run);
      default:
        return this.#oddity(`unknown frame ${JSON.stringify(kind)}`);
    }
  }

  #result(run: Run, output: unknown, ranMs: number) {
    const { trust, limits } = run.job;
    if (this.#exceedsMemory(run)) return this.#failForMemory(run);
    if (trust === 'untrusted') {
      if (!isNestedAtMost(RESULT_DEPTH_MAX, output)) {
        return this.#fail('THREW', `the result is nested deeper than ${RESULT_DEPTH_MAX} levels`);
      }
      // Whoever passes it on writes it again.
      if (jsonBytes(output) > limits.outputBytes) return this.#failForOutput(run);
    }
    this.#finish({ ok: true, output }, ranMs);
  }

  #calls(run: Run, body: unknown) {
    const { job } = run;
    const host = job.systemCall;
    if (job.trust !== 'kernel' || host === undefined) return this.#oddity('a system call without a bridge');
    if (!Array.isArray(body)) return this.#oddity('calls that are no list');
    // With an answer at hand that came while the child spoke, it waits for that.
    if (body.length === 0 && run.pending === 0 && run.answers.length === 0) return this.#oddity('nothing to wait for');
    run.calls += body.length;
    if (run.calls > job.limits.calls) {
      return this.kill({ code: 'TOO_MANY_CALLS', message: `calls: at most ${job.limits.calls} in one run` });
    }
    for (const call of body) {
      if (!Array.isArray(call) || !Number.isSafeInteger(call[0]) || !Array.isArray(call[2])) {
        return this.#oddity('a malformed call');
      }
      if (!SYSTEM_CALLS.has(call[1])) return this.#oddity('a call that does not exist');
    }
    run.abort ??= new AbortController();
    const { signal } = run.abort;
    for (const [id, name, args] of body as [number, string, unknown[]][]) {
      run.pending += 1;
      let answer: Promise<unknown>;
      try {
        answer = Promise.resolve(host(name, args, signal));
      } catch (error) {
        answer = Promise.reject(error);
      }
      answer.then(
        (value) => this.#answer(run, accepted(id, value)),
        (error) => this.#answer(run, rejected(id, error)),
      );
    }
    this.#deliver(run);
  }

  #answer(run: Run, answer: string): void {
    if (this.#runs[0] !== run) return;
    run.pending -= 1;
    run.answers.push(answer);
    // What settles in the same turn travels together.
    if (run.answers.length === 1) queueMicrotask(() => this.#deliver(run));
  }

  /** Sends what has settled, never waiting for the rest: a kernel inside a lock may need one answer to get the next. */
  #deliver(run: Run): void {
    if (this.#runs[0] !== run || this.#owed > 0 || run.answers.length === 0) return;
    this.#send(frameOf(`{"uuids":"${uuidStock(UUIDS_PER_ANSWER)}","answers":[${run.answers.join(',')}]}`));
    run.answers = [];
  }

  #fail(code: LimitCode, message: string): void {
    this.#finish({ ok: false, error: { code, message } });
  }

  /** A limit met by a child that still answers: a kernel's child goes on, one with untrusted code is thrown away. */
  #limit(code: LimitCode, message: string): void {
    if (this.trust === 'kernel') this.#fail(code, message);
    else this.kill({ code, message });
  }

  #lookAtMemory(): void {
    this.#memory = this.#residentBytes();
    this.#memoryPeak = Math.max(this.#memoryPeak, this.#memory);
  }

  #exceedsMemory(run: Run): boolean {
    return this.#memory - this.#memoryAtStart > run.memoryBytesMax;
  }

  #failForTime(ms: number): void {
    this.kill({ code: 'TIMEOUT', message: `time: at most ${Math.round(ms)} ms` });
  }

  #failForMemory(run: Run): void {
    this.kill({ code: 'MEMORY', message: `memory: at most ${run.memoryBytesMax / MB} MB more than at the start` });
  }

  #failForOutput(run: Run): void {
    this.#limit('OUTPUT_TOO_LARGE', `output: at most ${run.job.limits.outputBytes} bytes of JSON`);
  }

  #oddity(what: string): void {
    this.kill({ code: 'THREW', message: `protocol: the sandbox sent ${what}` });
  }

  /** @param ranMs how long it took, where the child says so: its answer may have waited for others. */
  #finish(outcome: { ok: true; output: unknown } | { ok: false; error: SandboxError }, ranMs = Infinity): void {
    const run = this.#runs.shift();
    if (run === undefined) return;
    const now = performance.now();
    const durationMs = Math.min(ranMs, now - (ranMs === Infinity ? this.#headSince : run.sentAt));
    run.script.lastMs = durationMs;
    this.busyMs += now - this.#headSince;
    this.#headSince = now;
    this.#silentLooks = 0;
    if (this.#runs.length === 0 && this.state === 'running') {
      this.state = 'idle';
      this.idleSince = now;
    }
    run.abort?.abort();
    run.resolve({ ...outcome, durationMs, memoryBytes: Math.max(0, this.#memoryPeak - this.#memoryAtStart) });
  }

  /** The process is dead or dying: settle what waits for it. Of several runs, nobody knows which one it was. */
  #ended(how: string, { code, message } = deathReason(how)): void {
    this.state = 'dead';
    this.#started.reject(new UpstreamError('SANDBOX_UNAVAILABLE', `sandbox: no hardened child (${how})`));
    this.ready.catch(() => {});
    if (this.#wasAlone) this.#fail(code, message);
    for (const run of this.#runs.splice(0)) run.reject(new NotAlone());
    this.#chunks = [];
    this.#chunksBytes = 0;
    if (this.#statm >= 0) closeSync(this.#statm);
    this.#statm = -1;
  }

  /** Through a descriptor kept open, so that it can never be another process with the same id. */
  #residentBytes(): number {
    if (this.#statm < 0) return 0;
    try {
      const length = readSync(this.#statm, this.#statmBuffer, 0, 128, 0);
      return Number(this.#statmBuffer.toString('latin1', 0, length).split(' ', 2)[1]) * PAGE_BYTES;
    } catch {
      return 0;
    }
  }
}

function launch(trust: SandboxJob['trust'], memoryMbMax: number): ChildProcess {
  // "ignore" leaves an inherited descriptor as it is, so each of those is covered by a real /dev/null.
  const covered = [2, ...inheritedDescriptors()];
  const nothing = openSync('/dev/null', 'r+');
  try {
    return process
      .getBuiltinModule('node:child_process')
      .spawn('/bin/sh', ['-c', LAUNCH, 'sh', ...launchArguments(trust, memoryMbMax)], {
        stdio: Array.from({ length: Math.max(...covered) + 1 }, (_, fd) =>
          fd < 2 ? 'pipe' : covered.includes(fd) ? nothing : 'ignore',
        ),
        env: {},
        cwd: '/',
        // A session of its own: the terminal's Ctrl-C reaches the parent, which ends its children in its own order.
        detached: true,
      });
  } finally {
    closeSync(nothing);
  }
}

/** Descriptors of this process that a child would get: Node closes its own in children, a runtime around it may not. */
function inheritedDescriptors(): number[] {
  return readdirSync('/proc/self/fd')
    .map(Number)
    .filter((fd) => {
      if (fd <= 2) return false;
      try {
        const flags = /^flags:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1] ?? '0';
        return (Number.parseInt(flags, 8) & O_CLOEXEC) === 0;
      } catch {
        return false;
      }
    });
}

function launchArguments(trust: SandboxJob['trust'], memoryMbMax: number): string[] {
  return [
    String(CHILD_CPU_SECONDS_MAX),
    String((memoryMbMax + CHILD_BASE_MB) * 1024),
    String(CHILD_DESCRIPTORS_MAX),
    process.execPath,
    '--permission',
    `--allow-fs-read=${BOOTSTRAP}`,
    '--allow-fs-read=/dev/null',
    '--jitless',
    '--disallow-code-generation-from-strings',
    '--no-experimental-sqlite',
    '--no-addons',
    '--disable-sigusr1',
    // For one thing only, see the top of the bootstrap; `require` itself is out of reach of foreign code.
    '--expose-internals',
    '--no-warnings',
    `--max-old-space-size=${memoryMbMax}`,
    // Small, so that garbage alone does not look like the memory of a run.
    '--max-semi-space-size=4',
    // A run's context is most of what a run costs: without these three it costs a quarter more. Full collections are for
    // what contexts leave, so they come half as often; the heap is small, and nobody waits while it is cleared; a seed of
    // its own for its hash tables would only guard a child against its own tenant.
    '--initial-old-space-size=32',
    '--no-incremental-marking',
    '--no-rehash-snapshot',
    // V8 adds these four to every context anew, a sixth of what a run costs. Imports are refused and Atomics is gone
    // anyway; code without effects has nothing to dispose of, and little use for numbers of 16 bits.
    '--no-js-source-phase-imports',
    '--no-js-atomics-pause',
    '--no-js-explicit-resource-management',
    '--no-js-float16array',
    // Its threads would only take turns with the processes that have work, and every one of them is memory.
    '--single-threaded',
    BOOTSTRAP,
    trust,
  ];
}

function scriptKey(job: SandboxJob): string {
  return `${job.entry}\n${job.fileName}\n${job.trust === 'kernel' ? job.codeHash : job.code}`;
}

function isQuick(script: Script | undefined): boolean {
  return script !== undefined && script.lastMs < QUICK_MS;
}

function openStatm(pid: number): number {
  try {
    return openSync(`/proc/${pid}/statm`, 'r');
  } catch {
    return -1;
  }
}

function newCode(job: SandboxJob): Record<string, unknown> {
  const { list, told } = readings(job);
  return { code: job.code, readings: list, told };
}

/** Lines of JSON, as the child expects them. */
function argumentOf(job: SandboxJob): string {
  try {
    if (job.trust === 'kernel') {
      const { input, env = {} } = job;
      return `{"input":${jsonOf(input)},"env":${JSON.stringify(env)},"uuids":"${uuidStock(UUIDS_AT_START)}"}`;
    }
    if (!job.each) return jsonOf(job.input);
    const { context } = job.input as { context?: unknown };
    return [context, ...itemsOf(job.input)].map(jsonOf).join('\n');
  } catch (cause) {
    const expected = job.each ? '{ items, context } of JSON values' : 'a JSON value';
    throw new InputError('INPUT_INVALID', `input: expected ${expected}`, { field: 'input', cause });
  }
}

function jsonOf(value: unknown): string {
  return JSON.stringify(value) ?? 'null';
}

function uuidStock(count: number): string {
  let stock = '';
  for (let n = 0; n < count; n += 1) stock += randomUUID();
  return stock;
}

function frameOf(text: string): Buffer {
  const bytes = Buffer.byteLength(text);
  const frame = Buffer.allocUnsafe(4 + bytes);
  frame.writeUInt32LE(bytes, 0);
  frame.write(text, 4, 'utf8');
  return frame;
}

function accepted(id: number, value: unknown): string {
  let json: string;
  try {
    json = JSON.stringify(value) ?? 'null';
  } catch (cause) {
    return rejected(id, cause);
  }
  if (json.length <= ANSWER_CHARS_MAX) return `[${id},true,${json}]`;
  return rejected(id, new InputError('ANSWER_TOO_LARGE', `answer: at most ${ANSWER_CHARS_MAX} characters of JSON`));
}

/** Only errors of the house speak inside a kernel; anything else may hold what a kernel must not see. */
function rejected(id: number, error: unknown): string {
  const { code, message } = error instanceof LogLineError ? error : { code: 'INTERNAL', message: 'system call failed' };
  return `[${id},false,${JSON.stringify({ code, message })}]`;
}

function thrownError(body: unknown, job: SandboxJob): SandboxError {
  const { message, stack, code } = (body ?? {}) as Record<string, unknown>;
  const error: SandboxError = { code: 'THREW', message: typeof message === 'string' ? message : 'threw' };
  if (job.trust !== 'kernel') return error;
  if (typeof code === 'string') error.thrownCode = code;
  if (typeof stack !== 'string') return error;
  const place = `${job.fileName}:`;
  const lines = stack.split('\n').filter((line) => line.startsWith('    at ') && line.includes(place));
  if (lines.length === 0) return error;
  error.stack = lines.map((line) => line.trim()).join('\n');
  const line = Number.parseInt(error.stack.slice(error.stack.indexOf(place) + place.length), 10);
  if (line > 0) error.line = line;
  return error;
}

function syntaxError(body: unknown, job: SandboxJob): SandboxError {
  const { message, line } = (body ?? {}) as Record<string, unknown>;
  const error: SandboxError = {
    code: 'CODE_INVALID',
    message: typeof message === 'string' ? message : 'it does not compile',
  };
  // What is missing at the end is missed behind all empty lines.
  const last = job.code.trimEnd().split('\n').length;
  if (typeof line === 'number' && line > 0) error.line = Math.min(line, last);
  return error;
}

function expectedForm(job: SandboxJob): string {
  if (job.trust === 'kernel') return 'expected `export default async function main(ctx)`';
  if (job.entry === 'on') return 'expected `export default function on(span)`';
  return 'expected the body of a function of `input`, or `export default function (input)`';
}

function deathReason(how: string): { code: LimitCode; message: string } {
  switch (how) {
    case 'SIGABRT':
    case 'SIGTRAP':
    case 'SIGILL':
    // Not ours, ours has settled the run: the kernel's own memory killer.
    case 'SIGKILL':
      return { code: 'MEMORY', message: `memory: the sandbox could not go on (${how})` };
    case 'SIGXCPU':
      return { code: 'TIMEOUT', message: `time: the sandbox used up its processor time` };
    default:
      return { code: 'THREW', message: `protocol: the sandbox ended (${how})` };
  }
}
