import { randomBytes } from 'node:crypto';
import type { z } from '@hono/zod-openapi';
import { ConflictError, InputError } from '../errors.ts';
import { TEXT, TEXT_EXPECTED } from '../fields.ts';
import { appendSpans, type Identity, readLatestVersions } from '../ledger/index.ts';
import { blake3Hex, canonicalJson, type Json, type StoredSpan } from '../span/index.ts';
import { appendContext, derivedId, type Stage0 } from '../stage0/index.ts';
import { requestDraft } from '../work/request-draft.ts';
import { IDEMPOTENCY_KEY, spanNotFound } from './input.ts';
import type { ExecuteBody } from './schemas.ts';

/** What `POST /api/execute` asks for. */
interface ExecuteRequest {
  functionId: string;
  input: Json;
  priority: number | undefined;
  maxAttempts: number | undefined;
  delayMs: number | undefined;
  scheduledAt: string | undefined;
  /** Goes into the request's metadata, where the worker looks for it. */
  terms: Record<string, Json>;
  idempotencyKey: string | undefined;
}

/**
 * Ask for a run of a function: a request is appended, and a worker takes it from there.
 *
 * An idempotency key names the request: its id follows from the key, so that of any number of calls one appends it, and
 * the others find its place taken and answer the same. What was asked for is kept with it as a hash; a key that comes
 * back with something else is refused.
 */
export async function execute(
  stage0: Stage0,
  identity: Identity,
  body: z.output<typeof ExecuteBody>,
  keyHeader: string | undefined,
): Promise<{ request_id: string; status: string }> {
  const asked = readRequest(body, keyHeader);
  const { functionId, idempotencyKey } = asked;
  const id = idempotencyKey === undefined ? undefined : requestId(stage0, identity, idempotencyKey);
  const known = await readLatestVersions(stage0.database, identity, id === undefined ? [functionId] : [functionId, id]);
  const earlier = id === undefined ? undefined : known.get(id);
  if (earlier !== undefined) return answerOfEarlier(earlier, asked);

  const fn = requireFunction(known.get(functionId), functionId);
  const now = stage0.now();
  const dueAt = asked.delayMs === undefined ? asked.scheduledAt : new Date(now.getTime() + asked.delayMs).toISOString();
  const draft = requestDraft(fn, {
    ...asked,
    scheduledAt: dueAt,
    metadata: { ...asked.terms, ...(idempotencyKey === undefined ? {} : { asked_hash: askedHash(asked) }) },
  });
  try {
    const traced = { ...draft, trace_id: randomBytes(16).toString('hex') };
    const placed = id === undefined ? traced : { ...traced, id, seq: 0 };
    const [appended] = await appendSpans(stage0.database, [placed], {
      ...appendContext(stage0, identity),
      now: () => now,
    });
    return { request_id: appended?.id as string, status: 'scheduled' };
  } catch (error) {
    if (!(error instanceof ConflictError) || id === undefined) throw error;
    const first = (await readLatestVersions(stage0.database, identity, [id])).get(id);
    if (first === undefined) throw error;
    return answerOfEarlier(first, asked);
  }
}

function readRequest(body: z.output<typeof ExecuteBody>, keyHeader: string | undefined): ExecuteRequest {
  const idempotencyKey = body.idempotency_key ?? keyHeader;
  if (keyHeader !== undefined && idempotencyKey !== keyHeader) {
    throw invalid('expected the same as in the header Idempotency-Key');
  }
  if (idempotencyKey !== undefined && !TEXT.test(idempotencyKey)) throw invalid(`expected ${TEXT_EXPECTED}`);
  return {
    functionId: body.span_id,
    input: body.input ?? null,
    priority: body.priority ?? undefined,
    maxAttempts: body.max_attempts ?? undefined,
    delayMs: body.delay_ms ?? undefined,
    scheduledAt: body.scheduled_at,
    terms: termsOf(body),
    idempotencyKey,
  };
}

function termsOf({ timeout_ms, retry, force }: z.output<typeof ExecuteBody>): Record<string, Json> {
  const said = (terms: Record<string, unknown>) =>
    Object.fromEntries(Object.entries(terms).filter(([, value]) => value != null)) as Record<string, Json>;
  return said({ timeout_ms, retry: retry && said(retry), force });
}

function requireFunction(span: StoredSpan | undefined, id: string): StoredSpan {
  if (span === undefined) throw spanNotFound(id, 'span_id');
  if (span.entity_type !== 'function' || typeof span.code !== 'string') {
    const message = `span_id: span ${id} is a ${span.entity_type}, not a function with code`;
    throw new InputError('NOT_A_FUNCTION', message, { field: 'span_id' });
  }
  if (span.is_deleted === true || span.status === 'retired') {
    throw new InputError('FUNCTION_RETIRED', `span_id: function ${id} is no longer in use`, { field: 'span_id' });
  }
  return span;
}

function requestId({ tenantMasterKey }: Stage0, { tenantId, userId }: Identity, key: string): string {
  return derivedId(tenantMasterKey, 'request', tenantId, userId, key);
}

function answerOfEarlier(request: StoredSpan, asked: ExecuteRequest): { request_id: string; status: string } {
  const { asked_hash } = (request.metadata ?? {}) as { asked_hash?: unknown };
  if (asked_hash !== askedHash(asked)) {
    throw new ConflictError('IDEMPOTENCY_KEY_REUSED', 'idempotency_key was used for something else', {
      field: IDEMPOTENCY_KEY,
    });
  }
  return { request_id: request.id, status: request.status as string };
}

function askedHash({ idempotencyKey: _key, ...asked }: ExecuteRequest): string {
  const said = Object.entries(asked).map(([name, value]) => `${name} ${canonicalJson(value ?? null, name)}`);
  return blake3Hex(said.join('\n'));
}

function invalid(expected: string): InputError {
  return new InputError('FIELD_INVALID', `${IDEMPOTENCY_KEY}: ${expected}`, { field: IDEMPOTENCY_KEY });
}
