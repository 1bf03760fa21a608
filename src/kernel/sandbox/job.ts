import type { KernelEnv } from '../contract.ts';

/** Which limit a run met, or why its code did not run. */
export type LimitCode =
  | 'TIMEOUT'
  | 'MEMORY'
  | 'OUTPUT_TOO_LARGE'
  | 'TOO_MANY_CALLS'
  | 'CODE_INVALID'
  | 'CODE_REFUSED'
  | 'THREW';

export interface SandboxJob {
  /** `kernel`: reviewed, root-signed code with `ctx` and the bridge. `untrusted`: JSON in, JSON out, no bridge at all. */
  trust: 'kernel' | 'untrusted';
  /** For example `kernel:0` or `tenant:acme`. A child belongs to one trust and compartment for its whole life. */
  compartment: string;
  /** Source, byte for byte as stored. */
  code: string;
  /** Names the code in the cache of compiled scripts of a kernel child. */
  codeHash: string;
  /** Shown in stack lines and syntax errors, for example `run_code.js`. */
  fileName: string;
  /** What the code offers: kernel `main(ctx)`, tenant `function(input)`, policy `on(span)`. */
  entry: 'main' | 'function' | 'on';
  /** JSON value: the argument (untrusted) or `ctx.input` (kernel). With `each` it is `{ items: [...], context }`. */
  input: unknown;
  /**
   * Untrusted only: the function is called as `on(item, context)` for one item after the other, in one fresh context,
   * and gets a `context` of its own each time. The output is a list as long as `items`, of `{ value }` (JSON; nothing
   * is null), or `{ error: 'message' }` where that call threw or returned no JSON. Limits are for all calls together.
   */
  each?: true;
  /** Kernel only: becomes `ctx.env`. */
  env?: KernelEnv;
  limits: {
    /** Wall clock from the moment the child can begin, waiting for system calls included. */
    timeoutMs: number;
    /**
     * Resident memory the run, and what runs together with it, may add to what its child held before, in MB; at least 16,
     * at most `maxMemoryMb`.
     */
    memoryMb: number;
    /** Result as JSON, in UTF-8 bytes. */
    outputBytes: number;
    /** System calls in the whole run. */
    calls: number;
  };
  /** Asked when a child is free for it: whether it may still begin. If not it is rejected, as if there were no room. */
  mayBegin?: () => boolean;
  /** When the run is over in any case, by performance.now(): a job that waited for a child has less time left. */
  deadlineAt?: number;
  /** Kernel only: the host side of the bridge. `signal` aborts when the run ends, however it ends. */
  systemCall?: (name: string, args: unknown[], signal: AbortSignal) => Promise<unknown>;
}

export interface SandboxError {
  code: LimitCode;
  message: string;
  /** Line of the stored source, when it is known. Run-time errors of untrusted code have none (see `child.cjs`). */
  line?: number;
  /** Kernel only: the stack lines that lie in the stored source, `at main (run_code.js:12:5)`. */
  stack?: string;
  /** Kernel only: the `code` property of what was thrown, for example `QUOTA_EXCEEDED` from a system call. */
  thrownCode?: string;
}

export type SandboxResult =
  | { ok: true; output: unknown; durationMs: number; memoryBytes: number }
  | { ok: false; error: SandboxError; durationMs: number; memoryBytes: number };

/** Why a run has no result: others were with it in a child that ended, and nobody can say which one it was. */
export class NotAlone extends Error {}
