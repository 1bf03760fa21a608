import { afterAll, describe, expect, it } from 'vitest';
import { Sandbox } from '../../src/kernel/index.ts';
import type { Identity } from '../../src/ledger/index.ts';
import { readRowFiles } from '../../src/seed/index.ts';
import { blake3Hex, type Json, type Span, type StoredSpan, SYSTEM_ID } from '../../src/span/index.ts';
import { askPolicy } from '../../src/work/policy-actions.ts';
import { appliesTo, interestOf, type PolicyRow } from '../../src/work/policy-filter.ts';
import { ALICE, hashable, NOW } from '../support/spans.ts';

const ROW = new URL('../../ROW', import.meta.url).pathname;

export const SPAN_ID = '5a000000-0000-4000-8000-000000000001';
export const FUNCTION_ID = 'f0000000-0000-4000-8000-000000000001';
export const PROVIDER_ID = '00000000-0000-4000-8000-000000000100';

/** The policies as they are seeded. */
export const POLICIES: PolicyRow[] = (await readRowFiles(ROW, { overridePublicKey: null }))
  .filter(({ entity_type }) => entity_type === 'policy')
  .map((row) => ({ ...row, curr_hash: blake3Hex(row.code as string) }) as PolicyRow);

export function policyNamed(name: string): PolicyRow {
  const policy = POLICIES.find((row) => row.name === name);
  if (policy === undefined) throw new Error(`no policy ${name} in ROW/policies`);
  return policy;
}

let position = 0;

/** A span as read from the ledger. Its hashes are nothing: policies do not look at proofs. */
export function stored(more: Span = {}, identity: Identity = ALICE): StoredSpan {
  position += 1;
  return { ...hashable({ id: SPAN_ID, ...more }, identity), position, tx_id: String(position) } as StoredSpan;
}

/** How the request worker says that a function ran. */
export function execution(more: Span = {}): Span {
  return {
    entity_type: 'execution',
    who: 'kernel:request_worker',
    did: 'ran_function',
    parent_id: FUNCTION_ID,
    status: 'complete',
    duration_ms: 12,
    started_at: NOW,
    finished_at: NOW,
    metadata: { quota: { used: 1, limit: 100 } },
    ...more,
  };
}

/** A policy of Alice's own, of this code. */
export function ownPolicy(code: string, content: Json = { match: {} }): PolicyRow {
  return {
    id: 'b0000000-0000-4000-8000-000000000001',
    name: 'own',
    code,
    content,
    curr_hash: blake3Hex(code),
    owner_id: ALICE.userId,
    tenant_id: ALICE.tenantId,
    visibility: 'private',
  };
}

/** The same, as the system's. */
export function systemPolicy(code: string, content: Json = { match: {} }): PolicyRow {
  return { ...ownPolicy(code, content), owner_id: SYSTEM_ID, tenant_id: SYSTEM_ID, visibility: 'public' };
}

/** A sandbox of the file's own. */
export function openSandbox(): Sandbox {
  const sandbox = new Sandbox();
  afterAll(() => sandbox.close());
  return sandbox;
}

/** What a policy says to a span: that it is not asked, what it would emit by which key, or why it cannot answer. */
export type Said = 'is not asked' | { key?: string; emit: Record<string, Json> }[] | { error: string };

/** The test of a policy: a sentence, a span in, what is said. Each row is asked alone, in the real sandbox. */
export function describePolicy(name: string, rows: [sentence: string, span: Span, said: Said][]): void {
  const sandbox = openSandbox();
  const policy = policyNamed(name);
  describe(name, () => {
    it.each(rows)('%s', async (_sentence, span, said) => {
      expect(await answerOf(sandbox, policy, stored(span))).toEqual(said);
    });
  });
}

export async function answerOf(sandbox: Sandbox, policy: PolicyRow, span: StoredSpan): Promise<Said> {
  if (appliesTo(interestOf(policy), span) !== 'yes') return 'is not asked';
  const { answers } = await askPolicy(sandbox, policy, [span], new Date(NOW));
  const [answer] = answers;
  if (answers.length !== 1 || answer === undefined) throw new Error('expected one answer');
  if (answer.error !== null) return { error: `${answer.error.code}: ${answer.error.message}` };
  return answer.actions.map(({ key, emit }) => ({ ...(key === null ? {} : { key }), emit: emit ?? {} }));
}
