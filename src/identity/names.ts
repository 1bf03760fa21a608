import { TEXT } from '../fields.ts';
import { RESERVED_WHO, SYSTEM_ID } from '../span/index.ts';

/** Whether somebody who comes from outside may be called so: a user, or a tenant. */
export function isOutsideName(value: unknown): value is string {
  return typeof value === 'string' && TEXT.test(value) && value !== SYSTEM_ID && !RESERVED_WHO.test(value);
}
