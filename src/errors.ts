/**
 * The errors of the whole house. The class says how to react, the code says why.
 *
 * A message says what was expected, what was found and which id or field it concerns. It never holds a secret, SQL or
 * a whole span. Foreign errors (Postgres, Node, the AWS SDK) are wrapped once, where they enter, and kept as `cause`.
 */

export type ErrorKind = 'input' | 'access' | 'integrity' | 'governance' | 'conflict' | 'kernel' | 'upstream';

export interface ErrorDetail {
  /** Path of the offending field, for example `input.a[2]` or `ROW/kernels/01-kernels.ndjson:1 name`. */
  field?: string;
  cause?: unknown;
}

export abstract class LogLineError extends Error {
  abstract readonly kind: ErrorKind;
  readonly code: string;
  readonly field: string | undefined;

  constructor(code: string, message: string, detail: ErrorDetail = {}) {
    super(message, detail.cause === undefined ? undefined : { cause: detail.cause });
    this.name = new.target.name;
    this.code = code;
    this.field = detail.field;
  }
}

/** The caller sent something wrong; the same call can never succeed. */
export class InputError extends LogLineError {
  readonly kind = 'input';
}

/** The caller is not known, or may not do this. */
export class AccessError extends LogLineError {
  readonly kind = 'access';
}

/** Something stored does not prove itself: stop, and look at the ledger. */
export class IntegrityError extends LogLineError {
  readonly kind = 'integrity';
}

/** The manifest or a policy says no. */
export class GovernanceError extends LogLineError {
  readonly kind = 'governance';
}

/** Someone else was first; read again, then retry. */
export class ConflictError extends LogLineError {
  readonly kind = 'conflict';
}

/** Code from a row failed or met one of its limits. */
export class KernelError extends LogLineError {
  readonly kind = 'kernel';
}

/** A system we depend on (database, secret store, provider) failed; a retry may succeed. */
export class UpstreamError extends LogLineError {
  readonly kind = 'upstream';
}

/** What a command says when it fails: our own message and code, or what it was doing and why that ended. */
export function failureText(error: unknown, what: string): string {
  return error instanceof LogLineError
    ? `${error.message} (${error.code})\n`
    : `${what}: ${(error as Error).message}\n`;
}

/** Why a run failed, as its span says it. */
export function errorText({ code, message, line }: { code: string; message: string; line?: number }): string {
  return `${message} (${code}${line === undefined ? '' : `, line ${line}`})`;
}
