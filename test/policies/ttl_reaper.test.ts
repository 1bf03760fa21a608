import type { Span } from '../../src/span/index.ts';
import { RESERVED_TYPES } from '../../src/work/policy-actions.ts';
import { describePolicy, type Said, SPAN_ID } from './policies.ts';

const EXPIRED: Span = {
  entity_type: 'memory',
  seq: 4,
  status: 'active',
  expires_at: '2026-11-22T00:00:00.000Z',
  content: { secret: 'of its owner' },
};
const last = (entity_type: string): Said => [
  {
    emit: {
      id: SPAN_ID,
      entity_type,
      did: 'expired',
      status: 'expired',
      expires_at: '2026-11-22T00:00:00.000Z',
      is_deleted: true,
    },
  },
];

describePolicy('ttl_reaper', [
  ['deletes what has expired, and repeats nothing of it', EXPIRED, last('memory')],
  ['deletes what a policy brought about', { ...EXPIRED, entity_type: 'circuit' }, last('circuit')],
  ['deletes what is seen by the tenant', { ...EXPIRED, visibility: 'tenant' }, last('memory')],
  ['is not asked about what is public', { ...EXPIRED, visibility: 'public' }, 'is not asked'],
  ...[...RESERVED_TYPES].map((type): [string, Span, Said] => [
    `leaves a ${type} alone`,
    { ...EXPIRED, entity_type: type },
    [],
  ]),
]);
