import type { Context } from 'hono';
import { InputError } from '../errors.ts';
import { Fields } from '../fields.ts';
import { type Cursor, type Identity, PAGE_MAX } from '../ledger/index.ts';
import { isUuid, parseJson } from '../span/index.ts';

/** Who a request's token speaks for, as the routes find it. */
export type Variables = { Variables: { identity: Identity } };

/** No U+0000 and no lone surrogate: Postgres could not keep them. */
export const TEXT = /^[^\0\p{Cs}]{1,200}$/u;
export const TEXT_EXPECTED = 'text of 1 to 200 characters';

/** How the field is called, and the column; as a header it is `Idempotency-Key`. */
export const IDEMPOTENCY_KEY = 'idempotency_key';

const PAGE_DEFAULT = 100;

/** @throws {InputError} `JSON_INVALID` */
export async function readJson(c: Context): Promise<unknown> {
  const body = await c.req.arrayBuffer();
  try {
    return parseJson(new TextDecoder('utf-8', { fatal: true }).decode(body));
  } catch {
    throw new InputError('JSON_INVALID', 'the body is not JSON in UTF-8');
  }
}

/** The parameters behind the `?`, each of them text. */
export function queryFields(c: Context): Fields {
  return new Fields(c.req.query(), '');
}

/** @throws {InputError} `FIELD_INVALID` */
export function requireId(id: string): string {
  if (!isUuid(id)) throw new InputError('FIELD_INVALID', 'id: expected a UUID in lower case', { field: 'id' });
  return id;
}

/** How many items a page may hold. */
export function readLimit(fields: Fields): number {
  const text = fields.optionalText('limit', /^[1-9]\d{0,3}$/, `a number from 1 to ${PAGE_MAX}`);
  const limit = Number(text ?? PAGE_DEFAULT);
  if (limit <= PAGE_MAX) return limit;
  throw new InputError('FIELD_INVALID', `limit: expected a number from 1 to ${PAGE_MAX}`, { field: 'limit' });
}

/** Where a list goes on. */
export function readBefore(fields: Fields): Cursor | null {
  return fields.optionalText('before', /^[0-9a-f]{32}$/, 'the `before` of an earlier page') ?? null;
}

export function optionalUuid(fields: Fields, name: string): string | undefined {
  return fields.any(name) === null ? undefined : fields.uuid(name);
}

export function optionalNumber(fields: Fields, name: string, min: number): number | undefined {
  return fields.any(name) === null ? undefined : fields.wholeNumber(name, min);
}

export function spanNotFound(id: string, field = 'id'): InputError {
  return new InputError('SPAN_NOT_FOUND', `no span ${id} is visible to you`, { field });
}
