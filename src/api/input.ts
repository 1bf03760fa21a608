import type { Context } from 'hono';
import { InputError } from '../errors.ts';
import type { Caller } from '../identity/caller.ts';
import type { Identity } from '../ledger/index.ts';
import { parseJson } from '../span/index.ts';

/** Who a request's token speaks for, as the routes find it. */
export type Variables = { Variables: { identity: Identity; caller: Caller } };

/** How the field is called, and the column; as a header it is `Idempotency-Key`. */
export const IDEMPOTENCY_KEY = 'idempotency_key';

/** @throws {InputError} `JSON_INVALID` */
export async function readJson(c: Context): Promise<unknown> {
  const body = await c.req.arrayBuffer();
  try {
    return parseJson(new TextDecoder('utf-8', { fatal: true }).decode(body));
  } catch {
    throw new InputError('JSON_INVALID', 'the body is not JSON in UTF-8');
  }
}

export function spanNotFound(id: string, field = 'id'): InputError {
  return new InputError('SPAN_NOT_FOUND', `no span ${id} is visible to you`, { field });
}
