import { createHash, timingSafeEqual } from 'node:crypto';
import { AccessError } from '../errors.ts';
import type { Identity } from '../ledger/index.ts';
import { API_TOKEN_PREFIX, ApiTokenReader, type ApiTokenReaderOptions } from './api-tokens.ts';
import type { Authenticator, Caller } from './caller.ts';
import { type JwtOptions, JwtReader } from './jwt.ts';

export interface AuthenticatorOptions extends ApiTokenReaderOptions {
  /** Without it no JWT counts. */
  jwt?: JwtOptions | undefined;
  /** The token of a local start, which may do everything. */
  local?: { token: string; identity: Identity };
}

const TOKEN_LENGTH_MAX = 8_192;
const JWT = /^[\w-]+\.[\w-]+\.[\w-]*$/;

/** Tells by its form which kind a token is. What is of no kind is refused. */
export function createAuthenticator({ jwt, local, ...options }: AuthenticatorOptions): Authenticator {
  const apiTokens = new ApiTokenReader(options);
  const jwts = jwt === undefined ? undefined : new JwtReader(jwt, options.now);
  const isExpired = ({ expiresAt }: Caller) => expiresAt !== null && expiresAt <= options.now();

  return {
    async authenticate(token) {
      if (token.length > TOKEN_LENGTH_MAX) {
        throw new AccessError('TOKEN_INVALID', `a token has at most ${TOKEN_LENGTH_MAX} characters`);
      }
      if (local !== undefined && areEqual(token, local.token)) {
        return { identity: local.identity, scopes: ['*'], tokenId: null, expiresAt: null };
      }
      if (token.startsWith(API_TOKEN_PREFIX)) return apiTokens.read(token);
      if (jwts !== undefined && JWT.test(token)) return jwts.read(token);
      throw new AccessError('TOKEN_INVALID', 'this token is not known');
    },

    async ended(callers) {
      const ids = new Set(callers.map(({ tokenId }) => tokenId).filter((id) => id !== null));
      const revoked = await apiTokens.revoked([...ids]);
      return callers.filter((caller) => isExpired(caller) || revoked.has(caller.tokenId ?? ''));
    },
  };
}

/** Whether two tokens are equal, in a time that tells nothing about where they differ. */
function areEqual(given: string, expected: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(given), digest(expected));
}
