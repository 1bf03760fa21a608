import { InputError } from '../errors.ts';
import { Fields } from '../fields.ts';
import type { Sandbox } from '../kernel/index.ts';
import {
  ASSIGNED_COLUMNS,
  canonicalText,
  type HashableSpan,
  type Json,
  RESERVED_FOR_POLICIES,
  type StoredSpan,
} from '../span/index.ts';
import type { Context } from './policy-contract.ts';
import { interestOf, type PolicyInterest, type PolicyRow } from './policy-filter.ts';

/** A policy has this long for its spans together, and returns at most so much. */
export const POLICY_TIMEOUT_MS = 3_000;
/** Span by span it has this long before it is asked about the rest another time. */
const ONE_BY_ONE_MS = POLICY_TIMEOUT_MS;
const POLICY_MEMORY_MB = 64;
const POLICY_OUTPUT_BYTES = 4 * 1024 * 1024;
const ACTIONS_MAX = 20;
const KEY = /^[^\0\p{Cs}]{1,500}$/u;

/** What a policy may do: append a span, or ask for a function to be run. */
export interface PolicyAction {
  /** Identifies the action among all of its policy; without it, the place in the answer to this span version does. */
  key: string | null;
  emit: Record<string, Json> | null;
  run: { spanId: string; input: Json } | null;
}

/** What a policy answered to one span. */
export interface PolicyAnswer {
  span: StoredSpan;
  actions: PolicyAction[];
  error: { code: string; message: string } | null;
}

/** Columns that the host sets. */
const HOST_COLUMNS = [...ASSIGNED_COLUMNS, 'seq', 'who', 'at', 'owner_id', 'tenant_id', 'caused_by', 'trace_id'];

/** What has nothing to do with the spans. */
const CODE_ERRORS = new Set(['CODE_INVALID', 'CODE_REFUSED']);
/** For the columns that the host will add; their sizes are small beside what a span may have. */
const STAND_INS = {
  id: '00000000-0000-0000-0000-000000000000',
  seq: 0,
  at: new Date(0).toISOString(),
  visibility: 'private',
};

/**
 * Ask a policy about spans, in the untrusted sandbox, all of them together. If that meets a limit, they are asked one by
 * one up to the one that does it, so that one span costs the others nothing. Code that cannot run at all has no answers:
 * its spans wait until it is mended.
 *
 * @returns answers in the order of the spans, as far as all were asked; `limit` is what kept others from being asked
 *   together or at all, and the error of the span that met it.
 * @throws {UpstreamError} the sandbox takes nothing now.
 */
export async function askPolicy(
  sandbox: Sandbox,
  policy: PolicyRow,
  spans: StoredSpan[],
  now: Date,
): Promise<{ answers: PolicyAnswer[]; limit: { code: string; message: string } | null }> {
  if (spans.length === 0) return { answers: [], limit: null };
  const { answers: together, error: limit } = await evaluate(sandbox, policy, spans, now);
  if (limit === null || CODE_ERRORS.has(limit.code)) return { answers: together, limit };
  const answers: PolicyAnswer[] = [];
  const until = performance.now() + ONE_BY_ONE_MS;
  for (const span of spans) {
    const { error, answers: own } = await evaluate(sandbox, policy, [span], now);
    answers.push(own[0] ?? { span, actions: [], error });
    if (error !== null || performance.now() > until) break;
  }
  return { answers, limit };
}

async function evaluate(
  sandbox: Sandbox,
  policy: PolicyRow,
  spans: StoredSpan[],
  now: Date,
): Promise<{ answers: PolicyAnswer[]; error: { code: string; message: string } | null }> {
  const { params } = (policy.content ?? {}) as { params?: Record<string, Json> };
  const context: Context = { params: params ?? {}, now: now.toISOString() };
  const interest = interestOf(policy);
  try {
    const result = await sandbox.run({
      trust: 'untrusted',
      // The system's, which a root key has signed, looks at many tenants: a child for each of them would make it wait
      // for processes, and for the code of those tenants. Each run has a context of its own.
      compartment: interest.isSystem ? 'system' : `tenant:${interest.tenantId}`,
      code: policy.code as string,
      codeHash: policy.curr_hash,
      fileName: `${policy.name ?? policy.id}.js`,
      entry: 'on',
      each: true,
      input: { items: spans, context },
      limits: { timeoutMs: POLICY_TIMEOUT_MS, memoryMb: POLICY_MEMORY_MB, outputBytes: POLICY_OUTPUT_BYTES, calls: 0 },
    });
    if (!result.ok) return { answers: [], error: { code: result.error.code, message: result.error.message } };
    const output = result.output as ({ value: unknown } | { error: string })[];
    return { answers: output.map((answer, i) => readAnswer(interest, spans[i] as StoredSpan, answer)), error: null };
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    if (spans.length === 1) return { answers: [], error: { code: error.code, message: error.message } };
    // More than a sandbox takes at once, and nobody's fault.
    const half = Math.ceil(spans.length / 2);
    const first = await evaluate(sandbox, policy, spans.slice(0, half), now);
    if (first.error !== null) return first;
    const second = await evaluate(sandbox, policy, spans.slice(half), now);
    return { answers: [...first.answers, ...second.answers], error: second.error };
  }
}

function readAnswer(
  interest: PolicyInterest,
  span: StoredSpan,
  answer: { value: unknown } | { error: string },
): PolicyAnswer {
  if ('error' in answer) return { span, actions: [], error: { code: 'THREW', message: answer.error } };
  try {
    return { span, actions: readActions(answer.value ?? [], interest, span), error: null };
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    return { span, actions: [], error: { code: 'ACTION_INVALID', message: error.message } };
  }
}

/** @throws {InputError} naming the field. */
function readActions(value: unknown, interest: PolicyInterest, trigger: StoredSpan): PolicyAction[] {
  if (!Array.isArray(value)) throw new InputError('FIELD_INVALID', 'expected a list of actions, or nothing');
  if (value.length > ACTIONS_MAX) {
    throw new InputError('FIELD_INVALID', `${value.length} actions for one span; ${ACTIONS_MAX} are allowed`);
  }
  return value.map((action, i) => readAction(action, `actions[${i}]`, interest, trigger));
}

function readAction(value: unknown, path: string, interest: PolicyInterest, trigger: StoredSpan): PolicyAction {
  const fields = new Fields(value, path);
  const key = fields.optionalText('key', KEY, 'text of 1 to 500 characters') ?? null;
  const action: PolicyAction = { key, emit: null, run: null };
  if (fields.has('run')) {
    fields.text('run', /^run_code$/, 'run_code');
    action.run = { spanId: fields.uuid('span_id'), input: fields.any('input') as Json };
  } else if (!fields.has('emit_span')) {
    throw new InputError('FIELD_INVALID', `${path}: expected emit_span or run`, { field: path });
  } else {
    const emitted = fields.any('emit_span') as Record<string, Json>;
    checkEmitted(emitted, `${path}.emit_span`, interest, trigger);
    action.emit = emitted;
  }
  fields.end();
  return action;
}

/** What could never be appended is told here, where it is said: once it is to be committed, it would stop others too. */
function checkEmitted(
  emitted: Record<string, Json>,
  path: string,
  interest: PolicyInterest,
  trigger: StoredSpan,
): void {
  const fields = new Fields(emitted, path);
  const refuse = (column: string | undefined, why: string) => {
    const field = column === undefined ? path : `${path}.${column}`;
    throw new InputError('FIELD_INVALID', `${field}: ${why}`, { field });
  };
  const isSet = (column: string) => emitted[column] !== undefined && emitted[column] !== null;

  const type = fields.text('entity_type', /^[\w:.-]{1,100}$/, 'letters, digits and :._-');
  if (RESERVED_FOR_POLICIES.has(type)) refuse('entity_type', `${type} is not a policy's to say`);
  const assigned = HOST_COLUMNS.find(isSet);
  if (assigned !== undefined) refuse(assigned, 'is set by the host');
  if (isSet('visibility')) fields.text('visibility', /^(private|tenant)$/, 'private or tenant');
  if (isSet('metadata')) fields.object('metadata');
  if (isSet('id')) {
    const isTrigger = emitted.id === trigger.id && type === trigger.entity_type;
    const isOwn = trigger.tenant_id === interest.tenantId && trigger.owner_id === interest.ownerId;
    if (!isTrigger) refuse('id', 'only the span that was seen may get a new version');
    if (!interest.isSystem && !isOwn) refuse('id', "only the policy's owner's own spans may get a new version");
    if (isSet('visibility')) refuse('visibility', 'a new version keeps that of the one before');
  }
  try {
    canonicalText({ ...STAND_INS, ...emitted } as HashableSpan);
  } catch (error) {
    if (error instanceof InputError) refuse(error.field, error.message);
    throw error;
  }
}
