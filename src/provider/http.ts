import { UpstreamError } from '../errors.ts';

/** The time that passes between attempts, handed in so that tests need not wait for it. */
export interface Clock {
  now(): Date;
  sleep(ms: number): Promise<void>;
  /** From 0 to 1, as `Math.random`. */
  random(): number;
}

export interface Post {
  url: string;
  headers: Record<string, string>;
  body: string;
  /** When the caller stops waiting. */
  deadline: Date;
  clock: Clock;
  /** How the other side is called in errors. */
  name: string;
  /** Applied to what the other side says of an error, before anybody else sees it. */
  clean: (text: string) => string;
}

const ATTEMPTS_MAX = 4;
/** What is waited before the second attempt when nobody says how long; it doubles with each further one. */
const BACKOFF_MS = 500;
const ANSWER_BYTES_MAX = 16 * 1024 * 1024;
const ERROR_BYTES_MAX = 64 * 1024;
const ERROR_CHARS_MAX = 300;
/** Too many requests, or trouble that passes; 529 is Anthropic's "overloaded". */
const PASSING: ReadonlySet<number> = new Set([429, 500, 502, 503, 504, 529]);

/** An attempt that failed. `retryMs`: when the next may follow; null: whenever we like; undefined: there is no point. */
interface Failure {
  error: UpstreamError;
  retryMs?: number | null;
}

/**
 * Send a request until it is answered: again after what passes (429, 5xx, a broken connection), when the other side says
 * so or with growing, random pauses, at most four times in all and never past the deadline.
 *
 * @returns the answer's JSON, and how many attempts it took.
 * @throws {UpstreamError} `PROVIDER_UNAVAILABLE`, `PROVIDER_RATE_LIMITED`, `PROVIDER_TIMEOUT`, `PROVIDER_REFUSED` (the
 *   other 4xx), `PROVIDER_REDIRECTED`, `PROVIDER_ANSWER_INVALID`, `PROVIDER_ANSWER_TOO_LARGE`.
 */
export async function postJson(post: Post): Promise<{ json: unknown; attempts: number }> {
  const { clock, deadline } = post;
  for (let attempts = 1; ; attempts++) {
    const outcome = await attempt(post);
    if ('json' in outcome) return { json: outcome.json, attempts };
    const { error, retryMs } = outcome;
    if (retryMs === undefined || attempts === ATTEMPTS_MAX) throw error;
    const waitMs = retryMs ?? BACKOFF_MS * 2 ** (attempts - 1) * (0.5 + clock.random() / 2);
    if (clock.now().getTime() + waitMs >= deadline.getTime()) throw error;
    await clock.sleep(waitMs);
  }
}

async function attempt(post: Post): Promise<{ json: unknown } | Failure> {
  const { name, deadline, clock } = post;
  const remainingMs = deadline.getTime() - clock.now().getTime();
  const timedOut = { error: new UpstreamError('PROVIDER_TIMEOUT', `provider ${name} did not answer in time`) };
  if (remainingMs <= 0) return timedOut;
  const signal = AbortSignal.timeout(remainingMs);
  try {
    const { url, headers, body } = post;
    // Not followed: it could lead anywhere, with the secret in its headers.
    const response = await fetch(url, { method: 'POST', headers, body, signal, redirect: 'manual' });
    if (!response.ok) return await refusal(post, response);
    return { json: parse(name, await read(response, ANSWER_BYTES_MAX, name)) };
  } catch (cause) {
    if (cause instanceof UpstreamError) return { error: cause };
    if (signal.aborted) return timedOut;
    const error = new UpstreamError('PROVIDER_UNAVAILABLE', `the connection to provider ${name} failed`, { cause });
    return { error, retryMs: null };
  }
}

/** @throws {UpstreamError} `PROVIDER_ANSWER_TOO_LARGE`, as soon as it is. */
async function read(response: Response, bytesMax: number, name: string): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length;
    if (bytes > bytesMax) {
      throw new UpstreamError('PROVIDER_ANSWER_TOO_LARGE', `provider ${name} answered more than ${bytesMax} bytes`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** No cause: the parser's own message would quote the answer. */
function parse(name: string, bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    throw new UpstreamError('PROVIDER_ANSWER_INVALID', `provider ${name} did not answer JSON`);
  }
}

async function refusal(post: Post, response: Response): Promise<Failure> {
  const { status, headers } = response;
  const said = await messageOf(post, response);
  const error = new UpstreamError(
    codeOf(status),
    `provider ${post.name} answered ${status}${said === '' ? '' : `: ${said}`}`,
  );
  const hint = headers.get('x-should-retry');
  const mayRetry = hint === 'true' || (hint !== 'false' && PASSING.has(status));
  return mayRetry ? { error, retryMs: retryMsOf(headers, post.clock) } : { error };
}

function codeOf(status: number): string {
  if (status === 429) return 'PROVIDER_RATE_LIMITED';
  if (status >= 500) return 'PROVIDER_UNAVAILABLE';
  return status < 400 ? 'PROVIDER_REDIRECTED' : 'PROVIDER_REFUSED';
}

/** The provider's own words, on one short line; nothing when it sent no JSON that has some. */
async function messageOf({ name, clean }: Post, response: Response): Promise<string> {
  let said: unknown;
  try {
    const body = parse(name, await read(response, ERROR_BYTES_MAX, name)) as Record<string, unknown> | null;
    const error = body?.error ?? body;
    said = typeof error === 'string' ? error : (error as Record<string, unknown> | null)?.message;
  } catch {
    // Too long, broken off or no JSON: the status says enough.
  }
  // Cleaned before it is cut: half a secret would not be recognised.
  return typeof said === 'string'
    ? clean(said)
        .replace(/[\p{C}\s]+/gu, ' ')
        .trim()
        .slice(0, ERROR_CHARS_MAX)
    : '';
}

/** `retry-after-ms`, or `Retry-After` in seconds or as a date (RFC 9110, 10.2.3); null when there is none to go by. */
function retryMsOf(headers: Headers, clock: Clock): number | null {
  const ms = headers.get('retry-after-ms');
  const after = headers.get('retry-after');
  for (const wait of [
    ms === null ? Number.NaN : Number(ms),
    after === null ? Number.NaN : Number(after) * 1_000,
    after === null ? Number.NaN : Math.max(0, Date.parse(after) - clock.now().getTime()),
  ]) {
    if (wait >= 0) return wait;
  }
  return null;
}
