import type { Identity } from '../ledger/index.ts';

/** Whom a credential speaks for, and what it allows. */
export interface Caller {
  identity: Identity;
  /** What the caller may do, such as `spans:read` or `kernel:run_code:invoke`; `*` is everything. */
  scopes: readonly string[];
  /** The span of the API token that was shown; null for a JWT, or the token of a local start. */
  tokenId: string | null;
  /** When the credential ends by itself; null if it does not. */
  expiresAt: Date | null;
}

/** Knows whom credentials speak for. */
export interface Authenticator {
  /** @throws {AccessError} `TOKEN_INVALID`, `TOKEN_EXPIRED` or `TOKEN_REVOKED` */
  authenticate(token: string): Promise<Caller>;
  /** For who is connected for long: those of them whose credential holds no more, because it ended or was revoked. */
  ended(callers: Caller[]): Promise<Caller[]>;
}
