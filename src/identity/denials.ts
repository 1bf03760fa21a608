import { appendSpans, type Database, type Identity, type SpanDraft } from '../ledger/index.ts';
import { canonicalJson, type Signer, SYSTEM_ID } from '../span/index.ts';
import type { Caller } from './caller.ts';

export interface DenialsOptions {
  database: Database;
  signer: Signer;
  now: () => Date;
  log: (entry: Record<string, unknown>) => void;
  /** How long denials are counted before another span says how many there were. */
  windowMs?: number;
}

const WINDOW_MS = 60_000;
/** Callers that are counted each for himself; beyond these, the system counts. */
const TALLIES_MAX = 500;
/** Sources that a span names; the others are `other`. */
const SOURCES_MAX = 20;

const SYSTEM: Identity = { userId: SYSTEM_ID, tenantId: SYSTEM_ID };

interface Tally {
  key: string;
  code: string;
  identity: Identity;
  count: number;
  sources: Map<string, number>;
  since: Date;
  /** One was said a while ago at most: what comes now is only counted. */
  isWaiting: boolean;
}

/**
 * Says in the ledger who was refused and why: of callers we know in their tenant, of others in the system's. At most one
 * span a minute for each code and caller, with a count, so that nobody fills the ledger by being refused. It is written
 * beside the answer: it neither delays it nor changes it.
 */
export class Denials {
  readonly #options: DenialsOptions;
  readonly #tallies = new Map<string, Tally>();

  constructor(options: DenialsOptions) {
    this.#options = options;
  }

  /**
   * @param code one of our own: their number bounds that of the spans.
   * @param source where the call came from, as an address.
   * @returns when what there was to write is written, for hosts that are frozen after their answer; it never fails.
   */
  record(code: string, source: string, caller: Caller | undefined): Promise<void> {
    const tally = this.#tallyOf(code, caller?.identity ?? SYSTEM);
    const isNamed = tally.sources.has(source) || tally.sources.size < SOURCES_MAX;
    const name = isNamed ? source : 'other';
    tally.sources.set(name, (tally.sources.get(name) ?? 0) + 1);
    tally.count++;
    return tally.isWaiting ? Promise.resolve() : this.#say(tally);
  }

  #tallyOf(code: string, identity: Identity): Tally {
    const key = canonicalJson([code, identity.tenantId, identity.userId]);
    const open = this.#tallies.get(key);
    if (open !== undefined) return open;
    if (identity !== SYSTEM && this.#tallies.size >= TALLIES_MAX) return this.#tallyOf(code, SYSTEM);
    const tally: Tally = {
      key,
      code,
      identity,
      count: 0,
      sources: new Map(),
      since: this.#options.now(),
      isWaiting: false,
    };
    this.#tallies.set(key, tally);
    return tally;
  }

  /** Say what was counted, and count on for a while; a while without denials ends it. */
  async #say(tally: Tally): Promise<void> {
    const { database, signer, now, log, windowMs = WINDOW_MS } = this.#options;
    const draft = draftOf(tally, now());
    Object.assign(tally, { count: 0, sources: new Map(), since: now(), isWaiting: true });
    setTimeout(() => {
      if (tally.count === 0) this.#tallies.delete(tally.key);
      else void this.#say(tally);
    }, windowMs).unref();
    try {
      await appendSpans(database, [draft], { identity: tally.identity, signer, now });
    } catch (error) {
      log({ level: 'warn', message: 'a denial could not be recorded', code: tally.code, error: String(error) });
    }
  }
}

function draftOf({ code, identity, count, sources, since }: Tally, until: Date): SpanDraft {
  return {
    entity_type: 'access_denied',
    who: 'api',
    did: 'denied',
    this: identity === SYSTEM ? null : `user:${identity.userId}`,
    visibility: identity === SYSTEM ? 'private' : 'tenant',
    name: code,
    status: 'denied',
    content: { count, sources: Object.fromEntries(sources), since: since.toISOString(), until: until.toISOString() },
  };
}
