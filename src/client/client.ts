import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  AccessError,
  ConflictError,
  GovernanceError,
  InputError,
  KernelError,
  type LogLineError,
  UpstreamError,
} from '../errors.ts';
import type { Json, Span, StoredSpan } from '../span/index.ts';
import type { BootAnswer } from '../stage0/index.ts';

export interface ClientOptions {
  /** Where the system answers, for instance `http://127.0.0.1:8787`. */
  url: string;
  /** The bearer token; it says who the caller is. */
  token: string;
}

/** Where an appended version stands. */
export interface AppendedSpan {
  id: string;
  seq: number;
  curr_hash: string;
}

export interface SpanQuery {
  entity_type?: string | undefined;
  status?: string | undefined;
  name?: string | undefined;
  parent_id?: string | undefined;
  caused_by?: string | undefined;
  trace_id?: string | undefined;
  owner?: string | undefined;
  limit?: number | undefined;
}

export interface SpanPage {
  spans: StoredSpan[];
  /** Continues the list; null at its end. */
  before: string | null;
}

export interface TimelinePage {
  spans: StoredSpan[];
  /** Where the next page goes on. */
  position: string;
}

export interface SpanProof {
  id: string;
  ok: boolean;
  versions: { seq: number; curr_hash: string; signature: string; public_key: string; ok: boolean }[];
  problems: { id: string; seq: number; class: string; detail: string }[];
}

export interface ExecuteOptions {
  span_id: string;
  input?: Json | undefined;
  priority?: number | undefined;
  max_attempts?: number | undefined;
  delay_ms?: number | undefined;
  scheduled_at?: string | undefined;
  timeout_ms?: number | undefined;
  idempotency_key?: string | undefined;
}

/** A request as it stands. */
export interface RequestView {
  id: string;
  function_id: string;
  name: string | null;
  status: 'scheduled' | 'error' | 'complete' | 'dead' | 'cancelled';
  state: 'ready' | 'delayed' | 'leased' | 'dead' | null;
  priority: number;
  attempt: number;
  max_attempts: number | null;
  scheduled_at: string | null;
  created_at: string;
  started_at: string | null;
  finished_at: string | null;
  input: Json;
  output: Json;
  error: { code: string; message: string } | null;
  execution_ids: string[];
  idempotency_key: string | null;
  trace_id: string | null;
  position: string;
}

export interface RequestFilter {
  status?: string | undefined;
  state?: string | undefined;
  function_id?: string | undefined;
}

export type RequestSelection = { ids: string[] } | { filter: RequestFilter; limit?: number | undefined };

export interface RequestChanges {
  changed: string[];
  unchanged: { id: string; reason: string }[];
}

const ATTEMPTS_MAX = 4;
const RETRY_MS = 200;
/** A boot may take as long as the manifest lets a function run, and a little more. */
const ANSWER_TIMEOUT_MS = 120_000;

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
  me(): Promise<{ user_id: string; tenant_id: string }> {
    return this.#get('/api/me');
  }

  boot(boot_function_id: string, input: Json): Promise<BootAnswer> {
    return this.#post('/boot', { boot_function_id, input });
  }

  /** A new span goes with a key of its own: so that it may be sent again when no answer comes. A later version does not. */
  append(span: Span): Promise<AppendedSpan> {
    if (span.id != null) return this.#post('/api/spans', span);
    return this.#post('/api/spans', span, ATTEMPTS_MAX, { 'Idempotency-Key': randomUUID() });
  }

  spans(query: SpanQuery, before?: string | undefined): Promise<SpanPage> {
    return this.#get('/api/spans', { ...query, before });
  }

  span(id: string): Promise<StoredSpan> {
    return this.#get(`/api/spans/${encodeURIComponent(id)}`);
  }

  versions(id: string): Promise<{ id: string; versions: StoredSpan[] }> {
    return this.#get(`/api/spans/${encodeURIComponent(id)}/versions`);
  }

  verify(id: string): Promise<SpanProof> {
    return this.#get(`/api/spans/${encodeURIComponent(id)}/verify`);
  }

  /** @param after a position, `end` for where it ends now, nothing for its start. */
  timeline(after: string | undefined, query: SpanQuery = {}): Promise<TimelinePage> {
    return this.#get('/api/timeline', { ...query, after });
  }

  /** With a key of its own if the caller has none: so that it may be sent again when no answer comes. */
  execute(options: ExecuteOptions): Promise<{ request_id: string; status: string }> {
    return this.#post('/api/execute', { idempotency_key: randomUUID(), ...options }, ATTEMPTS_MAX);
  }

  request(id: string): Promise<RequestView> {
    return this.#get(`/api/requests/${encodeURIComponent(id)}`);
  }

  requests(
    filter: RequestFilter & { limit?: number | undefined },
    before?: string | undefined,
  ): Promise<{ requests: RequestView[]; before: string | null }> {
    return this.#get('/api/requests', { ...filter, before });
  }

  cancel(selection: RequestSelection): Promise<RequestChanges> {
    return this.#post('/api/requests/cancel', selection);
  }

  redrive(selection: RequestSelection): Promise<RequestChanges> {
    return this.#post('/api/requests/redrive', selection);
  }

  #get<T>(path: string, query: object = {}): Promise<T> {
    const said = Object.entries(query).filter(([, value]) => value !== undefined);
    const search = new URLSearchParams(said.map(([name, value]): [string, string] => [name, String(value)])).toString();
    return this.#send<T>(search === '' ? path : `${path}?${search}`, { method: 'GET' }, ATTEMPTS_MAX);
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
        await sleep(RETRY_MS * 2 ** (attempt - 1) * (0.5 + Math.random() / 2));
      }
    }
  }

  async #sendOnce<T>(path: string, init: RequestInit): Promise<T> {
    const headers = {
      ...(init.headers as Record<string, string>),
      Authorization: `Bearer ${this.#token}`,
      'Content-Type': 'application/json',
    };
    const signal = AbortSignal.timeout(ANSWER_TIMEOUT_MS);
    let response: Response;
    let text: string;
    try {
      response = await fetch(`${this.#url}${path}`, { ...init, headers, signal });
      text = await response.text();
    } catch (cause) {
      throw new UpstreamError('UNREACHABLE', `nothing answers at ${this.#url}`, { cause });
    }
    const body = parse(text);
    if (response.ok && body !== undefined) return body as T;
    throw errorOf(response.status, body, this.#url);
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
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
