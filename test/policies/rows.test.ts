import { describe, expect, it } from 'vitest';
import { COLUMN_TYPES, type ColumnName, type Span, type StoredSpan } from '../../src/span/index.ts';
import { askPolicy } from '../../src/work/policy-actions.ts';
import { appliesTo, interestOf, type PolicyRow } from '../../src/work/policy-filter.ts';
import { NOW } from '../support/spans.ts';
import { execution, openSandbox, POLICIES, stored } from './policies.ts';

const sandbox = openSandbox();

const SEEDED: [end: string, name: string, trigger: string][] = [
  ['0401', 'slow_exec', 'span'],
  ['0402', 'metrics_exec_duration', 'span'],
  ['0403', 'daily_exec_rollup', 'day'],
  ['0404', 'error_report', 'span'],
  ['0405', 'throttle', 'span'],
  ['0406', 'quota', 'span'],
  ['0501', 'prompt_circuit_breaker', 'span'],
  ['0502', 'prompt_confidence_escalation', 'span'],
  ['0503', 'ttl_reaper', 'expiry'],
];

/** Spans as the system writes them, and the policies (of any trigger but `expiry`) that are asked about each. */
const SEEN: [span: Span, by: string[]][] = [
  [execution(), ['slow_exec', 'metrics_exec_duration', 'throttle']],
  [execution({ status: 'error' }), ['slow_exec', 'metrics_exec_duration', 'error_report', 'throttle']],
  [execution({ who: 'kernel:run_code' }), ['metrics_exec_duration']],
  [execution({ who: 'kernel:run_code', status: 'timeout' }), ['metrics_exec_duration', 'error_report']],
  [execution({ who: 'stage0', did: 'ran_kernel' }), []],
  [execution({ who: 'stage0', did: 'ran_kernel', status: 'error' }), ['error_report']],
  [execution({ who: 'reaper', did: 'ran_kernel', status: 'lost' }), ['error_report']],
  [{ entity_type: 'policy_violation', status: 'refused' }, ['quota']],
  [{ entity_type: 'provider_execution', status: 'error' }, ['prompt_circuit_breaker', 'prompt_confidence_escalation']],
  [{ entity_type: 'prompt_eval' }, ['prompt_circuit_breaker']],
  [{ entity_type: 'prompt_run' }, ['prompt_confidence_escalation']],
  [{ entity_type: 'day', visibility: 'tenant' }, ['daily_exec_rollup']],
  ...['boot_event', 'request', 'note', 'function', 'policy', 'policy_error', 'status_patch', 'metric', 'rollup'].map(
    (entity_type): [Span, string[]] => [{ entity_type, status: 'error', did: 'ran_function' }, []],
  ),
];

const contentOf = (policy: PolicyRow) => policy.content as { trigger: string; match: Record<string, unknown[]> };

/** A span that a policy is asked about. */
function matching(policy: PolicyRow, more: Record<string, unknown> = {}): StoredSpan {
  const first = Object.entries(contentOf(policy).match).map(([column, values]) => [column, values[0]]);
  return stored({ ...Object.fromEntries(first), ...more });
}

async function errorsOf(policy: PolicyRow, spans: StoredSpan[]): Promise<string[]> {
  const { answers, limit } = await askPolicy(sandbox, policy, spans, new Date(NOW));
  expect({ answered: answers.length, limit }).toEqual({ answered: spans.length, limit: null });
  return answers.flatMap(({ error }) => (error === null ? [] : [`${error.code}: ${error.message}`]));
}

describe('the policies of the system', () => {
  it('are these nine', () => {
    expect(POLICIES.map((policy) => [policy.id.slice(-4), policy.name, contentOf(policy).trigger])).toEqual(SEEDED);
  });

  it.each(POLICIES.map((policy) => [policy.name, policy] as const))('%s is active code of the system', (_, policy) => {
    expect(policy).toMatchObject({
      id: expect.stringMatching(/^00000000-0000-4000-8000-000000000[45]0\d$/),
      status: 'active',
      language: 'javascript',
      runtime: 'policy',
      visibility: 'public',
      code: expect.stringContaining('export default function on('),
    });
    expect(interestOf(policy).isSystem).toBe(true);
    expect(Object.keys(COLUMN_TYPES)).toEqual(expect.arrayContaining(Object.keys(contentOf(policy).match)));
  });

  it.each(SEEN)('are asked about %o by what they match', (span, by) => {
    const asked = POLICIES.filter((policy) => contentOf(policy).trigger !== 'expiry');
    const seen = stored(span);
    expect(asked.filter((policy) => appliesTo(interestOf(policy), seen) === 'yes').map(({ name }) => name)).toEqual(by);
  });
});

describe.each(POLICIES.map((policy) => [policy.name, policy] as const))('%s', (_, policy) => {
  const isKept = (column: string) =>
    ['id', 'seq', 'at', 'owner_id', 'tenant_id', 'entity_type', 'who', 'visibility'].includes(column);
  const columns = (Object.keys(COLUMN_TYPES) as ColumnName[]).filter(
    (column) => !isKept(column) && contentOf(policy).match[column] === undefined,
  );
  const odd = [null, 'odd', 1e300, -1, true, [], ['odd'], {}, { code: 7, day: 7, quota: 'odd', message: {} }];

  it('answers to a span of which nothing is there that may be missing', async () => {
    expect(await errorsOf(policy, [matching(policy)])).toEqual([]);
  });

  it('answers to whatever stands in the JSON columns', async () => {
    const names = columns.filter((column) => COLUMN_TYPES[column] === 'jsonb');
    const spans = odd.map((value) => matching(policy, Object.fromEntries(names.map((name) => [name, value]))));
    const quotas = [null, 5, 'odd', {}, { used: {}, limit: [] }, { used: 9, limit: '10' }];
    const nested = quotas.map((quota) => matching(policy, { metadata: { quota } }));
    expect(await errorsOf(policy, [...spans, ...nested])).toEqual([]);
  });

  it('throws at no type of any column, though the database lets none of these in', async () => {
    const alone = columns.flatMap((column) => odd.map((value) => matching(policy, { [column]: value })));
    const together = odd.map((value) => matching(policy, Object.fromEntries(columns.map((name) => [name, value]))));
    const errors = [];
    const spans = [...alone, ...together];
    for (let i = 0; i < spans.length; i += 200) errors.push(...(await errorsOf(policy, spans.slice(i, i + 200))));
    expect(errors.filter((error) => !error.startsWith('ACTION_INVALID: actions[0].emit_span.'))).toEqual([]);
  });
});
