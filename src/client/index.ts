/**
 * The system from outside: a small typed client of the HTTP routes, for the command line and for programs.
 *
 * Authoritative for what is sent again when no answer came: only what may arrive twice without harm. Must never know
 * the ledger, hold a secret longer than a call needs it, or say a token in an error.
 */
export {
  Client,
  type ClientOptions,
  type ExecuteOptions,
  type RequestFilter,
  type RequestSelection,
  type RequestView,
  type SpanProof,
  type SpanQuery,
} from './client.ts';
