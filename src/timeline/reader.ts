import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type Cursor,
  cursorOf,
  type Database,
  hangTimelineBell,
  type Identity,
  readTimeline,
  readTimelineEnd,
  readTimelineNews,
  type SpanFilter,
  TIMELINE_START,
} from '../ledger/index.ts';
import type { StoredSpan } from '../span/index.ts';
import { Turnstile } from '../turnstile.ts';
import { matchesFilter, type Start } from './filter.ts';

/** Spans in order, each made JSON once, whoever gets them. */
export interface SpanBatch {
  readonly spans: readonly { position: Cursor; json: string }[];
}

/** The way to one client. All its subscriptions share it. */
export interface Outlet {
  /** Bytes that wait for the network. */
  bufferedBytes(): number;
  /** Resolves when none wait any more, or the client is gone. */
  drained(): Promise<void>;
}

/** What one subscription hands over. Must not throw, whatever became of the client. */
export interface Sink {
  spans(batch: SpanBatch): void;
  /** From here on it is live; said once. */
  caughtUp(position: Cursor): void;
}

export interface Wish {
  identity: Identity;
  filter: SpanFilter;
  after: Start;
  outlet: Outlet;
  sink: Sink;
  /** The client takes nothing any more. */
  onStuck: () => void;
}

export interface ReaderOptions {
  /** Of its own: whoever boots and appends must not make it wait. Uses up to four connections. */
  database: Database;
  /** Calls back when spans were appended while the bell hung (`hangTimelineBell`); returns how to stop that. */
  listen: (onSpans: () => void) => () => Promise<void>;
  log: (entry: Record<string, unknown>) => void;
  /** A client for which more waits reads on by itself, when it has taken that. */
  bufferBytesMax: number;
  /** Longer than this it may not take. */
  drainMs: number;
}

/** Spans of one read, and their bytes: as much waits for each client that takes its time. */
const PAGE = 200;
const PAGE_BYTES = 1024 * 1024;
/** Reads of those who catch up, at the same time: others must not wait for them. */
const CATCH_UPS = 2;
/** How often to look while spans come; when none come any more, how long to go on so before sleeping. */
const LOOK_MS = 40;
const QUIET_MS = 1_000;
/** How often to look before appends that may not know of the bell have ended, and while it hangs. */
const DROWSY_MS = 100;
const SLEEP_MS = 1_000;
const BELL_LEASE_MS = 60_000;
const RETRY_MS = 1_000;

/**
 * Reads the timeline for all who watch it. A subscription catches up by reads of its own, as fast as its client takes
 * them, then joins those of the same identity: for them, a new span is read once.
 *
 * One look tells for whom there is something new. Where a look comes too early (an append that has drawn its number is
 * still under way) the next finds it: order and completeness come from the timeline's horizon, haste only from the looks.
 */
export class TimelineReader {
  readonly #options: ReaderOptions;
  readonly #id = randomUUID();
  readonly #groups = new Map<string, Group>();
  readonly #catchUps = new Turnstile(CATCH_UPS);
  /** Everything before it was looked at; null before the first look. */
  #horizon: Cursor | null = null;
  #newsAt = 0;
  /** When the bell must be hung up anew, and from which horizon on every append has known of it. */
  #bell: { renewAt: number; knownFrom: Cursor } | null = null;
  #running: Promise<void> | null = null;
  #endListening: (() => Promise<void>) | null = null;
  #isRung = false;
  #wake: () => void = () => {};

  constructor(options: ReaderOptions) {
    this.#options = options;
  }

  /** @returns how to end it; afterwards its sink is not called any more. */
  subscribe(wish: Wish): () => void {
    const key = JSON.stringify([wish.identity.tenantId, wish.identity.userId]);
    const group = this.#groups.get(key) ?? new Group(wish.identity);
    this.#groups.set(key, group);
    const subscriber: Subscriber = {
      ...wish,
      filterKey: JSON.stringify(wish.filter),
      position: null,
      goal: TIMELINE_START,
      isOpen: true,
      hasCaughtUp: false,
    };
    group.size += 1;
    void this.#catchUp(subscriber, group);
    return () => {
      if (!subscriber.isOpen) return;
      subscriber.isOpen = false;
      group.live.delete(subscriber);
      group.size -= 1;
      if (group.size === 0) this.#groups.delete(key);
    };
  }

  /** Those who still subscribe get nothing any more. */
  async stop(): Promise<void> {
    this.#groups.clear();
    this.#ring();
    await this.#running;
    await this.#endListening?.();
  }

  /** Read for one subscriber until it has reached its group, then let it join. */
  async #catchUp(subscriber: Subscriber, group: Group): Promise<void> {
    while (subscriber.isOpen) {
      if (!(await this.#hasRoom(subscriber.outlet))) {
        if (subscriber.isOpen) subscriber.onStuck();
        return;
      }
      try {
        if (await this.#catchUpStep(subscriber, group)) return;
      } catch (error) {
        this.#options.log({ level: 'warn', message: 'a timeline could not be read', error: String(error) });
        await sleep(RETRY_MS);
      }
    }
  }

  /** One read; whether the subscriber needs no other. */
  async #catchUpStep(subscriber: Subscriber, group: Group): Promise<boolean> {
    const { database, bufferBytesMax } = this.#options;
    const { identity, filter } = subscriber;
    const reached = group.position;
    const page = await this.#catchUps.pass(identity.tenantId, async () => {
      // While it waited in line, others of the same client may have filled its buffer.
      if (!subscriber.isOpen || subscriber.outlet.bufferedBytes() > bufferBytesMax) return null;
      if (subscriber.position === null) {
        const { after } = subscriber;
        const end = await readTimelineEnd(database, identity);
        subscriber.goal = end;
        // Beyond the end there is nothing that was ever shown: the position of another ledger, or of one before a restore.
        subscriber.position = after === 'end' || after > end ? end : after;
      }
      return readTimeline(database, identity, subscriber.position, PAGE, filter, PAGE_BYTES);
    });
    if (page === null || !subscriber.isOpen) return !subscriber.isOpen;
    if (page.spans.length > 0) subscriber.sink.spans({ spans: page.spans.map(encode) });
    // Nothing was there, up to where the group had been before this read.
    const isEmpty = page.position === subscriber.position;
    subscriber.position = isEmpty && reached !== null ? later(page.position, reached) : page.position;

    if (group.live.size === 0) {
      if (!isEmpty && subscriber.position < subscriber.goal) return false;
      group.position = subscriber.position;
      group.isStale = true; // there may be more already
    } else if (group.position === null || subscriber.position < group.position) return false;
    group.live.add(subscriber);
    if (!subscriber.hasCaughtUp) subscriber.sink.caughtUp(subscriber.position);
    subscriber.hasCaughtUp = true;
    this.#start();
    return true;
  }

  async #hasRoom(outlet: Outlet): Promise<boolean> {
    if (outlet.bufferedBytes() <= this.#options.bufferBytesMax) return true;
    let timer: NodeJS.Timeout | undefined;
    const tooLong = new Promise<boolean>((resolve) => {
      timer = setTimeout(resolve, this.#options.drainMs, false);
    });
    const hasRoom = await Promise.race([outlet.drained().then(() => true), tooLong]);
    clearTimeout(timer);
    return hasRoom;
  }

  /** Look for as long as somebody is live. */
  #start(): void {
    this.#endListening ??= this.#options.listen(() => this.#ring());
    this.#ring();
    this.#running ??= this.#run().finally(() => {
      this.#running = null;
      if (this.#groups.size > 0) this.#start(); // somebody came while the bell was taken down
    });
  }

  async #run(): Promise<void> {
    this.#horizon = null;
    while (this.#groups.size > 0) {
      let pauseMs = RETRY_MS;
      try {
        pauseMs = await this.#look();
      } catch (error) {
        this.#options.log({ level: 'warn', message: 'the timeline could not be looked at', error: String(error) });
      }
      await this.#pause(pauseMs);
    }
    // Not told, the bell falls down by itself.
    if (this.#bell !== null) await hangTimelineBell(this.#options.database, this.#id, 0).catch(() => {});
    this.#bell = null;
  }

  /** @returns when to look again, in ms. */
  async #look(): Promise<number> {
    const { database } = this.#options;
    const news = await readTimelineNews(database, this.#horizon);
    this.#horizon = news.horizon;
    let isBusy = news.tenants.size > 0;
    for (const group of this.#groups.values()) {
      if (!group.isStale && !news.isPublic && !news.tenants.has(group.identity.tenantId)) continue;
      isBusy = true;
      group.isStale = false;
      group.isDue = true;
      void this.#readOn(group);
    }
    const now = performance.now();
    if (isBusy) this.#newsAt = now;
    if (now - this.#newsAt < QUIET_MS) {
      if (this.#bell !== null) await hangTimelineBell(database, this.#id, 0);
      this.#bell = null;
      return LOOK_MS;
    }
    if (this.#bell === null || this.#bell.renewAt < now) {
      await hangTimelineBell(database, this.#id, BELL_LEASE_MS);
      // Appends that did not see the bell have drawn a lower number than whoever comes after it.
      const knownFrom = this.#bell?.knownFrom ?? (await hangTimelineBell(database, this.#id, BELL_LEASE_MS));
      this.#bell = { renewAt: now + BELL_LEASE_MS / 2, knownFrom };
    }
    return this.#horizon > this.#bell.knownFrom ? SLEEP_MS : DROWSY_MS;
  }

  #ring(): void {
    this.#isRung = true;
    this.#wake();
  }

  async #pause(ms: number): Promise<void> {
    if (!this.#isRung) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const timer = setTimeout(resolve, ms);
      this.#wake = resolve;
      await promise;
      clearTimeout(timer);
    }
    if (this.#isRung) this.#newsAt = performance.now();
    this.#isRung = false;
  }

  /** Read what is new for a group, and hand it out. */
  async #readOn(group: Group): Promise<void> {
    if (group.isReading) return;
    group.isReading = true;
    try {
      while (group.isDue && group.live.size > 0 && group.position !== null) {
        group.isDue = false;
        const [from, horizon] = [group.position, this.#horizon];
        const page = await readTimeline(this.#options.database, group.identity, from, PAGE, {}, PAGE_BYTES);
        if (group.position !== from) {
          group.isDue = true; // all have left meanwhile, and another has begun elsewhere
        } else if (page.spans.length > 0) {
          this.#handOut(group, page);
          if (page.spans.length === PAGE) group.isDue = true;
          else group.isStale = true; // the page may have been cut short
        } else if (horizon !== null) {
          group.position = later(from, horizon); // what others may not see is not passed over again and again
        }
      }
    } catch (error) {
      group.isStale = true;
      this.#options.log({ level: 'warn', message: 'a timeline could not be read', error: String(error) });
    } finally {
      group.isReading = false;
    }
  }

  #handOut(group: Group, page: { spans: StoredSpan[]; position: Cursor }): void {
    const from = group.position as Cursor;
    group.position = page.position;
    const encoded: ReturnType<typeof encode>[] = []; // each when somebody wants it
    const batches = new Map<string, SpanBatch>();
    for (const subscriber of group.live) {
      if (subscriber.outlet.bufferedBytes() > this.#options.bufferBytesMax) {
        group.live.delete(subscriber);
        void this.#catchUp(subscriber, group);
        continue;
      }
      const { filter, filterKey, position } = subscriber;
      let batch = batches.get(filterKey);
      if (batch === undefined) {
        const matching = page.spans.flatMap((span, i) => (matchesFilter(filter, span) ? [i] : []));
        batch = { spans: matching.map((i) => (encoded[i] ??= encode(page.spans[i] as StoredSpan))) };
        batches.set(filterKey, batch);
      }
      if (position !== null && position > from) {
        if (position >= page.position) continue; // it was ahead of its group
        batch = { spans: batch.spans.filter((span) => span.position > position) };
      }
      subscriber.position = page.position;
      if (batch.spans.length > 0) subscriber.sink.spans(batch);
    }
  }
}

interface Subscriber extends Wish {
  filterKey: string;
  /** What it has; null before it began. */
  position: Cursor | null;
  /** Where the timeline ended when it began: whoever has that has caught up. */
  goal: Cursor;
  isOpen: boolean;
  hasCaughtUp: boolean;
}

/** All who subscribe as the same identity. */
class Group {
  readonly identity: Identity;
  /** Subscribers that have caught up. */
  readonly live = new Set<Subscriber>();
  /** All of them. */
  size = 0;
  /** What the live ones have; null before there is one. */
  position: Cursor | null = null;
  /** There may be more: read at the next look. */
  isStale = false;
  /** There is more: read it now. */
  isDue = false;
  isReading = false;

  constructor(identity: Identity) {
    this.identity = identity;
  }
}

function encode(span: StoredSpan): { position: Cursor; json: string } {
  return { position: cursorOf(span), json: JSON.stringify(span) };
}

function later(a: Cursor, b: Cursor): Cursor {
  return a > b ? a : b;
}
