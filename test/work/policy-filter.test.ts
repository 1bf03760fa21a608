import { describe, expect, it } from 'vitest';
import type { Json, Span } from '../../src/span/index.ts';
import { appliesTo, interestOf, POLICY_DEPTH_MAX, pathOf } from '../../src/work/policy-filter.ts';
import { ownPolicy, stored, systemPolicy } from '../policies/policies.ts';
import { ALAN, ALICE, BOB, OTHER_ALICE } from '../support/spans.ts';

const OWN = ownPolicy('');
const SYSTEM = systemPolicy('');
const others = (count: number) => Array.from({ length: count }, (_, i) => `0b000000-0000-4000-8000-00000000000${i}`);
const caused = (...path: string[]): Span => ({ metadata: { policy: { path } } });

function matched(match: unknown, span: Span = {}): string {
  return appliesTo(interestOf(ownPolicy('', { match } as Json)), stored(span));
}

describe('the reach of a policy', () => {
  it("of an owner's own is what that owner may see of the tenant", () => {
    const seen = (span: Span, identity = ALICE) => appliesTo(interestOf(OWN), stored(span, identity));
    expect(seen({ visibility: 'private' })).toBe('yes');
    expect(seen({ visibility: 'private' }, ALAN)).toBe('no');
    expect(seen({ visibility: 'tenant' }, ALAN)).toBe('yes');
    expect(seen({ visibility: 'private' }, OTHER_ALICE)).toBe('no');
    expect(seen({ visibility: 'tenant' }, BOB)).toBe('no');
    expect(seen({ visibility: 'public' }, BOB)).toBe('no');
  });

  it("of the system's is every tenant's every span", () => {
    for (const visibility of ['private', 'tenant', 'public'] as const) {
      expect(appliesTo(interestOf(SYSTEM), stored({ visibility }, BOB))).toBe('yes');
    }
  });

  it.each([
    ['a public policy of another tenant', { ...SYSTEM, tenant_id: 'acme' }],
    ['a policy of the system tenant that is not public', { ...SYSTEM, visibility: 'tenant' as const }],
  ])('of %s is not that of the system', (_, policy) => {
    expect(interestOf(policy).isSystem).toBe(false);
    expect(appliesTo(interestOf(policy), stored({ visibility: 'tenant' }, BOB))).toBe('no');
  });

  it('leaves out the policy itself', () => {
    expect(appliesTo(interestOf(OWN), stored({ id: OWN.id, entity_type: 'policy' }))).toBe('no');
  });
});

describe('match', () => {
  it('wants one of the values in each column', () => {
    const match = { entity_type: ['note', 'memo'], status: ['new'] };
    expect(matched(match, { entity_type: 'memo', status: 'new' })).toBe('yes');
    expect(matched(match, { entity_type: 'memo', status: 'old' })).toBe('no');
    expect(matched(match, { entity_type: 'memo' })).toBe('no');
  });

  it('names a column without a value by null', () => {
    expect(matched({ status: [null] })).toBe('yes');
    expect(matched({ status: [null] }, { status: null })).toBe('yes');
    expect(matched({ status: [null] }, { status: 'new' })).toBe('no');
  });

  it('wants everything when it is empty or not there', () => {
    expect(matched({})).toBe('yes');
    expect(matched(undefined)).toBe('yes');
    expect(appliesTo(interestOf({ ...OWN, content: null }), stored())).toBe('yes');
  });

  it.each([
    ['no object', 'entity_type'],
    ['null', null],
    ['a list', [['note']]],
    ['a value in place of a list', { entity_type: 'note' }],
    ['an unknown column', { entity_types: ['note'] }],
    ['a name that every object has', { constructor: ['note'] }],
  ])('wants nothing when it is %s', (_, match) => {
    expect(matched(match)).toBe('no');
  });

  it.each([['text'], [7], [['match']]])('wants nothing when the content is %o', (content) => {
    expect(appliesTo(interestOf({ ...OWN, content }), stored())).toBe('no');
  });
});

describe('the loop guard', () => {
  it('keeps a policy from what it brought about, also by way of others', () => {
    expect(appliesTo(interestOf(OWN), stored(caused(OWN.id)))).toBe('loop');
    expect(appliesTo(interestOf(OWN), stored(caused(OWN.id, ...others(1))))).toBe('loop');
    expect(appliesTo(interestOf(OWN), stored(caused(...others(1))))).toBe('yes');
  });

  it('ends chains of policies at their greatest depth, those of the system too', () => {
    for (const policy of [OWN, SYSTEM]) {
      expect(appliesTo(interestOf(policy), stored(caused(...others(POLICY_DEPTH_MAX - 1))))).toBe('yes');
      expect(appliesTo(interestOf(policy), stored(caused(...others(POLICY_DEPTH_MAX))))).toBe('loop');
    }
  });

  it('does not count as a loop what the policy would not be asked about anyway', () => {
    const interest = interestOf(ownPolicy('', { match: { status: ['new'] } }));
    expect(appliesTo(interest, stored(caused(OWN.id)))).toBe('no');
  });

  it.each([
    ['no metadata', {}],
    ['metadata that is text', { metadata: 'policy' }],
    ['a path that is none', { metadata: { policy: { path: OWN.id } } }],
  ])('reads no path from %s', (_, span) => {
    expect(pathOf(stored(span as Span))).toEqual([]);
  });
});
