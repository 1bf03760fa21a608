import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { appendSpans, type Identity, type SpanDraft } from '../../src/ledger/index.ts';
import { Installation } from '../stage0/installation.ts';
import { ALAN, ALICE, BOB, contextOf } from '../support/spans.ts';
import { startRole, until } from '../worker/shifts.ts';
import { execution, FUNCTION_ID, PROVIDER_ID } from './policies.ts';

const DAY_MS = 86_400_000;
const PAST = '2026-01-01T00:00:00.000Z';

let installation: Installation;
beforeAll(async () => {
  installation = await Installation.create();
  await installation.seed();
});
afterAll(() => installation?.close());

async function append(identity: Identity, drafts: object[]): Promise<string[]> {
  const spans = drafts.map((draft) => ({ id: randomUUID(), seq: 0, ...draft }) as SpanDraft);
  await appendSpans(installation.stage0.database, spans, { ...contextOf(identity), now: () => new Date() });
  return spans.map(({ id }) => id as string);
}

/** What policies did: type, policy, owner and visibility of each span, and how often. */
async function done(): Promise<Record<string, number>> {
  const found: Record<string, number> = {};
  for (const { entity_type, who, owner_id, visibility } of await installation.spans("who like 'policy:%'")) {
    const line = `${entity_type} by ${who} for ${owner_id}, ${visibility}`;
    found[line] = (found[line] ?? 0) + 1;
  }
  return found;
}

/** Let the agent work until it has done this many spans, and a moment more in which it should do nothing. */
async function work(count: number, aheadMs = 0): Promise<void> {
  const now = () => new Date(Date.now() + aheadMs);
  const agent = startRole(installation.container({ now }), 'policy-agent', aheadMs + 600_000);
  const isEnough = async () => (await installation.spans("who like 'policy:%'")).length >= count;
  try {
    await until(isEnough);
    await new Promise((resolve) => setTimeout(resolve, 1_500));
  } finally {
    expect(await agent.stop()).toMatchObject({ ok: true, error: null });
  }
}

const failed = (more: object = {}) =>
  execution({
    status: 'error',
    duration_ms: 6000,
    error: { code: 'THREW', message: 'no such order' },
    metadata: { quota: { used: 80, limit: 100 } },
    ...more,
  });
const violation = {
  entity_type: 'policy_violation',
  who: 'stage0',
  status: 'refused',
  error: { code: 'QUOTA_EXCEEDED', message: 'used up' },
};
const call = {
  entity_type: 'provider_execution',
  status: 'error',
  prompt_family: 'greeting',
  provider_id: PROVIDER_ID,
  confidence: 0.1,
};

describe('the policies at work', () => {
  it('do what they say once, in the name of whose span it was, and nothing about what they did', async () => {
    // The same failure twice and of two owners of one tenant, whose private spans the other does not see.
    await append(ALICE, [failed(), failed(), violation, call, { entity_type: 'memory', expires_at: PAST }]);
    await append(ALAN, [failed(), violation, call]);
    await append(BOB, [execution(), { entity_type: 'function', code: 'return 1', expires_at: PAST }]);
    const expected = {
      'status_patch by policy:slow_exec for alice, private': 2,
      'status_patch by policy:slow_exec for alan, private': 1,
      'metric by policy:metrics_exec_duration for alice, private': 2,
      'metric by policy:metrics_exec_duration for alan, private': 1,
      'metric by policy:metrics_exec_duration for bob, private': 1,
      'error_report by policy:error_report for alice, private': 1,
      'error_report by policy:error_report for alan, private': 1,
      'throttle by policy:throttle for alice, tenant': 1,
      'quota_exceeded by policy:quota for alice, tenant': 1,
      'circuit by policy:prompt_circuit_breaker for alice, private': 1,
      'circuit by policy:prompt_circuit_breaker for alan, private': 1,
      'escalation by policy:prompt_confidence_escalation for alice, private': 1,
      'escalation by policy:prompt_confidence_escalation for alan, private': 1,
      'memory by policy:ttl_reaper for alice, private': 1,
    };
    await work(Object.values(expected).reduce((sum, n) => sum + n));
    expect(await done()).toEqual(expected);
    expect(await installation.spans("entity_type = 'policy_error'")).toEqual([]);

    const [report] = await installation.spans("entity_type = 'error_report' and owner_id = 'alice'");
    expect(report).toMatchObject({ parent_id: FUNCTION_ID, related_to: [report.caused_by] });
    const versions = await installation.spans("entity_type = 'memory'");
    expect(versions.map(({ seq, is_deleted, status }) => [seq, is_deleted, status])).toEqual([
      [0, null, null],
      [1, true, 'expired'],
    ]);
  });

  it('sum up a day when it has ended, for each tenant that ran functions', async () => {
    const before = await done();
    await work(
      Object.values(before).reduce((sum, n) => sum + n, 2),
      DAY_MS,
    );
    expect(await done()).toMatchObject({ 'rollup by policy:daily_exec_rollup for policy_agent, tenant': 2 });
    const rollups = await installation.spans("entity_type = 'rollup'");
    const counts = rollups.map(({ tenant_id, content }) => [tenant_id, content.executions, content.by_status]);
    expect(counts.sort()).toEqual([
      ['acme', 3, { error: 3 }],
      ['bolt', 1, { complete: 1 }],
    ]);
  });
});
