import { randomBytes } from 'node:crypto';
import { ConflictError, InputError } from '../errors.ts';
import { Fields } from '../fields.ts';
import { appendSpans, type Identity, readLatestVersions } from '../ledger/index.ts';
import { blake3Hex, canonicalJson, type Json, type StoredSpan } from '../span/index.ts';
import { appendContext, derivedId, type Stage0 } from '../stage0/index.ts';
import { requestDraft } from '../work/request-draft.ts';
import { IDEMPOTENCY_KEY, optionalNumber, spanNotFound, TEXT, TEXT_EXPECTED } from './input.ts';

/** What `POST /api/execute` asks for. */
interface ExecuteRequest {
  functionId: string;
  input: Json;
  priority?: number | undefined;
  maxAttempts?: number | undefined;
  delayMs?: number | undefined;
  scheduledAt?: string | undefined;
  /** Goes into the request's metadata, where the worker looks for it. */
  terms: Record<string, Json>;
  idempotencyKey?: string | undefined;
}

const INTEGER_MIN = -0x80000000;
/** A request is not put off further than this, in ms: ten years. */
const DELAY_MS_MAX = 315_576_000_000;

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
  body: unknown,
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

function readRequest(body: unknown, keyHeader: string | undefined): ExecuteRequest {
  const fields = new Fields(body, '');
  const asked: ExecuteRequest = {
    functionId: fields.uuid('span_id'),
    input: fields.any('input') as Json,
    priority: optionalNumber(fields, 'priority', INTEGER_MIN),
    maxAttempts: optionalNumber(fields, 'max_attempts', 1),
    delayMs: optionalNumber(fields, 'delay_ms', 0),
    scheduledAt: readInstant(fields, 'scheduled_at'),
    terms: readTerms(fields),
    idempotencyKey: fields.optionalText(IDEMPOTENCY_KEY, TEXT, TEXT_EXPECTED) ?? keyHeader,
  };
  fields.end();
  if (asked.delayMs !== undefined && asked.scheduledAt !== undefined) {
    throw invalid('delay_ms', 'expected delay_ms or scheduled_at, not both');
  }
  if ((asked.delayMs ?? 0) > DELAY_MS_MAX) throw invalid('delay_ms', `expected at most ${DELAY_MS_MAX}`);
  if (keyHeader !== undefined && asked.idempotencyKey !== keyHeader) {
    throw invalid(IDEMPOTENCY_KEY, 'expected the same as in the header Idempotency-Key');
  }
  if (asked.idempotencyKey !== undefined && !TEXT.test(asked.idempotencyKey)) {
    throw invalid(IDEMPOTENCY_KEY, `expected ${TEXT_EXPECTED}`);
  }
  return asked;
}

function readTerms(fields: Fields): Record<string, Json> {
  const terms: Record<string, Json> = {};
  if (fields.has('timeout_ms')) terms.timeout_ms = fields.wholeNumber('timeout_ms', 1);
  if (fields.has('retry')) {
    const retry = fields.object('retry');
    const read = { backoff_ms: optionalNumber(retry, 'backoff_ms', 1), max_ms: optionalNumber(retry, 'max_ms', 1) };
    retry.end();
    terms.retry = Object.fromEntries(Object.entries(read).filter(([, value]) => value !== undefined)) as Json;
  }
  if (fields.has('force')) {
    const force = fields.object('force');
    terms.force = { signature: force.text('signature', /^[0-9a-f]{128}$/, 'a signature of 128 hex digits') };
    force.end();
  }
  return terms;
}

/** An instant with its offset, as UTC. */
function readInstant(fields: Fields, name: string): string | undefined {
  const expected = 'an instant such as 2026-01-31T12:00:00Z';
  const text = fields.optionalText(name, /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)$/, expected);
  if (text === undefined) return undefined;
  const time = Date.parse(text);
  if (Number.isNaN(time)) throw invalid(name, `expected ${expected}`);
  return new Date(time).toISOString();
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

function invalid(field: string, expected: string): InputError {
  return new InputError('FIELD_INVALID', `${field}: ${expected}`, { field });
}
