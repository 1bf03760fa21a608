/**
 * What a kernel sees: `ctx`, the system-call table. Everything else a kernel might want does not exist for it: no
 * process, no network, no file, no clock but `now`, no secret.
 *
 * Every member marked *call* crosses the bridge and counts against the run's `calls` limit; one batch of calls is at
 * most 8 MiB of JSON, one answer at most 8 M characters. Calls made before an `await` leave together and run at the
 * same time. A refused call rejects with an `Error` that has `code` and `message`. Calls still open when `main`
 * returns are not waited for: they may take effect or not.
 *
 * A kernel file may not hold the word of dynamic loading, not even in a comment, so the type is global
 * too: `@param {Ctx} ctx`; rows are `Record<string, any>`.
 */

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

// biome-ignore lint/suspicious/noExplicitAny: rows and spans are sparse, and kernels are JavaScript checked by JSDoc
export type Row = Record<string, any>;

export interface KernelEnv {
  user_id: string;
  tenant_id: string;
  kernel_id: string;
  kernel_seq: number;
  kernel_hash: string;
  boot_event_id: string;
  trace_id: string;
  /** ISO instant at which the run is ended. */
  deadline: string;
  /** The manifest's policy, one for everybody. */
  policy: { slow_ms: number; timeout_ms: number; memory_mb: number };
}

/** Where an appended version stands. */
export interface Appended {
  id: string;
  seq: number;
  curr_hash: string;
}

export interface UntrustedRun {
  code: string;
  input?: unknown;
  timeout_ms?: number;
  memory_mb?: number;
  [option: string]: unknown;
}

export type WorkKind = 'requests' | 'schedules' | 'policies';

export interface Claimed {
  work: Row[];
  /** Nothing more can be claimed in this shift: finish what is open, and return. */
  is_over: boolean;
  /** When work of this kind is due next, as far as it is known. */
  next_at?: string | null;
}

export interface KernelContext {
  /** The `input` of the boot; JSON. */
  readonly input: Row;
  readonly env: Readonly<KernelEnv>;
  /** The current instant, ISO 8601 in UTC with milliseconds. */
  now(): string;
  /** A random UUID (version 4) of the host: 32 with the start and 16 with each answer; throws when they are used up. */
  randomUUID(): string;
  /** *Call.* Tagged template, values become parameters. Read-only, under the row level security of the caller. */
  sql(strings: TemplateStringsArray, ...values: unknown[]): Promise<Row[]>;
  /** *Call.* Newest version of a span the caller may see, its hash and signature checked by the host; null if none. */
  fetchSpan(id: string): Promise<Row | null>;
  /** *Call.* Appends spans; the host completes and signs them. One span in, one answer out; a list in, a list out. */
  append(span: Row): Promise<Appended>;
  append(spans: Row[]): Promise<Appended[]>;
  /** Alias of `append`. */
  insertSpan(span: Row): Promise<Appended>;
  insertSpan(spans: Row[]): Promise<Appended[]>;
  /** *Two calls.* Runs `fn` while the advisory lock is held; its appends commit together, and roll back if it throws. */
  lock<T>(key: string, fn: () => T | Promise<T>): Promise<T>;
  /** *Call.* Runs another kernel with the same checks as a boot; the depth is limited. */
  invoke(kernelId: string, input?: unknown): Promise<Row>;
  /** *Call.* Runs untrusted code of the tenant in a child of its own, never above the manifest's limits. */
  runSandboxed(run: UntrustedRun): Promise<Row>;
  /**
   * *Call.* Takes work of a kind: `requests`, `schedules` or `policies`. Only within a shift, that is, where the host
   * booted the kernel to work (`NO_SHIFT` otherwise). `options` and the work's shape belong to the kind, see `src/work`.
   */
  claim(kind: WorkKind, options?: Row): Promise<Claimed>;
  /** *Call.* Lets claimed work run, in the background: requests as their owner, policies over their spans. */
  run(ids: string[]): Promise<void>;
  /** *Call.* What has run since; waits at most `waitMs` for the first of it, and less if there may be new work. */
  outcomes(waitMs: number): Promise<{ outcomes: Row[]; is_over: boolean }>;
  /** *Call.* How claimed work ends. What somebody else has by now is `lost`, and nothing of it is written. */
  complete(items: Row[]): Promise<{ done: number; lost: string[] }>;
  /** *Call.* A request to a model by a root-signed provider row; the host holds the secret. See `src/provider`. */
  provider(providerId: string, request: Row): Promise<Row>;
  /** *Calls*, each of them. `encrypt` and `decrypt` use the key of the tenant. */
  readonly crypto: {
    blake3(text: string): Promise<string>;
    hex(text: string): Promise<string>;
    canonicalize(value: unknown): Promise<string>;
    encrypt(text: string): Promise<string>;
    decrypt(text: string): Promise<string>;
  };
  /** *Call.* May be left without `await`. */
  log(level: 'debug' | 'info' | 'warn' | 'error', message: string, data?: unknown): Promise<void>;
}

/** The calls the host accepts; any other name ends the run. */
export const SYSTEM_CALLS: ReadonlySet<string> = new Set([
  'sql',
  'fetchSpan',
  'append',
  'lock',
  'unlock',
  'invoke',
  'runSandboxed',
  'claim',
  'run',
  'outcomes',
  'complete',
  'provider',
  'crypto.blake3',
  'crypto.hex',
  'crypto.canonicalize',
  'crypto.encrypt',
  'crypto.decrypt',
  'log',
]);

declare global {
  /** The type of a kernel's `ctx`, global so that kernel files can name it. */
  type Ctx = KernelContext;
}
