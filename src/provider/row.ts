import { InputError, IntegrityError } from '../errors.ts';
import { Fields } from '../fields.ts';
import { MODEL_NAME } from './request.ts';

export type Api = 'openai' | 'anthropic' | 'ollama' | 'offline';

/** Of one model, in millionths of the currency for a million tokens: 150000 is 0.15 a million. */
export interface Price {
  in: number;
  out: number;
}

/** What a provider row says. */
export interface Provider {
  /** How it is called in errors. */
  name: string;
  api: Api;
  /** Where its API begins, without a slash at the end; empty for `offline`. */
  baseUrl: string;
  /** Names the secret, which is never in the row; null when it needs none. */
  secretName: string | null;
  defaultModel: string;
  defaultEmbeddingModel: string | null;
  /** By model; `*` is every model that is not named. A model without a price has a cost that is not known. */
  prices: Map<string, Price>;
  /** Longest that one call may take, with all its attempts. */
  timeoutMs: number;
  /** How an OpenAI-compatible API calls the limit of an answer. Its own models refuse the older `max_tokens`. */
  maxTokensField: 'max_tokens' | 'max_completion_tokens';
}

/** @throws {IntegrityError} `PROVIDER_INVALID` naming the field: a root key signed it, so it should have been right. */
export function parseProviderContent(content: unknown, name: string): Provider {
  try {
    return readContent(new Fields(content, 'content'), name);
  } catch (cause) {
    if (!(cause instanceof InputError)) throw cause;
    const field = cause.field ?? 'content';
    throw new IntegrityError('PROVIDER_INVALID', `provider ${name}: ${cause.message}`, { field, cause });
  }
}

const TIMEOUT_MS_MAX = 600_000;
/** Only such names, so that no row can ask the host for another of its secrets. */
const SECRET_NAME = /^[A-Z][A-Z0-9_]*_API_KEY$/;

function readContent(fields: Fields, name: string): Provider {
  const api = fields.text('api', /^(openai|anthropic|ollama|offline)$/, 'openai, anthropic, ollama or offline') as Api;
  const provider: Provider = {
    name,
    api,
    baseUrl: api === 'offline' ? '' : readBaseUrl(fields),
    secretName:
      api === 'offline' ? null : (fields.optionalText('secret_name', SECRET_NAME, 'a name such as X_API_KEY') ?? null),
    defaultModel: fields.text('default_model', MODEL_NAME, 'the name of a model'),
    defaultEmbeddingModel: fields.optionalText('default_embedding_model', MODEL_NAME, 'the name of a model') ?? null,
    prices: fields.map('prices', (prices, model) => readPrice(prices.object(model))),
    timeoutMs: fields.wholeNumber('timeout_ms', 1),
    maxTokensField: api === 'openai' ? readMaxTokensField(fields) : 'max_tokens',
  };
  if (provider.timeoutMs > TIMEOUT_MS_MAX) {
    const field = 'content.timeout_ms';
    throw new InputError('FIELD_INVALID', `${field}: expected at most ${TIMEOUT_MS_MAX}`, { field });
  }
  fields.end();
  return provider;
}

function readMaxTokensField(fields: Fields): Provider['maxTokensField'] {
  const [older, newer] = ['max_tokens', 'max_completion_tokens'] as const;
  const said = fields.optionalText('max_tokens_field', /^max_(completion_)?tokens$/, `${older} or ${newer}`);
  return said === newer ? newer : older;
}

function readPrice(fields: Fields): Price {
  const price = { in: fields.wholeNumber('in', 0), out: fields.wholeNumber('out', 0) };
  fields.end();
  return price;
}

const LOOPBACK = new Set(['127.0.0.1', '[::1]', 'localhost']);

/** A secret goes there: so over TLS, or not over a wire at all. */
function readBaseUrl(fields: Fields): string {
  const text = fields.text('base_url', /^https?:\/\/[^?#@\s\\]+$/, 'a URL without user, query and fragment');
  const url = URL.parse(text);
  if (url === null || (url.protocol !== 'https:' && !LOOPBACK.has(url.hostname))) {
    const field = 'content.base_url';
    throw new InputError('FIELD_INVALID', `${field}: expected https, or http to this machine`, { field });
  }
  return url.href.replace(/\/+$/, '');
}
