import { describe, expect, it } from 'vitest';
import type { Json, StoredSpan } from '../../src/span/index.ts';
import { type SimulatedPolicy, simulatePolicy } from '../../src/work/index.ts';
import { execution, openSandbox, policyNamed, stored } from '../policies/policies.ts';
import { ALAN, ALICE, BOB } from '../support/spans.ts';

const sandbox = openSandbox();
const NOW = new Date('2026-11-30T00:00:00.000Z');

function policy(code: string, content: Json = { match: {} }, more: Partial<SimulatedPolicy> = {}): SimulatedPolicy {
  return { name: 'own', code, content, tenantId: 'acme', ownerId: 'alice', isSystem: false, ...more };
}

/** The file of a policy of the system, with other numbers. */
function changed(name: string, params: Json): SimulatedPolicy {
  const { id, code, content } = policyNamed(name);
  const changedContent = { ...(content as object), params } as Json;
  return policy(code as string, changedContent, { id, name, isSystem: true });
}

async function simulate(simulated: SimulatedPolicy, ...history: StoredSpan[][]) {
  const { answers, counts } = simulatePolicy(sandbox, simulated, history, NOW);
  const given = [];
  for await (const answer of answers) given.push(answer);
  return { answers: given, counts };
}

const KEYED = `export default function on(span, { now }) {
  return [{ key: span.name, emit_span: { entity_type: 'note', name: span.name, content: now } }];
}`;

describe('simulatePolicy', () => {
  it('shows what a changed policy would have done', async () => {
    const runs = [10, 500, 90].map((duration_ms, n) =>
      stored({ ...execution({ duration_ms }), id: `5a000000-0000-4000-8000-00000000000${n}` }, n === 1 ? BOB : ALICE),
    );
    const { answers, counts } = await simulate(changed('slow_exec', { slow_ms: 50 }), runs.slice(0, 1), runs.slice(1));
    expect(answers.map(({ span, actions, error }) => [span.duration_ms, actions.length, error])).toEqual([
      [10, 0, null],
      [500, 1, null],
      [90, 1, null],
    ]);
    expect(answers[1]?.actions[0]).toMatchObject({
      emit: { entity_type: 'status_patch', metric_value: 500 },
      owner: { userId: 'bob', tenantId: 'bolt' },
      isRepeated: false,
    });
    expect(counts).toEqual({
      spans: 3,
      matched: 3,
      looped: 0,
      actions: 2,
      repeated: 0,
      errors: 0,
      limits: 0,
      limit: null,
      isPaused: false,
    });
  });

  it("sees and acts as a policy of its owner's would", async () => {
    const { answers, counts } = await simulate(policy(KEYED), [
      stored({ name: 'own' }),
      stored({ name: 'of another' }, ALAN),
      stored({ name: 'shown by another', visibility: 'tenant' }, ALAN),
      stored({ name: 'of another tenant', visibility: 'tenant' }, BOB),
      stored({ name: 'deleted', is_deleted: true }),
    ]);
    expect(answers.map(({ span, actions }) => [span.name, actions[0]?.owner])).toEqual([
      ['own', ALICE],
      ['shown by another', ALICE],
    ]);
    expect(counts).toMatchObject({ spans: 5, matched: 2 });
  });

  it('says which actions would be done once only, for each tenant', async () => {
    const history = [stored({ name: 'k' }), stored({ name: 'k' }, BOB), stored({ name: 'k' }), stored({ name: 'l' })];
    const { answers, counts } = await simulate(policy(KEYED, {}, { isSystem: true }), history);
    expect(answers.map(({ actions }) => actions[0]?.isRepeated)).toEqual([false, false, true, false]);
    expect(counts).toMatchObject({ actions: 3, repeated: 1 });
  });

  it('counts, and leaves out, what the policy brought about itself', async () => {
    const { id } = policyNamed('slow_exec');
    const caused = stored(execution({ duration_ms: 9000, metadata: { policy: { path: [id] } } }));
    const { answers, counts } = await simulate(changed('slow_exec', { slow_ms: 50 }), [caused]);
    expect(answers).toEqual([]);
    expect(counts).toMatchObject({ spans: 1, matched: 0, looped: 1 });
  });

  it('asks with the time of the span, not with today', async () => {
    const at = ['2026-11-01T00:00:00.000Z', '2026-11-01T00:00:05.000Z', '2026-11-02T00:00:00.000Z'];
    const { answers } = await simulate(policy(KEYED), [...at.map((time) => stored({ name: time, at: time }))]);
    expect(answers.map(({ actions }) => actions[0]?.emit?.content)).toEqual([at[1], at[1], at[2]]);
  });

  it('tells of errors and goes on behind a span that hangs', async () => {
    const code = `export default function on(span) {
      if (span.name === 'hangs') for (;;);
      if (span.name === 'throws') throw new Error('no');
      return [{ emit_span: { entity_type: span.name } }];
    }`;
    const history = ['note', 'throws', 'hangs', 'policy', 'note'].map((name) => stored({ name }));
    const { answers, counts } = await simulate(policy(code), history);
    expect(answers.map(({ error }) => error?.code ?? null)).toEqual([null, 'THREW', 'TIMEOUT', 'ACTION_INVALID', null]);
    expect(counts).toMatchObject({ matched: 5, actions: 2, errors: 3, limits: 1, isPaused: false });
  });

  it('stops where the policy would be paused', async () => {
    const code = 'export default function on() { const a = []; for (;;) a.push(new Array(1e6).fill(7)); }';
    const history = Array.from({ length: 10 }, () => stored());
    const { answers, counts } = await simulate(policy(code), history);
    expect(answers.map(({ error }) => error?.code)).toEqual(['MEMORY', 'MEMORY', 'MEMORY']);
    expect(counts).toMatchObject({ matched: 10, errors: 3, limits: 3, isPaused: true });
  });

  it('says why code that cannot run at all would be paused', async () => {
    const { answers, counts } = await simulate(policy('export default function on( {'), [stored()]);
    expect(answers).toEqual([]);
    expect(counts).toMatchObject({
      isPaused: true,
      limits: 3,
      limit: { code: 'CODE_INVALID', message: expect.stringContaining('SyntaxError') },
    });
  });

  it('takes a history of more spans than are asked about together', async () => {
    const { counts } = await simulate(
      policy(KEYED),
      Array.from({ length: 450 }, (_, n) => stored({ name: String(n) })),
    );
    expect(counts).toMatchObject({ spans: 450, matched: 450, actions: 450 });
  });

  it('shows what would have expired: newest versions, by the end of the history', async () => {
    const id = (n: number) => `5a000000-0000-4000-8000-00000000000${n}`;
    const past = '2026-11-25T00:00:00.000Z';
    const later = '2026-12-25T00:00:00.000Z';
    const { answers, counts } = await simulate(changed('ttl_reaper', {}), [
      stored({ id: id(1), expires_at: past, name: 'gone' }),
      stored({ id: id(2), expires_at: past, name: 'prolonged' }),
      stored({ id: id(2), seq: 1, expires_at: later, name: 'prolonged' }),
      stored({ id: id(3), expires_at: past, name: 'deleted' }),
      stored({ id: id(3), seq: 1, expires_at: past, is_deleted: true, name: 'deleted' }),
      stored({ id: id(4), expires_at: past, name: 'kept for ever' }),
      stored({ id: id(4), seq: 1, name: 'kept for ever' }),
      stored({ id: id(5), expires_at: later, name: 'not yet' }),
      stored({ id: id(6), expires_at: past, entity_type: 'function', name: 'left alone' }),
    ]);
    expect(answers.map(({ span, actions }) => [span.name, actions.map(({ emit }) => emit?.id)])).toEqual([
      ['gone', [id(1)]],
      ['left alone', []],
    ]);
    expect(counts).toMatchObject({ spans: 9, matched: 2, actions: 1 });
  });

  it('takes a history that comes bit by bit, and looks no further than it is asked', async () => {
    let parts = 0;
    async function* history() {
      for (; parts < 100; parts++) yield [stored({ name: String(parts), at: new Date(parts * 60_000).toISOString() })];
    }
    const { answers } = simulatePolicy(sandbox, policy(KEYED), history(), NOW);
    for await (const answer of answers) {
      expect(answer.span.name).toBe('0');
      break;
    }
    expect(parts).toBeLessThan(3);
  });

  it.each([['day'], ['odd'], [7]])('does not simulate the trigger %o', (trigger) => {
    expect(() => simulatePolicy(sandbox, policy(KEYED, { trigger }), [], NOW)).toThrow(
      expect.objectContaining({ code: 'TRIGGER_NOT_SIMULATED', field: 'content.trigger' }),
    );
  });
});
