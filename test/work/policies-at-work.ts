import { randomUUID } from 'node:crypto';
import { appendSpans, type Identity, type SpanDraft } from '../../src/ledger/index.ts';
import { boot, type Shift, type Stage0 } from '../../src/stage0/index.ts';
import { WorkCounters } from '../../src/work/index.ts';
import { ROLES, type RoleName } from '../../src/worker/index.ts';
import type { AnyJson, Installation } from '../stage0/installation.ts';
import { ALICE, contextOf } from '../support/spans.ts';
import type { WorkingRole } from '../worker/shifts.ts';

/** Spans as a client appends them: new ones, unless a draft says otherwise. Answers their ids. */
export async function append(
  installation: Installation,
  drafts: Partial<SpanDraft>[],
  identity: Identity = ALICE,
): Promise<string[]> {
  const spans = drafts.map((draft) => ({ id: randomUUID(), entity_type: 'note', ...draft }) as SpanDraft);
  await appendSpans(installation.stage0.database, spans, { ...contextOf(identity), now: () => new Date() });
  return spans.map(({ id }) => id as string);
}

/** One action for each span, and one for each of its names. */
export const TWICE = `return [
  { emit_span: { entity_type: 'noted', content: { seen: span.id, name: span.name ?? null } } },
  { key: span.name, emit_span: { entity_type: 'named', content: { name: span.name } } },
];`;

/** An active policy that wants one type of spans. `code` is the body of `on(span, context)`, or a whole file. */
export async function appendPolicy(
  installation: Installation,
  code: string,
  entityType: string | string[],
  more: Partial<SpanDraft> = {},
  identity: Identity = ALICE,
): Promise<string> {
  const [id] = await append(installation, [policyDraft(code, entityType, more)], identity);
  return id as string;
}

export function policyDraft(code: string, entityType: string | string[], more: Partial<SpanDraft> = {}): SpanDraft {
  return {
    entity_type: 'policy',
    name: `on ${entityType}`,
    status: 'active',
    code: code.startsWith('export') ? code : `export default function on(span, context) {\n${code}\n}\n`,
    content: { trigger: 'span', match: { entity_type: [entityType].flat() } },
    ...more,
  };
}

/** Take a policy out of work. */
export async function retire(installation: Installation, id: string, identity: Identity = ALICE): Promise<void> {
  await append(installation, [{ id, entity_type: 'policy', status: 'retired' }], identity);
}

/** What a policy did: the spans that it emitted, requested, or left as errors, oldest first. */
export function doneBy(installation: Installation, policyId: string, where = 'true'): Promise<AnyJson[]> {
  return installation.spans(`metadata #>> '{policy,id}' = $1 and entity_type <> 'execution' and ${where}`, [policyId]);
}

/** How many different spans a policy noted, and how often it did that. */
export async function countNoted(installation: Installation, id: string): Promise<{ seen: number; noted: number }> {
  const done = await doneBy(installation, id, `entity_type = 'noted'`);
  return { seen: new Set(done.map(({ content }) => content.seen)).size, noted: done.length };
}

/** Errors of a policy: their codes. */
export async function errorsOf(installation: Installation, policyId: string): Promise<string[]> {
  const errors = await doneBy(installation, policyId, `entity_type = 'policy_error'`);
  return errors.map(({ error }) => error.code);
}

/**
 * A role at work beside others of the same role: booted as a shift does it, but without the lease, which would let only
 * one of them work.
 */
export function startBeside(stage0: Stage0, name: RoleName, endOfTimeMs = 600_000): WorkingRole {
  let isOver = false;
  let ring = () => {};
  const shift: Shift = {
    counters: new WorkCounters(),
    admitted: () => {},
    isOver: () => isOver,
    wait: (ms) =>
      isOver
        ? Promise.resolve()
        : new Promise((resolve) => {
            const timer = setTimeout(resolve, ms);
            ring = () => {
              clearTimeout(timer);
              resolve();
            };
          }),
  };
  const request = {
    boot_function_id: ROLES[name].kernelId,
    identity: { userId: name, tenantId: 'system' },
    input: null,
  };
  const answer = boot(stage0, request, { endOfTime: new Date(stage0.now().getTime() + endOfTimeMs), shift });
  answer.catch(() => {});
  return {
    ended: answer,
    async stop() {
      isOver = true;
      ring();
      return answer;
    },
  };
}
