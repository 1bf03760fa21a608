import type { Embedded, Said } from './answer.ts';
import type { ChatRequest, EmbedRequest } from './request.ts';

const DIMENSIONS = 256;
const CHARS_PER_TOKEN = 4;

/**
 * The provider that is always there: no network, no secret, no cost, and the same answer to the same request on every
 * machine. It answers with the last message, cut where `max_tokens` (of four characters each) says so.
 */
export function chatOffline({ messages, maxTokens }: ChatRequest, model: string): Said {
  const whole = `offline: ${messages.at(-1)?.content}`;
  const text = maxTokens === null ? whole : whole.slice(0, maxTokens * CHARS_PER_TOKEN);
  return {
    text,
    tool_calls: [],
    finish_reason: text.length < whole.length ? 'length' : 'stop',
    model,
    tokens_in: tokensOf(messages.map(({ content }) => content)),
    tokens_out: tokensOf([text]),
  };
}

/**
 * Unit vectors that know words, not meaning: each word (letters and digits, in lower case) counts in the dimension that
 * its hash names. Texts that share words are near each other, by as much as they share.
 */
export function embedOffline({ texts }: EmbedRequest, model: string): Embedded {
  return { embeddings: texts.map(vectorOf), model, tokens_in: tokensOf(texts), tokens_out: 0 };
}

function vectorOf(text: string): number[] {
  const vector = new Array<number>(DIMENSIONS).fill(0);
  const words = text
    .normalize('NFKC')
    .toLowerCase()
    .match(/[\p{L}\p{N}]+/gu) ?? [text];
  for (const word of words) {
    const dimension = fnv1a(word) % DIMENSIONS;
    vector[dimension] = (vector[dimension] as number) + 1;
  }
  const length = Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0));
  // Six decimals: enough to compare, and short in a span.
  return vector.map((value) => Math.round((value / length) * 1e6) / 1e6);
}

/** 32 bits of FNV-1a over UTF-16 code units, the upper half folded into the lower one. */
function fnv1a(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return (hash ^ (hash >>> 16)) >>> 0;
}

function tokensOf(texts: string[]): number {
  return texts.reduce((sum, text) => sum + Math.ceil(text.length / CHARS_PER_TOKEN), 0);
}
