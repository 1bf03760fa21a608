import { readFile } from 'node:fs/promises';
import vm from 'node:vm';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Identity, SpanDraft } from '../../src/ledger/index.ts';
import { type Json, sealSpan } from '../../src/span/index.ts';
import { ROLES } from '../../src/worker/index.ts';
import { type AnyJson, Installation } from '../stage0/installation.ts';
import { runtimeSigner } from '../support/keys.ts';
import { ALAN, ALICE, BOB, hashable } from '../support/spans.ts';
import { append } from './policies-at-work.ts';

const POLICY_AGENT = ROLES['policy-agent'].kernelId;

let installation: Installation;
beforeAll(async () => {
  installation = await Installation.create();
  await installation.seed();
});
afterAll(() => installation?.close());

interface Rule {
  effect: string;
  actions: string[];
  resources: string[];
  users?: string[];
}

/** A policy of rules that all of the tenant see. */
async function appendRules(rules: Rule[], more: Partial<SpanDraft> = {}, identity: Identity = ALICE): Promise<string> {
  const draft = { entity_type: 'policy', name: 'rules', status: 'active', visibility: 'tenant' as const };
  const [id] = await append(installation, [{ ...draft, content: { rules } as unknown as Json, ...more }], identity);
  return id as string;
}

async function ask(action: string, resource: string, identity: Identity = ALICE, more: object = {}): Promise<AnyJson> {
  const answer = await installation.boot(POLICY_AGENT, { action, resource, ...more }, identity);
  expect(answer).toMatchObject({ ok: true, error: null });
  return answer.output;
}

const decisionOf = async (...question: Parameters<typeof ask>) => (await ask(...question)).decision;
const allow = (actions: string, resources: string, more: object = {}) => ({
  ...{ effect: 'allow', actions: [actions], resources: [resources] },
  ...more,
});
const deny = (actions: string, resources: string, more: object = {}) => ({
  ...allow(actions, resources, more),
  effect: 'deny',
});

describe('a decision', () => {
  it('is to deny where no rule says anything, and names no rule', async () => {
    expect(await ask('read', 'nothing/of/it')).toEqual({
      decision: 'deny',
      policy_id: null,
      policy: null,
      owner_id: null,
      tenant_id: null,
      rule: null,
    });
  });

  it('is the rule’s that applies, and names it', async () => {
    const rules = [allow('write', 'a/1'), allow('read', 'a/*')];
    const policy_id = await appendRules(rules, { name: 'readers' });
    const rule = { index: 1, ...rules[1] };
    expect(await ask('read', 'a/1')).toEqual({
      decision: 'allow',
      policy_id,
      policy: 'readers',
      owner_id: ALICE.userId,
      tenant_id: ALICE.tenantId,
      rule,
    });
    expect(await decisionOf('delete', 'a/1')).toBe('deny');
    expect(await decisionOf('read', 'b/1')).toBe('deny');
  });

  it('is to deny where one rule denies and any other allows, in whatever policy and order', async () => {
    await appendRules([allow('read', 'c/**'), deny('read', 'c/secret'), allow('read', 'c/secret')]);
    expect(await decisionOf('read', 'c/open')).toBe('allow');
    expect(await ask('read', 'c/secret')).toMatchObject({ decision: 'deny', rule: { index: 1, effect: 'deny' } });

    await appendRules([allow('read', 'd/**')], { id: '00000000-0000-4000-8000-0000000d0001' });
    await appendRules([deny('**', 'd/x')], { id: 'ffffffff-0000-4000-8000-0000000d0001' });
    await appendRules([allow('read', 'e/**')], { id: 'ffffffff-0000-4000-8000-0000000e0001' });
    await appendRules([deny('**', 'e/x')], { id: '00000000-0000-4000-8000-0000000e0001' });
    for (const place of ['d', 'e']) {
      expect(await decisionOf('read', `${place}/x`)).toBe('deny');
      expect(await decisionOf('read', `${place}/y`)).toBe('allow');
    }
  });

  it('knows users by globs, the caller if nobody else is named', async () => {
    await appendRules([allow('read', 'f/1', { users: ['al*'] }), deny('read', 'f/1', { users: ['alan'] })]);
    expect(await decisionOf('read', 'f/1', ALICE)).toBe('allow');
    expect(await decisionOf('read', 'f/1', ALAN)).toBe('deny');
    expect(await decisionOf('read', 'f/1', ALICE, { user_id: 'alan' })).toBe('deny');
    expect(await decisionOf('read', 'f/1', ALICE, { user_id: 'bert' })).toBe('deny');
  });

  it('leaves out rules of another tenant, of another owner’s own, and of what is not in force', async () => {
    await appendRules([allow('read', 'g/**')], {}, BOB);
    await appendRules([allow('read', 'g/**')], { visibility: 'private' }, ALAN);
    await appendRules([allow('read', 'g/**')], { status: 'draft' });
    const [id, deleted] = [await appendRules([allow('read', 'g/**')]), await appendRules([allow('read', 'g/**')])];
    expect(await decisionOf('read', 'g/1')).toBe('allow');
    await append(installation, [{ id, entity_type: 'policy', status: 'retired', visibility: 'tenant' }]);
    await append(installation, [{ id: deleted, entity_type: 'policy', is_deleted: true, visibility: 'tenant' }]);
    expect(await decisionOf('read', 'g/1')).toBe('deny');
    expect(await decisionOf('read', 'g/1', BOB)).toBe('allow');
    expect(await decisionOf('read', 'g/1', ALAN)).toBe('allow');
  });

  it.each([
    ['a rule of an unknown effect', [{ ...allow('read', 'h/**'), effect: 'Allow' }]],
    ['rules that are no list', { 0: allow('read', 'h/**') }],
    ['rules that are none', [null, 7, 'allow', []]],
    ['globs that are no list', [{ effect: 'allow', actions: 'read', resources: 'h/**' }]],
    ['globs that are no text', [{ effect: 'allow', actions: [['read']], resources: [null, { h: 1 }] }]],
    ['users that are no list', [allow('read', 'h/**', { users: 'alice' })]],
  ])('is to deny by %s', async (_, rules) => {
    const id = await appendRules(rules as Rule[]);
    expect(await decisionOf('read', 'h/1')).toBe('deny');
    await append(installation, [{ id, entity_type: 'policy', status: 'retired', visibility: 'tenant' }]);
  });

  it('is none where a policy with rules is not what was signed', async () => {
    const draft = { entity_type: 'policy', status: 'active', content: { rules: [allow('read', 'i/**')] } };
    const span = sealSpan(hashable({ ...draft, at: new Date().toISOString() } as AnyJson, BOB), runtimeSigner);
    await installation.insert({ ...span, content: { rules: [allow('**', '**')] } as unknown as Json });
    const answer = await installation.boot(POLICY_AGENT, { action: 'read', resource: 'i/1' }, BOB);
    expect(answer).toMatchObject({ ok: false, output: null, error: { code: 'SPAN_NOT_PROVED' } });
  });

  it.each([
    ['an unknown field', { action: 'read', resource: 'a', tenant_id: 'bolt' }],
    ['no action', { resource: 'a' }],
    ['an empty resource', { action: 'read', resource: '' }],
    ['an action that is no text', { action: ['read'], resource: 'a' }],
    ['a user that is no text', { action: 'read', resource: 'a', user_id: 7 }],
    ['longer text than anybody means', { action: 'read', resource: 'a'.repeat(1_001) }],
    ['no question', {}],
  ])('is refused for %s', async (_, input) => {
    const answer = await installation.boot(POLICY_AGENT, input);
    expect(answer).toMatchObject({ ok: false, output: null, error: { code: 'INPUT_INVALID' } });
  });

  it('cannot take work: that is for a shift', async () => {
    const answer = await installation.boot(POLICY_AGENT, null);
    expect(answer).toMatchObject({ ok: false, error: { code: 'NO_SHIFT' } });
  });
});

describe('globs', async () => {
  const code = await readFile(new URL('../../ROW/kernels/policy_agent.js', import.meta.url), 'utf8');
  const source = /function matchesGlob\([\s\S]*?\n\}\n/.exec(code)?.[0] as string;
  const matchesGlob: (glob: string, text: string) => boolean = vm.runInThisContext(`(${source})`);

  /** The same by the definition: tries everything. */
  function matches(glob: string, text: string): boolean {
    if (glob === '') return text === '';
    if (glob.startsWith('**')) return matches(glob.slice(2), text) || (text !== '' && matches(glob, text.slice(1)));
    if (glob[0] === '*')
      return matches(glob.slice(1), text) || (text !== '' && text[0] !== '/' && matches(glob, text.slice(1)));
    const isMet = text !== '' && (glob[0] === text[0] || (glob[0] === '?' && text[0] !== '/'));
    return isMet && matches(glob.slice(1), text.slice(1));
  }

  it.each([
    ['a', 'a', true],
    ['a', 'ab', false],
    ['*', 'anything', true],
    ['*', 'a/b', false],
    ['*', '', true],
    ['**', 'a/b/c', true],
    ['a/*/c', 'a/b/c', true],
    ['a/*/c', 'a/b/b/c', false],
    ['a/**/c', 'a/b/b/c', true],
    ['a/**', 'a', false],
    ['?', 'a', true],
    ['?', '/', false],
    ['?', '', false],
    ['a.c', 'abc', false],
    ['[a]', 'a', false],
    ['**/*b', 'a/ab/xb', true],
    ['*a*/b', 'xay/b', true],
  ])('%s of %s: %o', (glob, text, expected) => {
    expect(matchesGlob(glob, text)).toBe(expected);
    expect(matches(glob, text)).toBe(expected);
  });

  it('mean the same as their definition, whatever they are', () => {
    const glob = fc
      .array(fc.constantFrom('a', 'b', '/', '*', '**', '?'), { maxLength: 9 })
      .map((parts) => parts.join(''));
    const text = fc.array(fc.constantFrom('a', 'b', '/'), { maxLength: 10 }).map((parts) => parts.join(''));
    fc.assert(
      fc.property(glob, text, (one, other) => matchesGlob(one, other) === matches(one, other)),
      { numRuns: 20_000 },
    );
  });

  it.each([
    [`${'a*'.repeat(400)}b`, 'a'.repeat(1_000)],
    [`**${'a*'.repeat(400)}b`, 'a'.repeat(1_000)],
    [`${'**a'.repeat(300)}*b`, 'a'.repeat(1_000)],
    [`**/${'*a'.repeat(400)}b`, 'a/'.repeat(500)],
    [`**${'?*'.repeat(300)}b`, 'a'.repeat(1_000)],
  ])('of many stars are soon answered: %#', (glob, text) => {
    const before = process.cpuUsage(); // of this process alone, however busy the machine is
    expect(matchesGlob(glob, text)).toBe(false);
    expect(process.cpuUsage(before).user / 1_000).toBeLessThan(500);
  });

  it('of a policy that were made to take long do not', async () => {
    const stars = `${'a*'.repeat(2_000)}b`;
    await appendRules([allow('**', stars), allow('**', `**${stars}`), allow('slow', '**')]);
    const startedAt = performance.now();
    expect(await decisionOf('slow', 'a'.repeat(1_000))).toBe('allow');
    expect(performance.now() - startedAt).toBeLessThan(2_000);
  });
});
