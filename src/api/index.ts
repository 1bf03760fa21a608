/**
 * The HTTP app: `Request` in, `Response` out; Lambda and the local server are thin adapters around it.
 *
 * Authoritative for routes and for how errors look outside. Must never take an identity from a body, let a stack, SQL
 * or a secret out, or decide what Stage-0 and the database decide.
 */
export { type ApiOptions, createApi, type Host } from './app.ts';
export { readConsole } from './console.ts';
export type { SocketEnv } from './stream.ts';
