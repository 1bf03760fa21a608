import { randomBytes, randomUUID } from 'node:crypto';
import { ConflictError, GovernanceError, InputError, IntegrityError, LogLineError, UpstreamError } from '../errors.ts';
import type { SandboxError, SandboxResult } from '../kernel/index.ts';
import {
  appendBootEvent,
  appendSpans,
  type BootConditions,
  type BootEventOutcome,
  type Identity,
  readLatestVersions,
  type SpanDraft,
  sealDraft,
} from '../ledger/index.ts';
import { canonicalJson, checkProof, type Json, type StoredSpan } from '../span/index.ts';
import { type Admission, admit, proofOf } from './admit.ts';
import { derivedId } from './identifiers.ts';
import type { Manifest } from './manifest.ts';
import { meter, refuseOverQuota, release } from './quota.ts';
import type { BootRequest } from './request.ts';
import { runKernel } from './run-kernel.ts';
import { type Announced, appendContext, type Shift, type Stage0 } from './stage0.ts';

export type BootStatus = 'complete' | 'error' | 'timeout' | 'lost';

export interface BootAnswer {
  ok: boolean;
  status: BootStatus;
  boot_event_id: string;
  execution_id: string;
  function_id: string;
  function_seq: number;
  output: Json;
  error: { code: string; message: string } | null;
  duration_ms: number;
  trace_id: string;
}

/** A kernel may run this much longer than the function it runs, to record what became of it. */
const KERNEL_MARGIN_MS = 5_000;
/** After its deadline a boot may need this long to append its execution, before the reaper takes it for lost. */
const LOST_GRACE_MS = 5_000;

/** Times an execution is sent, when the connection breaks or the kernel's answer cannot be stored. */
const APPEND_ATTEMPTS_MAX = 3;
/** Boots of one caller that find governance changed under them, before they give up. */
const STALE_ADMISSIONS_MAX = 5;

export interface BootOptions {
  /** When the surroundings end us (a Lambda's own limit); the kernel's limit may come sooner. */
  endOfTime?: Date | undefined;
  /** The kernel is to work until then, instead of answering a caller. */
  shift?: Shift | undefined;
}

/**
 * Run a kernel for a caller: the whole of Stage-0, top to bottom. A refusal throws and leaves neither boot_event nor
 * execution; once the boot_event is there, so is exactly one execution, and an answer.
 *
 * @throws {LogLineError} of kind input, access, governance, integrity or conflict, when nothing may run.
 */
export async function boot(stage0: Stage0, request: BootRequest, options: BootOptions = {}): Promise<BootAnswer> {
  const traceId = request.trace_id ?? randomBytes(16).toString('hex');
  for (let stale = 0; stale < STALE_ADMISSIONS_MAX; stale++) {
    const admission = await admitted(stage0, request);
    const metered = await meter(stage0, admission.manifest, request);
    const announced = announce(stage0, request, admission.manifest, traceId, options);
    const outcome = await announceInLedger(stage0, request, admission, metered, announced);
    switch (outcome) {
      case 'appended':
        options.shift?.admitted(admission);
        return runAndRecord(stage0, request, admission, metered, announced, options.shift);
      case 'taken':
        return answerOfEarlierBoot(stage0, request, announced);
      case 'quota':
        return refuseOverQuota(stage0, admission.manifest, request, metered as NonNullable<typeof metered>, traceId);
      case 'stale':
        stage0.admissions.delete(request.boot_function_id);
    }
  }
  throw new ConflictError(
    'GOVERNANCE_CHANGING',
    'manifest or kernel change faster than they can be verified; try again',
  );
}

/**
 * Steps 2 to 5: manifest, allowed, fetch, verify; or what an earlier boot found, which the next statement lets the
 * ledger confirm. The very rows that were proved must still be there and be the newest.
 */
async function admitted(stage0: Stage0, { identity, boot_function_id }: BootRequest): Promise<Admission> {
  const remembered = stage0.admissions.get(boot_function_id);
  if (remembered !== undefined) return remembered;
  const admission = await admit(stage0, identity, boot_function_id);
  stage0.admissions.set(boot_function_id, admission);
  return admission;
}

/** Step 8 and 9. A boot that took an execution of the day and ran no function gives it back. */
async function runAndRecord(
  stage0: Stage0,
  request: BootRequest,
  { manifest, kernel }: Admission,
  metered: BootConditions['metered'],
  announced: Announced,
  shift: Shift | undefined,
): Promise<BootAnswer> {
  let functionRuns = 0;
  const onFunctionRun = (change: 1 | -1) => {
    functionRuns += change;
  };
  try {
    const run = runKernel(stage0, { ...request, manifest, kernel, announced, onFunctionRun, shift });
    const result = await run.catch((error) => neverRan(stage0, error));
    return await appendExecution(stage0, request.identity, manifest, kernel, announced, result);
  } finally {
    if (functionRuns === 0) {
      await release(stage0, request, metered).catch((error) => stage0.log({ level: 'warn', error: String(error) }));
    }
  }
}

function announce(
  stage0: Stage0,
  request: BootRequest,
  manifest: Manifest,
  traceId: string,
  { endOfTime, shift }: BootOptions,
): Announced {
  const { identity, idempotency_key } = request;
  const startedAt = stage0.now();
  const limit =
    shift !== undefined && endOfTime !== undefined
      ? endOfTime.getTime()
      : startedAt.getTime() + manifest.policy.timeout_ms + KERNEL_MARGIN_MS;
  const bootEventId =
    idempotency_key === undefined
      ? randomUUID()
      : derivedId(
          stage0.tenantMasterKey,
          'boot_event',
          identity.tenantId,
          identity.userId,
          request.boot_function_id,
          idempotency_key,
        );
  return {
    bootEventId,
    executionId: randomUUID(),
    traceId,
    startedAt,
    deadline: new Date(Math.min(limit, endOfTime?.getTime() ?? limit)),
  };
}

/**
 * Steps 6 and 7, quota and boot_event: one statement, committed before any code runs. The id follows from an
 * idempotency key, so a repeated key finds its place taken instead of running again.
 */
async function announceInLedger(
  stage0: Stage0,
  request: BootRequest,
  { manifest, kernel, rowVersions }: Admission,
  metered: BootConditions['metered'],
  { bootEventId, executionId, startedAt, deadline, traceId }: Announced,
): Promise<BootEventOutcome | 'taken' | 'quota'> {
  const draft: SpanDraft = {
    id: bootEventId,
    seq: 0,
    entity_type: 'boot_event',
    who: 'stage0',
    did: 'booted',
    this: `function:${kernel.id}`,
    at: startedAt.toISOString(),
    related_to: [executionId],
    status: 'started',
    name: kernel.name ?? null,
    input: request.input as Json,
    idempotency_key: request.idempotency_key ?? null,
    started_at: startedAt.toISOString(),
    expires_at: new Date(deadline.getTime() + LOST_GRACE_MS).toISOString(),
    trace_id: traceId,
    metadata: proofOf(kernel, manifest),
  };
  const { identity } = request;
  const bootEvent = sealDraft(draft, appendContext(stage0, identity));
  try {
    return await appendBootEvent(stage0.database, identity, bootEvent, { rowVersions, metered });
  } catch (error) {
    if (error instanceof ConflictError && error.code === 'SEQ_TAKEN' && request.idempotency_key !== undefined) {
      return 'taken';
    }
    if (error instanceof GovernanceError && error.code === 'QUOTA_EXCEEDED') return 'quota';
    throw error;
  }
}

/** The sandbox could not take the kernel (it is full, or cannot start a child): that is how this boot ended. */
function neverRan(stage0: Stage0, error: unknown): SandboxResult {
  const known = error instanceof LogLineError ? error : new UpstreamError('INTERNAL', 'the kernel could not be run');
  stage0.log({ level: 'error', message: 'a kernel could not be run', error: String(error) });
  return {
    ok: false,
    error: { code: 'THREW', thrownCode: known.code, message: known.message },
    durationMs: 0,
    memoryBytes: 0,
  };
}

/**
 * Step 9, append execution: how the boot ended, once. Its id is fixed, so it may be sent again after a lost connection;
 * whoever was first, we or the reaper, has said how the boot ended.
 *
 * A kernel may answer what a span cannot hold; then the execution says so instead.
 */
async function appendExecution(
  stage0: Stage0,
  identity: Identity,
  manifest: Manifest,
  kernel: StoredSpan,
  announced: Announced,
  result: SandboxResult,
): Promise<BootAnswer> {
  let draft = executionDraft(stage0, manifest, kernel, announced, result);
  for (let attempt = 1; ; attempt++) {
    try {
      await appendSpans(stage0.database, [draft], appendContext(stage0, identity));
      return answerOf(draft, kernel, announced);
    } catch (error) {
      if (error instanceof ConflictError) return answerOfTakenExecution(stage0, identity, kernel, announced);
      if (attempt === APPEND_ATTEMPTS_MAX) throw error;
      if (error instanceof InputError) draft = notStorable(draft, error);
      else if (!(error instanceof UpstreamError)) throw error;
    }
  }
}

function notStorable(draft: SpanDraft, cause: InputError): SpanDraft {
  const message = `the kernel's answer cannot be stored: ${cause.message}`;
  return { ...draft, status: 'error', output: null, error: { code: 'OUTPUT_NOT_STORABLE', message } };
}

function executionDraft(
  stage0: Stage0,
  manifest: Manifest,
  kernel: StoredSpan,
  { bootEventId, executionId, startedAt, traceId }: Announced,
  result: SandboxResult,
): SpanDraft {
  const finishedAt = stage0.now();
  return {
    id: executionId,
    seq: 0,
    entity_type: 'execution',
    who: 'stage0',
    did: 'ran_kernel',
    this: `function:${kernel.id}`,
    at: finishedAt.toISOString(),
    parent_id: kernel.id,
    caused_by: bootEventId,
    status: result.ok ? 'complete' : result.error.code === 'TIMEOUT' ? 'timeout' : 'error',
    name: kernel.name ?? null,
    output: result.ok ? (result.output as Json) : null,
    error: result.ok ? null : kernelError(result.error),
    duration_ms: finishedAt.getTime() - startedAt.getTime(),
    memory_bytes: result.memoryBytes,
    started_at: startedAt.toISOString(),
    finished_at: finishedAt.toISOString(),
    trace_id: traceId,
    metadata: proofOf(kernel, manifest),
  };
}

/** Step 10, answer. */
function answerOf(execution: SpanDraft, kernel: StoredSpan, { bootEventId, traceId }: Announced): BootAnswer {
  const error = execution.error as { code: string; message: string } | null | undefined;
  return {
    ok: execution.status === 'complete',
    status: execution.status as BootStatus,
    boot_event_id: bootEventId,
    execution_id: execution.id as string,
    function_id: kernel.id,
    function_seq: kernel.seq,
    output: execution.output ?? null,
    error: error == null ? null : { code: error.code, message: error.message },
    duration_ms: execution.duration_ms ?? 0,
    trace_id: execution.trace_id ?? traceId,
  };
}

/** The answer of the boot that used this idempotency key first. */
async function answerOfEarlierBoot(
  stage0: Stage0,
  { identity, input }: BootRequest,
  announced: Announced,
): Promise<BootAnswer> {
  const { bootEventId } = announced;
  const field = 'idempotency_key';
  const bootEvent = (await readLatestVersions(stage0.database, identity, [bootEventId])).get(bootEventId);
  if (bootEvent === undefined || canonicalJson(bootEvent.input ?? null) !== canonicalJson(input)) {
    throw new ConflictError('IDEMPOTENCY_KEY_REUSED', 'idempotency_key was used with another input', { field });
  }
  const executionId = bootEvent.related_to?.[0] as string;
  const execution = await readExecution(stage0, identity, bootEventId, executionId);
  if (execution === null) {
    throw new ConflictError('BOOT_IN_PROGRESS', `boot ${bootEventId} of this idempotency_key has not ended`, { field });
  }
  const { kernel_id, kernel_seq } = bootEvent.metadata as { kernel_id: string; kernel_seq: number };
  return answerOf(execution, { id: kernel_id, seq: kernel_seq } as StoredSpan, announced);
}

/** The execution is there already, ours or the reaper's: it is the answer. */
async function answerOfTakenExecution(
  stage0: Stage0,
  identity: Identity,
  kernel: StoredSpan,
  announced: Announced,
): Promise<BootAnswer> {
  const { bootEventId, executionId } = announced;
  const execution = await readExecution(stage0, identity, bootEventId, executionId);
  if (execution === null) {
    throw new IntegrityError('EXECUTION_MISSING', `execution ${executionId} is taken and not visible`);
  }
  return answerOf(execution, kernel, announced);
}

/** The execution that ended a boot, proved to be that; null when it is not there. */
async function readExecution(
  { database, scheme, verifier }: Stage0,
  identity: Identity,
  bootEventId: string,
  executionId: string,
): Promise<StoredSpan | null> {
  const execution = (await readLatestVersions(database, identity, [executionId])).get(executionId);
  if (execution === undefined) return null;
  const problem = checkProof(execution, scheme) ?? verifier.checkSigner(execution);
  if (problem !== null || execution.entity_type !== 'execution' || execution.caused_by !== bootEventId) {
    throw new IntegrityError('EXECUTION_NOT_PROVED', `span ${executionId} is not the execution of boot ${bootEventId}`);
  }
  return execution;
}

/** What went wrong in the kernel: the code it threw with, if it threw with one, otherwise the limit it met. */
function kernelError({ code, thrownCode, message, line, stack }: SandboxError): Json {
  return {
    code: thrownCode ?? code,
    message,
    ...(line === undefined ? {} : { line }),
    ...(stack === undefined ? {} : { stack }),
  };
}
