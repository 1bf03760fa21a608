import type {
  AppendedSpan,
  BootAnswer,
  ExecuteOptions,
  Executing,
  ManifestView,
  Me,
  Metrics,
  NewToken,
  RequestChanges,
  RequestFilter,
  RequestPage,
  RequestSelection,
  RequestView,
  SpanFilterQuery,
  SpanPage,
  SpanProof,
  SpanQuery,
  SpanVersions,
  Ticket,
  TimelinePage,
  TokenDraft,
  TokenPage,
  TokenView,
  VersionsQuery,
} from '../api/schemas.ts';
import {
  AccessError,
  ConflictError,
  GovernanceError,
  InputError,
  KernelError,
  LogLineError,
  UpstreamError,
} from '../errors.ts';
import type { Json, Span, StoredSpan } from '../span/index.ts';
import { readEvents, type ServerSentEvent } from './server-sent-events.ts';

export interface ClientOptions {
  /** Where the system answers, for instance `http://127.0.0.1:8787`. */
  url: string;
  /** The bearer token; it says who the caller is. */
  token: string;
}

export interface StreamOptions {
  /** A position, `end` for what comes from now on, nothing for all there is. */
  after?: string | undefined;
  filter?: SpanFilterQuery | undefined;
  /** Ends the stream. */
  signal?: AbortSignal | undefined;
  /** All that was there has been yielded; what follows is new. */
  onCaughtUp?: ((position: string) => void) | undefined;
  /** The connection is gone, or could not be made; it is tried again. */
  onAway?: ((error: UpstreamError) => void) | undefined;
}

/** A span of the timeline, and where it stands: what to go on after. */
export interface StreamedSpan {
  position: string;
  span: StoredSpan;
}

const ATTEMPTS_MAX = 4;
const RETRY_MS = 200;
/** A boot may take as long as the manifest lets a function run, and a little more. */
const ANSWER_TIMEOUT_MS = 120_000;
/** A stream that has not even said that it lives for so long is dead: three heartbeats. */
const SILENCE_MS = 45_000;
const RECONNECT_MS_MAX = 10_000;

/** The system over HTTP. What fails is one of the house's errors, with the code that the server gave. */
export class Client {
  readonly #url: string;
  readonly #token: string;

  /** @throws {InputError} `URL_INVALID` */
  constructor({ url, token }: ClientOptions) {
    if (!/^https?:$/.test(URL.parse(url)?.protocol ?? '')) {
      throw new InputError('URL_INVALID', `${url} is not of the form http://host:port`, { field: 'url' });
    }
    this.#url = url.replace(/\/+$/, '');
    this.#token = token;
  }

  /** Whom the token speaks for. */
  me(): Promise<Me> {
    return this.#get('/api/me');
  }

  boot(boot_function_id: string, input: Json): Promise<BootAnswer> {
    return this.#post('/boot', { boot_function_id, input });
  }

  /** A new span goes with a key of its own: so that it may be sent again when no answer comes. A later version does not. */
  append(span: Span): Promise<AppendedSpan> {
    if (span.id != null) return this.#post('/api/spans', span);
    return this.#post('/api/spans', span, ATTEMPTS_MAX, { 'Idempotency-Key': crypto.randomUUID() });
  }

  spans(query: SpanQuery, before?: string | undefined): Promise<SpanPage> {
    return this.#get('/api/spans', { ...query, before });
  }

  span(id: string): Promise<StoredSpan> {
    return this.#get(`/api/spans/${encodeURIComponent(id)}`);
  }

  /** By pages; the `next` of one is the `after` of the one that follows. */
  versions(id: string, query: VersionsQuery = {}): Promise<SpanVersions> {
    return this.#get(`/api/spans/${encodeURIComponent(id)}/versions`, query);
  }

  /** By pages, as `versions`. */
  verify(id: string, query: VersionsQuery = {}): Promise<SpanProof> {
    return this.#get(`/api/spans/${encodeURIComponent(id)}/verify`, query);
  }

  /** @param after a position, `end` for where it ends now, nothing for its start. */
  timeline(after: string | undefined, query: SpanQuery = {}): Promise<TimelinePage> {
    return this.#get('/api/timeline', { ...query, after });
  }

  /** With a key of its own if the caller has none: so that it may be sent again when no answer comes. */
  execute(options: ExecuteOptions): Promise<Executing> {
    return this.#post('/api/execute', { idempotency_key: crypto.randomUUID(), ...options }, ATTEMPTS_MAX);
  }

  request(id: string): Promise<RequestView> {
    return this.#get(`/api/requests/${encodeURIComponent(id)}`);
  }

  requests(filter: RequestFilter & { limit?: number | undefined }, before?: string | undefined): Promise<RequestPage> {
    return this.#get('/api/requests', { ...filter, before });
  }

  cancel(selection: RequestSelection): Promise<RequestChanges> {
    return this.#post('/api/requests/cancel', selection);
  }

  redrive(selection: RequestSelection): Promise<RequestChanges> {
    return this.#post('/api/requests/redrive', selection);
  }

  /** @param days as many, today the last of them; the server's own number if not said. */
  metrics(days?: number | undefined): Promise<Metrics> {
    return this.#get('/api/metrics', { days });
  }

  manifest(): Promise<ManifestView> {
    return this.#get('/api/manifest');
  }

  /** The only time that the token itself is seen. */
  createToken(draft: TokenDraft): Promise<NewToken> {
    return this.#post('/api/tokens', draft);
  }

  tokens(before?: string | undefined): Promise<TokenPage> {
    return this.#get('/api/tokens', { before });
  }

  revokeToken(id: string): Promise<TokenView> {
    return this.#post(`/api/tokens/${encodeURIComponent(id)}/revoke`, {});
  }

  /** A credential for half a minute, to be shown in the address of a stream or socket. */
  ticket(): Promise<Ticket> {
    return this.#post('/api/tickets', {});
  }

  /**
   * The timeline from a position on, for ever: each span once, in order. A connection that ends is made anew from where it
   * stood, with longer and longer pauses while nothing answers. Ends when `signal` says so, or nobody reads on.
   *
   * @throws {AccessError} the token holds no more.
   * @throws {InputError} the server refuses what was asked for.
   */
  async *stream(options: StreamOptions = {}): AsyncGenerator<StreamedSpan, void, undefined> {
    const { filter = {}, signal, onCaughtUp, onAway } = options;
    let position = options.after;
    const isOver = () => signal?.aborted === true;
    for (let failures = 0; !isOver(); ) {
      try {
        // Asked for once: what is appended while a connection is made anew comes after it.
        if (position === 'end') ({ position } = await this.timeline('end'));
        for await (const { event, data, id } of this.#connect(filter, position, signal)) {
          failures = 0;
          if (event === 'end') throw endOf(data);
          if (id === undefined || (position !== undefined && id < position)) continue;
          const isNew = id !== position;
          position = id;
          if (event === 'caught_up') onCaughtUp?.(id);
          else if (event === 'span' && isNew) yield { position: id, span: parse(data) as StoredSpan };
        }
      } catch (error) {
        if (isOver()) return;
        if (!(error instanceof UpstreamError)) throw error;
        onAway?.(error);
      }
      await pause(Math.min(RETRY_MS * 2 ** failures++, RECONNECT_MS_MAX), signal);
    }
  }

  /** The events of one connection, until it ends or is too quiet. */
  async *#connect(
    filter: SpanFilterQuery,
    position: string | undefined,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<ServerSentEvent, void, undefined> {
    const ending = new AbortController();
    const end = () => ending.abort();
    signal?.addEventListener('abort', end);
    let silence = setTimeout(end, SILENCE_MS);
    if (signal?.aborted === true) end();
    try {
      const headers = {
        Authorization: `Bearer ${this.#token}`,
        Accept: 'text/event-stream',
        ...(position === undefined ? {} : { 'Last-Event-ID': position }),
      };
      const response = await this.#fetch(`/api/timeline/stream${searchOf(filter)}`, { headers, signal: ending.signal });
      if (!response.ok) throw errorOf(response.status, parse(await response.text()), this.#url);
      if (response.body === null || !/^text\/event-stream\b/.test(response.headers.get('Content-Type') ?? '')) {
        throw errorOf(response.status, undefined, this.#url);
      }
      const reader = response.body.getReader();
      const chunks = async function* () {
        for (;;) {
          const { done, value } = await reader.read();
          if (done) return;
          clearTimeout(silence);
          silence = setTimeout(end, SILENCE_MS);
          yield value;
        }
      };
      yield* readEvents(chunks());
    } catch (cause) {
      throw cause instanceof LogLineError ? cause : this.#unreachable(cause);
    } finally {
      clearTimeout(silence);
      signal?.removeEventListener('abort', end);
      end();
    }
  }

  #get<T>(path: string, query: object = {}): Promise<T> {
    return this.#send<T>(`${path}${searchOf(query)}`, { method: 'GET' }, ATTEMPTS_MAX);
  }

  #post<T>(path: string, body: object, attempts = 1, headers: Record<string, string> = {}): Promise<T> {
    return this.#send<T>(path, { method: 'POST', body: JSON.stringify(body), headers }, attempts);
  }

  /** What may be sent twice without harm is sent again while the system cannot be reached or says that it is not well. */
  async #send<T>(path: string, init: RequestInit, attempts: number): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#sendOnce<T>(path, init);
      } catch (error) {
        if (!(error instanceof UpstreamError) || attempt >= attempts) throw error;
        await pause(RETRY_MS * 2 ** (attempt - 1));
      }
    }
  }

  async #sendOnce<T>(path: string, init: RequestInit): Promise<T> {
    const headers = {
      ...(init.headers as Record<string, string>),
      Authorization: `Bearer ${this.#token}`,
      'Content-Type': 'application/json',
    };
    const response = await this.#fetch(path, { ...init, headers, signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS) });
    const body = parse(
      await response.text().catch((cause) => {
        throw this.#unreachable(cause);
      }),
    );
    if (response.ok && body !== undefined) return body as T;
    throw errorOf(response.status, body, this.#url);
  }

  async #fetch(path: string, init: RequestInit): Promise<Response> {
    return fetch(`${this.#url}${path}`, init).catch((cause) => {
      throw this.#unreachable(cause);
    });
  }

  #unreachable(cause: unknown): UpstreamError {
    return new UpstreamError('UNREACHABLE', `nothing answers at ${this.#url}`, { cause });
  }
}

/** What is said of a query, as the end of an address. */
function searchOf(query: object): string {
  const said = Object.entries(query).filter(([, value]) => value !== undefined);
  const search = new URLSearchParams(said.map(([name, value]): [string, string] => [name, String(value)])).toString();
  return search === '' ? '' : `?${search}`;
}

/** About as long, so that many who lost the same server do not come back at the same moment. Over at once when aborted. */
function pause(ms: number, signal?: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms * (0.5 + Math.random() / 2));
    signal?.addEventListener('abort', done);
    if (signal?.aborted === true) done();
  });
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Why the server ended a stream. A credential that holds no more is the end; all else may go on from where it stood. */
function endOf(data: string): LogLineError {
  const { code } = (parse(data) ?? {}) as { code?: unknown };
  const ended = `the server ended the stream: ${code}`;
  if (code === 'TOKEN_REVOKED' || code === 'TOKEN_EXPIRED') return new AccessError(code, ended);
  return new UpstreamError(typeof code === 'string' ? code : 'STREAM_ENDED', ended);
}

/** Problem details as an error; what is none did not come from this system. */
function errorOf(status: number, body: unknown, url: string): LogLineError {
  const { code, detail, field } = (body ?? {}) as { code?: unknown; detail?: unknown; field?: unknown };
  if (typeof code !== 'string' || typeof detail !== 'string') {
    return new UpstreamError('NOT_LOGLINEOS', `what answers at ${url} is not LogLineOS (status ${status})`);
  }
  const more = typeof field === 'string' ? { field } : {};
  if (status >= 500) return new UpstreamError(code, detail, more);
  if (status === 401 || status === 403) return new AccessError(code, detail, more);
  if (status === 409) return new ConflictError(code, detail, more);
  if (status === 422) return new KernelError(code, detail, more);
  if (status === 429) return new GovernanceError(code, detail, more);
  return new InputError(code, detail, more);
}
