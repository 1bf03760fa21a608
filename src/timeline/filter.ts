import { InputError } from '../errors.ts';
import type { Fields } from '../fields.ts';
import { type Cursor, type SpanFilter, TIMELINE_START } from '../ledger/index.ts';
import type { StoredSpan } from '../span/index.ts';

/** No U+0000 and no lone surrogate: Postgres could not look for them. */
const TEXT = /^[^\0\p{Cs}]{1,200}$/u;
const TEXT_EXPECTED = 'text of 1 to 200 characters';
const INSTANT = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)$/;
/** As the ledger writes it; there is no year 0, and in UTC none beyond 9999. */
const INSTANT_UTC = /^(?!0000)\d{4}-/;
const INSTANT_EXPECTED = 'an instant such as 2026-01-31T12:00:00Z';

/** What somebody wants to see, from untrusted fields: those of `GET /api/timeline`, with the same rules. */
export function readFilter(fields: Fields): SpanFilter {
  const text = (name: string) => fields.optionalText(name, TEXT, TEXT_EXPECTED);
  const uuid = (name: string) => (fields.any(name) === null ? undefined : fields.uuid(name));
  const instant = (name: string) => {
    const at = fields.optionalText(name, INSTANT, INSTANT_EXPECTED);
    if (at === undefined) return undefined;
    const utc = Number.isNaN(Date.parse(at)) ? '' : new Date(at).toISOString();
    if (INSTANT_UTC.test(utc)) return utc;
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
  if (typeof value === 'string' && /^([0-9a-f]{16}[0-7][0-9a-f]{15}|end)$/.test(value)) return value;
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
