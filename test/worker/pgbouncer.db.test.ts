import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Database, type Identity, readTimeline, TIMELINE_START } from '../../src/ledger/index.ts';
import { boot, type Stage0 } from '../../src/stage0/index.ts';
import { type AnyJson, Installation, PROBE, RUN_CODE } from '../stage0/installation.ts';
import { ALAN, ALICE, BOB, OTHER_ALICE } from '../support/spans.ts';
import { append, appendPolicy, doneBy, retire } from '../work/policies-at-work.ts';
import { findPgBouncer, PgBouncer } from './pgbouncer.ts';
import { openRequests, requestRuns, startRole, until, type WorkingRole } from './shifts.ts';

const POOL_SIZE = 5;
const OWNERS: readonly Identity[] = [ALICE, ALAN, BOB, OTHER_ALICE];

const program = findPgBouncer();
if (program === null) {
  console.log('skipped: PgBouncer is not installed (Debian package pgbouncer), so nothing is shown of work through it');
}

describe.skipIf(program === null)(`behind PgBouncer, with ${POOL_SIZE} connections of the server`, () => {
  let installation: Installation;
  let bouncer: PgBouncer;
  let database: Database;
  let roles: WorkingRole[];
  const logged: AnyJson[] = [];

  /** A container whose every statement goes through PgBouncer. */
  const container = (): Stage0 => installation.container({ database, log: (entry) => logged.push(entry) });

  beforeAll(async () => {
    installation = await Installation.create();
    await installation.seed((content) => {
      content.throttle.per_tenant_daily_exec_limit = 1_000_000;
    });
    const { loglineos_app } = installation.ledger.urls;
    bouncer = await PgBouncer.start(program as string, loglineos_app, POOL_SIZE);
    const url = bouncer.url(loglineos_app);
    database = new Database({ url, applicationName: 'through-pgbouncer', connectionsMax: 30 });
    // They also listen for work, which is in vain here.
    roles = (['observer', 'policy-agent', 'request-worker', 'request-worker'] as const).map((name) =>
      startRole(container(), name, 600_000, url),
    );
  });
  afterAll(async () => {
    const answers = await Promise.all((roles ?? []).map((role) => role.stop()));
    await database?.close();
    await bouncer?.stop();
    await installation?.close();
    expect(answers.map(({ ok, error }) => ({ ok, error }))).toEqual(answers.map(() => ({ ok: true, error: null })));
    expect(logged).toEqual([]);
  });

  const bootThere = (identity: Identity, boot_function_id: string, input: unknown) =>
    boot(container(), { boot_function_id, identity, input });

  it('two workers run several hundred requests of four owners, each once, while policies see what came of them', async () => {
    const policy = await appendPolicy(
      installation,
      `return [{ emit_span: { entity_type: 'noted', content: { owner: span.owner_id, tenant: span.tenant_id } } }]`,
      'execution',
    );
    const count = 100;
    const ids: string[] = [];
    for (const owner of OWNERS) {
      const code = `return '${owner.userId} of ${owner.tenantId} ' + input.n`;
      const fn = await installation.appendFunction(code, {}, owner);
      const inputs = Array.from({ length: count }, (_, n) => ({ input: { n } }));
      ids.push(...(await requestRuns(installation, fn.id, owner, inputs)));
    }
    await until(async () => (await openRequests(installation)) === 0);
    const versions = await installation.spans('id = any($1)', [ids]);
    expect(versions).toHaveLength(2 * ids.length);
    expect(versions.filter(({ status }) => status === 'complete')).toHaveLength(ids.length);
    const executions = await installation.spans(`entity_type = 'execution' and caused_by = any($1)`, [ids]);
    expect(executions).toHaveLength(ids.length);
    for (const { output, owner_id, tenant_id, input } of executions) {
      expect(output).toBe(`${owner_id} of ${tenant_id} ${input.n}`);
    }
    await until(async () => (await doneBy(installation, policy, `entity_type = 'noted'`)).length >= count);
    const noted = await doneBy(installation, policy, `entity_type = 'noted'`);
    expect(new Set(noted.map(({ content }) => `${content.owner} of ${content.tenant}`))).toEqual(
      new Set(['alice of acme']),
    );
    expect(noted).toHaveLength(count);
    await retire(installation, policy);
  });

  it('no identity is left behind for the next one: boots, appends and reads of many at once', async () => {
    const turns = Array.from({ length: 60 }, (_, i) => OWNERS[i % OWNERS.length] as Identity);
    await Promise.all(
      turns.map(async (identity, n) => {
        const append = { entity_type: 'memo', name: `${identity.userId} of ${identity.tenantId} ${n}` };
        const { ok } = await bootThere(identity, PROBE, { probe: 'append', span: append });
        expect(ok).toBe(true);
        const { spans } = await readTimeline(database, identity, TIMELINE_START, 1_000, { entity_type: 'memo' });
        for (const span of spans)
          expect(`${span.owner_id} of ${span.tenant_id}`).toBe(`${identity.userId} of ${identity.tenantId}`);
        const nobodys = await database.query<{ n: number; user: string | null }>({
          text: `select count(*)::int as n, nullif(current_setting('app.user_id', true), '') as user from ledger.universal_registry`,
        });
        expect(nobodys).toEqual([{ n: 0, user: null }]);
      }),
    );
    const memos = await installation.spans(`entity_type = 'memo'`);
    expect(memos).toHaveLength(turns.length);
    for (const { name, owner_id, tenant_id } of memos)
      expect(name.startsWith(`${owner_id} of ${tenant_id} `)).toBe(true);
  });

  it('a lock is held by one at a time, and its connection by nobody else', async () => {
    const span = { entity_type: 'locked' };
    const answers = await Promise.all(
      OWNERS.flatMap((identity) =>
        [0, 1].map(() => bootThere(identity, PROBE, { probe: 'lockAppend', key: 'one', span, busy: 100 })),
      ),
    );
    expect(answers.map(({ error }) => error)).toEqual(answers.map(() => null));
    // Owners of a tenant wait for each other, those of another do not.
    for (const tenant of [0, 2]) {
      const held = OWNERS.flatMap((_, i) => (Math.floor(i / 2) * 2 === tenant ? answers.slice(i * 2, i * 2 + 2) : []))
        .map(({ output }) => output as { startedAt: string; finishedAt: string; visible: number })
        .sort((a, b) => (a.startedAt < b.startedAt ? -1 : 1));
      expect(held).toHaveLength(4);
      for (const [i, { startedAt, visible }] of held.entries()) {
        expect(visible).toBe(1);
        if (i > 0) expect(startedAt >= (held[i - 1]?.finishedAt as string)).toBe(true);
      }
    }
    const fn = await installation.appendFunction('return input.n');
    const runs = await Promise.all(
      [1, 2, 3, 4].map((n) => bootThere(ALICE, RUN_CODE, { span_id: fn.id, input: { n } })),
    );
    expect(runs.map(({ output }) => (output as AnyJson).result)).toEqual([1, 2, 3, 4]);
  });

  it('the observer asks, and a worker runs', async () => {
    const fn = await installation.appendFunction(
      'return 1',
      { status: 'scheduled', metadata: { schedule: 'PT1S' } },
      BOB,
    );
    const done = () => installation.spans(`entity_type = 'execution' and parent_id = $1`, [fn.id]);
    await until(async () => (await done()).length >= 2);
    await append(installation, [{ id: fn.id, entity_type: 'function', code: 'return 1', status: 'active' }], BOB);
    const requests = await installation.spans(`entity_type = 'request' and seq = 0 and parent_id = $1`, [fn.id]);
    expect(new Set(requests.map(({ scheduled_at }) => scheduled_at.getTime())).size).toBe(requests.length);
  });

  it('work is found by looking, about a second after it came', async () => {
    const fn = await installation.appendFunction('return 1');
    const waits: number[] = [];
    for (let i = 0; i < 3; i++) {
      await sleep(400);
      const [id] = await requestRuns(installation, fn.id, ALICE, [{}]);
      await until(async () => (await openRequests(installation)) === 0);
      const [execution] = await installation.spans(`entity_type = 'execution' and caused_by = $1`, [id]);
      waits.push(execution.queue_ms);
    }
    expect(Math.max(...waits)).toBeLessThan(2_500);
  });

  it('and the server has no more connections than the pool', async () => {
    const { rows } = await installation.admin.query(
      `select count(*)::int as n from pg_stat_activity
        where usename = 'loglineos_app' and datname = current_database() and application_name <> 'test'`,
    );
    expect(rows[0].n).toBeGreaterThan(0);
    expect(rows[0].n).toBeLessThanOrEqual(POOL_SIZE);
  });
});
