import { Fields } from '../fields.ts';
import type { Identity } from '../ledger/index.ts';

/** What a boot is asked with; `input` is any JSON, null when there is none. */
export interface BootRequest {
  boot_function_id: string;
  identity: Identity;
  input: unknown;
  trace_id?: string | undefined;
  idempotency_key?: string | undefined;
}

/** No U+0000 and no lone surrogate: Postgres could not keep them. */
const NAME = /^[^\0\p{Cs}]{1,200}$/u;
const TRACE_ID = /^[\w.:=;-]{1,128}$/;

/**
 * Step 1, parse: what the caller sent, or an error that names the field.
 *
 * @param caller the identity a token proved. Without one (an invocation that AWS has authorised) the body must say it;
 *   with one, what the body says of it is ignored.
 * @throws {InputError} `FIELD_MISSING`, `FIELD_INVALID`, `FIELD_UNKNOWN`
 */
export function parseBootRequest(body: unknown, caller?: Identity): BootRequest {
  const fields = new Fields(body, '');
  const request: BootRequest = {
    boot_function_id: fields.uuid('boot_function_id'),
    identity: parseIdentity(fields, caller),
    input: fields.any('input'),
    trace_id: fields.optionalText('trace_id', TRACE_ID, '1 to 128 letters, digits and .:=;_-'),
    idempotency_key: fields.optionalText('idempotency_key', NAME, 'text of 1 to 200 characters'),
  };
  fields.end();
  return request;
}

function parseIdentity(fields: Fields, caller: Identity | undefined): Identity {
  if (caller !== undefined) {
    fields.any('user_id');
    fields.any('tenant_id');
    return caller;
  }
  return {
    userId: fields.text('user_id', NAME, 'text of 1 to 200 characters'),
    tenantId: fields.text('tenant_id', NAME, 'text of 1 to 200 characters'),
  };
}
