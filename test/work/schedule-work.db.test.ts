import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { rebuildDerived, type SpanDraft } from '../../src/ledger/index.ts';
import { type Json, sealSpan } from '../../src/span/index.ts';
import { type AnyJson, Installation } from '../stage0/installation.ts';
import { runtimeSigner } from '../support/keys.ts';
import { ALICE, BOB, hashable } from '../support/spans.ts';
import { openRequests, startRole, until, type WorkingRole } from '../worker/shifts.ts';
import { append, startBeside } from './policies-at-work.ts';

/** How long functions run by the clock; the acceptance says a minute. */
const SECONDS = Number(process.env.SCHEDULE_SECONDS ?? 12);
const HOUR_MS = 3_600_000;

let installation: Installation;
beforeAll(async () => {
  installation = await Installation.create();
  await installation.seed((content) => {
    content.throttle.per_tenant_daily_exec_limit = 1_000_000;
  });
});
afterAll(() => installation?.close());

const rebuild = () => rebuildDerived({ url: installation.ledger.adminUrl });
const inMs = (ms: number) => new Date(Date.now() + ms).toISOString();

async function appendScheduled(
  metadata: object | null,
  more: Partial<SpanDraft> = {},
  identity = ALICE,
): Promise<string> {
  const draft = { name: 'by the clock', status: 'scheduled', metadata: metadata as Json, ...more };
  return (await installation.appendFunction('return input', draft, identity)).id;
}

/** The next version of a scheduled function. */
function change(
  id: string,
  metadata: object | null,
  more: Partial<SpanDraft> = {},
  identity = ALICE,
): Promise<string[]> {
  const draft = { id, entity_type: 'function', code: 'return input', name: 'by the clock', status: 'scheduled' };
  return append(installation, [{ ...draft, metadata: metadata as Json, ...more }], identity);
}

const requestsOf = (id: string): Promise<AnyJson[]> =>
  installation.spans(`entity_type = 'request' and seq = 0 and parent_id = $1`, [id]);
const dueTimesOf = async (id: string) => (await requestsOf(id)).map(({ scheduled_at }) => scheduled_at.toISOString());
const errorsOf = async (id: string) =>
  (await installation.spans(`entity_type = 'schedule_error' and parent_id = $1`, [id])).map(({ error }) => error.code);
const isOnSchedule = async (id: string) =>
  (await installation.admin.query('select from ledger.schedule where function_id = $1', [id])).rowCount === 1;

describe('functions that are due every two seconds', () => {
  it(
    'run once for each due time, with three observers at work and the derived tables made anew meanwhile',
    async () => {
      const ids = [
        await appendScheduled({ schedule: '*/2 * * * * *' }),
        await appendScheduled({ schedule: 'PT2S' }, {}, BOB),
        await appendScheduled({ schedule: 'PT2S' }, { scheduled_at: inMs(3_000), visibility: 'tenant' }),
      ];
      const observers = [0, 1, 2].map(() => startBeside(installation.container(), 'observer'));
      const worker = startRole(installation.container(), 'request-worker');
      const beganAt = Date.now();
      for (const part of [0.3, 0.3, 0.4]) {
        await sleep(SECONDS * 1_000 * part);
        if (part < 0.4) await rebuild();
      }
      const endedAt = Date.now();
      await change(ids[0] as string, null, { status: 'active' });
      await change(ids[1] as string, null, { status: 'active' }, BOB);
      await change(ids[2] as string, null, { status: 'active' });
      const answers = await Promise.all(observers.map((observer) => observer.stop()));
      await until(async () => (await openRequests(installation)) === 0);
      await worker.stop();

      for (const [i, id] of ids.entries()) {
        const times = (await dueTimesOf(id)).sort();
        expect(new Set(times).size, 'each due time once').toBe(times.length);
        const steps = times.slice(1).map((time, n) => Date.parse(time) - Date.parse(times[n] as string));
        expect(new Set(steps), `steps between ${times}`).toEqual(new Set([2_000]));
        const late = i === 2 ? 5_000 : 2_000;
        expect(Date.parse(times[0] as string) - beganAt).toBeLessThanOrEqual(late + 1_000);
        expect(endedAt - Date.parse(times.at(-1) as string)).toBeLessThan(4_000);
        for (const request of await requestsOf(id)) {
          const versions = await installation.spans('id = $1', [request.id]);
          expect(versions.map(({ status }) => status)).toEqual(['scheduled', 'complete']);
          const executions = await installation.spans(`entity_type = 'execution' and caused_by = $1`, [request.id]);
          expect(executions.map(({ status, did }) => [status, did])).toEqual([['complete', 'ran_function']]);
          const lateMs = request.at.getTime() - request.scheduled_at.getTime();
          expect(lateMs, 'from the due time to its request').toBeLessThan(2_500);
        }
      }
      const requested = answers.map(({ output }) => output.requested - output.lost);
      expect(requested.filter((count) => count > 0).length, 'observers that got something').toBeGreaterThan(1);
      expect(answers).toMatchObject([0, 1, 2].map(() => ({ ok: true, error: null })));
    },
    SECONDS * 1_000 + 30_000,
  );
});

describe('the observer', () => {
  let observer: WorkingRole;
  beforeAll(() => {
    observer = startBeside(installation.container(), 'observer');
  });
  afterAll(async () => {
    expect(await observer.stop()).toMatchObject({ ok: true, error: null });
  });
  afterEach(() => expect(installation.logged).toEqual([]));

  it('asks in the name of the owner, with what the function says of its runs', async () => {
    const more = { input: { n: 1 }, priority: 7, max_attempts: 2, visibility: 'tenant' as const };
    const id = await appendScheduled(null, more, BOB);
    await until(async () => (await requestsOf(id)).length === 1);
    expect((await requestsOf(id))[0]).toMatchObject({
      ...{ ...more, owner_id: 'bob', tenant_id: 'bolt', who: 'kernel:observer_bot', did: 'requested' },
      ...{ status: 'scheduled', this: `function:${id}`, caused_by: id, name: 'by the clock' },
    });
  });

  it('asks once for a function with a time and no schedule, also when it has another version or the table is new', async () => {
    const scheduled_at = inMs(1_500);
    const id = await appendScheduled(null, { scheduled_at });
    await sleep(1_000);
    expect(await requestsOf(id)).toEqual([]);
    await until(async () => (await requestsOf(id)).length === 1);
    expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(scheduled_at));
    expect(await dueTimesOf(id)).toEqual([scheduled_at]);

    await change(id, null, { scheduled_at, description: 'the same time' });
    await until(async () => !(await isOnSchedule(id)));
    await rebuild();
    await until(async () => !(await isOnSchedule(id)));
    expect(await dueTimesOf(id)).toEqual([scheduled_at]);

    const another = inMs(500);
    await change(id, null, { scheduled_at: another });
    await until(async () => (await requestsOf(id)).length === 2);
    expect(await dueTimesOf(id)).toEqual([scheduled_at, another]);
  });

  it('asks once for all that nobody was there for', async () => {
    const id = await appendScheduled({ schedule: 'PT2S' }, { at: inMs(-HOUR_MS) });
    const minutely = await appendScheduled({ schedule: '* * * * *' }, { at: inMs(-HOUR_MS) });
    const before = Date.now();
    await until(async () => (await requestsOf(id)).length > 0 && (await requestsOf(minutely)).length > 0);
    for (const [fn, step] of [
      [id, 2_000],
      [minutely, 60_000],
    ] as const) {
      const times = await dueTimesOf(fn);
      expect(times.length).toBeLessThan(4);
      expect(before - Date.parse(times[0] as string), 'the last that was due').toBeLessThan(step + 2_000);
      await change(fn, null, { status: 'active' });
    }
  });

  it('reads cron by the clock of its time zone', async () => {
    // 8:30 in Kolkata is 3:00 in UTC, in summer and winter.
    const metadata = { schedule: '30 8 * * *', timezone: 'Asia/Kolkata' };
    const id = await appendScheduled(metadata, { at: inMs(-25 * HOUR_MS) });
    await until(async () => (await requestsOf(id)).length > 0);
    const last = new Date(Math.floor((Date.now() - 3 * HOUR_MS) / (24 * HOUR_MS)) * 24 * HOUR_MS + 3 * HOUR_MS);
    expect(await dueTimesOf(id)).toEqual([last.toISOString()]);
    const { rows } = await installation.admin.query('select next_due_at from ledger.schedule where function_id = $1', [
      id,
    ]);
    expect(rows[0].next_due_at).toEqual(new Date(last.getTime() + 24 * HOUR_MS));
  });

  it('follows the newest version: another schedule, none any more, or deleted', async () => {
    const every = { schedule: 'PT1S' };
    const [slower, unscheduled, deleted, kept] = [
      await appendScheduled(every),
      await appendScheduled(every),
      await appendScheduled(every),
      await appendScheduled(every),
    ];
    const all = [slower, unscheduled, deleted, kept];
    for (const id of all) await until(async () => (await requestsOf(id)).length > 0);
    await change(slower, { schedule: 'PT1H' });
    await change(unscheduled, every, { status: 'active' });
    await change(deleted, every, { is_deleted: true });
    const counts = async () => {
      const found = await installation.spans(`entity_type = 'request' and seq = 0 and parent_id = any($1)`, [all]);
      return all.map((id) => found.filter(({ parent_id }) => parent_id === id).length);
    };
    await sleep(500);
    const before = await counts();
    await sleep(2_500);
    const after = await counts();
    expect(after.slice(0, 3)).toEqual(before.slice(0, 3));
    expect(after[3]).toBeGreaterThanOrEqual((before[3] as number) + 2);
    expect(await isOnSchedule(unscheduled)).toBe(false);
    expect(await isOnSchedule(deleted)).toBe(false);
    expect(await isOnSchedule(slower)).toBe(true);
    await change(kept, null, { status: 'active' });
  });

  it('ends a schedule that counts its times', async () => {
    const id = await appendScheduled({ schedule: `R2/${inMs(500)}/PT1S` });
    await until(async () => (await requestsOf(id)).length === 2);
    await until(async () => !(await isOnSchedule(id)));
    expect(await errorsOf(id)).toEqual([]);
  });
});

describe('a ledger that is read-only for a while', () => {
  it('ends an observer, and takes no function off the schedule', async () => {
    const id = await appendScheduled({ schedule: 'PT1S' });
    await installation.admin.query(`
      create function refuse() returns trigger language plpgsql as $$
      begin raise exception 'not now' using errcode = '25006'; end $$;
      create trigger refuse before insert on ledger.universal_registry for each row
        when (new.entity_type = 'request') execute function refuse()`);
    const refused = { ok: false, error: { code: 'SQL_REFUSED' } };
    expect(await startBeside(installation.container(), 'observer').ended).toMatchObject(refused);
    await installation.admin.query('drop function refuse cascade');
    expect(await isOnSchedule(id)).toBe(true);
    const observer = startBeside(installation.container(), 'observer');
    await until(async () => (await requestsOf(id)).length > 0);
    await change(id, null, { status: 'active' });
    expect(await observer.stop()).toMatchObject({ ok: true, error: null });
    expect(await errorsOf(id)).toEqual([]);
  });
});

describe('a function that cannot be scheduled', () => {
  let observer: WorkingRole;
  let healthy: string;
  beforeAll(async () => {
    healthy = await appendScheduled({ schedule: 'PT1S' });
    observer = startBeside(installation.container(), 'observer');
  });
  afterAll(async () => {
    await change(healthy, null, { status: 'active' });
    expect(await observer.stop()).toMatchObject({ ok: true, error: null });
  });

  /** It has left one error and no request, also when the tables are made anew, and the others go on. */
  async function expectRefused(id: string, code: string) {
    await until(async () => (await errorsOf(id)).length > 0);
    await rebuild();
    await until(async () => !(await isOnSchedule(id)));
    const count = (await requestsOf(healthy)).length;
    await until(async () => (await requestsOf(healthy)).length > count);
    expect(await errorsOf(id)).toEqual([code]);
    expect(await requestsOf(id)).toEqual([]);
  }

  it.each([
    ['a schedule that is none', { schedule: 'every now and then' }],
    ['a time zone that is none', { schedule: '* * * * *', timezone: 'Europe/Atlantis' }],
  ])('because of %s, is told so once, and mended by its next version', async (_, metadata) => {
    const id = await appendScheduled(metadata);
    await expectRefused(id, 'SCHEDULE_INVALID');
    const [error] = await installation.spans(`entity_type = 'schedule_error' and parent_id = $1`, [id]);
    expect(error).toMatchObject({
      owner_id: 'alice',
      tenant_id: 'acme',
      visibility: 'private',
      who: 'kernel:observer_bot',
    });
    await change(id, { schedule: 'PT1S' });
    await until(async () => (await requestsOf(id)).length > 0);
    await change(id, null, { status: 'active' });
  });

  it('because its request would be larger than a span may be, is told so', async () => {
    const id = await appendScheduled({}, { input: 'x'.repeat(1024 * 1024 - 480), name: null });
    await expectRefused(id, 'SPAN_TOO_LARGE');
  });

  it('because it is not what was signed, is told so', async () => {
    const draft = { entity_type: 'function', status: 'scheduled', code: 'return 1', at: inMs(0) };
    const honest = sealSpan(hashable(draft), runtimeSigner);
    await installation.insert({ ...honest, code: 'return 2' });
    await expectRefused(honest.id, 'SPAN_NOT_PROVED');
  });

  it('and that everybody sees, is an error that only its owner sees', async () => {
    const draft = { entity_type: 'function', status: 'scheduled', code: 'return 1', at: inMs(0), visibility: 'public' };
    const seen = sealSpan(hashable({ ...draft, metadata: { schedule: 'never' } } as AnyJson), runtimeSigner);
    await installation.insert(seen);
    await expectRefused(seen.id, 'SCHEDULE_INVALID');
  });
});
