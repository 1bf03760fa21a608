import { Cron } from 'croner';
import { DateTime, Duration, IANAZone } from 'luxon';
import { InputError } from '../errors.ts';

/**
 * When something is due again and again. Three forms:
 *
 * - **cron** of 5 fields, or 6 with seconds first: `30 8-18 * * MON-FRI`, by the clock on the wall of `timezone`. Where a
 *   clock change skips a time of the day, it is due at the first moment after; where one repeats it, it is due once. A
 *   pattern with a wildcard or a step in it (every hour, every ten minutes) goes on by elapsed time instead.
 * - **interval**, an ISO 8601 duration of at least a second: `PT2S`, `P1D`, `P1M`. The n-th due time, n ≥ 1, is
 *   `anchor` + n × interval, so a month from 31 January is 28 February, and the next one 31 March.
 * - **repeating interval**, `R/2026-01-01T00:00:00Z/PT10M`: due at its start, then as above counted from there. `R5/…` is
 *   due five times, the start being the first. A start without an offset is read in `timezone`.
 *
 * Years to days are steps of the calendar in `timezone`, so a day may have 23 hours; hours and less are elapsed time.
 */
export interface Schedule {
  schedule: string;
  /** A name of the IANA time zone database; UTC if not given. */
  timezone?: string;
  /** ISO 8601 instant from which a schedule counts. None is due before it. */
  anchor: string;
}

/** The due times of a schedule, as milliseconds since 1970. */
interface Recurrence {
  /** The first one later than `instant`; null when there is none, or none in sight. */
  firstAfter(instant: number): number | null;
  /** The last one not later than `instant`; null when there is none. */
  lastUntil(instant: number): number | null;
}

const SCHEDULE_LENGTH_MAX = 200;
const INTERVAL_MS_MIN = 1000;

const ZONE_NAME = /^[A-Za-z][\w+-]*(\/[\w+-]+)*$/;
/** Stricter than the library, which also takes negative parts and fractions of a month: those do not repeat evenly. */
const DURATION =
  /^P(?=\d|T\d)(\d{1,6}Y)?(\d{1,6}M)?(\d{1,6}W)?(\d{1,6}D)?(T(?=\d)(\d{1,6}H)?(\d{1,6}M)?(\d{1,6}(\.\d{1,3})?S)?)?$/;
const REPEATING = /^R(?<times>[1-9]\d{0,5})?\/(?<start>\d{4}-\d\d-\d\dT[^/]+)\/(?<duration>P.*)$/;

/**
 * Check a schedule, as it stands in the metadata of a span.
 *
 * @returns its due times, once it is said (milliseconds since 1970) from when it counts.
 * @throws {InputError} `SCHEDULE_INVALID`, with field `metadata.schedule` or `metadata.timezone`.
 */
export function parseSchedule(schedule: unknown, timezone: unknown = 'UTC'): (anchor: number) => Recurrence {
  if (typeof timezone !== 'string' || !ZONE_NAME.test(timezone) || !IANAZone.isValidZone(timezone)) {
    throw invalid('metadata.timezone', 'a name of the IANA time zone database, such as Europe/Lisbon', timezone);
  }
  if (typeof schedule !== 'string' || schedule.length > SCHEDULE_LENGTH_MAX) {
    throw invalid('metadata.schedule', `text of at most ${SCHEDULE_LENGTH_MAX} characters`, schedule);
  }
  if (schedule.startsWith('P')) {
    const interval = parseInterval(schedule, schedule);
    return (anchor) => ofInterval(interval, DateTime.fromMillis(anchor, { zone: timezone }), 1, Infinity);
  }
  const recurrence = schedule.startsWith('R') ? parseRepeating(schedule, timezone) : parseCron(schedule, timezone);
  return (anchor) => ({
    firstAfter: (instant) => recurrence.firstAfter(Math.max(instant, anchor - 1)),
    lastUntil: (instant) => {
      const last = recurrence.lastUntil(instant);
      return last === null || last < anchor ? null : last;
    },
  });
}

/**
 * The due times in (`after`, `until`], oldest first, as ISO 8601 instants, and the first one after `until`. When there are
 * more than `limitMax`, these are the last `limitMax` of them: they are looked up backwards from `until`, one by one, so
 * the cost follows `limitMax` and never the length of the range.
 *
 * @returns `next` null when the schedule is never due again.
 * @throws {InputError} `SCHEDULE_INVALID`
 */
export function dueTimes(
  schedule: Schedule,
  after: Date,
  until: Date,
  limitMax: number,
): { due: string[]; next: string | null } {
  const recurrence = recurrenceOf(schedule);
  const due: string[] = [];
  let last = recurrence.lastUntil(until.getTime());
  while (last !== null && last > after.getTime() && due.length < limitMax) {
    due.unshift(iso(last));
    last = recurrence.lastUntil(last - 1);
  }
  const next = recurrence.firstAfter(until.getTime());
  return { due, next: next === null ? null : iso(next) };
}

/**
 * The newest due time in (`after`, `until`]: all that is left to do after a long silence. One look-up, however long.
 *
 * @throws {InputError} `SCHEDULE_INVALID`
 */
export function latestDue(schedule: Schedule, after: Date, until: Date): string | null {
  const last = recurrenceOf(schedule).lastUntil(until.getTime());
  return last === null || last <= after.getTime() ? null : iso(last);
}

function recurrenceOf({ schedule, timezone, anchor }: Schedule): Recurrence {
  const instant = Date.parse(anchor);
  if (Number.isNaN(instant)) throw invalid('anchor', 'an ISO 8601 instant', anchor);
  return parseSchedule(schedule, timezone)(instant);
}

function parseCron(pattern: string, timezone: string): Recurrence {
  const fields = pattern.trim().split(/\s+/).length;
  // The library also reads a date as a pattern that fires once, and nicknames such as @daily.
  if (fields !== 5 && fields !== 6) {
    throw invalid('metadata.schedule', 'cron of 5 or 6 fields, an ISO 8601 duration or a repeating interval', pattern);
  }
  let cron: Cron;
  try {
    // A list of hours is as fixed as one hour: `30 1,13 * * *` loses no run to a clock change.
    cron = new Cron(pattern, { timezone, mode: '5-or-6-parts', fixedTimeRule: 'no-wildcard' });
  } catch (cause) {
    throw invalid('metadata.schedule', 'cron of 5 or 6 fields, each within its range', pattern, cause);
  }
  return {
    firstAfter: (instant) => cron.nextRun(new Date(instant))?.getTime() ?? null,
    lastUntil: (instant) => cron.previousRuns(1, new Date(instant + 1))[0]?.getTime() ?? null,
  };
}

function parseRepeating(text: string, timezone: string): Recurrence {
  const { times, start = '', duration = '' } = REPEATING.exec(text)?.groups ?? {};
  const from = DateTime.fromISO(start, { zone: timezone });
  if (!from.isValid) throw invalid('metadata.schedule', 'R/<start>/<duration> or R<times>/<start>/<duration>', text);
  return ofInterval(parseInterval(duration, text), from, 0, times === undefined ? Infinity : Number(times) - 1);
}

function parseInterval(text: string, found: string): Duration {
  const interval = DURATION.test(text)
    ? Duration.fromISO(text, { conversionAccuracy: 'longterm' })
    : Duration.invalid('not a duration');
  if (interval.isValid && interval.toMillis() >= INTERVAL_MS_MIN) return interval;
  throw invalid('metadata.schedule', 'an ISO 8601 duration of at least a second, such as PT10M or P1M', found);
}

/** Due at `start` + n × `interval`, for n from `first` to `last`. */
function ofInterval(interval: Duration, start: DateTime, first: number, last: number): Recurrence {
  // NaN beyond the last day that a Date knows
  const at = (n: number) => start.plus(interval.mapUnits((amount) => amount * n)).toMillis();
  const indexAfter = (instant: number) => {
    // Counts with months and days of average length: a guess that is a step or two off, and then put right.
    let n = Math.max(first, Math.floor((instant - start.toMillis()) / interval.toMillis()));
    while (at(n) <= instant) n++;
    while (n > first && at(n - 1) > instant) n--;
    return n;
  };
  const known = (n: number) => (n < first || n > last || Number.isNaN(at(n)) ? null : at(n));
  return {
    firstAfter: (instant) => known(indexAfter(instant)),
    lastUntil: (instant) => known(Math.min(indexAfter(instant) - 1, last)),
  };
}

function iso(instant: number): string {
  return new Date(instant).toISOString();
}

function invalid(field: string, expected: string, found: unknown, cause?: unknown): InputError {
  const shown = String(JSON.stringify(found)).slice(0, SCHEDULE_LENGTH_MAX);
  return new InputError('SCHEDULE_INVALID', `${field}: expected ${expected}; found ${shown}`, { field, cause });
}
