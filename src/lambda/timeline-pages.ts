import { setTimeout as pause } from 'node:timers/promises';
import { Fields } from '../fields.ts';
import type { Authenticator, Caller } from '../identity/caller.ts';
import {
  cursorOf,
  type Database,
  type Identity,
  readTimeline,
  readTimelineEnd,
  readTimelineNews,
} from '../ledger/index.ts';
import type { StoredSpan } from '../span/index.ts';
import { readFilter } from '../timeline/index.ts';
import { type CallerFields, callerOf } from './caller-fields.ts';

/** What the sender asks the reader, who knows the ledger. Nobody else may invoke it: it believes whom it is told. */
export interface TimelineQuestion {
  groups: TimelineGroup[];
  /** All those whose connections are open, whether they wait for spans or not. */
  callers: CallerFields[];
  /** How long to wait while there is nothing new. */
  wait_ms: number;
}

/** Subscriptions that go on together: the same identity, filter and place. */
export interface TimelineGroup {
  user_id: string;
  tenant_id: string;
  /** As a client sends it. */
  filter: unknown;
  /** A position, or `end`. */
  after: string;
  /** Whether it was at the end of the timeline before: then nobody looks where that is. */
  caught_up: boolean;
}

export interface TimelineAnswer {
  /** For each group, what comes next. */
  pages: TimelinePage[];
  /** Which of the callers have no credential any more, by their place in the question. */
  ended: number[];
}

export interface TimelinePage {
  spans: TimelineEntry[];
  /** Where it goes on after them. */
  position: string;
  /** Whether that is the end of the timeline, as it was when we looked. */
  caught_up: boolean;
}

export type TimelineEntry =
  | { position: string; span: StoredSpan }
  /** Too large for a frame: which version it is, to be fetched. */
  | {
      position: string;
      span: Pick<StoredSpan, 'id' | 'seq' | 'position' | 'tx_id' | 'at' | 'curr_hash'>;
      truncated: true;
    };

/** All pages of an answer are read in this time; whoever has none by then gets it with the next. */
const READ_MS_MAX = 2_000;
/** Groups of a question: their pages, each of `PAGE_BYTES_MAX` at most, have to fit the 6 MB that Lambda answers. */
export const GROUPS_MAX = 40;
/** What a span may have as JSON, and a page together; API Gateway takes 128 KB a frame. */
const PAGE_BYTES_MAX = 100_000;
const PAGE_SPANS_MAX = 100;

/** How often to look while a question waits, and at its callers. */
const LOOK_MS = 50;
const CALLERS_CHECK_MS = 400;

export interface TimelineReader {
  database: Database;
  authenticator: Authenticator;
}

/**
 * Answer with what is new for the groups, as soon as there is something, each within what its identity may see; or with
 * nothing after a while. Credentials are checked after whatever goes out was read, and while it waits.
 */
export async function readPages(
  { database, authenticator }: TimelineReader,
  { groups, callers: fields, wait_ms }: TimelineQuestion,
): Promise<TimelineAnswer> {
  const callers = fields.map(callerOf);
  const endOfWait = performance.now() + wait_ms;
  // Before the pages: what settles after this is news.
  let { horizon } = await readTimelineNews(database, null);
  let pages = await readEach(database, groups);
  let ended = await endedOf(authenticator, callers);
  let checkedAt = performance.now();
  const hasNews = () => ended.length > 0 || pages.some((page, i) => page.position !== groups[i]?.after);
  while (!hasNews() && performance.now() < endOfWait) {
    await pause(LOOK_MS);
    const news = await readTimelineNews(database, horizon);
    horizon = news.horizon;
    if (groups.some((group) => news.isPublic || news.tenants.has(group.tenant_id)))
      pages = await readEach(database, groups);
    if (!hasNews() && performance.now() - checkedAt < CALLERS_CHECK_MS) continue;
    ended = await endedOf(authenticator, callers);
    checkedAt = performance.now();
  }
  return { pages, ended };
}

/** In any order, so that the pages for which there is no time left are not always the same ones. */
async function readEach(database: Database, groups: TimelineGroup[]): Promise<TimelinePage[]> {
  const pages = groups.map(({ after }): TimelinePage => ({ spans: [], position: after, caught_up: false }));
  const endOfReading = performance.now() + READ_MS_MAX;
  const first = Math.floor(Math.random() * groups.length);
  for (let n = 0; n < groups.length && performance.now() < endOfReading; n++) {
    const i = (first + n) % groups.length;
    pages[i] = await readPage(database, groups[i] as TimelineGroup);
  }
  return pages;
}

async function endedOf(authenticator: Authenticator, callers: Caller[]): Promise<number[]> {
  const ended = new Set(await authenticator.ended(callers));
  return [...callers.keys()].filter((i) => ended.has(callers[i] as Caller));
}

async function readPage(database: Database, group: TimelineGroup): Promise<TimelinePage> {
  const identity: Identity = { userId: group.user_id, tenantId: group.tenant_id };
  const filterFields = new Fields(group.filter, 'filter');
  const filter = readFilter(filterFields);
  filterFields.end();
  const end = group.caught_up ? null : await readTimelineEnd(database, identity);
  // Beyond the end there is nothing that was ever shown: the position of another ledger, or of one before a restore.
  if (end !== null && (group.after === 'end' || group.after > end))
    return { spans: [], position: end, caught_up: true };
  const found = await readTimeline(database, identity, group.after, PAGE_SPANS_MAX, filter, PAGE_BYTES_MAX);
  const spans = fitting(found.spans.map(entryOf));
  const position = spans.length === found.spans.length ? found.position : (spans.at(-1)?.position ?? group.after);
  return { spans, position, caught_up: end === null || position >= end };
}

function entryOf(span: StoredSpan): TimelineEntry {
  const entry = { position: cursorOf(span), span };
  if (bytesOf(entry) <= PAGE_BYTES_MAX) return entry;
  const { id, seq, position, tx_id, at, curr_hash } = span;
  return { ...entry, span: { id, seq, position, tx_id, at, curr_hash }, truncated: true };
}

/** As many of the first as a page may hold: one in any case, which is no larger. */
function fitting(entries: TimelineEntry[]): TimelineEntry[] {
  let bytes = 0;
  const tooMuch = entries.findIndex((entry) => {
    bytes += bytesOf(entry);
    return bytes > PAGE_BYTES_MAX;
  });
  return tooMuch === -1 ? entries : entries.slice(0, tooMuch);
}

function bytesOf(entry: TimelineEntry): number {
  return Buffer.byteLength(JSON.stringify(entry));
}
