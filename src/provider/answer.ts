import { InputError } from '../errors.ts';
import type { Fields } from '../fields.ts';
import type { ToolCall } from './request.ts';

/** Why the model stopped; `other` is what its API says and none of the rest means. */
export type FinishReason = 'stop' | 'length' | 'tool_calls' | 'content_filter' | 'other';

/** What a model said. Counts that its API did not tell are null. */
export interface Said {
  text: string;
  tool_calls: ToolCall[];
  finish_reason: FinishReason;
  model: string;
  tokens_in: number | null;
  tokens_out: number | null;
}

/** One vector for each text, in the order of the texts. */
export interface Embedded {
  embeddings: number[][];
  model: string;
  tokens_in: number | null;
  tokens_out: number | null;
}

/** The same for all providers. */
export type ProviderAnswer = (Said | Embedded) & {
  /** Millionths of the currency of the row's prices, rounded to the nearest; null when price or tokens are not known. */
  cost_micros: number | null;
  /** From the first attempt to the end of the last, with what was waited between them. */
  latency_ms: number;
  attempts: number;
};

/** What a span's columns hold. */
const TOKENS_MAX = 2 ** 31 - 1;
const VALUES_MAX = 100_000;

/** Which model answered, where the API says so: often a version of the one that was asked. */
export function readModel(fields: Fields, asked: string): string {
  return fields.any('model') === null ? asked : fields.text('model', /^.{1,300}$/s, 'a name of at most 300 characters');
}

/** A count of tokens that the API may leave out. */
export function readTokens(fields: Fields, name: string): number | null {
  return fields.any(name) === null ? null : Math.min(fields.wholeNumber(name, 0), TOKENS_MAX);
}

/** @throws {InputError} `FIELD_INVALID` not one vector for each text, or values that are no numbers. */
export function checkEmbeddings(embeddings: unknown[], count: number): number[][] {
  const [first] = embeddings;
  const isRight =
    embeddings.length === count &&
    Array.isArray(first) &&
    first.length > 0 &&
    first.length <= VALUES_MAX &&
    embeddings.every((vector) => Array.isArray(vector) && vector.length === first.length && vector.every(isValue));
  if (isRight) return embeddings as number[][];
  throw new InputError('FIELD_INVALID', `expected ${count} vectors of numbers, all of one length`);
}

function isValue(value: unknown): boolean {
  return typeof value === 'number' && Math.abs(value) <= Number.MAX_SAFE_INTEGER;
}
