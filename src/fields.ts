import { InputError } from './errors.ts';

/** No U+0000 and no lone surrogate: Postgres could not keep them, or look for them. */
export const TEXT = /^[^\0\p{Cs}]{1,200}$/u;
export const TEXT_EXPECTED = 'text of 1 to 200 characters';

const INSTANT = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)$/;
/** As the ledger writes it; there is no year 0, and in UTC none beyond 9999. */
const INSTANT_UTC = /^(?!0000)\d{4}-/;
export const INSTANT_EXPECTED = 'an instant such as 2026-01-31T12:00:00Z';

/** An instant with its offset (RFC 3339), in UTC; undefined when it is none. */
export function toInstant(text: string): string | undefined {
  if (!INSTANT.test(text) || Number.isNaN(Date.parse(text))) return undefined;
  const utc = new Date(text).toISOString();
  return INSTANT_UTC.test(utc) ? utc : undefined;
}

/**
 * Reads the fields of an untrusted JSON object one by one; what is not as expected names its field. Hand-written,
 * because Stage-0 checks three small shapes and a schema library would cost a sixth of its cold start.
 */
export class Fields {
  readonly #object: Record<string, unknown>;
  readonly #path: string;
  readonly #known = new Set<string>();

  /** @throws {InputError} `FIELD_INVALID` when it is no object. `path` is how the object is called in errors. */
  constructor(value: unknown, path: string) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw invalid(path, 'expected an object');
    }
    this.#object = value as Record<string, unknown>;
    this.#path = path;
  }

  has(name: string): boolean {
    return Object.hasOwn(this.#object, name) && this.#object[name] !== undefined;
  }

  /** Any JSON value; null when it is not there. */
  any(name: string): unknown {
    this.#known.add(name);
    return this.has(name) ? this.#object[name] : null;
  }

  text(name: string, pattern: RegExp, expected: string): string {
    const value = this.#required(name);
    if (typeof value !== 'string' || !pattern.test(value)) throw invalid(this.#at(name), `expected ${expected}`);
    return value;
  }

  optionalText(name: string, pattern: RegExp, expected: string): string | undefined {
    this.#known.add(name);
    return this.has(name) ? this.text(name, pattern, expected) : undefined;
  }

  uuid(name: string): string {
    return this.text(name, UUID, 'a UUID').toLowerCase();
  }

  uuids(name: string): string[] {
    const value = this.#required(name);
    if (!Array.isArray(value)) throw invalid(this.#at(name), 'expected a list of UUIDs');
    const items = new Fields({ ...value }, this.#at(name));
    return value.map((_item, i) => items.uuid(String(i)));
  }

  /** A list of at most `max`: every item read the same way, by its index. */
  list<T>(name: string, max: number, read: (items: Fields, index: string) => T): T[] {
    const value = this.#required(name);
    if (!Array.isArray(value) || value.length > max) throw invalid(this.#at(name), `expected a list of at most ${max}`);
    const items = new Fields({ ...value }, this.#at(name));
    return value.map((_item, i) => read(items, String(i)));
  }

  wholeNumber(name: string, min: number, max = Number.MAX_SAFE_INTEGER): number {
    const value = this.#required(name);
    if (!Number.isSafeInteger(value) || (value as number) < min || (value as number) > max) {
      const range = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`;
      throw invalid(this.#at(name), `expected a whole number ${range}`);
    }
    return value as number;
  }

  /** True or false; false when it is not there. */
  flag(name: string): boolean {
    const value = this.any(name) ?? false;
    if (typeof value !== 'boolean') throw invalid(this.#at(name), 'expected true or false');
    return value;
  }

  object(name: string): Fields {
    return new Fields(this.#required(name), this.#at(name));
  }

  /** An object as a map: every field read the same way. */
  map<T>(name: string, read: (fields: Fields, name: string) => T): Map<string, T> {
    const fields = this.object(name);
    return new Map(Object.keys(fields.#object).map((key) => [key, read(fields, key)]));
  }

  /** @throws {InputError} `FIELD_UNKNOWN` for a field that nobody read. */
  end(): void {
    const unknown = Object.keys(this.#object).find((name) => !this.#known.has(name));
    if (unknown === undefined) return;
    const field = this.#at(unknown);
    throw new InputError('FIELD_UNKNOWN', `${field}: unknown; known are ${[...this.#known].join(', ')}`, { field });
  }

  #required(name: string): unknown {
    this.#known.add(name);
    if (this.has(name)) return this.#object[name];
    throw new InputError('FIELD_MISSING', `${this.#at(name)} is missing`, { field: this.#at(name) });
  }

  #at(name: string): string {
    return this.#path === '' ? name : `${this.#path}.${name}`;
  }
}

export const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

function invalid(field: string, expected: string): InputError {
  return field === ''
    ? new InputError('FIELD_INVALID', expected)
    : new InputError('FIELD_INVALID', `${field}: ${expected}`, { field });
}
