import { describe, expect, it } from 'vitest';
import { Sandbox, type SandboxJob } from '../../src/kernel/index.ts';
import { ASSIGNED_COLUMNS, type Json, type Span, type StoredSpan } from '../../src/span/index.ts';
import { askPolicy } from '../../src/work/policy-actions.ts';
import type { PolicyRow } from '../../src/work/policy-filter.ts';
import { FUNCTION_ID, openSandbox, ownPolicy, SPAN_ID, stored, systemPolicy } from '../policies/policies.ts';
import { ALAN, ALICE, BOB, NOW } from '../support/spans.ts';

const sandbox = openSandbox();
const on = (body: string) => `export default function on(span, context) {\n${body}\n}\n`;
/** A policy that answers what the span's content says. */
const ECHO = on('return span.content');
const HANGS = "if (span.name === 'hangs') for (;;);";
const note = { entity_type: 'note' };

const ask = (policy: PolicyRow, spans: StoredSpan[], room = sandbox) => askPolicy(room, policy, spans, new Date(NOW));

/** What a policy that says `actions` of a span would do, or why not. */
async function say(actions: unknown, span: Span = {}, policy: (code: string) => PolicyRow = ownPolicy, by = ALICE) {
  const { answers, limit } = await ask(policy(ECHO), [stored({ ...span, content: actions as Json }, by)]);
  expect(limit).toBeNull();
  const [answer] = answers;
  return answer?.error ?? answer?.actions;
}

const emit = (emitted: unknown, ...rest: [span?: Span, policy?: (code: string) => PolicyRow, by?: typeof ALICE]) =>
  say([{ emit_span: emitted }], ...rest);

const invalid = (message: string) => ({ code: 'ACTION_INVALID', message });

describe('what a policy may say', () => {
  it('is spans to append and functions to run, with or without a key', async () => {
    const run = { run: 'run_code', span_id: FUNCTION_ID.toUpperCase(), input: { a: 1 }, key: 'once' };
    expect(await say([{ emit_span: { ...note, did: 'saw', content: { n: 1 } } }, run])).toEqual([
      { key: null, emit: { ...note, did: 'saw', content: { n: 1 } }, run: null },
      { key: 'once', emit: null, run: { spanId: FUNCTION_ID, input: { a: 1 } } },
    ]);
  });

  it.each([[null], [[]]])('is nothing: %o', async (actions) => {
    expect(await say(actions)).toEqual([]);
  });

  it('is at most 20 actions for one span', async () => {
    const actions = (count: number) => Array.from({ length: count }, () => ({ emit_span: note }));
    expect(await say(actions(20))).toHaveLength(20);
    expect(await say(actions(21))).toEqual(invalid('21 actions for one span; 20 are allowed'));
  });

  it.each([
    ['no list', { emit_span: note }, 'expected a list of actions, or nothing'],
    ['an action that is no object', [{ emit_span: note }, 'run'], 'actions[1]: expected an object'],
    ['an unknown action', [{ run: 'rm' }], 'actions[0].run: expected run_code'],
    ['a run without a function', [{ run: 'run_code' }], 'actions[0].span_id is missing'],
    ['a run of no id', [{ run: 'run_code', span_id: 'f' }], 'actions[0].span_id: expected a UUID'],
    [
      'two actions in one',
      [{ run: 'run_code', span_id: FUNCTION_ID, emit_span: note }],
      'actions[0].emit_span: unknown; known are key, run, span_id, input',
    ],
    ['nothing to do', [{}], 'actions[0]: expected emit_span or run'],
    ['what it cannot do', [{ emit: note }], 'actions[0]: expected emit_span or run'],
    ['no span', [{ emit_span: null }], 'actions[0].emit_span: expected an object'],
    ['an empty key', [{ key: '', emit_span: note }], 'actions[0].key: expected text of 1 to 500 characters'],
    ['a long key', [{ key: 'k'.repeat(501), emit_span: note }], 'actions[0].key: expected text of 1 to 500 characters'],
    ['a key of half a character', [{ key: '\ud800', emit_span: note }], 'actions[0].key: expected text of 1 to 500 '],
  ])('is not %s', async (_, actions, message) => {
    expect(await say(actions)).toEqual({ code: 'ACTION_INVALID', message: expect.stringContaining(message) });
  });

  it('takes one wrong action for a wrong answer: none of its actions is done', async () => {
    expect(await say([{ emit_span: note }, { emit_span: {} }])).toEqual(
      invalid('actions[1].emit_span.entity_type is missing'),
    );
  });
});

describe('a span that a policy emits', () => {
  it.each([
    'boot_event',
    'execution',
    'request',
    'policy_violation',
    'policy_error',
    'schedule_error',
    'provider_execution',
    'manifest',
    'loader',
    'function',
    'policy',
    'provider',
    'api_token',
  ])('is not a %s, for a policy of the system neither', async (entity_type) => {
    const refusal = invalid(`actions[0].emit_span.entity_type: ${entity_type} is not a policy's to say`);
    expect(await emit({ entity_type })).toEqual(refusal);
    expect(await emit({ entity_type }, {}, systemPolicy)).toEqual(refusal);
  });

  it.each([...ASSIGNED_COLUMNS, 'seq', 'who', 'at', 'owner_id', 'tenant_id', 'caused_by', 'trace_id'])(
    'does not say %s',
    async (column) => {
      expect(await emit({ ...note, [column]: 0 })).toEqual(
        invalid(`actions[0].emit_span.${column}: is set by the host`),
      );
      expect(await emit({ ...note, [column]: null })).toHaveLength(1);
    },
  );

  it.each([
    ['public', { visibility: 'public' }, 'visibility: expected private or tenant'],
    ['seen by whom it likes', { visibility: 'everybody' }, 'visibility: expected private or tenant'],
    ['of metadata that is no object', { metadata: ['policy'] }, 'metadata: expected an object'],
    ['of a column that is none', { nmae: 'n' }, 'nmae: a span has no column "nmae"'],
    ['of a wrong type', { duration_ms: 1.5 }, 'duration_ms: '],
    ['of a value that would come back different', { content: { n: [2 ** 53] } }, 'content.n[0]: '],
    ['of another type than letters say', { entity_type: 'a b' }, 'entity_type: expected letters, digits and :._-'],
    ['too large', { description: 'd'.repeat(1024 * 1024) }, ': a span may have 1048576 characters'],
  ])('is not %s', async (_, wrong, message) => {
    expect(await emit({ ...note, ...wrong })).toEqual({
      code: 'ACTION_INVALID',
      message: expect.stringContaining(`actions[0].emit_span${message.startsWith(':') ? '' : '.'}${message}`),
    });
  });

  it('may be the next version of the span that was seen', async () => {
    const version = { ...note, id: SPAN_ID, is_deleted: true };
    expect(await emit(version)).toEqual([{ key: null, emit: version, run: null }]);
    expect(await emit(version, {}, systemPolicy, BOB)).toHaveLength(1);
  });

  it.each([
    ['another span', { id: FUNCTION_ID }, 'id: only the span that was seen may get a new version'],
    ['no id', { id: 7 }, 'id: only the span that was seen may get a new version'],
    ['another type', { id: SPAN_ID, entity_type: 'memo' }, 'id: only the span that was seen may get a new version'],
    [
      'less to be seen',
      { id: SPAN_ID, visibility: 'private' },
      'visibility: a new version keeps that of the one before',
    ],
  ])('is not a version that is %s', async (_, version, message) => {
    expect(await emit({ ...note, ...version })).toEqual(invalid(`actions[0].emit_span.${message}`));
  });

  it('is no version of what another owner lets the tenant see', async () => {
    expect(await emit({ ...note, id: SPAN_ID }, { visibility: 'tenant' }, ownPolicy, ALAN)).toEqual(
      invalid("actions[0].emit_span.id: only the policy's owner's own spans may get a new version"),
    );
  });
});

describe('askPolicy', () => {
  it('gives each span with the params and the time', async () => {
    const code = on('return [{ emit_span: { entity_type: "note", name: span.name, content: context } }]');
    const policy = ownPolicy(code, { params: { slow_ms: 5 } });
    const { answers } = await ask(policy, [stored({ name: 'a' }), stored({ name: 'b' })]);
    const content = { params: { slow_ms: 5 }, now: NOW };
    expect(answers.map(({ span, actions }) => [span.name, actions[0]?.emit])).toEqual([
      ['a', { ...note, name: 'a', content }],
      ['b', { ...note, name: 'b', content }],
    ]);
  });

  it('gives no params where the row has none', async () => {
    const code = on('return [{ emit_span: { entity_type: "note", content: context.params } }]');
    const { answers } = await ask({ ...ownPolicy(code), content: null }, [stored()]);
    expect(answers[0]?.actions[0]?.emit?.content).toEqual({});
  });

  it('keeps what throws, and what is invalid, to its own span', async () => {
    const code = on(`
      if (span.name === 'throws') throw new Error('not this one');
      return [{ emit_span: { entity_type: span.name === 'wrong' ? 'policy' : 'note' } }];`);
    const { answers, limit } = await ask(
      ownPolicy(code),
      ['a', 'throws', 'wrong', 'b'].map((name) => stored({ name })),
    );
    expect(limit).toBeNull();
    expect(answers.map(({ actions, error }) => [actions.length, error?.code ?? null])).toEqual([
      [1, null],
      [0, 'THREW'],
      [0, 'ACTION_INVALID'],
      [1, null],
    ]);
    expect(answers[1]?.error?.message).toContain('not this one');
  });

  it('finds the span that hangs: those before it are answered, it is an error, those after it come later', async () => {
    const spans = ['a', 'b', 'hangs', 'c', 'd'].map((name) => stored({ name }));
    const policy = ownPolicy(on(`${HANGS} return [{ emit_span: { entity_type: 'note', name: span.name } }];`));
    const { answers, limit } = await ask(policy, spans);
    expect(limit?.code).toBe('TIMEOUT');
    expect(answers.map(({ span, actions, error }) => [span.name, actions.length, error?.code ?? null])).toEqual([
      ['a', 1, null],
      ['b', 1, null],
      ['hangs', 0, 'TIMEOUT'],
    ]);
    const rest = await ask(policy, spans.slice(answers.length));
    expect(rest).toMatchObject({ limit: null, answers: [{ span: { name: 'c' } }, { span: { name: 'd' } }] });
  });

  it('finds the span that hangs among those of many tenants, in the order of the timeline', async () => {
    const code = on(`${HANGS} return [{ emit_span: { entity_type: 'note' } }];`);
    const spans = [
      stored({ name: 'b' }, BOB),
      stored({ name: 'a' }),
      stored({ name: 'b' }, BOB),
      stored({ name: 'hangs' }),
      stored({ name: 'b' }, BOB),
      stored({ name: 'a' }),
      stored({ name: 'b' }, BOB),
    ];
    const { answers, limit } = await ask(systemPolicy(code), spans);
    expect(limit?.code).toBe('TIMEOUT');
    expect(answers.map(({ span }) => span)).toEqual(spans.slice(0, 4));
    expect(answers.map(({ error }) => error?.code ?? null)).toEqual([null, null, null, 'TIMEOUT']);
  });

  it("asks for the system about all tenants' spans at once, and for a tenant in a child of its own", async () => {
    const asked: [string, number][] = [];
    class WatchedSandbox extends Sandbox {
      override run(job: SandboxJob) {
        asked.push([job.compartment, (job.input as { items: unknown[] }).items.length]);
        return super.run(job);
      }
    }
    const watched = new WatchedSandbox();
    try {
      await ask(systemPolicy(on('return []')), [stored(), stored({}, BOB), stored({}, ALAN)], watched);
      await ask(ownPolicy(on('return []')), [stored(), stored({}, ALAN)], watched);
    } finally {
      await watched.close();
    }
    expect(asked).toEqual([
      ['system', 3],
      ['tenant:acme', 2],
    ]);
  });

  it('takes no longer for the spans of many tenants than for those of one', async () => {
    const timeOf = async (tenants: number) => {
      const spans = Array.from({ length: 200 }, (_, n) => stored({}, { userId: 'u', tenantId: `t${n % tenants}` }));
      const startedAt = performance.now();
      expect((await ask(systemPolicy(on('return []')), spans)).answers).toHaveLength(200);
      return performance.now() - startedAt;
    };
    await timeOf(1);
    expect(await timeOf(100)).toBeLessThan(2 * (await timeOf(1)) + 200);
  });

  it('asks in parts about what is too much for the sandbox together, which is no limit', async () => {
    const spans = Array.from({ length: 20 }, (_, n) => stored({ name: String(n), content: 'x'.repeat(1_000_000) }));
    const { answers, limit } = await ask(ownPolicy(on('return []')), spans);
    expect(limit).toBeNull();
    expect(answers.map(({ span }) => span)).toEqual(spans);
    expect(answers.map(({ error }) => error)).toEqual(spans.map(() => null));
  });

  it('asks one by one about what answers too much together', async () => {
    const code = on("return Array(15).fill({ emit_span: { entity_type: 'note', description: 'd'.repeat(1e5) } })");
    const { answers, limit } = await ask(ownPolicy(code), [stored(), stored(), stored()]);
    expect(limit?.code).toBe('OUTPUT_TOO_LARGE');
    expect(answers.map(({ actions }) => actions.length)).toEqual([15, 15, 15]);
  });

  it.each([
    ['does not compile', 'export default function on(span) {', 'CODE_INVALID'],
    ['wants to load something', "import 'node:fs'", 'CODE_REFUSED'],
  ])('has no answers of code that %s, so that no span is passed over', async (_, code, limit) => {
    const spans = [stored(), stored({}, BOB)];
    expect(await ask(systemPolicy(code), spans)).toMatchObject({ limit: { code: limit }, answers: [] });
    expect(await ask(systemPolicy(code), spans)).toMatchObject({ limit: { code: limit }, answers: [] });
  });

  it('ends code that takes all memory, at the first span', async () => {
    const code = on('const a = []; for (;;) a.push(new Array(1e6).fill(7));');
    const asked = await ask(ownPolicy(code), [stored(), stored()]);
    expect(asked).toMatchObject({ limit: { code: 'MEMORY' }, answers: [{ error: { code: 'MEMORY' } }] });
  });

  it('passes on that the sandbox takes nothing: that is no fault of the policy', async () => {
    const closed = new Sandbox();
    await closed.close();
    await expect(ask(ownPolicy(ECHO), [stored()], closed)).rejects.toMatchObject({ code: 'SANDBOX_UNAVAILABLE' });
  });

  it('answers nothing about nothing', async () => {
    expect(await ask(ownPolicy(ECHO), [])).toEqual({ answers: [], limit: null });
  });
});
