import type { Context } from 'hono';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import { type ErrorKind, LogLineError } from '../errors.ts';

const STATUS_OF_KIND: Record<ErrorKind, ContentfulStatusCode> = {
  input: 400,
  access: 403,
  governance: 403,
  conflict: 409,
  integrity: 409,
  kernel: 422,
  upstream: 503,
};

const STATUS_OF_CODE: Record<string, ContentfulStatusCode> = {
  TOKEN_MISSING: 401,
  TOKEN_INVALID: 401,
  TOKEN_EXPIRED: 401,
  TOKEN_REVOKED: 401,
  TICKET_INVALID: 401,
  ROUTE_NOT_FOUND: 404,
  SPAN_NOT_FOUND: 404,
  REQUEST_NOT_FOUND: 404,
  TOKEN_NOT_FOUND: 404,
  KERNEL_NOT_FOUND: 404,
  BODY_TOO_LARGE: 413,
  SPAN_TOO_LARGE: 413,
  UPGRADE_REQUIRED: 426,
  QUOTA_EXCEEDED: 429,
  CONNECTIONS_EXCEEDED: 429,
};

/**
 * The one place where errors become HTTP: RFC 9457 problem details with a stable `code`. What is not ours becomes a
 * bare 500; its cause goes to the log, never to the client.
 */
export function problemResponse(c: Context, error: unknown, log: (entry: Record<string, unknown>) => void): Response {
  const known = error instanceof LogLineError ? error : null;
  const status = known === null ? 500 : (STATUS_OF_CODE[known.code] ?? STATUS_OF_KIND[known.kind]);
  if (status >= 500)
    log({ level: 'error', path: c.req.path, error: String(error), cause: String((error as Error).cause ?? '') });
  const body = {
    type: 'about:blank',
    title: known === null ? 'Internal error' : known.code.toLowerCase().replaceAll('_', ' '),
    status,
    code: known?.code ?? 'INTERNAL',
    detail: known?.message ?? 'something failed on our side; the log says what',
    ...(known?.field === undefined ? {} : { field: known.field }),
  };
  if (status === 401) c.header('WWW-Authenticate', 'Bearer');
  return c.body(JSON.stringify(body), status, { 'Content-Type': 'application/problem+json' });
}
