import { setTimeout as sleep } from 'node:timers/promises';
import { InputError, LogLineError, UpstreamError } from '../errors.ts';
import { Fields } from '../fields.ts';
import {
  APPEND_BATCH_MAX,
  advancePolicy,
  appendOnce,
  hashDraft,
  type Identity,
  numberExpiredSpans,
  type PolicyCursor,
  type PolicyPlace,
  passPolicies,
  readAnySeqs,
  readAnyVersions,
  readDaySummaries,
  readExpiredSpans,
  readPolicyCursors,
  readPolicyWindow,
  type SpanDraft,
} from '../ledger/index.ts';
import { checkProof, type Json, type StoredSpan } from '../span/index.ts';
import { FinishedList } from './finished-list.ts';
import { askPolicy, type PolicyAction, type PolicyAnswer } from './policy-actions.ts';
import { appliesTo, interestOf, type PolicyInterest, pathOf, placeOf } from './policy-filter.ts';
import { requestDraft } from './request-draft.ts';
import { byOwner, contextOf, mayPass, ownerOf, type Tick, type Work } from './tick.ts';

/** Spans that are read at once, spans that one policy is asked about at once, and how many bytes of them. */
const WINDOW_SPANS_MAX = 500;
const WINDOW_BYTES_MAX = 8 * 1024 * 1024;
/** Policies that are read at once: each may be as large as a span can be. */
const FETCH_MAX = 20;
const BATCH_SPANS_MAX = 200;
/** Policies that one claim takes. */
const CLAIM_MAX = 200;
/** Spans that get their place among the expired at once. */
const EXPIRED_MAX = 1_000;
/** A day is summed up this much after its end: what ran until then is in the ledger. */
const DAY_GRACE_MS = 60_000;
const DAY_MS = 86_400_000;
/** Times that a policy is asked while the sandbox takes nothing, and how long it waits between them. */
const ASK_ATTEMPTS_MAX = 5;
const ASK_AGAIN_MS = 500;
/** Times in a row that a commit may meet somebody else's, before its actions are taken for refused. */
const CONFLICTS_MAX = 5;
/** Of the policy's name and of what it threw, as an error repeats it. */
const ERROR_TEXT_MAX = 2_000;

const AGENT: Identity = { userId: 'policy_agent', tenantId: 'system' };

/** A policy with spans that it is to be asked about. */
interface Batch {
  cursor: PolicyCursor;
  policy: StoredSpan;
  interest: PolicyInterest;
  spans: StoredSpan[];
  /** Where the policy stands after each of them, as far as they are answered. */
  places: PolicyPlace[];
  /** Where it stands when they are done with: when all of them are answered, until the answers say otherwise. */
  to: PolicyPlace;
  /** How many spans the policy had a part in itself, and was therefore not asked about. */
  loops: number;
  /** Why it cannot be asked at all. */
  refusal: { code: string; message: string } | null;
  answers: PolicyAnswer[];
  /** The sandbox had no room for it: it was not asked, and is no better or worse than before. */
  isPutOff: boolean;
}

/** What a kernel says of an asked policy. */
interface Verdict {
  /** False leaves the policy where it is: it will be asked again. */
  advances: boolean;
  failures: number;
  pausedUntil: Date | null;
  errors: { code: string; message: string; count: number; key: string }[];
}

interface KnownPolicy {
  seq: number;
  policy: StoredSpan;
  interest: PolicyInterest;
  refusal: { code: string; message: string } | null;
}

/**
 * Policies behind `ctx.claim('policies')`: each with the spans that are new to it, asked in the untrusted sandbox. What it
 * wants done and how far it has read are committed together; the ids of its actions follow from what they answer, so
 * that a turn which is lost half-way is taken again without doing anything twice.
 */
export class PolicyWork implements Work {
  readonly #tick: Tick;
  readonly #open = new Map<string, Batch>();
  readonly #known = new Map<string, KnownPolicy>();
  readonly #finished: FinishedList;
  /** How often in a row a policy's commit met somebody else's. */
  readonly #conflicts = new Map<string, number>();

  constructor(tick: Tick) {
    this.#tick = tick;
    this.#finished = new FinishedList(tick);
  }

  async claim(options: Record<string, unknown>) {
    new Fields(options, 'claim').end();
    const { database } = this.#tick;
    const now = this.#tick.now();
    const active = await readPolicyCursors(database, now);
    await this.#fetchPolicies(active);
    const cursors = active.filter(({ policyId }) => this.#known.has(policyId) && !this.#open.has(policyId));
    const batches = [
      ...(await this.#newSpans(cursors.filter(({ trigger }) => trigger === 'span'))),
      ...(await this.#expiredSpans(
        cursors.filter(({ trigger }) => trigger === 'expiry'),
        now,
      )),
      ...(await this.#endedDays(
        cursors.filter(({ trigger }) => trigger === 'day'),
        now,
      )),
    ];
    // The others are still where they were, and come with the next claim.
    const taken = batches.slice(0, CLAIM_MAX);
    for (const batch of taken) this.#open.set(batch.cursor.policyId, batch);
    return { work: taken.map(described) };
  }

  start(ids: string[]): void {
    for (const id of ids) {
      const batch = this.#open.get(id);
      if (batch === undefined || batch.refusal !== null) continue;
      this.#finished.begin();
      void this.#ask(batch).then((outcome) => this.#finished.add(outcome));
    }
  }

  outcomes(waitMs: number): Promise<object[]> {
    return this.#finished.take(waitMs);
  }

  async complete(items: Record<string, unknown>[]) {
    const lost: string[] = [];
    for (const item of items) {
      const { policyId, ...verdict } = readVerdict(item);
      const batch = this.#open.get(policyId);
      if (batch === undefined) continue;
      if (!(await this.#settle(batch, verdict))) lost.push(policyId);
      this.#open.delete(policyId);
    }
    return { done: items.length - lost.length, lost };
  }

  async end(): Promise<void> {}

  /** Policies whose newest version is not known yet; each must prove itself, those of the system by a root key. */
  async #fetchPolicies(cursors: PolicyCursor[]): Promise<void> {
    const active = new Set(cursors.map(({ policyId }) => policyId));
    for (const id of this.#known.keys()) if (!active.has(id)) this.#known.delete(id);
    const missing = cursors.filter(({ policyId, seq }) => this.#known.get(policyId)?.seq !== seq);
    const ids = missing.map(({ policyId }) => policyId);
    for (let i = 0; i < ids.length; i += FETCH_MAX) {
      for (const policy of await readAnyVersions(this.#tick.database, ids.slice(i, i + FETCH_MAX))) {
        const interest = interestOf(policy);
        const refusal = await this.#refusalOf(policy, interest);
        this.#known.set(policy.id, { seq: policy.seq, policy, interest, refusal });
      }
    }
  }

  async #refusalOf(policy: StoredSpan, { isSystem }: PolicyInterest): Promise<Batch['refusal']> {
    try {
      if (isSystem) await this.#tick.proveByRoot(policy);
      else {
        const problem = checkProof(policy, this.#tick.scheme) ?? this.#tick.checkSigner(policy);
        if (problem !== null) return { code: 'SPAN_NOT_PROVED', message: problem.detail };
      }
      return null;
    } catch (error) {
      if (!(error instanceof LogLineError) || error.kind === 'upstream') throw error;
      return { code: error.code, message: error.message };
    }
  }

  /**
   * Policies read together as far as they stand close to each other: what is read for the hindmost serves those before
   * it, and takes all of them to the same place. Those with nothing to look at are moved on at once.
   */
  async #newSpans(cursors: PolicyCursor[]): Promise<Batch[]> {
    const batches: Batch[] = [];
    const bounds = { spans: WINDOW_SPANS_MAX, bytes: WINDOW_BYTES_MAX };
    let window: StoredSpan[] = [];
    for (const { from, group } of byPlace(cursors)) {
      const next = window.findIndex((span) => comparePlaces(placeOf(span, { place: from }), from) > 0);
      window = next === -1 ? await readPolicyWindow(this.#tick.database, from, bounds) : window.slice(next);
      const last = window.at(-1);
      if (last === undefined) break; // nor is there anything for those who have read further
      const passing: string[] = [];
      for (const cursor of group) {
        const batch = this.#batchOf(cursor, window);
        if (batch === null) passing.push(cursor.policyId);
        else batches.push(batch);
      }
      if (passing.length > 0) {
        await passPolicies(this.#tick.database, passing, from, placeOf(last, { place: from }));
      }
    }
    return batches;
  }

  #batchOf(cursor: PolicyCursor, window: StoredSpan[]): Batch | null {
    const known = this.#known.get(cursor.policyId) as KnownPolicy;
    const spans: StoredSpan[] = [];
    let loops = 0;
    let last = window.at(-1) as StoredSpan;
    for (const span of window) {
      const applies = appliesTo(known.interest, span);
      if (applies === 'loop') loops += 1;
      if (applies !== 'yes') continue;
      spans.push(span);
      if (spans.length < BATCH_SPANS_MAX) continue;
      last = span;
      break;
    }
    if (spans.length === 0 && loops === 0) return null;
    const places = spans.map((span) => placeOf(span, cursor));
    return this.#batch(cursor, spans, places, placeOf(last, cursor), loops);
  }

  /** Each expired span is shown once: what no policy withdraws stays, and is passed over. */
  async #expiredSpans(cursors: PolicyCursor[], now: Date): Promise<Batch[]> {
    if (cursors.length === 0) return [];
    await numberExpiredSpans(this.#tick.database, now, EXPIRED_MAX);
    const batches: Batch[] = [];
    for (const { from, group } of byPlace(cursors)) {
      const expired = await readExpiredSpans(this.#tick.database, from, {
        spans: BATCH_SPANS_MAX,
        bytes: WINDOW_BYTES_MAX,
      });
      const last = expired.at(-1);
      if (last === undefined) continue;
      for (const cursor of group) {
        const wanted = expired.filter(({ span }) => this.#wants(cursor, span));
        const places = wanted.map(({ place }) => ({ ...place, day: cursor.place.day }));
        const to = { ...last.place, day: cursor.place.day };
        const spans = wanted.map(({ span }) => span);
        batches.push(this.#batch(cursor, spans, places, to));
      }
    }
    return batches;
  }

  /** The next day that a policy has not done, if it has ended: one summary for each tenant. */
  async #endedDays(cursors: PolicyCursor[], now: Date): Promise<Batch[]> {
    const lastEnded = new Date(now.getTime() - DAY_GRACE_MS - DAY_MS).toISOString().slice(0, 10);
    const batches: Batch[] = [];
    const days = new Map<string, StoredSpan[]>();
    for (const cursor of cursors) {
      if (cursor.place.day >= lastEnded) continue;
      const day = dayAfter(cursor.place.day);
      const summed = days.get(day) ?? (await this.#sumUp(day));
      days.set(day, summed);
      const spans = summed.filter((span) => this.#wants(cursor, span));
      // A day is done when all of its tenants are.
      const places = spans.map(() => cursor.place);
      batches.push(this.#batch(cursor, spans, places, { ...cursor.place, day }));
    }
    return batches;
  }

  async #sumUp(day: string): Promise<StoredSpan[]> {
    return (await readDaySummaries(this.#tick.database, day)).map(({ tenantId, content }) => {
      const id = this.#tick.derivedId('day', tenantId, day);
      return daySpan(id, tenantId, day, content as Record<string, Json>);
    });
  }

  #wants({ policyId }: PolicyCursor, span: StoredSpan): boolean {
    return appliesTo((this.#known.get(policyId) as KnownPolicy).interest, span) === 'yes';
  }

  #batch(cursor: PolicyCursor, spans: StoredSpan[], places: PolicyPlace[], to: PolicyPlace, loops = 0): Batch {
    const { policy, interest, refusal } = this.#known.get(cursor.policyId) as KnownPolicy;
    return { cursor, policy, interest, spans, places, to, loops, refusal, answers: [], isPutOff: false };
  }

  async #ask(batch: Batch): Promise<object> {
    const { policy, spans, loops } = batch;
    const policy_id = policy.id;
    try {
      const { answers, limit } = await this.#askInTime(policy, spans);
      batch.answers = answers;
      if (answers.length < spans.length) batch.to = batch.places[answers.length - 1] ?? batch.cursor.place;
      const errors = answers.filter(({ error }) => error !== null).map(({ error }) => error);
      return { policy_id, answered: answers.length, errors, limit, loops };
    } catch (error) {
      if (error instanceof UpstreamError) {
        batch.isPutOff = true;
        batch.to = batch.cursor.place;
        return { policy_id, answered: 0, errors: [], limit: null, loops: 0 };
      }
      const { code, message } = error instanceof LogLineError ? error : { code: 'INTERNAL', message: String(error) };
      return { policy_id, answered: 0, errors: [], limit: { code, message }, loops };
    }
  }

  /**
   * That the sandbox has no room is no fault of the policy's.
   *
   * @throws {UpstreamError} it had none all the time.
   */
  async #askInTime(policy: StoredSpan, spans: StoredSpan[]): ReturnType<typeof askPolicy> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await askPolicy(this.#tick.sandbox, policy, spans, this.#tick.now());
      } catch (error) {
        if (!(error instanceof UpstreamError) || attempt === ASK_ATTEMPTS_MAX) throw error;
        await sleep(ASK_AGAIN_MS);
      }
    }
  }

  /**
   * Commit a verdict. Where somebody else's version was first, or the database takes nothing for now, nothing was
   * written and it is asked again. What the ledger refuses for good must not hold the policy for ever: then its actions
   * are an error.
   */
  async #settle(batch: Batch, verdict: Verdict): Promise<boolean> {
    const { policyId } = batch.cursor;
    try {
      const isMoved = await this.#commit(batch, verdict);
      this.#conflicts.delete(policyId);
      return isMoved;
    } catch (error) {
      if (!(error instanceof LogLineError)) throw error;
      this.#tick.log({ level: 'warn', message: 'a policy could not be committed', policyId, error: String(error) });
      const conflicts = (this.#conflicts.get(policyId) ?? 0) + (error.kind === 'conflict' ? 1 : 0);
      this.#conflicts.set(policyId, conflicts);
      if (mayPass(error) && (error.kind !== 'conflict' || conflicts < CONFLICTS_MAX)) return false;
      if (batch.answers.length === 0 && verdict.errors.length === 0) return false; // nothing of the policy's is refused
      // What can be done is done: up to the half of it, as often as it takes to find the one that cannot.
      const half = Math.floor(batch.answers.length / 2);
      const place = batch.places[half - 1];
      if (place !== undefined && place !== batch.cursor.place) {
        return this.#settle({ ...batch, answers: batch.answers.slice(0, half), to: place }, verdict);
      }
      // Without its actions; and if even that is refused, without a word: nothing of a policy may hold up the agent.
      const refused = { code: error.code, message: `the ledger refuses an action: ${error.message}`, count: 1 };
      const key = `${batch.to.txId} ${batch.to.position}`;
      const errors = batch.answers.length === 0 ? [] : [...verdict.errors, { ...refused, key }];
      return this.#settle({ ...batch, answers: [] }, { ...verdict, errors });
    }
  }

  /** Cursor and actions, in one transaction: both or neither. False when another agent moved the policy first. */
  async #commit(asked: Batch, verdict: Verdict): Promise<boolean> {
    const batch = verdict.advances ? asked : { ...asked, to: asked.cursor.place };
    const actions = verdict.advances ? this.#drafts(batch) : [];
    const drafts = [...actions, ...verdict.errors.map((error) => this.#errorDraft(batch, error))];
    return this.#tick.database.transaction(AGENT, async (query) => {
      const failures = batch.isPutOff ? batch.cursor.failures : verdict.failures;
      if (!(await advancePolicy(query, batch.cursor, batch.to, failures, verdict.pausedUntil))) return false;
      const latest = await readAnySeqs(query, [...new Set(drafts.map(({ id }) => id as string))]);
      // Each once. What was done before is not done again, and whoever continued a span meanwhile is not overruled.
      const fresh = drafts.filter(({ id, seq }) => {
        const before = latest.get(id as string) ?? -1;
        latest.set(id as string, Math.max(before, seq as number));
        return seq === before + 1;
      });
      for (const { identity, items } of byOwner(fresh, identityOf)) {
        for (let i = 0; i < items.length; i += APPEND_BATCH_MAX) {
          await appendOnce(query, items.slice(i, i + APPEND_BATCH_MAX), contextOf(this.#tick, identity));
        }
      }
      return true;
    });
  }

  /** What the policy wants done, as spans. What cannot be stored is an error of that action alone. */
  #drafts(batch: Batch): SpanDraft[] {
    return batch.answers.flatMap(({ span, actions }) => {
      const versions = actions.filter(({ emit }) => emit?.id != null).length;
      return actions.map((action, i) => {
        const draft = this.#actionDraft(batch, span, action, i);
        const minute = (draft.at as string).slice(0, 16);
        const identity = identityOf(draft);
        try {
          if (action.emit?.id != null && (versions > 1 || !isOwner(identity, span))) {
            throw new InputError(
              'VERSION_REFUSED',
              'a policy gives a span one new version, and only one of its owner’s',
            );
          }
          hashDraft({ ...draft, seq: 0 }, contextOf(this.#tick, identity));
          return draft;
        } catch (error) {
          if (!(error instanceof InputError)) throw error;
          // One of a kind for each minute, as of all errors.
          return this.#errorDraft(batch, { code: error.code, message: error.message, count: 1, key: minute });
        }
      });
    });
  }

  #actionDraft(batch: Batch, trigger: StoredSpan, { key, emit, run }: PolicyAction, index: number): SpanDraft {
    const { policy, interest } = batch;
    // A system policy acts in the name of whose span it saw, a tenant's own in its author's.
    const owner = interest.isSystem ? ownerOf(trigger) : ownerOf(policy);
    const parts = key === null ? [trigger.id, String(trigger.seq), String(index)] : ['key', key];
    const draft: SpanDraft =
      run === null
        ? { ...(emit as Record<string, Json>), entity_type: emit?.entity_type as string }
        : requestDraft({ id: run.spanId }, { input: run.input });
    const isVersion = run === null && emit?.id != null;
    return {
      visibility: isVersion ? trigger.visibility : atMostTenant(interest.isSystem ? trigger : policy),
      // A name is anybody's to give: only those of the system speak with theirs.
      who: `policy:${(interest.isSystem ? policy.name : null) ?? policy.id}`,
      did: run === null ? 'emitted' : 'requested',
      ...draft,
      // The version after the one that was seen: whoever appended another meanwhile is not overruled.
      ...(isVersion
        ? { seq: trigger.seq + 1 }
        : { id: this.#tick.derivedId('policy action', policy.id, owner.tenantId, ...parts), seq: 0 }),
      at: this.#tick.now().toISOString(),
      owner_id: owner.userId,
      tenant_id: owner.tenantId,
      caused_by: trigger.entity_type === 'day' ? null : trigger.id,
      trace_id: trigger.trace_id ?? null,
      metadata: { ...(draft.metadata as Record<string, Json>), policy: this.#provenance(batch, trigger) },
    };
  }

  /** A fault of the policy is told to its owner; one of a system policy belongs to the system. */
  #errorDraft(batch: Batch, { code, message, count, key }: Verdict['errors'][number]): SpanDraft {
    const { policy } = batch;
    const trigger = batch.answers.find(({ error }) => error !== null)?.span;
    const owner = ownerOf(policy);
    return {
      id: this.#tick.derivedId('policy error', policy.id, String(policy.seq), code, key),
      seq: 0,
      entity_type: 'policy_error',
      who: 'kernel:policy_agent',
      did: 'isolated',
      this: `policy:${policy.id}`,
      owner_id: owner.userId,
      tenant_id: owner.tenantId,
      visibility: atMostTenant(policy),
      parent_id: policy.id,
      caused_by: trigger === undefined || trigger.tenant_id !== policy.tenant_id ? null : trigger.id,
      status: 'error',
      name: policy.name == null ? null : errorText(policy.name),
      error: { code, message: errorText(message) },
      metric_name: 'spans',
      metric_value: count,
      metadata: { policy: this.#provenance(batch, trigger) },
    };
  }

  #provenance(batch: Batch, trigger: StoredSpan | undefined): Json {
    const { policy, to } = batch;
    return {
      id: policy.id,
      seq: policy.seq,
      hash: policy.curr_hash,
      path: [...(trigger === undefined ? [] : pathOf(trigger)), policy.id],
      tx_id: to.txId,
      position: to.position,
      day: to.day,
      boot_event_id: this.#tick.proof.boot_event_id ?? null,
    };
  }
}

/** Text that a span can hold, whatever a policy has made of it. */
function errorText(text: string): string {
  return text.slice(0, ERROR_TEXT_MAX).replaceAll('\0', '\ufffd').toWellFormed();
}

/** Those that stand at the same place, the hindmost first. */
function byPlace(cursors: PolicyCursor[]): { from: PolicyPlace; group: PolicyCursor[] }[] {
  const groups = new Map<string, PolicyCursor[]>();
  for (const cursor of cursors) {
    const key = `${cursor.place.txId} ${cursor.place.position}`;
    groups.set(key, [...(groups.get(key) ?? []), cursor]);
  }
  return [...groups.values()]
    .map((group) => ({ from: (group[0] as PolicyCursor).place, group }))
    .sort((a, b) => comparePlaces(a.from, b.from));
}

function comparePlaces(a: PolicyPlace, b: PolicyPlace): number {
  return Number(BigInt(a.txId) - BigInt(b.txId)) || Number(BigInt(a.position) - BigInt(b.position));
}

/** Only a publisher may write what everybody sees. */
function atMostTenant({ visibility }: StoredSpan): 'private' | 'tenant' {
  return visibility === 'private' ? 'private' : 'tenant';
}

function isOwner({ userId, tenantId }: Identity, span: StoredSpan): boolean {
  return span.owner_id === userId && span.tenant_id === tenantId;
}

function identityOf(draft: SpanDraft): Identity {
  return { userId: draft.owner_id as string, tenantId: draft.tenant_id as string };
}

function described({ cursor, policy, spans, loops, refusal }: Batch): object {
  return {
    policy_id: policy.id,
    name: policy.name ?? null,
    spans: spans.length,
    loops,
    refusal,
    failures: cursor.failures,
  };
}

function readVerdict(item: Record<string, unknown>): Verdict & { policyId: string } {
  const fields = new Fields(item, 'complete');
  const pausedUntil = fields.optionalText('paused_until', /^\d{4}-/, 'an instant');
  const verdict = {
    policyId: fields.uuid('policy_id'),
    advances: fields.any('advances') === true,
    failures: fields.wholeNumber('failures', 0),
    pausedUntil: pausedUntil === undefined ? null : new Date(pausedUntil),
    errors: (fields.any('errors') ?? []) as Verdict['errors'],
  };
  fields.end();
  return verdict;
}

/** A day that has ended, in the shape of a span; it is none, and belongs to nobody but the tenant. */
function daySpan(id: string, tenantId: string, day: string, content: Record<string, Json>): StoredSpan {
  const bounds = { started_at: `${day}T00:00:00.000Z`, finished_at: `${dayAfter(day)}T00:00:00.000Z` };
  return {
    id,
    seq: 0,
    entity_type: 'day',
    tenant_id: tenantId,
    owner_id: AGENT.userId,
    visibility: 'tenant',
    ...bounds,
    content,
  } as unknown as StoredSpan;
}

function dayAfter(day: string): string {
  return new Date(Date.parse(`${day}T00:00:00Z`) + DAY_MS).toISOString().slice(0, 10);
}
