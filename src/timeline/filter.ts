import { InputError } from '../errors.ts';
import { type Fields, INSTANT_EXPECTED, TEXT, TEXT_EXPECTED, toInstant } from '../fields.ts';
import { CURSOR, type Cursor, type SpanFilter, TIMELINE_START } from '../ledger/index.ts';
import type { StoredSpan } from '../span/index.ts';

/** What somebody wants to see, from untrusted fields: those of `GET /api/timeline`, with the same rules. */
export function readFilter(fields: Fields): SpanFilter {
  const text = (name: string) => (fields.any(name) === null ? undefined : fields.text(name, TEXT, TEXT_EXPECTED));
  const uuid = (name: string) => (fields.any(name) === null ? undefined : fields.uuid(name));
  const instant = (name: string) => {
    const said = text(name);
    if (said === undefined) return undefined;
    const at = toInstant(said);
    if (at !== undefined) return at;
    throw new InputError('FIELD_INVALID', `filter.${name}: expected ${INSTANT_EXPECTED}`, { field: `filter.${name}` });
  };
  return {
    entity_type: text('entity_type'),
    status: text('status'),
    name: text('name'),
    parent_id: uuid('parent_id'),
    caused_by: uuid('caused_by'),
    trace_id: text('trace_id'),
    owner_id: text('owner'),
    visibility: fields.optionalText('visibility', /^(private|tenant|public)$/, 'private, tenant or public'),
    from: instant('from'),
    to: instant('to'),
  };
}

/** Where to begin: behind a position, or with what is new. */
export type Start = Cursor | 'end';

/**
 * Without one, it is the start of the timeline.
 *
 * @throws {InputError} `FIELD_INVALID`
 */
export function parseStart(value: unknown, field: string): Start {
  if (value === undefined || value === null) return TIMELINE_START;
  if (typeof value === 'string' && (value === 'end' || CURSOR.test(value))) return value;
  throw new InputError('FIELD_INVALID', `${field}: expected the \`position\` of a span, or \`end\``, { field });
}

/** Whether a filter lets a span through: the same that `filterConditions` asks of the database. */
export function matchesFilter({ from, to, ...columns }: SpanFilter, span: StoredSpan): boolean {
  const at = Date.parse(span.at);
  return (
    (from === undefined || at >= Date.parse(from)) &&
    (to === undefined || at < Date.parse(to)) &&
    Object.entries(columns).every(
      ([column, value]) => value === undefined || span[column as keyof typeof columns] === value,
    )
  );
}
