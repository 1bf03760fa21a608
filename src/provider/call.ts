import { InputError, UpstreamError } from '../errors.ts';
import { Fields } from '../fields.ts';
import type { Embedded, ProviderAnswer, Said } from './answer.ts';
import { anthropic } from './anthropic.ts';
import { type Clock, postJson } from './http.ts';
import { chatOffline, embedOffline } from './offline.ts';
import { ollama } from './ollama.ts';
import { openai } from './openai.ts';
import type { ProviderRequest } from './request.ts';
import type { Api, Price, Provider } from './row.ts';
import type { WireFormat } from './wire-format.ts';

export type { Clock } from './http.ts';

export interface CallOptions {
  /** Goes into a header and nowhere else; null when the provider needs none. */
  secret: string | null;
  deadline: Date;
  clock: Clock;
}

const WIRE_FORMATS: Record<Exclude<Api, 'offline'>, WireFormat> = { openai, anthropic, ollama };
/** A shorter one is no secret, and would be found in every text. */
const SECRET_LENGTH_MIN = 8;

/**
 * Ask a provider. What comes back is whole, has the one shape of all providers, can be stored in a span, and does not
 * hold the secret, whatever the provider sent.
 *
 * @throws {InputError} the request asks for what this provider does not have.
 * @throws {UpstreamError} those of `postJson`; `PROVIDER_ANSWER_INVALID` also for JSON of another shape.
 */
export async function callProvider(
  provider: Provider,
  request: ProviderRequest,
  { secret, deadline, clock }: CallOptions,
): Promise<ProviderAnswer> {
  const model = modelOf(provider, request);
  const startedAt = clock.now().getTime();
  const limit = Math.min(request.timeoutMs ?? provider.timeoutMs, provider.timeoutMs);
  const until = new Date(Math.min(deadline.getTime(), startedAt + limit));
  const clean = cleaner(secret);
  const { answer, attempts } =
    provider.api === 'offline'
      ? { answer: answerOffline(request, model), attempts: 1 }
      : await ask(WIRE_FORMATS[provider.api], provider, request, model, { secret, deadline: until, clock }, clean);
  return {
    ...(mapTexts(answer, clean) as Said | Embedded),
    cost_micros: costOf(provider.prices.get(model) ?? provider.prices.get('*'), answer),
    latency_ms: clock.now().getTime() - startedAt,
    attempts,
  };
}

function modelOf(provider: Provider, { model, kind }: ProviderRequest): string {
  const chosen = model ?? (kind === 'chat' ? provider.defaultModel : provider.defaultEmbeddingModel);
  if (chosen !== null) return chosen;
  throw new InputError('FIELD_MISSING', `model is missing: provider ${provider.name} has no default for embeddings`, {
    field: 'model',
  });
}

function answerOffline(request: ProviderRequest, model: string): Said | Embedded {
  return request.kind === 'chat' ? chatOffline(request, model) : embedOffline(request, model);
}

async function ask(
  format: WireFormat,
  provider: Provider,
  request: ProviderRequest,
  model: string,
  { secret, deadline, clock }: CallOptions,
  clean: (text: string) => string,
): Promise<{ answer: Said | Embedded; attempts: number }> {
  const { path, body, read } = exchange(format, provider, request, model);
  const { json, attempts } = await postJson({
    url: `${provider.baseUrl}${path}`,
    headers: { ...format.headers(secret), 'content-type': 'application/json', accept: 'application/json' },
    body: JSON.stringify(body),
    deadline,
    clock,
    name: provider.name,
    clean,
  });
  try {
    return { answer: read(new Fields(json, 'answer')), attempts };
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    throw new UpstreamError('PROVIDER_ANSWER_INVALID', `provider ${provider.name}: ${error.message}`);
  }
}

/** One request in the API's own words, and how its answer is read. */
function exchange(format: WireFormat, provider: Provider, request: ProviderRequest, model: string) {
  if (request.kind === 'chat') {
    const { path, body, read } = format.chat;
    return { path, body: body(request, model, provider), read: (answer: Fields) => read(answer, model) };
  }
  if (format.embed === null) {
    throw new InputError('FIELD_INVALID', `embed: provider ${provider.name} has no embeddings`, { field: 'embed' });
  }
  const { path, body, read } = format.embed;
  return { path, body: body(request, model), read: (answer: Fields) => read(answer, model, request.texts.length) };
}

function costOf(price: Price | undefined, { tokens_in, tokens_out }: Said | Embedded): number | null {
  if (price === undefined || tokens_in === null || tokens_out === null) return null;
  return Math.round((tokens_in * price.in + tokens_out * price.out) / 1_000_000);
}

/** Makes text storable, and blots out the secret where the other side echoes it. */
function cleaner(secret: string | null): (text: string) => string {
  return (text) => {
    const storable = text.toWellFormed().replaceAll('\0', '\ufffd');
    return secret === null || secret.length < SECRET_LENGTH_MIN ? storable : storable.replaceAll(secret, '[secret]');
  };
}

function mapTexts(value: unknown, change: (text: string) => string): unknown {
  if (typeof value === 'string') return change(value);
  if (Array.isArray(value)) return value.map((item) => mapTexts(item, change));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, mapTexts(item, change)]));
}
