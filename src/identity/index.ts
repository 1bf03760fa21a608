/**
 * Who calls, and what he may do: bearer tokens of three kinds (JWTs of one issuer, API tokens, the token of a local
 * start), tickets, scopes, and the record of who was refused.
 *
 * Authoritative for whom a credential speaks for. Fails closed: what cannot be proved speaks for nobody. Must never
 * remember that a token was good, nor let a token's bytes into a span, a log or an error.
 */
export { API_TOKEN_LIFE_MAX_S, createApiToken, listApiTokens, revokeApiToken } from './api-tokens.ts';
export { createAuthenticator } from './authenticator.ts';
export type { Authenticator, Caller } from './caller.ts';
export { readCaller } from './credential.ts';
export { Denials } from './denials.ts';
export type { JwtOptions } from './jwt.ts';
export { readJwtOptions } from './jwt-config.ts';
export { kernelScope, requireScope } from './scopes.ts';
export { createTickets, type Tickets } from './ticket.ts';
