import { InputError } from '../errors.ts';
import type { Sandbox } from '../kernel/index.ts';
import type { Identity } from '../ledger/index.ts';
import { blake3Hex, type Json, type StoredSpan, SYSTEM_ID } from '../span/index.ts';
import { askPolicy, type PolicyAction, type PolicyAnswer } from './policy-actions.ts';
import { appliesTo, interestOf, type PolicyRow } from './policy-filter.ts';
import { ownerOf } from './tick.ts';

/** Spans that are asked about together: at most so many, and none much later than the first, so that one `now` is true. */
const BATCH_SPANS_MAX = 200;
const BATCH_MS_MAX = 10_000;
/** Batches in a row that meet a limit, after which the policy would be paused. */
const LIMITS_MAX = 3;
const NO_ID = '00000000-0000-0000-0000-000000000000';

/** A policy that need not be in the ledger: a file, and what its row would say. */
export interface SimulatedPolicy {
  /** Of the policy that it changes, whose own doings it would not be shown. */
  id?: string | undefined;
  name: string;
  code: string;
  content: Json;
  tenantId: string;
  ownerId: string;
  /** It would be the system's, and look at every span of the history. */
  isSystem: boolean;
}

export interface SimulatedAction extends PolicyAction {
  /** In whose name it would be done. */
  owner: Identity;
  /** The history has an action with this key already, so that it would not be done again. */
  isRepeated: boolean;
}

/** What the policy would have done at one span that it is asked about. */
export interface SimulatedAnswer {
  span: StoredSpan;
  actions: SimulatedAction[];
  error: { code: string; message: string } | null;
}

export interface SimulationCounts {
  /** Spans of the history. */
  spans: number;
  /** Of these, what the policy is asked about. */
  matched: number;
  /** Of these, what it would be asked about if it had not brought it about itself. */
  looped: number;
  /** What would be done, without what is repeated. */
  actions: number;
  repeated: number;
  /** Answers that are errors. */
  errors: number;
  /** How often a limit was met: time, memory, size, or code that cannot run. */
  limits: number;
  /** The last of them. */
  limit: { code: string; message: string } | null;
  /** It met limits so often that it would be paused; the rest of the history was not looked at. */
  isPaused: boolean;
}

/**
 * What a policy would have done over a history, without writing: the same filter, sandbox and checks as for a policy at
 * work, with `now` at the time of each span. What it would have done does not become part of the history.
 *
 * Simulates the triggers `span` and `expiry`: a span expires where the history's newest version of it has an
 * `expires_at` before `now`, and its policy is asked at `now`.
 *
 * @param history spans of one or many tenants in the timeline's order, in parts of any size.
 * @returns answers one by one, and counts that are final when all of them were taken.
 * @throws {InputError} `TRIGGER_NOT_SIMULATED` for any other trigger.
 */
export function simulatePolicy(
  sandbox: Sandbox,
  policy: SimulatedPolicy,
  history: AsyncIterable<StoredSpan[]> | Iterable<StoredSpan[]>,
  now: Date,
): { answers: AsyncGenerator<SimulatedAnswer>; counts: SimulationCounts } {
  const { trigger = 'span' } = (policy.content ?? {}) as { trigger?: unknown };
  if (trigger !== 'span' && trigger !== 'expiry') {
    throw new InputError('TRIGGER_NOT_SIMULATED', `content.trigger: span and expiry can be simulated, not ${trigger}`, {
      field: 'content.trigger',
    });
  }
  const row = rowOf(policy);
  const interest = interestOf(row);
  const counts: SimulationCounts = {
    spans: 0,
    matched: 0,
    looped: 0,
    actions: 0,
    repeated: 0,
    errors: 0,
    limits: 0,
    limit: null,
    isPaused: false,
  };
  const done = new Set<string>();
  let limitsInARow = 0;

  async function* answers(): AsyncGenerator<SimulatedAnswer> {
    for await (const batch of trigger === 'span' ? batchesOf(wanted()) : expired()) {
      const at = trigger === 'span' ? new Date((batch.at(-1) as StoredSpan).at) : now;
      for (let rest = batch; rest.length > 0 && !counts.isPaused; ) {
        const { answers: answered, limit } = await askPolicy(sandbox, row, rest, at);
        rest = rest.slice(answered.length);
        limitsInARow = limit === null ? 0 : limitsInARow + 1;
        counts.limits += limit === null ? 0 : 1;
        counts.limit = limit ?? counts.limit;
        counts.isPaused = limitsInARow === LIMITS_MAX;
        for (const answer of answered) yield simulated(answer);
      }
      if (counts.isPaused) return;
    }
  }

  async function* wanted(): AsyncGenerator<StoredSpan> {
    for await (const part of history) {
      for (const span of part) {
        counts.spans += 1;
        if (span.is_deleted !== true && isWanted(span)) yield span;
      }
    }
  }

  /** Newest versions that have expired. Only what has an `expires_at` is kept. */
  async function* expired(): AsyncGenerator<StoredSpan[]> {
    const waiting = new Map<string, StoredSpan>();
    for await (const part of history) {
      for (const span of part) {
        counts.spans += 1;
        if (span.expires_at != null && span.is_deleted !== true) waiting.set(span.id, span);
        else waiting.delete(span.id);
      }
    }
    const due = [...waiting.values()].filter((span) => Date.parse(span.expires_at as string) <= now.getTime());
    const spans = due.filter(isWanted);
    for (let i = 0; i < spans.length; i += BATCH_SPANS_MAX) yield spans.slice(i, i + BATCH_SPANS_MAX);
  }

  function isWanted(span: StoredSpan): boolean {
    const applies = appliesTo(interest, span);
    if (applies === 'yes') counts.matched += 1;
    if (applies === 'loop') counts.looped += 1;
    return applies === 'yes';
  }

  function simulated({ span, actions, error }: PolicyAnswer): SimulatedAnswer {
    if (error !== null) counts.errors += 1;
    const owner = policy.isSystem ? ownerOf(span) : { userId: policy.ownerId, tenantId: policy.tenantId };
    const own = actions.map((action) => {
      const key = action.key === null ? null : JSON.stringify([owner.tenantId, action.key]);
      const isRepeated = key !== null && done.has(key);
      if (key !== null) done.add(key);
      counts[isRepeated ? 'repeated' : 'actions'] += 1;
      return { ...action, owner, isRepeated };
    });
    return { span, actions: own, error };
  }

  return { answers: answers(), counts };
}

function rowOf({ id, name, code, content, tenantId, ownerId, isSystem }: SimulatedPolicy): PolicyRow {
  return {
    id: id ?? NO_ID,
    name,
    code,
    content,
    curr_hash: blake3Hex(code),
    owner_id: ownerId,
    tenant_id: isSystem ? SYSTEM_ID : tenantId,
    visibility: isSystem ? 'public' : 'private',
  };
}

async function* batchesOf(spans: AsyncIterable<StoredSpan>): AsyncGenerator<StoredSpan[]> {
  let batch: StoredSpan[] = [];
  for await (const span of spans) {
    const first = batch[0];
    const isLate = first !== undefined && Date.parse(span.at) - Date.parse(first.at) > BATCH_MS_MAX;
    if (isLate || batch.length === BATCH_SPANS_MAX) {
      yield batch;
      batch = [];
    }
    batch.push(span);
  }
  if (batch.length > 0) yield batch;
}
