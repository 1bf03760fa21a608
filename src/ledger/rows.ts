import pg, { type CustomTypesConfig } from 'pg';
import { parseJson, type StoredSpan } from '../span/index.ts';

const OID = {
  int8: 20,
  float8: 701,
  timestamptz: 1184,
  jsonb: 3802,
  xid8: 5069,
  textArray: 1009,
  uuidArray: 2951,
} as const;

/**
 * How a column's text becomes a value. Nothing is rounded on the way: what Postgres holds beyond what a span may hold
 * (microseconds, 64-bit integers) stays visible.
 */
export const columnTypes = typesWith((text) => parseJson(text));

/**
 * The same for rows of the registry, where every byte counts: a jsonb number that JavaScript does not hold exactly as
 * written (more digits than a double has, a trailing zero that no append leaves) becomes a value without a canonical
 * form, so whoever changed it is found.
 */
export const spanTypes = typesWith(parseJsonStrictly);

function typesWith(parseJsonb: (text: string) => unknown): CustomTypesConfig {
  const parsers = new Map<number, (text: string) => unknown>([
    [OID.int8, parseBigint],
    [OID.timestamptz, parseTimestamp],
    [OID.float8, parseDouble],
    [OID.jsonb, parseJsonb],
    [OID.xid8, String],
    [OID.textArray, parseArray],
    [OID.uuidArray, parseArray],
  ]);
  return { getTypeParser: ((oid: number) => parsers.get(oid) ?? pg.types.getTypeParser(oid as never)) as never };
}

function parseBigint(text: string): number | string {
  const value = Number(text);
  return Number.isSafeInteger(value) ? value : text;
}

/** Postgres writes `2026-11-23 10:00:00.123+00`; a span says `2026-11-23T10:00:00.123Z`. Microseconds stay visible. */
function parseTimestamp(text: string): string {
  const match = /^(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?([+-]\d\d(?::\d\d)?)$/.exec(text);
  if (match === null) return text; // infinity, BC, year 10000: no span has these
  const [, date, time, fraction = '', offset = '+00'] = match;
  if (offset === '+00') return `${date}T${time}.${fraction.padEnd(3, '0')}Z`;
  const utc = new Date(`${date}T${time}${offset.length === 3 ? `${offset}:00` : offset}`).toISOString();
  return `${utc.slice(0, 19)}.${fraction.padEnd(3, '0')}Z`;
}

function parseDouble(text: string): number | string {
  return text === '-0' ? text : Number(text); // JSON, and so every append, knows one zero
}

function parseArray(text: string): unknown {
  return text.startsWith('[') ? text : pg.types.getTypeParser(OID.textArray as never)(text); // every append counts from 1
}

const NUMBER_WORTH_CHECKING = /\d\.\d|\d{16}|[eE]/;

function parseJsonStrictly(text: string): unknown {
  if (text === 'null') return new Inexact(text); // append stores an empty column instead
  if (!NUMBER_WORTH_CHECKING.test(text)) return parseJson(text);
  return parseJson(text, (_key, value, { source = '' }) =>
    typeof value === 'number' && plainDecimal(value) !== source ? new Inexact(source) : value,
  );
}

/** JSON that no append leaves. It has no canonical form, so it equals no JSON that some append did leave. */
class Inexact {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
  toJSON(): string {
    return this.text;
  }
}

/** A double as Postgres prints the numeric it was stored as: without an exponent. */
function plainDecimal(value: number): string {
  const text = JSON.stringify(value);
  const match = /^(-?)(\d)(?:\.(\d+))?e-(\d+)$/.exec(text);
  if (match === null) return text;
  const [, sign, whole, fraction = '', exponent] = match;
  return `${sign}0.${'0'.repeat(Number(exponent) - 1)}${whole}${fraction}`;
}

/** Rows that are each of another span, by its id. */
export function toSpansById(rows: Record<string, unknown>[]): Map<string, StoredSpan> {
  return new Map(rows.map(toSpan).map((span) => [span.id, span]));
}

/** A row of the registry with its null columns left out. */
export function toSpan(row: Record<string, unknown>): StoredSpan {
  const span: Record<string, unknown> = {};
  for (const name in row) {
    if (row[name] !== null) span[name] = row[name];
  }
  return span as StoredSpan;
}
