import { InputError } from '../errors.ts';
import { COLUMN_TYPES, type ColumnName, type ColumnType, type HashableSpan, UNHASHED_COLUMNS } from './columns.ts';

/** A span's canonical form may not be larger than this, in UTF-16 code units. */
export const SPAN_LENGTH_MAX = 1024 * 1024;
/** Nesting allowed inside a jsonb column. */
export const JSON_DEPTH_MAX = 64;

/** In the order of RFC 8785, so that no span has to sort its own. */
const HASHED_COLUMNS = (Object.entries(COLUMN_TYPES) as [ColumnName, ColumnType][])
  .filter(([name]) => !UNHASHED_COLUMNS.has(name))
  .sort(([a], [b]) => (a < b ? -1 : 1))
  .map(([name, type]) => ({ name, type, key: `"${name}":` }));

/**
 * The canonical text of a span: RFC 8785 (JCS) of the object of all its non-null columns but `curr_hash`, `signature`,
 * `position` and `tx_id`. Its UTF-8 bytes are what is hashed.
 *
 * Writing the form is also the check that the span survives a round trip through Postgres and JSON: a value that would
 * come back different cannot be written.
 *
 * @throws {InputError} with the field: `UNKNOWN_COLUMN`, `TYPE_MISMATCH`, `VALUE_NOT_STORABLE`, `SPAN_TOO_LARGE`.
 */
export function canonicalText(span: HashableSpan): string {
  for (const name of Object.keys(span)) {
    if (!Object.hasOwn(COLUMN_TYPES, name))
      throw new InputError('UNKNOWN_COLUMN', `a span has no column "${name}"`, { field: name });
  }
  let members = '';
  for (const { name, type, key } of HASHED_COLUMNS) {
    const value = span[name];
    if (value === null || value === undefined) continue;
    members += `${members === '' ? '' : ','}${key}${canonicalColumn(value, type, name)}`;
  }
  const text = `{${members}}`;
  if (text.length > SPAN_LENGTH_MAX) {
    throw new InputError(
      'SPAN_TOO_LARGE',
      `a span may have ${SPAN_LENGTH_MAX} characters, this one has ${text.length}`,
    );
  }
  return text;
}

/**
 * RFC 8785 of any JSON value.
 *
 * @throws {InputError} `VALUE_NOT_STORABLE` for what is not JSON or would not come back the same.
 */
export function canonicalJson(value: unknown, field = '$', depth = 0): string {
  switch (typeof value) {
    case 'string':
      return canonicalString(value, field);
    case 'number':
      return canonicalNumber(value, field);
    case 'boolean':
      return value ? 'true' : 'false';
    case 'object':
      break;
    default:
      throw notStorable(field, `a ${typeof value} is not JSON`);
  }
  if (value === null) return 'null';
  if (depth === JSON_DEPTH_MAX) throw notStorable(field, `nested deeper than ${JSON_DEPTH_MAX} levels`);
  if (Array.isArray(value)) {
    const items: string[] = [];
    // Not map(): it would skip the holes of a sparse array.
    for (let i = 0; i < value.length; i++) items.push(canonicalJson(value[i], `${field}[${i}]`, depth + 1));
    return `[${items.join(',')}]`;
  }
  const prototype = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) throw notStorable(field, 'not a plain JSON object');
  const members: string[] = [];
  // RFC 8785 section 3.2.3 sorts by UTF-16 code units, which is what sort() compares.
  for (const key of Object.keys(value).sort()) {
    const path = `${field}.${key}`;
    const text = canonicalJson((value as Record<string, unknown>)[key], path, depth + 1);
    members.push(`${canonicalString(key, path)}:${text}`);
  }
  return `{${members.join(',')}}`;
}

/** Text that stands in JSON as it is: printable ASCII without quote and backslash. Most of a span is such text. */
const PLAIN_TEXT = /^[ !#-[\]-~]*$/;

function canonicalString(value: string, field: string): string {
  if (PLAIN_TEXT.test(value)) return `"${value}"`;
  if (!value.isWellFormed()) throw notStorable(field, 'a lone surrogate is not Unicode text');
  if (value.includes('\0')) throw notStorable(field, 'Postgres text cannot hold U+0000');
  return JSON.stringify(value);
}

function canonicalNumber(value: number, field: string): string {
  if (!Number.isFinite(value)) throw notStorable(field, `${value} is not a JSON number`);
  if (Number.isInteger(value) && !Number.isSafeInteger(value)) {
    throw notStorable(field, `the integer ${value} is beyond 2^53-1 and would lose digits`);
  }
  return JSON.stringify(value);
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const TIMESTAMP = /^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d\.\d{3}Z$/;

/** A UUID as spans write it, in lower case. */
export function isUuid(value: unknown): value is string {
  return typeof value === 'string' && UUID.test(value);
}

function canonicalColumn(value: unknown, type: ColumnType, field: string): string {
  switch (type) {
    case 'text':
      if (typeof value !== 'string') throw mismatch(field, 'text', value);
      return canonicalString(value, field);
    case 'uuid':
      if (!isUuid(value)) throw mismatch(field, 'a UUID in lower case', value);
      return `"${value}"`;
    case 'timestamptz':
      if (!isTimestamp(value)) throw mismatch(field, 'an RFC 3339 time in UTC with milliseconds', value);
      return `"${value}"`;
    case 'integer':
      if (!Number.isInteger(value) || Math.abs(value as number) > 0x7fffffff) {
        throw mismatch(field, 'an integer of 32 bits', value);
      }
      return canonicalNumber(value as number, field);
    case 'bigint':
      if (!Number.isInteger(value)) throw mismatch(field, 'an integer', value);
      return canonicalNumber(value as number, field);
    case 'double precision':
      if (typeof value !== 'number') throw mismatch(field, 'a number', value);
      return canonicalNumber(value, field);
    case 'boolean':
      if (typeof value !== 'boolean') throw mismatch(field, 'true or false', value);
      return value ? 'true' : 'false';
    case 'jsonb':
      return canonicalJson(value, field);
    case 'text[]':
    case 'uuid[]': {
      if (!Array.isArray(value)) throw mismatch(field, 'a list', value);
      const itemType = type === 'text[]' ? 'text' : 'uuid';
      // Not map(): it would skip the holes of a sparse array.
      return `[${Array.from(value, (item, i) => canonicalColumn(item, itemType, `${field}[${i}]`)).join(',')}]`;
    }
    case 'xid8':
      throw mismatch(field, 'nothing: only the database assigns it', value);
  }
}

/** RFC 3339 with exactly three decimals and `Z`, on a day that exists, from year 1 on (Postgres has no year 0). */
function isTimestamp(value: unknown): boolean {
  if (typeof value !== 'string' || !TIMESTAMP.test(value) || value.startsWith('0000')) return false;
  // Every month has 28 days; only beyond does it take a calendar.
  return value.slice(8, 10) <= '28' || new Date(Date.parse(value)).toISOString() === value;
}

function mismatch(field: string, expected: string, value: unknown): InputError {
  const found =
    typeof value === 'string' ? JSON.stringify(value.slice(0, 60)) : Array.isArray(value) ? 'a list' : typeof value;
  return new InputError('TYPE_MISMATCH', `${field}: expected ${expected}, found ${found}`, { field });
}

function notStorable(field: string, why: string): InputError {
  return new InputError('VALUE_NOT_STORABLE', `${field}: ${why}`, { field });
}
