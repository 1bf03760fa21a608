import { RESERVED_WHO, SYSTEM_ID } from '../span/index.ts';

/** As a column holds it: no U+0000 and no lone surrogate. */
const NAME = /^[^\0\p{Cs}]{1,200}$/u;

/** Whether somebody who comes from outside may be called so: a user, or a tenant. */
export function isOutsideName(value: unknown): value is string {
  return typeof value === 'string' && NAME.test(value) && value !== SYSTEM_ID && !RESERVED_WHO.test(value);
}
