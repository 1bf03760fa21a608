import { randomUUID } from 'node:crypto';
import type { AppendContext, Identity, SpanDraft } from '../../src/ledger/index.ts';
import {
  COLUMN_TYPES,
  type ColumnName,
  type HashableSpan,
  type SealedSpan,
  type Signer,
  type Span,
  sealSpan,
} from '../../src/span/index.ts';
import { runtimeSigner } from './keys.ts';

export const ALICE: Identity = { userId: 'alice', tenantId: 'acme' };
/** Another owner of the same tenant. */
export const ALAN: Identity = { userId: 'alan', tenantId: 'acme' };
/** Another tenant. */
export const BOB: Identity = { userId: 'bob', tenantId: 'bolt' };
/** An owner of another tenant who happens to have the same name. */
export const OTHER_ALICE: Identity = { userId: 'alice', tenantId: 'bolt' };

export const NOW = '2026-11-23T10:00:00.000Z';

/** What a caller hands to append; `more` overrides anything. */
export function draft(more: Span = {}): SpanDraft {
  return { entity_type: 'note', did: 'wrote', this: 'a note', ...more } as SpanDraft;
}

/** A whole span of an identity, ready to be sealed. */
export function hashable(more: Span = {}, identity: Identity = ALICE): HashableSpan {
  return {
    id: randomUUID(),
    seq: 0,
    entity_type: 'note',
    who: identity.userId,
    at: NOW,
    owner_id: identity.userId,
    tenant_id: identity.tenantId,
    visibility: 'private',
    ...more,
  } as HashableSpan;
}

/** The version after `before`, sealed; `more` overrides anything, the link included. */
export function nextVersion(before: SealedSpan, more: Span = {}, signer: Signer = runtimeSigner): SealedSpan {
  const { curr_hash, signature: _signature, ...said } = before;
  return sealSpan({ ...said, seq: before.seq + 1, prev_hash: curr_hash, ...more } as HashableSpan, signer);
}

export function contextOf(identity: Identity = ALICE, signer: Signer = runtimeSigner): AppendContext {
  return { identity, signer, now: () => new Date(NOW) };
}

/** A value for each of the 70 columns but those that the database and the proof assign. */
export const FULL_DRAFT: SpanDraft = {
  entity_type: 'everything',
  ...Object.fromEntries(
    (Object.keys(COLUMN_TYPES) as ColumnName[])
      .filter((name) => !['id', 'seq', 'owner_id', 'tenant_id', 'visibility', 'entity_type'].includes(name))
      .filter((name) => !['position', 'tx_id', 'prev_hash', 'curr_hash', 'signature', 'public_key'].includes(name))
      .map((name) => [name, sampleOf(name)]),
  ),
};

function sampleOf(name: ColumnName): unknown {
  switch (COLUMN_TYPES[name]) {
    case 'text':
      return `${name} of it`;
    case 'uuid':
      return randomUUID();
    case 'timestamptz':
      return '2026-11-23T10:00:00.123Z';
    case 'integer':
      return 7;
    case 'bigint':
      return Number.MAX_SAFE_INTEGER;
    case 'double precision':
      return 0.1;
    case 'boolean':
      return false;
    case 'jsonb':
      return { one: 1, tenth: 0.1, tiny: 1e-7, text: '1.0', nothing: null, list: [1, 'two', { three: 3 }] };
    case 'text[]':
      return ['a', 'b c', '"{},\\', 'NULL', ''];
    case 'uuid[]':
      return [randomUUID(), randomUUID()];
    default:
      throw new Error(`${name} is assigned by the database`);
  }
}
