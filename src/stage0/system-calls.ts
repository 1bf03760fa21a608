import { AccessError, InputError, KernelError } from '../errors.ts';
import type { SandboxJob, SandboxResult } from '../kernel/index.ts';
import {
  appendOnce,
  appendSpans,
  type Identity,
  latestVersionsStatement,
  type Row,
  type SpanDraft,
  type Statement,
  type TransactionQuery,
  toSpan,
} from '../ledger/index.ts';
import { blake3Hex, canonicalJson, checkProof, isUuid, RESERVED_FOR_KERNELS, type StoredSpan } from '../span/index.ts';
import { admit, type Kernel } from './admit.ts';
import type { Manifest } from './manifest.ts';
import { meter, refuseOverQuota, release, reserve } from './quota.ts';
import type { runKernel } from './run-kernel.ts';
import { type Announced, appendContext, type Shift, type Stage0 } from './stage0.ts';
import { decryptForTenant, encryptForTenant } from './tenant-crypto.ts';
import { WorkCalls } from './work-calls.ts';

/** A kernel may invoke a kernel, which may invoke another: three deep. */
const DEPTH_MAX = 3;
const SQL_ROWS_MAX = 1_000;
const FUNCTION_OUTPUT_BYTES = 256 * 1024;
/** A function ends this much before its kernel must (or a quarter of what is left), so that the kernel can record how. */
const RECORDING_MS = 2_000;

/** One run of a kernel: for whom, of what, within which boot. */
export interface KernelRun {
  identity: Identity;
  input: unknown;
  manifest: Manifest;
  kernel: Kernel;
  announced: Announced;
  /** A function starts to run (1), or did not after all (-1). */
  onFunctionRun: (change: 1 | -1) => void;
  /** The run that invoked this one. */
  outer?: SystemCalls;
  /** There when the kernel was booted to work. */
  shift?: Shift | undefined;
}

/** An open transaction that holds an advisory lock. What the kernel does meanwhile belongs to it, one call at a time. */
interface Held {
  key: string;
  query: TransactionQuery;
  turn: Promise<unknown>;
  release: (outcome: Outcome) => void;
  /** Let go of: its connection is another's now, or soon. */
  isReleased: boolean;
  ended: Promise<void>;
}

type Outcome = 'commit' | 'rollback';

/**
 * The host's side of `ctx`: what each system call does, under the caller's identity. `kernel/contract.ts` documents the
 * calls; the sandbox bounds their number and size and passes only names it knows.
 */
export class SystemCalls {
  readonly depth: number;
  readonly #stage0: Stage0;
  readonly #run: KernelRun;
  readonly #runNested: typeof runKernel;
  readonly #work: WorkCalls;
  #held: Held | undefined;
  #isOver = false;
  #isLocking = false;

  readonly #calls: Record<string, (args: unknown[]) => Promise<unknown>> = {
    fetchSpan: ([id]) => this.#fetchSpan(id),
    sql: ([statement]) => this.#sql(statement as { text: string; values: unknown[] }),
    append: ([spans, isSingle]) => this.#append(spans, isSingle === true),
    lock: ([key]) => this.#lock(String(key)),
    unlock: ([key, outcome]) => this.#unlock(String(key), outcome === 'commit' ? 'commit' : 'rollback'),
    invoke: ([kernelId, input]) => this.#invoke(kernelId, input ?? null),
    runSandboxed: ([run]) => this.#runSandboxed(run as Row),
    claim: ([kind, options]) => this.#work.claim(kind, options),
    run: ([ids]) => this.#work.run(ids),
    outcomes: ([waitMs]) => this.#work.outcomes(waitMs),
    complete: ([items]) => this.#work.complete(items),
    provider: async ([id, request]) => {
      const { callProviderRow } = await import('./provider-call.ts'); // most boots call none
      return callProviderRow(this.#stage0, this.#run.identity, id, request, this.#run.announced.deadline);
    },
    'crypto.blake3': async ([text]) => blake3Hex(requireText(text)),
    'crypto.hex': async ([text]) => Buffer.from(requireText(text)).toString('hex'),
    'crypto.canonicalize': async ([value]) => canonicalJson(value ?? null),
    'crypto.encrypt': async ([text]) =>
      encryptForTenant(this.#stage0.tenantMasterKey, this.#run.identity.tenantId, requireText(text)),
    'crypto.decrypt': async ([text]) =>
      decryptForTenant(this.#stage0.tenantMasterKey, this.#run.identity.tenantId, requireText(text)),
    log: async ([level, message, data]) => this.#log(level, message, data),
  };

  constructor(stage0: Stage0, run: KernelRun, runNested: typeof runKernel) {
    this.#stage0 = stage0;
    this.#run = run;
    this.#runNested = runNested;
    this.#work = new WorkCalls(stage0, run);
    this.depth = run.outer === undefined ? 0 : run.outer.depth + 1;
  }

  async call(name: string, args: unknown[]): Promise<unknown> {
    if (this.#isOver) throw new KernelError('RUN_OVER', 'the run that asks for this is over');
    const call = Object.hasOwn(this.#calls, name) ? this.#calls[name] : undefined;
    if (call === undefined) throw new KernelError('SYSTEM_CALL_UNKNOWN', `there is no system call ${name}`);
    return call(args);
  }

  /** The run is over: a lock it still holds, or waits for, goes, and with it whatever was not committed. */
  async end(): Promise<void> {
    this.#isOver = true;
    const held = this.#held;
    if (held !== undefined) held.isReleased = true;
    held?.release('rollback');
    await held?.ended.catch(() => {});
    await this.#work.end();
  }

  /** The lock this run works under: its own, or that of the run that invoked it. */
  get held(): Held | undefined {
    return this.#held ?? this.#run.outer?.held;
  }

  /** The newest visible version of a span, proved before it is handed over. */
  async #fetchSpan(id: unknown): Promise<StoredSpan | null> {
    if (!isUuid(id)) throw new InputError('TYPE_MISMATCH', 'fetchSpan: expected a UUID in lower case', { field: 'id' });
    const [row] = await this.#read(latestVersionsStatement(this.#run.identity, [id]));
    if (row === undefined) return null;
    const span = toSpan(row);
    const { scheme, verifier } = this.#stage0;
    const problem = checkProof(span, scheme) ?? verifier.checkSigner(span);
    if (problem !== null) throw new KernelError('SPAN_NOT_PROVED', `span ${id} version ${span.seq}: ${problem.detail}`);
    return span;
  }

  async #sql({ text, values }: { text: string; values: unknown[] }): Promise<Row[]> {
    refuseDangerousSql(text);
    // The extended protocol takes one statement only; with the simple one, `; commit; …` would follow.
    const rows = await this.#readAsKernel({ text, values, queryMode: 'extended' });
    if (rows.length > SQL_ROWS_MAX) {
      throw new InputError('TOO_MANY_ROWS', `ctx.sql: ${rows.length} rows, ${SQL_ROWS_MAX} are allowed; add a limit`);
    }
    return rows.map(toSpan) as Row[];
  }

  #readAsKernel(statement: Statement): Promise<Row[]> {
    const held = this.held;
    if (held === undefined) {
      const options = { readOnly: true, role: 'loglineos_kernel', timeoutMs: this.#remainingMs() } as const;
      return this.#stage0.database.transaction(this.#run.identity, (query) => query<Row>(statement), options);
    }
    return inTurn(held, async (query) => {
      await query({ text: 'set local role loglineos_kernel' });
      const rows = await query<Row>(statement);
      await query({ text: 'reset role' });
      return rows;
    });
  }

  #read(statement: Statement): Promise<Row[]> {
    const held = this.held;
    return held === undefined
      ? this.#stage0.database.query<Row>(statement)
      : inTurn(held, (query) => query<Row>(statement));
  }

  async #append(spans: unknown, isSingle: boolean): Promise<unknown> {
    if (!Array.isArray(spans)) throw new InputError('TYPE_MISMATCH', 'append: expected a span or a list of spans');
    const reserved = spans.find((span: SpanDraft | null) => RESERVED_FOR_KERNELS.has(String(span?.entity_type)));
    if (reserved !== undefined) {
      throw new AccessError('ENTITY_TYPE_RESERVED', `append: ${reserved.entity_type} is said by the host alone`, {
        field: 'entity_type',
      });
    }
    const { identity, announced } = this.#run;
    const drafts = spans.map((span: SpanDraft) => ({
      trace_id: announced.traceId,
      caused_by: announced.bootEventId,
      ...span,
    }));
    const context = appendContext(this.#stage0, identity);
    const held = this.held;
    const appended =
      held === undefined
        ? await appendSpans(this.#stage0.database, drafts, context)
        : await inTurn(held, (query) => appendOnce(query, drafts, context));
    return isSingle ? appended[0] : appended;
  }

  /**
   * A lock is a transaction that holds an advisory lock: what the kernel appends while holding it commits when it lets
   * go, and is gone if it fails or dies. Waiting ends with the kernel's deadline.
   */
  async #lock(key: string): Promise<void> {
    if (this.#isLocking || this.held !== undefined) {
      throw new KernelError('LOCK_HELD', 'a kernel holds one lock at a time');
    }
    this.#isLocking = true;
    try {
      await this.#acquire(key);
    } finally {
      this.#isLocking = false;
    }
  }

  async #acquire(key: string): Promise<void> {
    const acquired = Promise.withResolvers<TransactionQuery>();
    const released = Promise.withResolvers<Outcome>();
    const ended = this.#stage0.database.transaction(
      this.#run.identity,
      async (query) => {
        await query({
          text: 'select pg_advisory_xact_lock(hashtextextended($1, 0))',
          values: [canonicalJson([this.#run.identity.tenantId, key])],
        });
        if (this.#isOver) throw new RolledBack();
        acquired.resolve(query);
        if ((await released.promise) === 'rollback') throw new RolledBack();
      },
      { timeoutMs: this.#remainingMs() },
    );
    ended.catch(acquired.reject);
    const query = await acquired.promise;
    this.#held = { key, query, turn: Promise.resolve(), release: released.resolve, isReleased: false, ended };
    if (this.#isOver) await this.end();
  }

  async #unlock(key: string, outcome: Outcome): Promise<void> {
    const held = this.#held;
    if (held === undefined || held.key !== key) throw new KernelError('LOCK_NOT_HELD', `no lock ${key} is held`);
    this.#held = undefined;
    await held.turn;
    held.isReleased = true;
    held.release(outcome);
    await held.ended.catch((error) => {
      if (!(error instanceof RolledBack)) throw error;
    });
  }

  /** Another kernel, within this boot: the same checks, the same identity, no boot_event of its own. */
  async #invoke(kernelId: unknown, input: unknown): Promise<unknown> {
    if (!isUuid(kernelId))
      throw new InputError('TYPE_MISMATCH', 'invoke: expected the id of a kernel', { field: 'kernelId' });
    if (this.depth + 1 === DEPTH_MAX)
      throw new KernelError('INVOKE_TOO_DEEP', `kernels nest ${DEPTH_MAX} deep at most`);
    const { identity, announced } = this.#run;
    const { manifest, kernel } = await admit(this.#stage0, identity, kernelId);
    const request = { identity, boot_function_id: kernelId, input };
    const metered = await meter(this.#stage0, manifest, request);
    if (metered !== null && !(await reserve(this.#stage0, request, metered))) {
      return refuseOverQuota(this.#stage0, manifest, request, metered, announced.traceId);
    }
    let functionRuns = 0;
    const onFunctionRun = (change: 1 | -1) => {
      functionRuns += change;
      this.#run.onFunctionRun(change);
    };
    const run = { identity, input, manifest, kernel, announced, onFunctionRun, outer: this };
    const result = await this.#runNested(this.#stage0, run).finally(async () => {
      if (functionRuns === 0) await release(this.#stage0, request, metered);
    });
    if (!result.ok) throw new KernelError(result.error.thrownCode ?? result.error.code, result.error.message);
    return result.output;
  }

  /** Untrusted code, in the tenant's own compartment, within the manifest's limits and what is left of this run. */
  async #runSandboxed(run: Row): Promise<Row> {
    if (typeof run?.code !== 'string') throw new InputError('TYPE_MISMATCH', 'code: expected text', { field: 'code' });
    const { policy } = this.#run.manifest;
    const timeoutMs = positiveInteger(run.timeout_ms, 'timeout_ms', policy.timeout_ms);
    const memoryMb = positiveInteger(run.memory_mb, 'memory_mb', policy.memory_mb);
    const remainingMs = this.#remainingMs();
    const result = await this.#runFunction({
      trust: 'untrusted',
      compartment: `tenant:${this.#run.identity.tenantId}`,
      code: run.code,
      codeHash: blake3Hex(run.code),
      fileName: 'function.js',
      entry: 'function',
      input: run.input ?? null,
      limits: {
        timeoutMs,
        memoryMb,
        outputBytes: FUNCTION_OUTPUT_BYTES,
        calls: 0,
      },
      deadlineAt: performance.now() + remainingMs - Math.min(RECORDING_MS, remainingMs / 4),
    });
    const measured = { duration_ms: Math.round(result.durationMs), memory_bytes: result.memoryBytes };
    return result.ok
      ? { ok: true, result: result.output, error: null, ...measured }
      : { ok: false, result: null, error: publicError(result), ...measured };
  }

  /** It counts from its start on, whatever becomes of it; only a run that the sandbox had no room for does not. */
  async #runFunction(job: SandboxJob): Promise<SandboxResult> {
    this.#run.onFunctionRun(1);
    try {
      return await this.#stage0.sandbox.run(job);
    } catch (error) {
      this.#run.onFunctionRun(-1);
      throw error;
    }
  }

  async #log(level: unknown, message: unknown, data: unknown): Promise<void> {
    const { announced, kernel } = this.#run;
    this.#stage0.log({ level, message, data, kernel: kernel.name, trace_id: announced.traceId });
  }

  #remainingMs(): number {
    return Math.max(1, this.#run.announced.deadline.getTime() - this.#stage0.now().getTime());
  }
}

/** The kernel let go of its lock without committing. */
class RolledBack extends Error {}

/** Functions that change settings, run SQL that is made of text, or hold what outlives the transaction. */
const DANGEROUS_SQL = /set_config|query_to_xml|cursor_to_xml|ts_stat|ts_rewrite|dblink|pg_(?!trgm)\w*|\blo_\w+|u&["']/i;

/**
 * `ctx.sql` reads. The identity is a setting of its transaction, so nothing that could change a setting may pass. Row
 * level security and a role that can only read stand behind this; kernels are reviewed and signed before it.
 */
function refuseDangerousSql(text: string): void {
  if (!/^\s*(select|with|values|table)\b/i.test(text)) {
    throw new AccessError('SQL_REFUSED', 'ctx.sql: only select, with, values and table');
  }
  const found = DANGEROUS_SQL.exec(text)?.[0];
  if (found !== undefined) throw new AccessError('SQL_REFUSED', `ctx.sql: ${found} is refused`);
}

/**
 * Calls issued together would interleave on the lock's one connection. Once the lock is let go of, that connection is
 * another's: what still waits, or is between two of its statements, sends nothing more.
 */
function inTurn<T>(held: Held, call: (query: TransactionQuery) => Promise<T>): Promise<T> {
  const query: TransactionQuery = async (statement) => {
    if (held.isReleased) throw new KernelError('LOCK_NOT_HELD', 'the lock is gone, and what was done under it');
    return held.query(statement);
  };
  const result = held.turn.then(() => call(query));
  held.turn = result.catch(() => {});
  return result;
}

function publicError({ error }: SandboxResult & { ok: false }): Row {
  return { code: error.code, message: error.message, ...(error.line === undefined ? {} : { line: error.line }) };
}

/** A limit that a caller asks for: at most the manifest's. */
function positiveInteger(value: unknown, field: string, max: number): number {
  if (value === undefined || value === null) return max;
  if (!Number.isInteger(value) || (value as number) < 1) {
    throw new InputError('TYPE_MISMATCH', `${field}: expected a whole number above 0`, { field });
  }
  return Math.min(value as number, max);
}

function requireText(value: unknown): string {
  if (typeof value !== 'string') throw new InputError('TYPE_MISMATCH', 'expected text');
  return value;
}
