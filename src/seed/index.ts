/**
 * `ROW/` becomes rows: read, checked whole, signed with the root key, appended. The only room that handles the root
 * key. Must never write part of a bad set, and never change a byte of the code it was given.
 */
export { type Installation, readRowFiles } from './rows.ts';
export { type SeedResult, seed } from './seed.ts';
