/**
 * provider_exec_kernel: ask a model by a provider row of the system, and record what was asked, answered and paid.
 *
 *   { provider_id, prompt }              one question: messages: [{ role: 'user', content: prompt }]
 *   { provider_id, messages, tools? }    a conversation, for a model that may ask for tools
 *   { provider_id, embed: [text, …] }    one vector for each text
 *
 * Beside these: model?, max_tokens?, temperature?, timeout_ms? for the provider; prompt_family? for the record; and
 * record? 'full' (default), or 'hash' to keep only the hashes of request and answer in the provider_execution. The
 * boot's own spans hold what this kernel was given and answered, so 'hash' hides from the ledger what another kernel
 * invokes it with.
 *
 * Answers { execution_id, status: 'complete', text, tool_calls, finish_reason | embeddings, model, tokens_in,
 * tokens_out, cost_micros, duration_ms, attempts }. A provider that fails is a provider_execution with status `error`,
 * and { execution_id, status: 'error', error }; it is not a failure of this kernel. A request that cannot be sent is.
 *
 * @param {Ctx} ctx
 */
export default async function main(ctx) {
  const { provider_id, prompt_family = null, record = 'full', ...request } = readInput(ctx.input);
  const compiledHash = await ctx.crypto.blake3(await ctx.crypto.canonicalize(request));
  const startedAt = ctx.now();
  const { answer, error } = await ask(ctx, provider_id, request);
  const finishedAt = ctx.now();
  const duration_ms = Date.parse(finishedAt) - Date.parse(startedAt);
  const { cost_micros, latency_ms: _latency, attempts, model, tokens_in, tokens_out, ...output } = answer ?? {};
  const status = error === null ? 'complete' : 'error';

  const execution = await appendExecution(ctx, record, {
    entity_type: 'provider_execution',
    who: 'kernel:provider_exec',
    did: 'called_provider',
    this: `provider:${provider_id}`,
    at: finishedAt,
    status,
    provider_id,
    model: model ?? request.model ?? null,
    prompt_family,
    compiled_hash: compiledHash,
    input: request,
    output: answer === null ? null : output,
    error,
    tokens_in,
    tokens_out,
    tool_use_count: answer === null ? null : (output.tool_calls ?? []).length,
    cost_micros,
    duration_ms,
    started_at: startedAt,
    finished_at: finishedAt,
    metadata: { kernel_id: ctx.env.kernel_id, kernel_hash: ctx.env.kernel_hash, attempts: attempts ?? null },
  });
  if (error !== null) return { execution_id: execution.id, status, error };
  const measured = { model, tokens_in, tokens_out, cost_micros, duration_ms, attempts };
  return { execution_id: execution.id, status, ...output, ...measured };
}

const QUESTIONS = ['prompt', 'messages', 'embed'];
const FIELDS = [
  'provider_id',
  ...QUESTIONS,
  ...['tools', 'model', 'max_tokens', 'temperature', 'timeout_ms', 'prompt_family', 'record'],
];
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/**
 * What only this kernel can know to be wrong; the rest of the request is looked at where it is sent.
 *
 * @param {any} input
 * @returns {Record<string, any>}
 */
function readInput(input) {
  if (typeof input !== 'object' || input === null || Array.isArray(input)) throw invalid('input: expected an object');
  const unknown = Object.keys(input).find((field) => !FIELDS.includes(field));
  if (unknown !== undefined) throw invalid(`input.${unknown}: provider_exec knows only ${FIELDS.join(', ')}`);
  const { prompt, ...rest } = input;
  if (typeof rest.provider_id !== 'string' || !UUID.test(rest.provider_id)) {
    throw invalid('input.provider_id: expected a UUID in lower case');
  }
  if (QUESTIONS.filter((field) => input[field] !== undefined).length !== 1) {
    throw invalid(`input: expected one of ${QUESTIONS.join(', ')}`);
  }
  if (rest.record !== undefined && rest.record !== 'full' && rest.record !== 'hash') {
    throw invalid('input.record: expected full or hash');
  }
  if (rest.prompt_family !== undefined && typeof rest.prompt_family !== 'string') {
    throw invalid('input.prompt_family: expected text');
  }
  if (prompt === undefined) return rest;
  if (typeof prompt !== 'string' || prompt === '') throw invalid('input.prompt: expected text that is not empty');
  return { ...rest, messages: [{ role: 'user', content: prompt }] };
}

/**
 * The provider's answer, or why there is none. What the caller got wrong fails the boot instead, and names its field.
 *
 * @param {Ctx} ctx
 * @param {string} providerId
 * @param {Record<string, any>} request
 * @returns {Promise<{ answer: Record<string, any> | null, error: { code: string, message: string } | null }>}
 */
async function ask(ctx, providerId, request) {
  try {
    return { answer: await ctx.provider(providerId, request), error: null };
  } catch (thrown) {
    const { code = 'PROVIDER_FAILED', message } = /** @type {{ code?: string, message: string }} */ (thrown);
    if (code.startsWith('FIELD_')) throw thrown;
    return { answer: null, error: { code, message } };
  }
}

/**
 * The call was made, and paid: its execution is always there. One that is larger than a span may be keeps the hashes of
 * what was asked and answered, as `record: 'hash'` does. An error's message may quote the request, so it goes, too.
 *
 * @param {Ctx} ctx
 * @param {string} record
 * @param {Record<string, any>} execution
 */
async function appendExecution(ctx, record, execution) {
  if (record === 'full') {
    try {
      return await ctx.append(execution);
    } catch (error) {
      if (/** @type {{ code?: string }} */ (error).code !== 'SPAN_TOO_LARGE') throw error;
    }
  }
  const { input, output, error, ...measured } = execution;
  return ctx.append({
    ...measured,
    input: await hashed(ctx, input),
    output: await hashed(ctx, output),
    error: error === null ? null : { code: error.code },
  });
}

/**
 * @param {Ctx} ctx
 * @param {unknown} value
 */
async function hashed(ctx, value) {
  return value === null ? null : { blake3: await ctx.crypto.blake3(await ctx.crypto.canonicalize(value)) };
}

/** @param {string} message */
function invalid(message) {
  return Object.assign(new Error(message), { code: 'INPUT_INVALID' });
}
