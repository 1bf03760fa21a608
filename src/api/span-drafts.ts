import { AccessError, InputError, IntegrityError, type LogLineError } from '../errors.ts';
import { Fields, TEXT, TEXT_EXPECTED } from '../fields.ts';
import { refusal } from '../kernel/index.ts';
import { type AppendContext, hashDraft, type Identity, type SpanDraft } from '../ledger/index.ts';
import { COLUMN_TYPES, RESERVED_FOR_CLIENTS, RESERVED_WHO } from '../span/index.ts';

/** Ids of what is seeded: whoever took one would keep it from ever being seeded. */
const RESERVED_ID = /^(00000000|c0c0c0c0)-0000-4000-8000-/;

/**
 * The spans that a client wants to append: `{"spans": […]}`, or one span by itself. The database has the last word; here
 * is refused what it could not know to be forged, and what would only fail later, when it runs.
 *
 * @throws {AccessError} `ENTITY_TYPE_RESERVED`, `WHO_RESERVED`, `ID_RESERVED`, `NOT_YOUR_SPAN`
 * @throws {InputError} naming the field; in a batch with the span's place, `spans[3].name`.
 */
export async function readDrafts(
  body: unknown,
  identity: Identity,
): Promise<{ drafts: SpanDraft[]; isBatch: boolean }> {
  const fields = new Fields(body, '');
  if (!fields.has('spans')) return { drafts: [await checkDraft(body, '', identity)], isBatch: false };
  const spans = fields.any('spans');
  fields.end();
  if (!Array.isArray(spans)) throw new InputError('FIELD_INVALID', 'spans: expected a list', { field: 'spans' });
  const drafts: SpanDraft[] = [];
  for (const [i, span] of spans.entries()) {
    drafts.push(await checkDraft(span, `spans[${i}]`, identity));
  }
  return { drafts, isBatch: true };
}

async function checkDraft(span: unknown, path: string, identity: Identity): Promise<SpanDraft> {
  const at = (field: string) => (path === '' ? field : `${path}.${field}`);
  const fields = new Fields(span, path);
  const type = fields.text('entity_type', TEXT, TEXT_EXPECTED);
  const draft = span as SpanDraft;
  const refuse = (code: string, field: string, why: string) => {
    throw new AccessError(code, `${at(field)}: ${why}`, { field: at(field) });
  };
  if (RESERVED_FOR_CLIENTS.has(type))
    refuse('ENTITY_TYPE_RESERVED', 'entity_type', `${type} is said by the system alone`);
  if (isText(draft.who, RESERVED_WHO)) refuse('WHO_RESERVED', 'who', `${draft.who} is the system's name`);
  if (isText(draft.id, RESERVED_ID)) refuse('ID_RESERVED', 'id', 'this id is kept for what is seeded');
  if ((draft.owner_id ?? identity.userId) !== identity.userId) refuse('NOT_YOUR_SPAN', 'owner_id', 'it is another’s');
  if ((draft.tenant_id ?? identity.tenantId) !== identity.tenantId)
    refuse('NOT_YOUR_SPAN', 'tenant_id', 'it is another’s');

  const metadata = (draft.metadata ?? {}) as Record<string, unknown>;
  if (metadata.policy !== undefined) {
    throw new InputError('FIELD_IS_ASSIGNED', `${at('metadata.policy')} is not the caller's to set`, {
      field: at('metadata.policy'),
    });
  }
  if (type === 'function' || type === 'policy') await checkProgram(draft, type, metadata, at);
  return draft;
}

/** What is no text is refused later, with its type. */
function isText(value: unknown, pattern: RegExp): boolean {
  return typeof value === 'string' && pattern.test(value);
}

/** Functions and policies: their author is there now, and will not be when they run. */
async function checkProgram(
  draft: SpanDraft,
  type: 'function' | 'policy',
  metadata: Record<string, unknown>,
  at: (field: string) => string,
): Promise<void> {
  const refused = typeof draft.code === 'string' ? refusal(draft.code) : undefined;
  if (refused !== undefined) throw new InputError(refused.code, refused.message, { field: at('code') });
  if (type === 'policy') checkPolicyContent(draft.content, at('content'));
  else if (metadata.schedule !== undefined) {
    // Only here: the libraries of calendars cost every other cold start more than this look-up.
    const { parseSchedule } = await import('../work/due-times.ts');
    try {
      parseSchedule(metadata.schedule, metadata.timezone);
    } catch (error) {
      if (error instanceof InputError)
        throw new InputError(error.code, error.message, { field: at(error.field ?? '') });
      throw error;
    }
  }
}

function checkPolicyContent(content: unknown, path: string): void {
  if (content === undefined || content === null) return;
  const fields = new Fields(content, path);
  fields.optionalText('trigger', /^(span|expiry|day)$/, 'span, expiry or day');
  if (!fields.has('match')) return;
  for (const column of fields.map('match', (match, name) => match.any(name))) checkMatch(column, `${path}.match`);
}

/** A typing error here would let a policy match nothing, or everything, for ever. */
function checkMatch([column, values]: [string, unknown], path: string): void {
  const field = `${path}.${column}`;
  if (!Object.hasOwn(COLUMN_TYPES, column)) {
    throw new InputError('UNKNOWN_COLUMN', `${field}: a span has no column "${column}"`, { field });
  }
  if (!Array.isArray(values) || values.some((value) => typeof value === 'object' && value !== null)) {
    throw new InputError('FIELD_INVALID', `${field}: expected a list of values`, { field });
  }
}

/**
 * The same check that the append makes, one after the other: for an error that says which span of the batch it was.
 *
 * @throws {InputError} if it was one of them; {IntegrityError} where one that came signed does not prove itself.
 */
export function checkStorable(drafts: SpanDraft[], context: AppendContext): void {
  for (const [i, draft] of drafts.entries()) {
    try {
      hashDraft(draft, context);
    } catch (error) {
      const Failure = [InputError, IntegrityError].find((each) => error instanceof each);
      if (Failure === undefined) throw error;
      const { code, message, field } = error as LogLineError;
      const path = `spans[${i}]`;
      throw new Failure(code, `${path}: ${message}`, { field: field === undefined ? path : `${path}.${field}` });
    }
  }
}
