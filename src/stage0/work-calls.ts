import { InputError, KernelError } from '../errors.ts';
import type { WorkKind } from '../kernel/index.ts';
import type { Tick, Work } from '../work/index.ts';
import { proofOf } from './admit.ts';
import { derivedId } from './identifiers.ts';
import { queueLimitsOf } from './manifest.ts';
import { isOverridden } from './quota.ts';
import type { Stage0 } from './stage0.ts';
import type { KernelRun } from './system-calls.ts';

/** Longest a kernel may wait in one call. */
const WAIT_MS_MAX = 60_000;
const IDS_MAX = 1_000;

/** Fetched when a shift first claims: a Stage-0 that only answers callers starts without it. */
const KINDS: Record<WorkKind, () => Promise<new (tick: Tick) => Work>> = {
  requests: async () => (await import('../work/request-work.ts')).RequestWork,
  schedules: async () => (await import('../work/schedule-work.ts')).ScheduleWork,
  policies: async () => (await import('../work/policy-work.ts')).PolicyWork,
};

/** `ctx.claim`, `run`, `outcomes` and `complete`: the work of a shift, of one kind. */
export class WorkCalls {
  readonly #stage0: Stage0;
  readonly #run: KernelRun;
  #kind: WorkKind | undefined;
  #work: Work | undefined;

  constructor(stage0: Stage0, run: KernelRun) {
    this.#stage0 = stage0;
    this.#run = run;
  }

  async claim(kind: unknown, options: unknown): Promise<unknown> {
    const shift = this.#shift();
    if (typeof kind !== 'string' || !Object.hasOwn(KINDS, kind)) {
      throw new InputError('FIELD_INVALID', `claim: expected ${Object.keys(KINDS).join(', ')}`, { field: 'kind' });
    }
    this.#kind ??= kind as WorkKind;
    if (kind !== this.#kind) throw new KernelError('WORK_KIND', `this shift works on ${this.#kind}`);
    this.#work ??= new (await KINDS[this.#kind]())(this.#tick());
    if (shift.isOver()) return { work: [], is_over: true };
    return { ...(await this.#work.claim(options as Record<string, unknown>)), is_over: false };
  }

  async run(ids: unknown): Promise<void> {
    this.#claimed().start(listOf<string>(ids, 'ids'));
  }

  async outcomes(waitMs: unknown): Promise<unknown> {
    const shift = this.#shift();
    const ms = Math.min(Math.max(Number(waitMs) || 0, 0), WAIT_MS_MAX);
    if (this.#work === undefined) await shift.wait(ms);
    const outcomes = (await this.#work?.outcomes(ms)) ?? [];
    return { outcomes, is_over: shift.isOver() };
  }

  async complete(items: unknown): Promise<unknown> {
    return this.#claimed().complete(listOf(items, 'items'));
  }

  async end(): Promise<void> {
    await this.#work?.end();
  }

  #shift() {
    const { shift } = this.#run;
    if (shift === undefined)
      throw new KernelError('NO_SHIFT', 'only a kernel that the host booted for a shift may take work');
    return shift;
  }

  #claimed(): Work {
    this.#shift();
    if (this.#work === undefined) throw new KernelError('NOTHING_CLAIMED', 'nothing was claimed');
    return this.#work;
  }

  #tick(): Tick {
    const { database, sandbox, signer, scheme, now, log, verifier, tenantMasterKey } = this.#stage0;
    const { manifest, kernel, announced, identity } = this.#run;
    const shift = this.#shift();
    return {
      database,
      sandbox,
      signer,
      scheme,
      now,
      log,
      counters: shift.counters,
      deadline: announced.deadline,
      policy: manifest.policy,
      limits: queueLimitsOf(manifest),
      proof: { ...proofOf(kernel, manifest), boot_event_id: announced.bootEventId },
      derivedId: (...parts) => derivedId(tenantMasterKey, ...parts),
      isOverridden: (fn, signature) => isOverridden(scheme, manifest, fn, signature),
      checkSigner: (span) => verifier.checkSigner(span),
      proveByRoot: (span) => verifier.prove(span, database, identity),
      isOver: () => shift.isOver(),
      wait: (ms) => shift.wait(ms),
    };
  }
}

function listOf<T = Record<string, unknown>>(value: unknown, field: string): T[] {
  if (Array.isArray(value) && value.length <= IDS_MAX) return value;
  throw new InputError('FIELD_INVALID', `${field}: expected a list of at most ${IDS_MAX}`, { field });
}
