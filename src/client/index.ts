/**
 * The system from outside: a small typed client of the HTTP routes, for the command line, the console and programs. Its
 * types are those of the routes' own schemas; nothing of them is there when it runs, and it runs in a browser.
 *
 * Authoritative for what is sent again when no answer came: only what may arrive twice without harm. Must never know
 * the ledger, hold a secret longer than a call needs it, or say a token in an error.
 */
export type {
  ExecuteOptions,
  ManifestView,
  Metrics,
  NewToken,
  RequestChanges,
  RequestFilter,
  RequestSelection,
  RequestView,
  SpanFilterQuery,
  SpanProof,
  SpanQuery,
  TokenDraft,
  TokenView,
} from '../api/schemas.ts';
export { Client, type ClientOptions, type StreamedSpan, type StreamOptions } from './client.ts';
