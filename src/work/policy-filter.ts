import type { PolicyCursor } from '../ledger/index.ts';
import { type StoredSpan, SYSTEM_ID } from '../span/index.ts';

/** Longest chain of policies that act on what policies did. */
export const POLICY_DEPTH_MAX = 3;

/** What a policy is, as far as it is asked and as far as it acts. */
export type PolicyRow = Pick<
  StoredSpan,
  'id' | 'name' | 'code' | 'content' | 'curr_hash' | 'owner_id' | 'tenant_id' | 'visibility'
>;

/** What of a policy's row says which spans it wants. */
export interface PolicyInterest {
  policyId: string;
  tenantId: string;
  ownerId: string;
  /** Signed by a root key and seen by all: it looks at every tenant's spans, in the name of their owners. */
  isSystem: boolean;
  /** Null when the row's is none: the policy then wants nothing. */
  match: Record<string, unknown> | null;
}

/** `no`: not for it. `loop`: it would be, but it has a part in what brought the span about. */
export type Applies = 'yes' | 'no' | 'loop';

export function interestOf(policy: PolicyRow): PolicyInterest {
  const { match = {} } = objectOr(policy.content ?? {}, { match: null });
  return {
    policyId: policy.id,
    tenantId: policy.tenant_id,
    ownerId: policy.owner_id,
    isSystem: policy.tenant_id === SYSTEM_ID && policy.visibility === 'public',
    match: objectOr(match, null),
  };
}

/**
 * Whether a policy looks at a span: it is of its tenant, its owner may see it, it matches, and the policy itself did not
 * bring it about, not even by way of others. The chain of policies behind a span is kept in its `metadata.policy.path`,
 * which only the host writes; no policy is in a chain twice, and no chain is longer than POLICY_DEPTH_MAX.
 */
export function appliesTo(policy: PolicyInterest, span: StoredSpan): Applies {
  const isInReach =
    policy.isSystem ||
    (span.tenant_id === policy.tenantId && (span.visibility !== 'private' || span.owner_id === policy.ownerId));
  if (!isInReach || span.id === policy.policyId || !matches(policy.match, span)) return 'no';
  const path = pathOf(span);
  return path.includes(policy.policyId) || path.length >= POLICY_DEPTH_MAX ? 'loop' : 'yes';
}

/** The policies that brought a span about, first to last. */
export function pathOf(span: StoredSpan): string[] {
  const { policy } = (span.metadata ?? {}) as { policy?: { path?: unknown } };
  return Array.isArray(policy?.path) ? (policy.path as string[]) : [];
}

function matches(match: PolicyInterest['match'], span: StoredSpan): boolean {
  if (match === null) return false;
  return Object.entries(match).every(
    ([column, values]) =>
      Array.isArray(values) && values.includes((span as unknown as Record<string, unknown>)[column] ?? null),
  );
}

function objectOr<T>(value: unknown, otherwise: T): Record<string, unknown> | T {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : otherwise;
}

/** A place in the timeline's order. */
export function placeOf(span: StoredSpan, { place }: Pick<PolicyCursor, 'place'>): PolicyCursor['place'] {
  return { txId: String(span.tx_id), position: String(span.position), day: place.day };
}
