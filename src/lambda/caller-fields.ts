import type { Caller } from '../identity/caller.ts';

/**
 * A caller as text: so the authorizer hands it to API Gateway, whose context holds no lists, so it lies with a
 * connection, and so the sender says it to the reader.
 */
export interface CallerFields {
  user_id: string;
  tenant_id: string;
  /** Separated by spaces. */
  scopes: string;
  /** Empty when there is none. */
  token_id: string;
  /** ISO 8601; empty when it does not end by itself. */
  expires_at: string;
}

export function callerFields({ identity, scopes, tokenId, expiresAt }: Caller): CallerFields {
  return {
    user_id: identity.userId,
    tenant_id: identity.tenantId,
    scopes: scopes.join(' '),
    token_id: tokenId ?? '',
    expires_at: expiresAt?.toISOString() ?? '',
  };
}

export function callerOf({ user_id, tenant_id, scopes, token_id, expires_at }: CallerFields): Caller {
  return {
    identity: { userId: user_id, tenantId: tenant_id },
    scopes: scopes === '' ? [] : scopes.split(' '),
    tokenId: token_id === '' ? null : token_id,
    expiresAt: expires_at === '' ? null : new Date(expires_at),
  };
}
