import { randomUUID } from 'node:crypto';
import { LogLineError } from '../errors.ts';
import { Fields } from '../fields.ts';
import {
  countRows,
  type Database,
  FIRST_PLACE,
  findRow,
  isSame,
  type RowPlace,
  readStretch,
  type WitnessedRow,
} from '../ledger/index.ts';
import {
  checkChain,
  type Ed25519,
  type Problem,
  type StoredSpan,
  type TrustedKeys,
  verifySpan,
} from '../span/index.ts';
import { type Anchor, extend, FIRST_ANCHOR, parseAnchor } from './anchor.ts';
import {
  type AnchorStore,
  type AuditProblem,
  type AuditState,
  acknowledge,
  anchorId,
  bounded,
  digestOf,
  firstState,
  PROBLEMS_MAX,
  parseState,
  STATE_ID,
} from './state.ts';

export interface AuditOptions {
  /** A login that is, or may act as, `loglineos_auditor`. */
  database: Database;
  keys: TrustedKeys;
  scheme: Ed25519;
  store: AnchorStore;
  now: () => Date;
  /** The run is over by then, with what it has done so far. */
  endOfTime: Date;
  /** For how long history may be read again. A segment of it always is, or as much of it as there is time for at all. */
  historyMs: number;
  /** Rows between two anchors, 1,000 unless said: it must be the same for as long as a chain of anchors goes on. */
  segmentRows?: number;
  /** Aborts when the host is being stopped. */
  stop?: AbortSignal;
  onProgress?: (rows: number) => void;
}

/** What an operator may ask of a run. */
export interface AuditOrder {
  /** Read all of history again, as far as the time allows. */
  all?: boolean;
  /** What was found before this run is known: it does not count any more. */
  acknowledge?: boolean;
  /** Begin another chain of anchors with the ledger as it is now. The anchors of the one before stay where they are. */
  restart?: boolean;
}

/**
 * The order that an invocation says; the fields of a schedule's own event say nothing.
 *
 * @throws {InputError} `FIELD_INVALID`
 */
export function parseOrder(event: unknown): AuditOrder {
  const fields = new Fields(event ?? {}, '');
  return { all: fields.flag('all'), acknowledge: fields.flag('acknowledge'), restart: fields.flag('restart') };
}

export interface AuditReport {
  /** False: another auditor was at work, and this one left it to it. */
  worked: boolean;
  /** No problem is open. */
  ok: boolean;
  /** Rows that were read for the first time, and again. */
  new_rows: number;
  history_rows: number;
  /** Every row up to the end of the anchors was read in this run. */
  is_whole: boolean;
  /** Rows up to the end of the anchors. */
  anchored_rows: number;
  /** Settled rows of the ledger; null when they could not be counted in time. */
  ledger_rows: number | null;
  /** Settled rows that wait to be read for the first time; null as before. */
  lag_rows: number | null;
  /** Those that are open: found in this run, or before and not acknowledged. */
  problems: AuditProblem[];
  /** How many are open: beyond the named ones, those that this run found. */
  problem_count: number;
}

/** Rows between two anchors. */
const SEGMENT_ROWS = 1_000;
/** Of a problem of the ledger as a whole. */
const WHOLE_LEDGER = { id: '00000000-0000-0000-0000-000000000000', seq: 0 };
const NOT_WHERE_WITNESSED = 'does not stand where anybody witnessed it being appended';
const COUNT_MS_MAX = 30_000;
const STRETCH_MS_MAX = 60 * 60 * 1000;
const STATEMENT_MS_MIN = 1_000;

/**
 * Verify the rows that are new, count the ledger, and verify a part of history again, each against the anchors.
 *
 * A run may be killed at any moment, and another may run at the same time: who writes the state first goes on.
 *
 * @throws {IntegrityError} `ANCHOR_UNREADABLE`: what the store holds is no state or no anchor.
 * @throws {UpstreamError} the database, or the store, does not answer.
 */
export async function audit(options: AuditOptions, order: AuditOrder = {}): Promise<AuditReport> {
  const run = new AuditRun(options);
  try {
    await run.begin(order);
    await run.readNew();
    await run.count();
    await run.readHistory(order.all === true);
    return run.report(true);
  } catch (error) {
    if (error instanceof Overtaken) return run.report(false);
    throw error;
  }
}

/** Another auditor wrote the state since we did. */
class Overtaken extends Error {}

interface StandingAnchor {
  number: number;
  anchor: Anchor;
  /** Of its row. */
  place: RowPlace;
}

class AuditRun {
  readonly #options: AuditOptions;
  readonly #segmentRows: number;
  readonly #runId = randomUUID();
  /** The state, and the text of it that the store holds. */
  #state: AuditState;
  #stored: string | null = null;
  /** Digests of the problems that are open or known. */
  readonly #seen = new Set<string>();
  #unnamed = 0;
  #newRows = 0;
  #historyRows = 0;
  #isWhole = false;
  #counted: { rows: number; rowsUpTo: number; positionsUpTo: string } | null = null;
  /** The last row of the anchors is not there any more. */
  #isAhead = false;

  constructor(options: AuditOptions) {
    this.#options = options;
    this.#segmentRows = options.segmentRows ?? SEGMENT_ROWS;
    this.#state = firstState(this.#runId, 1);
  }

  async begin(order: AuditOrder): Promise<void> {
    this.#stored = await this.#options.store.read(STATE_ID);
    if (this.#stored !== null) {
      try {
        this.#state = parseState(this.#stored);
      } catch (error) {
        if (order.restart !== true) throw error;
        // Nobody can say any more which chain it was: the time is a number beyond all that were counted.
        this.#state = firstState(this.#runId, this.#options.now().getTime());
      }
    }
    if (order.restart === true) this.#state = firstState(this.#runId, this.#state.chain + 1);
    if (order.acknowledge === true) this.#state = acknowledge(this.#state);
    for (const digest of [...this.#state.known, ...this.#state.problems.map(digestOf)]) this.#seen.add(digest);
    await this.#save();
  }

  /** Read what was appended since the last run, and anchor it. */
  async readNew(): Promise<void> {
    let place = await this.#placeOf(this.#state.head);
    if (place === null) return this.#foundAhead();
    while (!this.#isOver()) {
      const rowsMax = this.#segmentRows - (this.#state.head.rows % this.#segmentRows);
      const before = this.#newRows;
      const { isEnd } = await this.#readStretch(place, { rowsMax }, (span) => {
        this.#state.head = extend(this.#state.head, span);
        this.#newRows++;
      });
      const isFull = this.#newRows > before && this.#state.head.rows % this.#segmentRows === 0;
      const isKept = !isFull || (await this.#addAnchor());
      await this.#save();
      if (isEnd || !isKept) return;
      place = this.#state.head.last ?? FIRST_PLACE;
    }
  }

  /** The number of rows up to the end of the anchors, and the sum of their positions: nothing was removed or put in. */
  async count(): Promise<void> {
    const { head } = this.#state;
    const place = await this.#placeOf(head);
    this.#counted = await countRows(this.#options.database, place ?? FIRST_PLACE, this.#timeoutMs(COUNT_MS_MAX)).catch(
      (error) => {
        if (error instanceof LogLineError && error.code === 'DATABASE_TIMEOUT') return null;
        throw error;
      },
    );
    if (this.#counted === null || place === null) return;
    const more = this.#counted.rowsUpTo - head.rows;
    const positions = BigInt(this.#counted.positionsUpTo) - BigInt(head.positions);
    if (more === 0 && positions === 0n) return;
    const rows = more === 0 ? 'as many rows as' : `${Math.abs(more)} ${more < 0 ? 'fewer' : 'more'} rows than`;
    this.#foundChange(
      FIRST_ANCHOR,
      `up to the end of the anchors the ledger has ${rows} were anchored, and the sum of their positions is ${positions} more`,
    );
    await this.#save();
  }

  /**
   * Read segments again, on from where the last run ended, in the middle of one if need be. Each row is verified, each
   * segment compared with its anchor.
   */
  async readHistory(isAll: boolean): Promise<void> {
    const { now, historyMs, endOfTime } = this.#options;
    const until = isAll ? endOfTime : new Date(Math.min(now().getTime() + historyMs, endOfTime.getTime()));
    const lastAnchor = this.#isAhead ? (await this.#standing(this.#fullSegments, -1)).number : this.#fullSegments;
    const segments = lastAnchor + 1; // and the one that is not full yet
    let end = endOfTime;
    for (let read = 0; read < segments && !this.#isOver(end); end = until) {
      if (this.#state.history > lastAnchor) this.#atHistory(0);
      const { history: after, partial } = this.#state;
      const reached = await this.#readSegments(after, lastAnchor);
      if (reached !== null) {
        // The beginning of one that an earlier run left was not read in this run.
        if (partial === null) read += reached - after;
        this.#isWhole = read === segments && !this.#isAhead;
        this.#atHistory(reached > lastAnchor ? 0 : reached);
      }
      await this.#save();
      if (reached === null) return;
    }
  }

  report(worked: boolean): AuditReport {
    const { problems, head } = this.#state;
    const ledgerRows = this.#counted?.rows ?? null;
    const count = problems.length + this.#unnamed;
    return {
      worked,
      ok: count === 0,
      new_rows: this.#newRows,
      history_rows: this.#historyRows,
      is_whole: this.#isWhole,
      anchored_rows: head.rows,
      ledger_rows: ledgerRows,
      lag_rows: ledgerRows === null ? null : Math.max(0, ledgerRows - head.rows),
      problems,
      problem_count: count,
    };
  }

  /**
   * Read the segment behind an anchor. Where the row that ends one is gone, nobody can tell where it ended: then those
   * beside it are read with it, as one.
   *
   * @returns the anchor that was reached, `lastAnchor + 1` for the end; null when the time was up before: the next run goes
   *   on from there.
   */
  async #readSegments(after: number, lastAnchor: number): Promise<number | null> {
    const from = await this.#standing(after, -1, this.#foundGone);
    const to = after === lastAnchor ? null : await this.#standing(after + 1, 1, this.#foundGone, lastAnchor);
    const end = to?.anchor ?? this.#state.head;
    const upTo = to?.place ?? (await this.#placeOf(end)); // of the end of the anchors, null when they are ahead
    // An earlier run may have read the beginning; not where more is read than this segment, or where its row is gone.
    const partial = from.number === after ? this.#state.partial : null;
    const place = partial === null ? null : await this.#placeOf(partial);
    let found = partial === null || place === null ? from.anchor : partial;
    // One more than there may be: who moves the end of a segment far away does not have the ledger read up to there.
    const rowsMax = upTo === null ? Number.MAX_SAFE_INTEGER : Math.max(1, end.rows - found.rows + 1);
    const { isCut } = await this.#readStretch(place ?? from.place, { upTo, rowsMax }, (span) => {
      found = extend(found, span);
      this.#historyRows++;
    });
    if (isCut) {
      this.#state.partial = found;
      return null;
    }
    if (upTo !== null && found.digest !== end.digest) {
      const which =
        to === null
          ? `the rows after row ${from.anchor.rows}, up to the end of the anchors, are`
          : `rows ${from.anchor.rows + 1} to ${end.rows} have digest ${found.digest} and are`;
      this.#foundChange(from.anchor, `${which} not those that were anchored`);
    }
    return to?.number ?? lastAnchor + 1;
  }

  /** The nearest anchor, going one way, whose row stands somewhere; the first of all always does. */
  async #standing(from: number, step: -1, onGone?: (gone: Anchor) => void): Promise<StandingAnchor>;
  async #standing(from: number, step: 1, onGone: (gone: Anchor) => void, last: number): Promise<StandingAnchor | null>;
  async #standing(from: number, step: 1 | -1, onGone?: (gone: Anchor) => void, last = 0) {
    for (let number = from; number * step <= last * step; number += step) {
      const anchor = await this.#anchor(number);
      const place = await this.#placeOf(anchor);
      if (place !== null) return { number, anchor, place };
      onGone?.(anchor);
    }
    return null;
  }

  #atHistory(anchor: number): void {
    this.#state.history = anchor;
    this.#state.partial = null;
  }

  get #fullSegments(): number {
    return Math.floor(this.#state.head.rows / this.#segmentRows);
  }

  async #anchor(number: number): Promise<Anchor> {
    if (number === 0) return FIRST_ANCHOR;
    const name = anchorId(this.#state.chain, number);
    return parseAnchor(await this.#options.store.read(name), name);
  }

  async #placeOf({ last }: Anchor): Promise<RowPlace | null> {
    return last === null ? FIRST_PLACE : findRow(this.#options.database, last);
  }

  /** @returns false when an earlier run that was killed had anchored something else: what it anchored holds. */
  async #addAnchor(): Promise<boolean> {
    const { head, chain } = this.#state;
    if (await this.#options.store.add(anchorId(chain, this.#fullSegments), JSON.stringify(head))) return true;
    const kept = await this.#anchor(this.#fullSegments);
    if (kept.digest === head.digest) return true;
    this.#foundChange(kept, 'the rows up to here are not those that were anchored');
    this.#state.head = kept;
    return false;
  }

  /** @throws {Overtaken} */
  async #save(): Promise<void> {
    const { store } = this.#options;
    const text = JSON.stringify({ ...this.#state, run_id: this.#runId });
    if (text === this.#stored) return;
    const isWritten =
      this.#stored === null ? await store.add(STATE_ID, text) : await store.replace(STATE_ID, this.#stored, text);
    // The answer to a write may have been lost, and the write sent again.
    if (!isWritten && (await store.read(STATE_ID)) !== text) throw new Overtaken();
    this.#stored = text;
  }

  async #readStretch(
    after: RowPlace,
    end: Parameters<typeof readStretch>[2],
    onSpan: (span: StoredSpan) => void,
  ): Promise<{ isCut: boolean; isEnd: boolean }> {
    return readStretch(this.#options.database, after, end, this.#timeoutMs(STRETCH_MS_MAX), (rows) => {
      for (const row of rows) {
        this.#check(row);
        if (row.span !== null) onSpan(row.span);
      }
      this.#options.onProgress?.(this.#newRows + this.#historyRows);
      return !this.#isOver();
    });
  }

  #check({ span, before, witness, isElsewhere }: WitnessedRow): void {
    const { keys, scheme } = this.#options;
    if (span !== null) {
      const { id, seq } = span;
      for (const problem of verifySpan(span, keys, scheme)) this.#found(problem);
      if (seq > 0 && before === undefined)
        this.#found({
          id,
          seq: seq - 1,
          class: 'missing',
          detail: `version ${seq} is there and this one before it is not`,
        });
      const chain = checkChain(span, before) ?? checkWitness(span, witness);
      if (chain !== null) this.#found(chain);
    }
    if (witness === null || (span !== null && isSame(span, witness))) return;
    const { id, seq, curr_hash } = witness;
    this.#found(
      isElsewhere
        ? { id, seq, class: 'chain', detail: NOT_WHERE_WITNESSED }
        : { id, seq, class: 'missing', detail: `was appended with hash ${curr_hash} and is gone` },
    );
  }

  readonly #foundGone = ({ rows, last }: Anchor) => {
    const { id, seq } = last ?? WHOLE_LEDGER;
    this.#found({ id, seq, class: 'missing', detail: `was row ${rows} when it was anchored, and is gone` });
  };

  async #foundAhead(): Promise<void> {
    this.#isAhead = true;
    const { head } = this.#state;
    const { anchor } = await this.#standing(this.#fullSegments, -1);
    const name = ({ rows, last }: Anchor) => (last === null ? 'row 0' : `row ${rows} (${last.id} ${last.seq})`);
    this.#foundChange(
      FIRST_ANCHOR,
      `ANCHOR_AHEAD: the anchors reach ${name(head)}, which the ledger does not have; the last that it has of each ${this.#segmentRows} is ${name(anchor)}: it was restored to an earlier moment, or its end was removed`,
    );
    await this.#save();
  }

  /** The ledger is not as it was anchored; somewhere behind this anchor. */
  #foundChange({ last }: Anchor, detail: string): void {
    const { id, seq } = last ?? WHOLE_LEDGER;
    this.#found({ id, seq, class: 'anchor', detail });
  }

  #found(whole: AuditProblem): void {
    const problem = bounded(whole);
    const digest = digestOf(problem);
    if (this.#seen.has(digest)) return;
    if (this.#state.problems.length === PROBLEMS_MAX) {
      this.#unnamed++;
      return;
    }
    this.#seen.add(digest);
    this.#state.problems.push(problem);
  }

  #isOver(end = this.#options.endOfTime): boolean {
    return this.#options.stop?.aborted === true || this.#options.now() >= end;
  }

  #timeoutMs(max: number): number {
    const left = this.#options.endOfTime.getTime() - this.#options.now().getTime();
    return Math.min(max, Math.max(left, STATEMENT_MS_MIN));
  }
}

/** What was written down when the row was appended still holds. */
function checkWitness(span: StoredSpan, witness: WitnessedRow['witness']): Problem | null {
  const problem = (detail: string): Problem => ({ id: span.id, seq: span.seq, class: 'chain', detail });
  if (witness === null || !isSame(span, witness)) return problem(NOT_WHERE_WITNESSED);
  return witness.curr_hash === span.curr_hash
    ? null
    : problem(`the hash was ${witness.curr_hash} when the row was appended`);
}
