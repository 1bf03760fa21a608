import { InputError } from '../errors.ts';
import { Fields } from '../fields.ts';
import type { KeyEnds, TrustedKeys } from '../span/index.ts';

const ENTRIES = /^[0-9a-f]{64}(@\d{1,16})?(,[0-9a-f]{64}(@\d{1,16})?)*$/;

/**
 * `TRUSTED_ROOT_KEYS` and `TRUSTED_RUNTIME_KEYS` of an environment.
 *
 * @throws {InputError} `FIELD_MISSING`, `FIELD_INVALID`, naming the variable.
 */
export function readTrustedKeys(env: NodeJS.ProcessEnv): TrustedKeys {
  const fields = new Fields(env, '');
  return { root: readKeyEnds(fields, 'TRUSTED_ROOT_KEYS'), runtime: readKeyEnds(fields, 'TRUSTED_RUNTIME_KEYS') };
}

/**
 * Public keys, separated by commas: each 64 hex digits, and behind an `@` the last position that it counts for, where it
 * has an end.
 *
 * @throws {InputError} `FIELD_MISSING`, `FIELD_INVALID`, naming the field.
 */
export function readKeyEnds(fields: Fields, name: string): KeyEnds {
  const keys = new Map<string, number>();
  for (const entry of fields
    .text(name, ENTRIES, 'public keys of 64 hex digits, each alone or as HEX@POSITION')
    .split(',')) {
    const [key, end] = entry.split('@') as [string, string?];
    const position = end === undefined ? Infinity : Number(end);
    if (position !== Infinity && !Number.isSafeInteger(position)) {
      throw new InputError('FIELD_INVALID', `${name}: ${end} is no position`, { field: name });
    }
    if (keys.has(key)) throw new InputError('FIELD_INVALID', `${name}: names ${key} twice`, { field: name });
    keys.set(key, position);
  }
  return keys;
}

/** The same keys as entries of such a list. */
export function keyEntries(keys: KeyEnds): string[] {
  return [...keys].map(([key, end]) => (end === Infinity ? key : `${key}@${end}`));
}

/** A public key's short form, for people: its first 16 digits. */
export function keyId(publicKey: string): string {
  return publicKey.slice(0, 16);
}
