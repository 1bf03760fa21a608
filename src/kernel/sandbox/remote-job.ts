import { InputError, UpstreamError } from '../../errors.ts';
import { Fields } from '../../fields.ts';
import { parseJson } from '../../span/json.ts';
import type { LimitCode, SandboxError, SandboxJob, SandboxResult } from './job.ts';
import { answersEach, itemsOf, jsonBytes, parsedFrame } from './json.ts';
import { ERROR_FRAME_BYTES_MAX, REMOTE_JOB_BYTES_MAX, RESULT_HEAD_BYTES_MAX } from './limits.ts';

/** How one run of untrusted code goes there: as the event of an invocation. Always of untrusted code, which is why it does not say so. */
interface RemoteJob {
  compartment: string;
  code: string;
  file_name: string;
  entry: SandboxJob['entry'];
  each: boolean;
  /** As JSON text, so that our own parser reads it: that of Lambda's runtime may misread keys (`parseJson`). */
  input: string;
  timeout_ms: number;
  memory_mb: number;
  output_bytes: number;
}

/** How it comes back. */
export type RemoteResult = { duration_ms: number; memory_bytes: number } & (
  | { ok: true; output: unknown }
  | { ok: false; error: SandboxError }
);

/**
 * @param timeoutMs what is left of the job's time.
 * @returns JSON.
 * @throws {InputError} `INPUT_INVALID`, as for a run in a child of this process; only that less fits.
 */
export function remoteJobText(
  { compartment, code, fileName, entry, each, input, limits }: SandboxJob,
  timeoutMs: number,
) {
  let text: string;
  try {
    if (each) itemsOf(input);
    const job: RemoteJob = {
      compartment,
      code,
      file_name: fileName,
      entry,
      each: each ?? false,
      input: JSON.stringify(input) ?? 'null',
      timeout_ms: Math.ceil(timeoutMs),
      memory_mb: Math.ceil(limits.memoryMb),
      output_bytes: Math.floor(limits.outputBytes),
    };
    text = JSON.stringify(job);
  } catch (cause) {
    const expected = each ? '{ items, context } of JSON values' : 'a JSON value';
    throw new InputError('INPUT_INVALID', `input: expected ${expected}`, { field: 'input', cause });
  }
  if (Buffer.byteLength(text) <= REMOTE_JOB_BYTES_MAX) return text;
  throw new InputError('INPUT_INVALID', `input: at most ${REMOTE_JOB_BYTES_MAX} bytes with the code`, {
    field: 'input',
  });
}

/**
 * The other side: the job of an event.
 *
 * @throws {InputError} naming the field.
 */
export function readRemoteJob(event: unknown): SandboxJob {
  const fields = new Fields(event, '');
  const entry = fields.text('entry', /^(function|on)$/, 'function or on') as RemoteJob['entry'];
  const job: SandboxJob = {
    trust: 'untrusted',
    compartment: fields.text('compartment', /^/, 'text'),
    code: fields.text('code', /^/, 'text'),
    codeHash: '', // names scripts of kernels only
    fileName: fields.text('file_name', /^/, 'text'),
    entry,
    ...(fields.any('each') === true ? { each: true } : {}),
    input: readInput(fields.text('input', /^/, 'text')),
    limits: {
      timeoutMs: fields.wholeNumber('timeout_ms', 0),
      memoryMb: fields.wholeNumber('memory_mb', 0),
      outputBytes: fields.wholeNumber('output_bytes', 0),
      calls: 0,
    },
  };
  fields.end();
  return job;
}

function readInput(text: string): unknown {
  try {
    return parseJson(text);
  } catch {
    throw new InputError('FIELD_INVALID', 'input: expected JSON', { field: 'input' });
  }
}

export function remoteResultOf({ durationMs, memoryBytes, ...outcome }: SandboxResult): RemoteResult {
  return { ...outcome, duration_ms: durationMs, memory_bytes: memoryBytes };
}

/** Ends that a run of untrusted code can have. */
const CODES = new Set<LimitCode>(['TIMEOUT', 'MEMORY', 'OUTPUT_TOO_LARGE', 'CODE_INVALID', 'CODE_REFUSED', 'THREW']);

/**
 * The result that an answer tells, believed as little as a child: code that took over the process there may have written
 * it. It can be wrong about how the run went, and nothing else: no field but these, no prototype, no size beyond the
 * limits (which is `OUTPUT_TOO_LARGE`, as it would be there), no time beyond what passed here.
 *
 * @param elapsedMs since it was asked.
 * @throws {UpstreamError} `SANDBOX_UNAVAILABLE`: it is no such answer.
 */
export function readRemoteResult(text: string, job: SandboxJob, elapsedMs: number): SandboxResult {
  const bytesMax = Math.max(job.limits.outputBytes, ERROR_FRAME_BYTES_MAX) + RESULT_HEAD_BYTES_MAX;
  // A character has at least one byte; counting is for those that may still fit.
  if (text.length > bytesMax || Buffer.byteLength(text) > bytesMax) {
    return { ok: false, error: tooLarge(job), durationMs: elapsedMs, memoryBytes: 0 };
  }
  let answer: unknown;
  try {
    answer = parsedFrame(text);
  } catch {
    throw oddity('what is not JSON');
  }
  const { ok, output = null, error, duration_ms, memory_bytes } = (answer ?? {}) as Record<string, unknown>;
  if (typeof duration_ms !== 'number' || !(duration_ms >= 0) || !Number.isSafeInteger(memory_bytes)) {
    throw oddity('no measures');
  }
  const measures = { durationMs: Math.min(duration_ms, elapsedMs), memoryBytes: Math.max(0, memory_bytes as number) };
  if (ok === false) return { ok, error: readError(error, job), ...measures };
  if (ok !== true) throw oddity('no result');
  if (jsonBytes(output) > job.limits.outputBytes) return { ok: false, error: tooLarge(job), ...measures };
  if (job.each && !answersEach(output, itemsOf(job.input).length)) throw oddity('no answer for each item');
  return { ok, output, ...measures };
}

function readError(value: unknown, job: SandboxJob): SandboxError {
  const { code, message, line } = (value ?? {}) as Partial<Record<keyof SandboxError, unknown>>;
  if (!CODES.has(code as LimitCode) || typeof message !== 'string' || message.length > ERROR_FRAME_BYTES_MAX) {
    throw oddity('an error of no kind');
  }
  const error: SandboxError = { code: code as LimitCode, message };
  const lines = job.code.split('\n').length;
  if (Number.isSafeInteger(line) && (line as number) > 0) error.line = Math.min(line as number, lines);
  return error;
}

function tooLarge({ limits }: SandboxJob): SandboxError {
  return { code: 'OUTPUT_TOO_LARGE', message: `output: at most ${limits.outputBytes} bytes of JSON` };
}

/**
 * Not the code's failure, as it would be in a child of this process: there a child serves one tenant, and what it sends
 * is that tenant's doing. Here it may as well be a function of another version, or what another tenant left there.
 */
function oddity(what: string): UpstreamError {
  return new UpstreamError('SANDBOX_UNAVAILABLE', `sandbox: the function answered ${what}`);
}
