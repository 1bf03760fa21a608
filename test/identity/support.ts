import { type ApiOptions, createApi } from '../../src/api/index.ts';
import { createAuthenticator, type JwtOptions, type Caller as Known } from '../../src/identity/index.ts';
import type { Identity } from '../../src/ledger/index.ts';
import type { Stage0 } from '../../src/stage0/index.ts';
import { Caller } from '../api/http.ts';
import { trustedKeys } from '../support/keys.ts';

export const LOCAL_TOKEN = 'llt_of-the-local-start';
export const LOCAL: Identity = { userId: 'local', tenantId: 'local' };

export function authenticatorOf(stage0: Stage0, jwt?: JwtOptions) {
  return createAuthenticator({ ...stage0, trustedKeys, jwt, local: { token: LOCAL_TOKEN, identity: LOCAL } });
}

/** The API as it is deployed, and those who call it with a token. */
export function openApi(stage0: Stage0, more: Partial<ApiOptions> = {}) {
  const app = createApi({ stage0, trustedKeys, authenticator: authenticatorOf(stage0), ...more });
  return { app, as: (token: string) => new Caller(app, { Authorization: `Bearer ${token}` }) };
}

/** Somebody whom a credential of his own lets do everything. */
export function callerOf(identity: Identity, scopes: string[] = ['*']): Known {
  return { identity, scopes, tokenId: null, expiresAt: null };
}
