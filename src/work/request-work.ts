import { randomUUID } from 'node:crypto';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { InputError, KernelError, LogLineError, UpstreamError } from '../errors.ts';
import { Fields } from '../fields.ts';
import type { SandboxJob, SandboxResult } from '../kernel/index.ts';
import {
  type ClaimedRequest,
  claimRequests,
  closeRequests,
  extendLeases,
  type Identity,
  type RequestClaim,
  readLatestVersions,
  releaseRequests,
  type SpanDraft,
  sealDraft,
} from '../ledger/index.ts';
import {
  checkHash,
  checkProof,
  checkSignature,
  isSignedBy,
  type Json,
  type Problem,
  type StoredSpan,
} from '../span/index.ts';
import { FinishedList } from './finished-list.ts';
import type { ExecutionStatus } from './metrics.ts';
import { byOwner, contextOf, mayPass, ownerOf, type Tick, type Work } from './tick.ts';

/** Requests that one claim takes. */
const CLAIM_MAX = 500;
/** Bytes of requests and their functions that are open at once, and one claim and one fetch more. */
const OPEN_BYTES_MAX = 24 * 1024 * 1024;
/** Functions that are fetched at once: each may be as large as a span can be. */
const FETCH_MAX = 8;
/** Requests whose hashes and signatures are made in one go. */
const SLICE = 8;
const LEASE_MS = { default: 15_000, min: 1_000, max: 300_000 };
const OUTPUT_BYTES_MAX = 256 * 1024;
/** A function ends this much before the boot must, so that its result can be recorded. */
const RECORDING_MS = 3_000;
const CLOSE_ATTEMPTS_MAX = 4;
const CLOSE_RETRY_MS = 200;
/** The most that an integer column holds. */
const INTEGER_MAX = 0x7fffffff;

/** A claimed request, from its claim until it is closed. */
interface Open {
  claim: ClaimedRequest;
  identity: Identity;
  /** The function to run, and why not if it may not. */
  fn: StoredSpan | null;
  refusal: { code: string; message: string } | null;
  startedAt: Date | null;
  execution: Execution | null;
}

/** The execution that a run left, to be appended when the request is closed. */
interface Execution {
  draft: SpanDraft;
  /** The signed row as JSON. */
  row: string;
}

/** What a kernel says of a request that is to be closed. */
interface Closing {
  requestId: string;
  status: 'complete' | 'error' | 'dead' | 'released';
  error: Json;
  retryAt: string | null;
  isViolation: boolean;
}

/** A claim and how it ends. By its own claim: the same request may be claimed anew while it is closed. */
interface Ending {
  open: Open;
  closing: Closing;
}

/**
 * Requests behind `ctx.claim('requests')`: leased from the queue, run as their owner, closed with an execution and a new
 * version in one statement that holds only while the lease's fence does.
 *
 * The kernel decides (how many, what is retried and when, what is given up); here is how. While a claim is open a
 * heartbeat keeps it. A worker that dies stops beating, and the claim goes to another with a newer fence; what the first
 * one says later is refused as a whole.
 */
export class RequestWork implements Work {
  readonly #tick: Tick;
  readonly #open = new Map<string, Open>();
  readonly #finished: FinishedList;
  readonly #proved = new Set<string>();
  /** How many bytes each function has that is fetched. */
  readonly #functionBytes = new WeakMap<StoredSpan, number>();
  #heartbeat: NodeJS.Timeout | undefined;
  #leaseMs = LEASE_MS.default;
  #isEnded = false;

  constructor(tick: Tick) {
    this.#tick = tick;
    this.#finished = new FinishedList(tick);
  }

  async claim(options: Record<string, unknown>) {
    const fields = new Fields(options, 'claim');
    const limit = Math.min(fields.wholeNumber('limit', 1), CLAIM_MAX);
    const reserve = fields.has('reserve') ? fields.wholeNumber('reserve', 0) : 0;
    const leaseMs = fields.has('lease_ms') ? fields.wholeNumber('lease_ms', LEASE_MS.min) : LEASE_MS.default;
    fields.end();
    this.#leaseMs = Math.min(leaseMs, LEASE_MS.max);

    if (this.#openBytes() >= OPEN_BYTES_MAX) return { work: [] };

    const { database, limits } = this.#tick;
    const now = this.#tick.now();
    const claims = await claimRequests(database, { now, limit, reserve, leaseMs: this.#leaseMs, limits });
    const opens = claims.map(opened);
    if (this.#isEnded) {
      await this.#release(opens);
      return { work: [] };
    }
    for (const open of opens) this.#open.set(open.claim.request.id, open);
    this.#beat();
    const fetched = await this.#fetchFunctions(opens);
    await inSlices(fetched, (open) => {
      open.refusal = this.#refusalOf(open);
    });
    return { work: fetched.map(described) };
  }

  start(ids: string[]): void {
    for (const id of ids) {
      const open = this.#open.get(id);
      if (open === undefined || open.fn === null || open.refusal !== null || open.startedAt !== null) continue;
      open.startedAt = this.#tick.now();
      this.#finished.begin();
      void this.#run(open, open.fn).then((outcome) => this.#finished.add({ open, outcome }));
    }
  }

  async outcomes(waitMs: number): Promise<object[]> {
    const finished = (await this.#finished.take(waitMs)) as { open: Open; outcome: object }[];
    // A lease may have run out, and we ourselves have claimed it anew: then this outcome is that of a claim that is lost.
    return finished.filter(({ open }) => this.#open.get(open.claim.request.id) === open).map(({ outcome }) => outcome);
  }

  async complete(items: Record<string, unknown>[]) {
    const endings = items.map(readClosing).flatMap((closing): Ending[] => {
      const open = this.#open.get(closing.requestId);
      return open === undefined ? [] : [{ open, closing }];
    });
    for (const { open, closing } of endings) {
      if (closing.status === 'complete' && open.execution === null) {
        throw new KernelError('NOT_RUN', `request ${closing.requestId} did not run`);
      }
    }
    await this.#release(endings.filter(({ closing }) => closing.status === 'released').map(({ open }) => open));

    const closed = endings.filter(({ closing }) => closing.status !== 'released');
    const rows = new Map<Ending, string[]>();
    await inSlices(closed, (ending) => rows.set(ending, this.#rowsOf(ending)));
    const owners = byOwner(closed, ({ open }) => open.identity);
    const lost = (await Promise.all(owners.map(({ identity, items }) => this.#close(identity, items, rows)))).flat();
    for (const { open, closing } of endings) {
      if (this.#open.get(closing.requestId) === open) this.#open.delete(closing.requestId);
      this.#tick.counters.closed(lost.includes(closing.requestId) ? 'lost' : closing.status);
    }
    return { done: endings.length - lost.length, lost };
  }

  async end(): Promise<void> {
    this.#isEnded = true;
    clearInterval(this.#heartbeat);
    await this.#release([...this.#open.values()]);
  }

  /**
   * Each owner's functions, as that owner may see them: the newest version of each, fetched once a claim.
   *
   * @returns those that may stay. When as many bytes are open as may be, the others go back.
   */
  async #fetchFunctions(opens: Open[]): Promise<Open[]> {
    const sharing = [...Map.groupBy(opens, functionOf).values()];
    for (let i = 0; i < sharing.length; i += FETCH_MAX) {
      if (i > 0 && this.#openBytes() >= OPEN_BYTES_MAX) {
        const others = sharing.slice(i).flat();
        for (const { claim } of others) this.#open.delete(claim.request.id);
        await this.#release(others);
        return sharing.slice(0, i).flat();
      }
      await Promise.all(
        byOwner(sharing.slice(i, i + FETCH_MAX).flat(), ({ identity }) => identity).map(async ({ identity, items }) => {
          const ids = new Set(items.map(({ claim }) => claim.request.parent_id as string));
          const functions = await readLatestVersions(this.#tick.database, identity, [...ids]);
          for (const fn of functions.values()) this.#functionBytes.set(fn, JSON.stringify(fn).length);
          for (const open of items) open.fn = functions.get(open.claim.request.parent_id as string) ?? null;
        }),
      );
    }
    return opens;
  }

  #openBytes(): number {
    let bytes = 0;
    const functions = new Set<StoredSpan>();
    for (const { claim, fn } of this.#open.values()) {
      bytes += claim.bytes;
      if (fn !== null) functions.add(fn);
    }
    for (const fn of functions) bytes += this.#functionBytes.get(fn) ?? 0;
    return bytes;
  }

  /** Why a claimed request may not run; null when it may. Request and function must prove themselves. */
  #refusalOf({ claim, fn, identity }: Open): { code: string; message: string } | null {
    const { request, isGranted, quota } = claim;
    const unproved = this.#checkRequest(request) ?? (fn === null ? null : this.#checkFunction(fn));
    if (unproved !== null) return { code: 'SPAN_NOT_PROVED', message: unproved };
    const functionId = request.parent_id;
    if (fn === null) return { code: 'FUNCTION_NOT_FOUND', message: `no span ${functionId} is visible to the owner` };
    if (fn.entity_type !== 'function' || typeof fn.code !== 'string') {
      return { code: 'NOT_A_FUNCTION', message: `span ${functionId} is a ${fn.entity_type}, not a function with code` };
    }
    if (fn.is_deleted === true || fn.status === 'retired') {
      return { code: 'FUNCTION_RETIRED', message: `function ${functionId} is no longer in use` };
    }
    const { force } = (request.metadata ?? {}) as { force?: { signature?: unknown } | null };
    if (force !== undefined) {
      if (this.#tick.isOverridden(fn, force?.signature)) return null;
      const message = 'metadata.force.signature is not the override key’s signature over this function’s hash';
      return { code: 'OVERRIDE_INVALID', message };
    }
    if (isGranted) return null;
    return {
      code: 'QUOTA_EXCEEDED',
      message: `tenant ${identity.tenantId} has used its ${quota.limit} function executions of the day (UTC)`,
    };
  }

  #checkRequest(request: StoredSpan): string | null {
    const { scheme, signer, checkSigner } = this.#tick;
    const problem =
      checkHash(request) ??
      (isSignedBy(request, signer) ? null : (checkSignature(request, scheme) ?? checkSigner(request)));
    return problemOf(problem);
  }

  /** The hash is computed for every claim, the signature checked once for each hash. */
  #checkFunction(fn: StoredSpan): string | null {
    const proof = `${fn.curr_hash}${fn.signature}`;
    const problem = this.#proved.has(proof) ? checkHash(fn) : checkProof(fn, this.#tick.scheme);
    if (problem === null) this.#proved.add(proof);
    return problemOf(problem ?? this.#tick.checkSigner(fn));
  }

  /** Run the function and hash its execution; whatever happens is an outcome. */
  async #run(open: Open, fn: StoredSpan): Promise<object> {
    const { request } = open.claim;
    const request_id = request.id;
    try {
      const result = await this.#tick.sandbox.run(this.#job(open, fn));
      open.execution = this.#execution(open, fn, result);
      const { status, error } = open.execution.draft;
      this.#tick.counters.executed(status as ExecutionStatus, result.durationMs);
      return { request_id, status, code: null, message: null, ...(error as object | null) };
    } catch (error) {
      const { code, message } = error instanceof LogLineError ? error : new UpstreamError('INTERNAL', String(error));
      open.startedAt = null;
      this.#tick.counters.executed('not_run', 0);
      return { request_id, status: 'not_run', code, message };
    }
  }

  #job({ claim, identity }: Open, fn: StoredSpan): SandboxJob {
    const { policy, deadline, now } = this.#tick;
    const asked = { ...(fn.metadata as object), ...(claim.request.metadata as object) } as Record<string, unknown>;
    const remainingMs = deadline.getTime() - now().getTime();
    return {
      trust: 'untrusted',
      compartment: `tenant:${identity.tenantId}`,
      code: fn.code as string,
      codeHash: fn.curr_hash,
      fileName: 'function.js',
      entry: 'function',
      input: claim.request.input ?? null,
      limits: {
        timeoutMs: atMost(asked.timeout_ms, policy.timeout_ms),
        memoryMb: atMost(asked.memory_mb, policy.memory_mb),
        outputBytes: OUTPUT_BYTES_MAX,
        calls: 0,
      },
      // Cut short by the end of the shift it would count as an attempt that took too long. Another shift takes it.
      mayBegin: () => !this.#tick.isOver(),
      deadlineAt: performance.now() + Math.max(1, remainingMs - RECORDING_MS),
    };
  }

  /** Signed now, while other functions run. */
  #execution(open: Open, fn: StoredSpan, result: SandboxResult): Execution {
    const context = contextOf(this.#tick, open.identity);
    const sealed = (draft: SpanDraft) => ({ draft, row: sealDraft(draft, context) });
    const draft = this.#executionDraft(open, fn, result);
    try {
      return sealed(draft);
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      const refused = { code: 'OUTPUT_NOT_STORABLE', message: `the result cannot be stored: ${error.message}` };
      const withoutOutput = { ...draft, status: 'error', output: null, error: refused };
      try {
        return sealed(withoutOutput);
      } catch (error) {
        if (!(error instanceof InputError)) throw error;
        // It ran all the same. The request has the input, which all but fills a span.
        const message = `result and input cannot be stored (${error.code})`;
        return sealed({ ...withoutOutput, input: null, error: { ...refused, message } });
      }
    }
  }

  #executionDraft({ claim, startedAt }: Open, fn: StoredSpan, result: SandboxResult): SpanDraft {
    const { request, quota } = claim;
    const { policy, force } = (request.metadata ?? {}) as Record<string, Json>;
    const finishedAt = this.#tick.now();
    const started = startedAt as Date;
    return {
      id: randomUUID(),
      seq: 0,
      entity_type: 'execution',
      who: 'kernel:request_worker',
      did: 'ran_function',
      this: `function:${fn.id}`,
      at: finishedAt.toISOString(),
      parent_id: fn.id,
      caused_by: request.id,
      visibility: request.visibility,
      status: result.ok ? 'complete' : result.error.code === 'TIMEOUT' ? 'timeout' : 'error',
      name: fn.name ?? null,
      attempt: attemptOf(request),
      input: request.input ?? null,
      output: result.ok ? (result.output as Json) : null,
      error: result.ok ? null : { code: result.error.code, message: result.error.message, ...lineOf(result.error) },
      duration_ms: Math.round(result.durationMs),
      queue_ms: Math.min(Math.max(0, started.getTime() - Date.parse(request.scheduled_at ?? request.at)), INTEGER_MAX),
      memory_bytes: result.memoryBytes,
      started_at: started.toISOString(),
      finished_at: finishedAt.toISOString(),
      trace_id: request.trace_id ?? null,
      metadata: {
        ...this.#tick.proof,
        function_hash: fn.curr_hash,
        function_seq: fn.seq,
        quota,
        ...(policy === undefined ? {} : { policy }),
        ...(force === undefined ? {} : { forced: true }),
      },
    };
  }

  /**
   * Close requests of one owner, each with its rows. Those that somebody else has by now are left out, and named. A statement that met
   * another writer, or may not have arrived, is sent again: if it did arrive, no fence holds any more. What the ledger
   * refuses for good ends dead with next to nothing in it, so that it does not come back for ever.
   */
  async #close(identity: Identity, endings: Ending[], rows: Map<Ending, string[]>): Promise<string[]> {
    let remaining = endings;
    const lost: string[] = [];
    for (let attempt = 1, isMinimal = false; remaining.length > 0; ) {
      try {
        const gone = await closeRequests(
          this.#tick.database,
          identity,
          claimsOf(remaining.map(({ open }) => open)),
          remaining.flatMap((ending) => rows.get(ending) as string[]),
          remaining.filter(({ open }) => open.execution === null).map(({ closing }) => closing.requestId),
        );
        if (gone.length === 0) break;
        lost.push(...gone);
        remaining = remaining.filter(({ closing }) => !gone.includes(closing.requestId));
      } catch (error) {
        const [only, ...others] = remaining as [Ending, ...Ending[]];
        if (mayPass(error) && attempt < CLOSE_ATTEMPTS_MAX) {
          await sleep(CLOSE_RETRY_MS * attempt++);
        } else if (others.length > 0) {
          // One of them is in the way: each for itself.
          for (const one of remaining) lost.push(...(await this.#close(identity, [one], rows)));
          return lost;
        } else if (mayPass(error) || isMinimal) {
          const id = only.closing.requestId;
          this.#tick.log({ level: 'error', message: 'a request cannot be closed', id, error: String(error) });
          return [...lost, id];
        } else {
          isMinimal = true;
          rows.set(only, [this.#minimalRow(only, error)]);
        }
      }
    }
    return lost;
  }

  /** The execution if there is one, the request's next version, and what a refusal leaves beside it. */
  #rowsOf(ending: Ending): string[] {
    const { open, closing } = ending;
    const { claim, identity, execution } = open;
    const context = contextOf(this.#tick, identity);
    const executed = execution === null ? [] : [execution.row];
    try {
      return [
        ...executed,
        sealDraft(this.#versionDraft(claim.request, closing, execution), context, claim.request),
        ...(closing.isViolation ? [sealDraft(this.#violationDraft(claim, closing), context)] : []),
      ];
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      return [...executed, this.#minimalRow(ending, error)];
    }
  }

  /** The end of a request whose next version no span can hold, or the ledger refuses: nothing of the request's own. */
  #minimalRow({ open, closing }: Ending, reason: unknown): string {
    const { claim, identity, execution } = open;
    const { request } = claim;
    const now = this.#tick.now().toISOString();
    const code = reason instanceof LogLineError ? reason.code : 'INTERNAL';
    closing.status = 'dead';
    const draft: SpanDraft = {
      id: request.id,
      entity_type: request.entity_type,
      who: 'kernel:request_worker',
      did: DID.dead,
      at: now,
      parent_id: request.parent_id ?? null,
      status: 'dead',
      attempt: execution === null ? (request.attempt ?? 0) : attemptOf(request),
      finished_at: now,
      error: { code: 'VERSION_NOT_STORABLE', message: `the request's next version cannot be stored (${code})` },
    };
    return sealDraft(draft, contextOf(this.#tick, identity), request);
  }

  #versionDraft(request: StoredSpan, closing: Closing, execution: Execution | null): SpanDraft {
    const { position, tx_id, seq, prev_hash, curr_hash, signature, public_key, ...kept } = request;
    const { status, error, retryAt } = closing;
    const now = this.#tick.now().toISOString();
    return {
      ...kept,
      who: 'kernel:request_worker',
      did: DID[status as keyof typeof DID],
      at: now,
      status,
      attempt: execution === null ? (request.attempt ?? 0) : attemptOf(request),
      scheduled_at: retryAt ?? request.scheduled_at ?? null,
      started_at: execution?.draft.started_at ?? null,
      finished_at: status === 'error' ? null : now,
      output: status === 'complete' ? (execution?.draft.output ?? null) : null,
      error: status === 'complete' ? null : error,
      related_to:
        execution === null
          ? (request.related_to ?? null)
          : [...(request.related_to ?? []), execution.draft.id as string],
    };
  }

  #violationDraft({ request, quota }: ClaimedRequest, { error }: Closing): SpanDraft {
    const { policy } = (request.metadata ?? {}) as Record<string, Json>;
    return {
      entity_type: 'policy_violation',
      who: 'kernel:request_worker',
      did: 'refused',
      this: request.this ?? null,
      parent_id: request.id,
      caused_by: request.id,
      visibility: request.visibility,
      status: 'refused',
      error,
      metric_name: 'per_tenant_daily_exec_limit',
      metric_value: quota.limit,
      trace_id: request.trace_id ?? null,
      metadata: { ...this.#tick.proof, ...(policy === undefined ? {} : { policy }) },
    };
  }

  async #release(opens: Open[]): Promise<void> {
    if (opens.length > 0) await releaseRequests(this.#tick.database, claimsOf(opens));
  }

  /** What is open stays ours; missed beats cost nothing until the lease has run out. */
  #beat(): void {
    if (this.#heartbeat !== undefined) return;
    const beat = async () => {
      if (this.#open.size === 0) return;
      await extendLeases(this.#tick.database, claimsOf([...this.#open.values()]), this.#leaseMs);
    };
    this.#heartbeat = setInterval(() => {
      beat().catch((error) => this.#tick.log({ level: 'warn', message: 'a heartbeat failed', error: String(error) }));
    }, this.#leaseMs / 3);
    this.#heartbeat.unref();
  }
}

const DID = { complete: 'completed', error: 'failed', dead: 'gave_up' } as const;

/** Hashes and signatures of many take a while. Between a few of them the sandbox gets its next runs. */
async function inSlices<T>(items: T[], work: (item: T) => void): Promise<void> {
  for (let i = 0; i < items.length; i += SLICE) {
    if (i > 0) await nextTurn();
    items.slice(i, i + SLICE).forEach(work);
  }
}

function opened(claim: ClaimedRequest): Open {
  return { claim, identity: ownerOf(claim.request), fn: null, refusal: null, startedAt: null, execution: null };
}

/** The same for requests that share what is fetched. */
function functionOf({ claim, identity }: Open): string {
  return JSON.stringify([identity.tenantId, identity.userId, claim.request.parent_id]);
}

function claimsOf(opens: Open[]): RequestClaim[] {
  return opens.map(({ claim }) => ({ requestId: claim.request.id, fence: claim.fence }));
}

/** What the kernel sees of a claimed request: enough to decide. */
function described({ claim: { request, takeovers }, refusal }: Open): object {
  const { retry } = (request.metadata ?? {}) as { retry?: object };
  return {
    request_id: request.id,
    attempt: attemptOf(request),
    max_attempts: request.max_attempts ?? null,
    retry: retry ?? null,
    takeovers,
    refusal,
  };
}

/** Which attempt this is, counted from 1. */
function attemptOf(request: StoredSpan): number {
  return Math.min((request.attempt ?? 0) + 1, INTEGER_MAX);
}

function readClosing(item: Record<string, unknown>): Closing {
  const fields = new Fields(item, 'complete');
  const closing: Closing = {
    requestId: fields.uuid('request_id'),
    status: fields.text(
      'status',
      /^(complete|error|dead|released)$/,
      'complete, error, dead or released',
    ) as Closing['status'],
    error: fields.any('error') as Json,
    retryAt: fields.optionalText('retry_at', /^\d{4}-/, 'an instant') ?? null,
    isViolation: fields.any('violation') === true,
  };
  fields.end();
  if (closing.status === 'error' && closing.retryAt === null) {
    throw new InputError('FIELD_MISSING', 'complete.retry_at is missing', { field: 'complete.retry_at' });
  }
  return closing;
}

function problemOf(problem: Problem | null): string | null {
  return problem === null ? null : `span ${problem.id} version ${problem.seq}: ${problem.detail}`;
}

function atMost(value: unknown, max: number): number {
  return Number.isInteger(value) && (value as number) >= 1 ? Math.min(value as number, max) : max;
}

function lineOf({ line }: { line?: number }): { line?: number } {
  return line === undefined ? {} : { line };
}
