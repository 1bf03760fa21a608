import fc from 'fast-check';
import { DateTime } from 'luxon';
import { describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.ts';
import { dueTimes, latestDue, parseSchedule, type Schedule } from '../../src/work/due-times.ts';

const EPOCH = '1970-01-01T00:00:00Z';
const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;

/** Due times of a range given as text, without milliseconds. */
function due(schedule: string, after: string, until: string, more: Partial<Schedule> = {}, limitMax = 100): string[] {
  const found = dueTimes({ schedule, anchor: EPOCH, ...more }, new Date(after), new Date(until), limitMax);
  return found.due.map((instant) => instant.replace('.000Z', 'Z'));
}

const next = (schedule: string, until: string, more: Partial<Schedule> = {}) =>
  dueTimes({ schedule, anchor: EPOCH, ...more }, new Date(until), new Date(until), 1).next;

function refusal(schedule: unknown, timezone?: unknown): InputError {
  try {
    parseSchedule(schedule, timezone);
  } catch (error) {
    expect(error).toBeInstanceOf(InputError);
    return error as InputError;
  }
  throw new Error(`${schedule} in ${timezone} was not refused`);
}

describe('a cron', () => {
  it('of 5 fields is due by the minute, and of 6 by the second', () => {
    expect(due('*/20 9 * * *', '2026-05-04T00:00:00Z', '2026-05-05T00:00:00Z')).toEqual([
      '2026-05-04T09:00:00Z',
      '2026-05-04T09:20:00Z',
      '2026-05-04T09:40:00Z',
    ]);
    expect(due('*/25 0 9 * * MON', '2026-05-01T00:00:00Z', '2026-05-08T00:00:00Z')).toEqual([
      '2026-05-04T09:00:00Z',
      '2026-05-04T09:00:25Z',
      '2026-05-04T09:00:50Z',
    ]);
  });

  it('counts the end of a range in, and its beginning out', () => {
    expect(due('0 * * * *', '2026-05-04T09:00:00Z', '2026-05-04T11:00:00Z')).toEqual([
      '2026-05-04T10:00:00Z',
      '2026-05-04T11:00:00Z',
    ]);
    expect(due('0 * * * *', '2026-05-04T08:59:59.999Z', '2026-05-04T09:59:59.999Z')).toEqual(['2026-05-04T09:00:00Z']);
    expect(next('0 * * * *', '2026-05-04T09:00:00Z')).toBe('2026-05-04T10:00:00.000Z');
    expect(next('0 * * * *', '2026-05-04T08:59:59.999Z')).toBe('2026-05-04T09:00:00.000Z');
  });

  it('is not due before its anchor, but is at it', () => {
    const more = { anchor: '2026-05-04T12:00:00Z' };
    expect(due('0 */6 * * *', '2026-05-04T00:00:00Z', '2026-05-05T00:00:00Z', more)).toEqual([
      '2026-05-04T12:00:00Z',
      '2026-05-04T18:00:00Z',
      '2026-05-05T00:00:00Z',
    ]);
    expect(next('0 */6 * * *', '2026-05-01T00:00:00Z', more)).toBe('2026-05-04T12:00:00.000Z');
  });

  it('that never fires again has no next', () => {
    expect(next('0 0 30 2 *', '2026-05-04T00:00:00Z')).toBeNull();
    expect(due('0 0 30 2 *', EPOCH, '2026-05-04T00:00:00Z')).toEqual([]);
  });

  it('that fires once in years is found', () => {
    expect(next('0 0 29 2 *', '2097-01-01T00:00:00Z')).toBe('2104-02-29T00:00:00.000Z');
    expect(due('0 0 29 2 *', '2019-01-01T00:00:00Z', '2027-01-01T00:00:00Z')).toEqual([
      '2020-02-29T00:00:00Z',
      '2024-02-29T00:00:00Z',
    ]);
  });

  it.each<[string, string, string, string, string[]]>([
    [
      'America/New_York skips 02:30: due when the clock says 03:00',
      '30 2 * * *',
      'America/New_York',
      '2026-03-08',
      ['2026-03-07T07:30:00Z', '2026-03-08T07:00:00Z', '2026-03-09T06:30:00Z'],
    ],
    [
      'America/New_York has 01:30 twice: due the first time',
      '30 1 * * *',
      'America/New_York',
      '2026-11-01',
      ['2026-10-31T05:30:00Z', '2026-11-01T05:30:00Z', '2026-11-02T06:30:00Z'],
    ],
    [
      'Europe/Lisbon skips 01:30, one of two times of the day',
      '30 1,13 * * *',
      'Europe/Lisbon',
      '2026-03-29',
      [
        '2026-03-28T01:30:00Z',
        '2026-03-28T13:30:00Z',
        '2026-03-29T01:00:00Z',
        '2026-03-29T12:30:00Z',
        '2026-03-30T00:30:00Z',
        '2026-03-30T12:30:00Z',
      ],
    ],
    [
      'Europe/Lisbon has 01:30 twice, one of two times of the day',
      '30 1,13 * * *',
      'Europe/Lisbon',
      '2026-10-25',
      [
        '2026-10-24T00:30:00Z',
        '2026-10-24T12:30:00Z',
        '2026-10-25T00:30:00Z',
        '2026-10-25T13:30:00Z',
        '2026-10-26T01:30:00Z',
        '2026-10-26T13:30:00Z',
      ],
    ],
    [
      'America/Sao_Paulo skipped midnight itself while it had a summer time',
      '0 0 * * *',
      'America/Sao_Paulo',
      '2018-11-04',
      ['2018-11-03T03:00:00Z', '2018-11-04T03:00:00Z', '2018-11-05T02:00:00Z'],
    ],
    [
      'America/Sao_Paulo had 23:30 twice on the day before',
      '30 23 * * *',
      'America/Sao_Paulo',
      '2018-02-17',
      ['2018-02-17T01:30:00Z', '2018-02-18T01:30:00Z', '2018-02-19T02:30:00Z'],
    ],
    [
      'America/Sao_Paulo has none any more',
      '0 0 * * *',
      'America/Sao_Paulo',
      '2026-11-01',
      ['2026-10-31T03:00:00Z', '2026-11-01T03:00:00Z', '2026-11-02T03:00:00Z'],
    ],
  ])('loses nothing and repeats nothing when the clock changes: %s', (_what, schedule, timezone, day, expected) => {
    const noon = DateTime.fromISO(`${day}T12:00`, { zone: timezone });
    const after = noon.minus({ days: 1 }).startOf('day').toMillis() - 1;
    const until = noon.plus({ days: 1 }).endOf('day').toMillis();
    expect(due(schedule, new Date(after).toISOString(), new Date(until).toISOString(), { timezone })).toEqual(expected);
  });

  it('with a wildcard goes on by elapsed time when the clock changes', () => {
    for (const night of ['2026-03-08', '2026-11-01']) {
      const hours = due('30 * * * *', `${night}T04:00:00Z`, `${night}T10:00:00Z`, { timezone: 'America/New_York' });
      expect(hours).toEqual([4, 5, 6, 7, 8, 9].map((hour) => `${night}T0${hour}:30:00Z`));
    }
  });
});

describe('an interval', () => {
  it('is first due one interval after its anchor', () => {
    const more = { anchor: '2026-05-04T12:00:00.500Z' };
    expect(due('PT2S', '2026-05-04T12:00:00Z', '2026-05-04T12:00:05Z', more)).toEqual([
      '2026-05-04T12:00:02.500Z',
      '2026-05-04T12:00:04.500Z',
    ]);
    expect(next('PT2S', '2020-01-01T00:00:00Z', more)).toBe('2026-05-04T12:00:02.500Z');
  });

  it('of a month from the 31st is due on the last day of each month, and does not drift', () => {
    const more = { anchor: '2026-01-31T10:00:00Z', timezone: 'Europe/Lisbon' };
    expect(due('P1M', '2026-01-31T10:00:00Z', '2026-06-01T00:00:00Z', more)).toEqual([
      '2026-02-28T10:00:00Z',
      '2026-03-31T09:00:00Z',
      '2026-04-30T09:00:00Z',
      '2026-05-31T09:00:00Z',
    ]);
    expect(due('P1M', '2126-01-01T00:00:00Z', '2126-02-10T00:00:00Z', more)).toEqual(['2126-01-31T10:00:00Z']);
  });

  it('of a day keeps the time on the wall, and of 24 hours does not', () => {
    const more = { anchor: '2026-03-07T15:00:00Z', timezone: 'America/New_York' };
    const range = ['2026-03-07T15:00:00Z', '2026-03-10T00:00:00Z'] as const;
    expect(due('P1D', ...range, more)).toEqual(['2026-03-08T14:00:00Z', '2026-03-09T14:00:00Z']);
    expect(due('PT24H', ...range, more)).toEqual(['2026-03-08T15:00:00Z', '2026-03-09T15:00:00Z']);
  });

  it('of a day goes on from the time of its anchor after a night that skipped that time, or had it twice', () => {
    const lisbon = (anchor: string, until: string) => due('P1D', anchor, until, { anchor, timezone: 'Europe/Lisbon' });
    expect(lisbon('2026-03-28T01:30:00Z', '2026-03-31T00:00:00Z')).toEqual([
      '2026-03-29T01:30:00Z',
      '2026-03-30T00:30:00Z',
    ]);
    expect(lisbon('2026-10-24T00:30:00Z', '2026-10-27T00:00:00Z')).toEqual([
      '2026-10-25T00:30:00Z',
      '2026-10-26T01:30:00Z',
    ]);
  });

  it('of a day is due once, not twice, where a whole day was skipped', () => {
    const more = { anchor: '2011-12-28T20:00:00Z', timezone: 'Pacific/Apia' };
    expect(due('P1D', '2011-12-28T20:00:00Z', '2012-01-01T00:00:00Z', more)).toEqual([
      '2011-12-29T20:00:00Z',
      '2011-12-30T20:00:00Z',
      '2011-12-31T20:00:00Z',
    ]);
  });

  it('that leads beyond the calendar has no next', () => {
    expect(next('P999999Y', '2026-01-01T00:00:00Z')).toBeNull();
  });
});

describe('a repeating interval', () => {
  it('is due at its start and then without end', () => {
    const schedule = 'R/2026-01-01T00:00:00Z/PT10M';
    expect(due(schedule, '2025-12-31T00:00:00Z', '2026-01-01T00:25:00Z')).toEqual([
      '2026-01-01T00:00:00Z',
      '2026-01-01T00:10:00Z',
      '2026-01-01T00:20:00Z',
    ]);
    expect(next(schedule, '2999-01-01T00:00:00Z')).toBe('2999-01-01T00:10:00.000Z');
  });

  it('with a number is due that many times', () => {
    const schedule = 'R3/2026-01-01T00:00:00Z/P1D';
    expect(due(schedule, '2025-01-01T00:00:00Z', '2027-01-01T00:00:00Z')).toEqual([
      '2026-01-01T00:00:00Z',
      '2026-01-02T00:00:00Z',
      '2026-01-03T00:00:00Z',
    ]);
    expect(next(schedule, '2026-01-02T00:00:00Z')).toBe('2026-01-03T00:00:00.000Z');
    expect(next(schedule, '2026-01-03T00:00:00Z')).toBeNull();
  });

  it('is not due before its anchor, and those times are spent', () => {
    const more = { anchor: '2026-01-02T00:00:00Z' };
    expect(due('R3/2026-01-01T00:00:00Z/P1D', EPOCH, '2027-01-01T00:00:00Z', more)).toEqual([
      '2026-01-02T00:00:00Z',
      '2026-01-03T00:00:00Z',
    ]);
  });

  it('reads a start without an offset in its time zone', () => {
    const more = { timezone: 'America/Sao_Paulo' };
    expect(next('R/2026-01-01T00:00:00/P1D', '2025-01-01T00:00:00Z', more)).toBe('2026-01-01T03:00:00.000Z');
    expect(next('R/2026-01-01T00:00:00+02:00/P1D', '2025-01-01T00:00:00Z', more)).toBe('2025-12-31T22:00:00.000Z');
  });
});

describe('a long silence', () => {
  it.each(['* * * * * *', 'PT1S', 'R/1971-01-01T00:00:00Z/PT1S'])(
    'gives the newest ones, in no more time than a short one: %s',
    (schedule) => {
      const startedAt = performance.now();
      expect(due(schedule, '1971-01-01T00:00:00Z', '2026-01-01T00:00:00Z', {}, 3)).toEqual([
        '2025-12-31T23:59:58Z',
        '2025-12-31T23:59:59Z',
        '2026-01-01T00:00:00Z',
      ]);
      const newest = latestDue({ schedule, anchor: EPOCH }, new Date(EPOCH), new Date('2026-01-01T00:00:00.900Z'));
      expect(newest).toBe('2026-01-01T00:00:00.000Z');
      // One by one these are 1.7 thousand million.
      expect(performance.now() - startedAt).toBeLessThan(1_000);
    },
  );

  it('with nothing due has no newest one', () => {
    const schedule = { schedule: '0 0 1 1 *', anchor: EPOCH };
    expect(latestDue(schedule, new Date('2026-01-01T00:00:00Z'), new Date('2026-12-31T23:59:59Z'))).toBeNull();
  });
});

describe('a schedule that is refused', () => {
  it.each<[unknown, string]>([
    ['', 'nothing'],
    ['* * * *', 'too few fields'],
    ['0 0 * * * * 2026', 'too many fields'],
    ['@daily', 'a nickname'],
    ['2026-01-01T00:00:00Z', 'a single instant'],
    ['61 * * * *', 'a minute that is none'],
    ['every two days at noon', 'words'],
    ['P', 'an empty duration'],
    ['PT', 'an empty duration of time'],
    ['P0D', 'no time at all'],
    ['PT0.999S', 'less than a second'],
    ['PT1.0001S', 'less than a millisecond'],
    ['P0.5M', 'half a month'],
    ['P-1D', 'backwards'],
    ['-P1D', 'backwards'],
    ['PT5', 'no unit'],
    ['R/PT10M', 'no start'],
    ['R0/2026-01-01T00:00:00Z/PT10M', 'no times'],
    ['R-1/2026-01-01T00:00:00Z/PT10M', 'less than no times'],
    ['R/2026-02-30T00:00:00Z/PT10M', 'a start that is no date'],
    ['R/2026-01-01T00:00:00Z/PT0.5S', 'less than a second, repeated'],
    ['R/2026-01-01T00:00:00Z/2026-01-02T00:00:00Z', 'an end for a duration'],
    [`${'0,'.repeat(200)}0 * * * *`, 'too long'],
    [60, 'a number'],
    [null, 'null'],
  ])('names its field: %j (%s)', (schedule) => {
    expect(refusal(schedule)).toMatchObject({ code: 'SCHEDULE_INVALID', field: 'metadata.schedule' });
    expect(refusal(schedule).message).toMatch(/^metadata\.schedule: expected .*; found /);
  });

  it.each(['', 'Lisbon', 'Europe/Atlantis', '+03:00', 'UTC+3', 'local', 'Europe/Lisbon ', 3, null])(
    'names its time zone: %j',
    (timezone) => {
      for (const schedule of ['* * * * *', 'P1D', 'R/2026-01-01T00:00:00Z/P1D']) {
        expect(refusal(schedule, timezone)).toMatchObject({ code: 'SCHEDULE_INVALID', field: 'metadata.timezone' });
      }
    },
  );

  it('names an anchor that is no instant', () => {
    const schedule = { schedule: 'P1D', anchor: 'yesterday' };
    expect(() => latestDue(schedule, new Date(0), new Date(1))).toThrow(
      expect.objectContaining({ code: 'SCHEDULE_INVALID', field: 'anchor' }),
    );
  });
});

describe('laws', () => {
  const zone = fc.constantFrom(
    'UTC',
    'America/New_York',
    'America/Sao_Paulo',
    'Europe/Lisbon',
    'Australia/Lord_Howe',
    'Asia/Kathmandu',
  );
  const schedule = fc.oneof(
    fc.constantFrom('*/30 * * * *', '15 0-3 * * *', '30 1,13 * * *', '0 0 */7 * * *', '45 2 * * SUN', '0 0 L * *'),
    fc.constantFrom('PT7M', 'PT1H', 'P1D', 'P1DT1H', 'P1W', 'P1M', 'P1M1D'),
    fc.constantFrom('R/2018-02-17T03:30:00Z/PT90M', 'R500/2018-01-31T00:00:00/P1D', 'R/2018-01-31T02:30:00/P1M'),
  );
  const anchor = fc
    .date({ min: new Date('2017-01-01'), max: new Date('2018-06-01'), noInvalidDate: true })
    .map((date) => date.toISOString());
  const schedules: fc.Arbitrary<Schedule> = fc.record({ schedule, timezone: zone, anchor });
  /** Days on which a clock changed somewhere in the list above, and days on which none did. */
  const instant = fc
    .record({
      day: fc.constantFrom(
        '2018-02-17',
        '2018-03-11',
        '2018-03-25',
        '2018-04-01',
        '2018-10-07',
        '2018-11-04',
        '2019-01-31',
      ),
      offset: fc.oneof(
        fc.integer({ min: 0, max: 2 * DAY }),
        fc.integer({ min: 0, max: 192 }).map((n) => n * 15 * MINUTE),
      ),
    })
    .map(({ day, offset }) => Date.parse(day) - DAY / 2 + offset);
  const range = fc.tuple(instant, fc.integer({ min: 0, max: DAY }), fc.integer({ min: 0, max: DAY }));
  const all = (of: Schedule, after: number, until: number) => dueTimes(of, new Date(after), new Date(until), Infinity);

  it('due times strictly increase, lie in (after, until], and the next one is the first later one', () => {
    fc.assert(
      fc.property(schedules, range, (of, [after, length]) => {
        const until = after + length;
        const found = all(of, after, until);
        const instants = found.due.map((text) => Date.parse(text));
        for (const [i, at] of instants.entries()) expect(at).toBeGreaterThan(instants[i - 1] ?? after);
        expect(instants.at(-1) ?? until).toBeLessThanOrEqual(until);
        if (found.next === null) return expect(of.schedule).toMatch(/^R500/);
        expect(Date.parse(found.next)).toBeGreaterThan(until);
        expect(all(of, until, Date.parse(found.next)).due).toEqual([found.next]);
      }),
    );
  });

  it('two ranges, one after the other, hold what the whole holds', () => {
    fc.assert(
      fc.property(schedules, range, (of, [after, one, two]) => {
        const first = all(of, after, after + one);
        const second = all(of, after + one, after + one + two);
        expect([...first.due, ...second.due]).toEqual(all(of, after, after + one + two).due);
      }),
    );
  });

  it('following next from one to the next finds the same ones as looking back', () => {
    fc.assert(
      fc.property(schedules, range, (of, [after, length]) => {
        const forward: string[] = [];
        let { next: at } = all(of, after, after);
        while (at !== null && Date.parse(at) <= after + length) {
          forward.push(at);
          at = all(of, Date.parse(at), Date.parse(at)).next;
        }
        expect(forward).toEqual(all(of, after, after + length).due);
      }),
    );
  });

  it('a limit keeps the newest ones', () => {
    fc.assert(
      fc.property(schedules, range, fc.integer({ min: 1, max: 5 }), (of, [after, length], limitMax) => {
        const [from, until] = [new Date(after), new Date(after + length)];
        const { due: whole, next: following } = all(of, after, after + length);
        expect(dueTimes(of, from, until, limitMax)).toEqual({ due: whole.slice(-limitMax), next: following });
        expect(latestDue(of, from, until)).toBe(whole.at(-1) ?? null);
      }),
    );
  });

  it('one time of the day is due exactly once on each day of the calendar', () => {
    const time = fc.record({ hour: fc.integer({ min: 0, max: 23 }), minute: fc.integer({ min: 0, max: 59 }) });
    fc.assert(
      fc.property(zone, time, instant, (timezone, { hour, minute }, at) => {
        const day = DateTime.fromMillis(at, { zone: timezone }).startOf('day');
        const of = { schedule: `${minute} ${hour} * * *`, timezone, anchor: EPOCH };
        const found = all(of, day.toMillis() - 1, day.plus({ days: 1 }).toMillis() - 1).due;
        expect(found).toHaveLength(1);
      }),
    );
  });

  it('an elapsed interval is due at whole multiples of it from its anchor', () => {
    fc.assert(
      fc.property(
        zone,
        anchor,
        fc.integer({ min: 1, max: 90_000 }),
        range,
        (timezone, from, seconds, [after, length]) => {
          const of = { schedule: `PT${seconds}S`, timezone, anchor: from };
          const found = dueTimes(of, new Date(after), new Date(after + length), 20);
          const distances = [...found.due, found.next as string].map((text) => Date.parse(text) - Date.parse(from));
          for (const distance of distances) expect([distance > 0, distance % (seconds * 1000)]).toEqual([true, 0]);
          for (const [i, d] of distances.slice(1).entries()) expect(d - (distances[i] as number)).toBe(seconds * 1000);
        },
      ),
    );
  });
});
