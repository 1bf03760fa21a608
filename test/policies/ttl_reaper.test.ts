import { expect, it } from 'vitest';
import { RESERVED_FOR_POLICIES, type Span } from '../../src/span/index.ts';
import { describePolicy, policyNamed, type Said, SPAN_ID } from './policies.ts';

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
  ...[...RESERVED_FOR_POLICIES].map((type): [string, Span, Said] => [
    `leaves a ${type} alone`,
    { ...EXPIRED, entity_type: type },
    [],
  ]),
]);

// A policy is alone with its code, and cannot import the list.
it('ttl_reaper leaves alone what a policy may not say, and nothing else', () => {
  const [, list = ''] = /LEFT_ALONE = new Set\(\[([^\]]*)\]\)/.exec(policyNamed('ttl_reaper').code as string) ?? [];
  const types = [...list.matchAll(/'([a-z_]+)'/g)].map(([, type]) => type as string);
  expect(types.sort()).toEqual([...RESERVED_FOR_POLICIES].sort());
});
