import { AccessError, ConflictError, InputError } from '../errors.ts';
import { Fields } from '../fields.ts';
import {
  advanceSchedule,
  type DueSchedule,
  readDueSchedules,
  readLatestVersions,
  readNextDue,
  type SpanDraft,
  sealDraft,
} from '../ledger/index.ts';
import { checkProof, type Json, type StoredSpan } from '../span/index.ts';
import { dueTimes } from './due-times.ts';
import { requestDraft } from './request-draft.ts';
import { contextOf, mayPass, ownerOf, type Tick, type Work } from './tick.ts';

/** Functions that one claim takes, and due times of one function that it may answer with. */
const CLAIM_MAX = 200;
const DUE_MAX = 100;
/** Of a function's name, as an error repeats it. */
const NAME_MAX = 200;

/**
 * Functions that run by the clock, behind `ctx.claim('schedules')`. Any number of observers may look at the same
 * function: its requests and how far it has come are one statement, which only one of them can make; and a request's id
 * follows from function and due time, so that the ledger has room for one.
 */
export class ScheduleWork implements Work {
  readonly #tick: Tick;
  readonly #open = new Map<string, DueSchedule>();

  constructor(tick: Tick) {
    this.#tick = tick;
  }

  async claim(options: Record<string, unknown>) {
    const fields = new Fields(options, 'claim');
    const limit = Math.min(fields.wholeNumber('limit', 1), CLAIM_MAX);
    fields.end();
    const now = this.#tick.now();
    this.#open.clear();
    for (const due of await readDueSchedules(this.#tick.database, now, limit)) this.#open.set(due.span.id, due);
    const work = [...this.#open.values()].map((due) => this.#describe(due, now));
    return { work, next_at: work.length < limit ? await readNextDue(this.#tick.database) : now.toISOString() };
  }

  start(): void {}

  async outcomes(waitMs: number): Promise<object[]> {
    await this.#tick.wait(waitMs);
    return [];
  }

  async complete(items: Record<string, unknown>[]) {
    const lost: string[] = [];
    for (const item of items) {
      const fields = new Fields(item, 'complete');
      const id = fields.uuid('function_id');
      const due = fields.any('due') as string[];
      const nextAt = fields.any('next_at') === null ? null : fields.text('next_at', /^\d{4}-/, 'an instant');
      const error = fields.any('error') as Json;
      fields.end();
      const open = this.#open.get(id);
      if (open === undefined) continue;
      const drafts =
        error === null ? due.map((at) => this.#requestDraft(open.span, at)) : [this.#errorDraft(open.span, error)];
      if (!(await this.#advanceOrRefuse(open, drafts, nextAt))) lost.push(id);
      this.#open.delete(id);
    }
    return { done: items.length - lost.length, lost };
  }

  async end(): Promise<void> {}

  /** Due times since the last that was requested, and the first one to come; or why there are none. */
  #describe({ span, doneUntil }: DueSchedule, now: Date): object {
    const function_id = span.id;
    const { schedule, timezone } = (span.metadata ?? {}) as { schedule?: unknown; timezone?: unknown };
    try {
      const problem = checkProof(span, this.#tick.scheme) ?? this.#tick.checkSigner(span);
      if (problem !== null) throw new InputError('SPAN_NOT_PROVED', problem.detail);
      if (schedule === undefined || schedule === null) return { function_id, ...onceAt(span, now) };
      const start = span.scheduled_at ?? span.at;
      const after = new Date(Math.max(Date.parse(doneUntil), Date.parse(start) - 1));
      const times = {
        schedule: String(schedule),
        anchor: start,
        ...(typeof timezone === 'string' ? { timezone } : {}),
      };
      const { due, next } = dueTimes(times, after, now, DUE_MAX);
      return { function_id, due, next_at: next, error: null };
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      return { function_id, due: [], next_at: null, error: { code: error.code, message: error.message } };
    }
  }

  #requestDraft(fn: StoredSpan, dueAt: string): SpanDraft {
    return {
      ...requestDraft(fn, {
        input: fn.input ?? null,
        scheduledAt: dueAt,
        priority: fn.priority ?? undefined,
        maxAttempts: fn.max_attempts ?? undefined,
        visibility: fn.visibility === 'tenant' ? 'tenant' : 'private',
      }),
      id: this.#tick.derivedId('scheduled request', fn.id, dueAt),
      seq: 0,
      who: 'kernel:observer_bot',
      at: this.#tick.now().toISOString(),
      caused_by: fn.id,
    };
  }

  /** One for each version: a table that is made anew finds the same fault again. */
  #errorDraft(fn: StoredSpan, error: Json): SpanDraft {
    return {
      id: this.#tick.derivedId('schedule error', fn.id, String(fn.seq)),
      seq: 0,
      entity_type: 'schedule_error',
      who: 'kernel:observer_bot',
      did: 'refused',
      this: `function:${fn.id}`,
      at: this.#tick.now().toISOString(),
      parent_id: fn.id,
      caused_by: fn.id,
      visibility: fn.visibility === 'tenant' ? 'tenant' : 'private',
      status: 'error',
      name: fn.name?.slice(0, NAME_MAX).toWellFormed() ?? null,
      error,
    };
  }

  /** A function whose requests no span can hold is an error of its own, and stops no other. */
  async #advanceOrRefuse(open: DueSchedule, drafts: SpanDraft[], nextAt: string | null): Promise<boolean> {
    try {
      return await this.#advance(open, drafts, nextAt);
    } catch (error) {
      if (mayPass(error) || !(error instanceof InputError || error instanceof AccessError)) throw error;
      const refused = this.#errorDraft(open.span, { code: error.code, message: error.message });
      return this.#advance(open, [refused], null);
    }
  }

  /** False when another observer, or a new version of the function, was first. */
  async #advance({ span, doneUntil }: DueSchedule, drafts: SpanDraft[], nextAt: string | null): Promise<boolean> {
    const identity = ownerOf(span);
    const context = contextOf(this.#tick, identity);
    const advance = { doneBefore: doneUntil, doneUntil: drafts.at(-1)?.scheduled_at ?? doneUntil, nextDueAt: nextAt };
    const rows = (wanted: SpanDraft[]) => wanted.map((draft) => sealDraft(draft, context));
    try {
      return await advanceSchedule(this.#tick.database, identity, span, advance, rows(drafts));
    } catch (error) {
      if (!(error instanceof ConflictError)) throw error;
      // Requested before: the derived table was made anew, and knows less than the ledger.
      const known = await readLatestVersions(
        this.#tick.database,
        identity,
        drafts.map(({ id }) => id as string),
      );
      const missing = drafts.filter(({ id }) => !known.has(id as string));
      return advanceSchedule(this.#tick.database, identity, span, advance, rows(missing));
    }
  }
}

/** A function with a time and no schedule runs once. */
function onceAt(span: StoredSpan, now: Date): object {
  const at = span.scheduled_at ?? span.at;
  const isDue = Date.parse(at) <= now.getTime();
  return { due: isDue ? [at] : [], next_at: isDue ? null : at, error: null };
}
