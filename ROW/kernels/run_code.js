/**
 * run_code_kernel: run a function of the caller's tenant, or code once, in the untrusted sandbox, and record how it went.
 *
 *   { span_id, input? }                        the newest version of that function row, one run at a time
 *   { code, input?, timeout_ms?, memory_mb? }  this code, once; the code is kept in the execution
 *   nothing                                    its own small sample, to see the whole way work
 *
 * Answers { execution_id, status, result, error }. The quota was taken by Stage-0 before this kernel started
 * (`force: { signature }` of the override key passes it). A function that fails is an execution with status `error`
 * or `timeout`; it is not a failure of this kernel.
 *
 * @param {Ctx} ctx
 */
export default async function main(ctx) {
  const request = readRequest(ctx.input);
  if (request.span_id === undefined) return run(ctx, request, null);
  return ctx.lock(`run_code:${request.span_id}`, async () =>
    run(ctx, request, await fetchFunction(ctx, request.span_id)),
  );
}

const SAMPLE = { code: 'return input.a + input.b', input: { a: 19, b: 23 } };
const FIELDS = ['span_id', 'code', 'input', 'timeout_ms', 'memory_mb', 'force'];

/** @param {any} input */
function readRequest(input) {
  if (input === null || input === undefined) return SAMPLE;
  if (typeof input !== 'object' || Array.isArray(input)) throw refusal('INPUT_INVALID', 'input: expected an object');
  const unknown = Object.keys(input).find((field) => !FIELDS.includes(field));
  if (unknown !== undefined)
    throw refusal('INPUT_INVALID', `input.${unknown}: run_code knows only ${FIELDS.join(', ')}`);
  if (input.span_id === undefined && input.code === undefined) {
    if (Object.keys(input).length === 0) return SAMPLE;
    throw refusal('INPUT_INVALID', 'input: expected span_id or code');
  }
  if (input.span_id !== undefined && input.code !== undefined) {
    throw refusal('INPUT_INVALID', 'input: expected span_id or code, not both');
  }
  if (input.code !== undefined && typeof input.code !== 'string') {
    throw refusal('INPUT_INVALID', 'input.code: expected text');
  }
  return input;
}

/**
 * @param {Ctx} ctx
 * @param {string} spanId
 */
async function fetchFunction(ctx, spanId) {
  const span = await ctx.fetchSpan(spanId);
  if (span === null) throw refusal('FUNCTION_NOT_FOUND', `no span ${spanId} is visible to ${ctx.env.user_id}`);
  if (span.entity_type !== 'function' || typeof span.code !== 'string') {
    throw refusal('NOT_A_FUNCTION', `span ${spanId} is a ${span.entity_type}, not a function with code`);
  }
  if (span.is_deleted === true || span.status === 'retired') {
    throw refusal('FUNCTION_RETIRED', `function ${spanId} is no longer in use`);
  }
  return span;
}

/**
 * @param {Ctx} ctx
 * @param {any} request
 * @param {Record<string, any> | null} span the function row, or null for code that is run once
 */
async function run(ctx, request, span) {
  const { timeout_ms, slow_ms } = ctx.env.policy;
  const code = span === null ? request.code : span.code;
  const startedAt = ctx.now();
  const outcome = await ctx.runSandboxed({
    code,
    input: request.input,
    timeout_ms: request.timeout_ms,
    memory_mb: request.memory_mb,
  });
  const status = outcome.ok ? 'complete' : outcome.error.code === 'TIMEOUT' ? 'timeout' : 'error';
  const finishedAt = ctx.now();

  const execution = await appendExecution(ctx, {
    entity_type: 'execution',
    who: 'kernel:run_code',
    did: 'ran_function',
    this: span === null ? 'code' : `function:${span.id}`,
    at: finishedAt,
    parent_id: span === null ? null : span.id,
    name: span === null ? null : (span.name ?? null),
    code: span === null ? code : null,
    language: span === null ? 'javascript' : null,
    status,
    input: request.input ?? null,
    output: outcome.result,
    error: outcome.error,
    duration_ms: outcome.duration_ms,
    memory_bytes: outcome.memory_bytes,
    started_at: startedAt,
    finished_at: finishedAt,
    metadata: {
      kernel_id: ctx.env.kernel_id,
      kernel_hash: ctx.env.kernel_hash,
      function_hash: span === null ? await ctx.crypto.blake3(code) : span.curr_hash,
      function_seq: span === null ? null : span.seq,
      timeout_ms: Math.min(request.timeout_ms ?? timeout_ms, timeout_ms),
    },
  });

  if (outcome.duration_ms > slow_ms) {
    await ctx.append({
      entity_type: 'status_patch',
      who: 'kernel:run_code',
      did: 'marked_slow',
      this: `execution:${execution.id}`,
      parent_id: execution.id,
      status: 'slow',
      metric_name: 'duration',
      metric_value: outcome.duration_ms,
      metric_unit: 'ms',
      metadata: { slow_ms },
    });
  }
  return { execution_id: execution.id, status: execution.status, result: execution.output, error: execution.error };
}

/**
 * The execution of a function that ran is always there: where its input and result cannot be stored (a number beyond
 * 2^53-1, U+0000, more than a span holds), it says so in their place.
 *
 * @param {Ctx} ctx
 * @param {Record<string, any>} execution
 * @returns {Promise<Record<string, any>>}
 */
async function appendExecution(ctx, execution) {
  try {
    return { ...execution, ...(await ctx.append(execution)) };
  } catch (error) {
    const { code, message } = /** @type {{ code?: string, message: string }} */ (error);
    if (code !== 'VALUE_NOT_STORABLE' && code !== 'SPAN_TOO_LARGE') throw error;
    const refused = { code: 'OUTPUT_NOT_STORABLE', message: `the result cannot be stored: ${message}` };
    const substitute = { ...execution, status: 'error', input: null, output: null, error: refused };
    return { ...substitute, ...(await ctx.append(substitute)) };
  }
}

/**
 * @param {string} code
 * @param {string} message
 */
function refusal(code, message) {
  return Object.assign(new Error(message), { code });
}
