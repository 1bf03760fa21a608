import { InputError } from '../errors.ts';
import type { Fields } from '../fields.ts';
import type { Embedded, Said } from './answer.ts';
import type { ChatRequest, EmbedRequest } from './request.ts';
import type { Provider } from './row.ts';

/** How one API wants to be asked and what it answers. `model` is the one that is asked. */
export interface WireFormat {
  /** The headers that its secret goes into, and others of its own. */
  headers(secret: string | null): Record<string, string>;
  chat: {
    path: string;
    body(request: ChatRequest, model: string, provider: Provider): object;
    /** @throws {InputError} the answer has not this shape; the field says where. */
    read(answer: Fields, model: string): Said;
  };
  /** Null: this API has no embeddings. */
  embed: {
    path: string;
    body(request: EmbedRequest, model: string): object;
    read(answer: Fields, model: string, count: number): Embedded;
  } | null;
}

export function bearer(secret: string | null): Record<string, string> {
  return secret === null ? {} : { authorization: `Bearer ${secret}` };
}

/**
 * The arguments of a tool call as an object, for the APIs that want them back as one.
 *
 * @throws {InputError} `FIELD_INVALID`
 */
export function parseArguments(text: string, field: string): object {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
  } catch {
    // said below
  }
  throw new InputError('FIELD_INVALID', `${field}: expected the JSON of an object`, { field });
}
