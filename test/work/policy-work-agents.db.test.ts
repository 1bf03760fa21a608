import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { rebuildDerived } from '../../src/ledger/index.ts';
import { sealSpan } from '../../src/span/index.ts';
import { type AnyJson, Installation } from '../stage0/installation.ts';
import { runtimeSigner } from '../support/keys.ts';
import { BOB, hashable } from '../support/spans.ts';
import { openRequests, startRole, startWorkerProcess, until } from '../worker/shifts.ts';
import {
  append,
  appendPolicy,
  countNoted,
  doneBy,
  errorsOf,
  policyDraft,
  retire,
  startBeside,
  TWICE,
} from './policies-at-work.ts';

let installation: Installation;
beforeAll(async () => {
  installation = await Installation.create();
  await installation.seed((content) => {
    content.throttle.per_tenant_daily_exec_limit = 1_000_000;
  });
});
afterAll(() => installation?.close());

const rebuild = () => rebuildDerived({ url: installation.ledger.adminUrl });
const noted = (id: string) => doneBy(installation, id, `entity_type = 'noted'`);

describe('several agents at once', () => {
  it('do everything once, when one is killed, one is told to stop and the derived tables are made anew', async () => {
    const ids = [
      await appendPolicy(installation, TWICE, 'order', { visibility: 'tenant' }),
      await appendPolicy(installation, TWICE, 'order', {}, BOB),
    ];
    const killed = startWorkerProcess(installation, 'policy-agent');
    await append(installation, [{ entity_type: 'order', name: 'first' }]);
    await append(installation, [{ entity_type: 'order', name: 'first' }], BOB);
    for (const id of ids) await until(async () => (await noted(id)).length === 1);
    const stopped = startBeside(installation.container(), 'policy-agent');
    const last = startBeside(installation.container(), 'policy-agent');
    const count = 300;
    for (let i = 0; i < count; i += 5) {
      const orders = Array.from({ length: 5 }, (_, n) => ({ entity_type: 'order', name: `${(i + n) % 50}` }));
      await Promise.all([append(installation, orders), append(installation, orders, BOB)]);
      if (i === 100) expect((await killed.kill('SIGKILL')).signal).toBe('SIGKILL');
      if (i === 150 || i === 200) await rebuild();
      if (i === 250) expect(await stopped.stop()).toMatchObject({ ok: true });
      await sleep(30);
    }
    for (const id of ids) await until(async () => (await noted(id)).length > count);
    await rebuild();
    await sleep(1_500); // in which what is read again is not done again
    expect(await last.stop()).toMatchObject({ ok: true });
    for (const id of ids) {
      expect(await countNoted(installation, id)).toEqual({ seen: count + 1, noted: count + 1 });
      expect(await doneBy(installation, id, `entity_type = 'named'`)).toHaveLength(51);
      expect(await errorsOf(installation, id)).toEqual([]);
    }
  });

  it('all work, and none of them in vain for long', async () => {
    const agents = [0, 1, 2].map(() => startBeside(installation.container(), 'policy-agent'));
    const id = await appendPolicy(installation, TWICE, 'bill');
    for (let i = 0; i < 40; i++) {
      await append(installation, [{ entity_type: 'bill', name: `${i}` }]);
      await sleep(50);
    }
    await until(async () => (await noted(id)).length >= 40);
    const answers = await Promise.all(agents.map((agent) => agent.stop()));
    expect(await countNoted(installation, id)).toEqual({ seen: 40, noted: 40 });
    expect(answers.every(({ output }) => output.batches > 0)).toBe(true);
  });
});

describe('an agent whose derived tables are made anew', () => {
  it('still shows a policy what waits for it to be mended', async () => {
    const agent = startBeside(installation.container(), 'policy-agent');
    const id = await appendPolicy(installation, 'export default function on(', 'broken');
    await append(installation, [{ entity_type: 'broken', name: 'a' }]);
    await until(async () => (await errorsOf(installation, id)).length > 0);
    await rebuild();
    await append(installation, [{ ...policyDraft(TWICE, 'broken'), id }]);
    await until(async () => (await noted(id)).length > 0);
    await agent.stop();
  });

  it('and what waits for it to prove itself', async () => {
    const agent = startBeside(installation.container(), 'policy-agent');
    const draft = { ...policyDraft(TWICE, 'forged'), at: new Date().toISOString() };
    const honest = sealSpan(hashable(draft), runtimeSigner);
    await installation.insert({ ...honest, code: 'export default () => []' });
    await append(installation, [{ entity_type: 'forged', name: 'a' }]);
    await until(async () => (await errorsOf(installation, honest.id)).length > 0);
    await rebuild();
    await append(installation, [{ ...policyDraft(TWICE, 'forged'), id: honest.id }]);
    await until(async () => (await noted(honest.id)).length > 0);
    await agent.stop();
  });

  it('shows a policy nothing of the time before it was active again', async () => {
    const id = await appendPolicy(installation, TWICE, 'visit');
    await retire(installation, id);
    await append(installation, [{ entity_type: 'visit', name: 'meanwhile' }]);
    await append(installation, [{ ...policyDraft(TWICE, 'visit'), id }]);
    await append(installation, [{ ...policyDraft(TWICE, 'visit'), id, description: 'changed once more' }]);
    await append(installation, [{ entity_type: 'visit', name: 'again' }]);
    await rebuild();
    const agent = startBeside(installation.container(), 'policy-agent');
    await until(async () => (await noted(id)).length > 0);
    await sleep(500);
    await agent.stop();
    expect((await noted(id)).map(({ content }) => content.name)).toEqual(['again']);
  });

  it('shows the newest version of a policy nothing from before it', async () => {
    const code = (name: string) => `if (span.name !== '${name}') return [];
      return [{ emit_span: { entity_type: 'noted', content: { seen: span.id, name: span.name } } }];`;
    const id = await appendPolicy(installation, code('small'), 'parcel');
    const agent = startBeside(installation.container(), 'policy-agent');
    await append(installation, [{ entity_type: 'parcel', name: 'small' }]);
    await until(async () => (await noted(id)).length === 1);
    await append(installation, [{ entity_type: 'parcel', name: 'large' }]); // it reads this, and lets it be
    await sleep(1_000);
    await append(installation, [{ ...policyDraft(code('large'), 'parcel'), id }]);
    await rebuild();
    const [last] = await append(installation, [{ entity_type: 'parcel', name: 'large' }]);
    await until(async () => (await noted(id)).length > 1);
    await sleep(500);
    await agent.stop();
    expect((await noted(id)).slice(1).map(({ content }) => content.seen)).toEqual([last]);
  });

  it('leaves alone what has expired and was shown before', async () => {
    const content = { trigger: 'expiry', match: { entity_type: ['lease'] } };
    const id = await appendPolicy(installation, TWICE, 'lease', { content });
    await append(installation, [{ entity_type: 'lease', name: 'a', expires_at: '2026-01-01T00:00:00.000Z' }]);
    const agent = startBeside(installation.container(), 'policy-agent');
    await until(async () => (await noted(id)).length === 1);
    await rebuild();
    await append(installation, [{ entity_type: 'lease', name: 'b', expires_at: '2026-01-01T00:00:00.000Z' }]);
    await until(async () => (await noted(id)).length === 2);
    await sleep(600);
    await agent.stop();
    expect(await countNoted(installation, id)).toEqual({ seen: 2, noted: 2 });
  });
});

describe('more policies than one turn can ask', () => {
  it('are asked in several', async () => {
    const users = Array.from({ length: 11 }, (_, n) => ({ userId: 'one', tenantId: `crowd ${n}` }));
    const count = users.length * 100;
    const policies = Array.from({ length: 100 }, () => policyDraft(TWICE, 'crowd'));
    const ids = await Promise.all(users.map((user) => append(installation, policies, user)));
    const agent = startBeside(installation.container(), 'policy-agent');
    const places = `select count(distinct (tx_id, position))::int as n from ledger.policy_cursor where trigger = 'span'`;
    await until(async () => (await installation.admin.query(places)).rows[0].n === 1);
    for (const user of users) await append(installation, [{ entity_type: 'crowd', name: 'a' }], user);
    const named = () => installation.spans(`entity_type = 'named' and tenant_id like 'crowd %'`);
    await until(async () => (await named()).length >= count, 150_000);
    expect(await agent.stop()).toMatchObject({ ok: true });
    expect(new Set((await named()).map(({ metadata }) => metadata.policy.id)).size).toBe(count);
    for (const [i, user] of users.entries()) {
      const retired = ids[i]?.map((id) => ({ id, entity_type: 'policy', status: 'retired' })) ?? [];
      await append(installation, retired, user);
    }
  }, 180_000); // eleven hundred policies take their time, and a slow machine takes longer

  it('are refused to one tenant, until it retires some', async () => {
    const user = { userId: 'one', tenantId: 'many' };
    const drafts = (count: number) => Array.from({ length: count }, () => policyDraft(TWICE, 'many'));
    const ids = await append(installation, drafts(99), user);
    const refusal = { code: 'CONSTRAINT_VIOLATED', field: 'status', message: 'a tenant may have 100 active policies' };
    await expect(append(installation, drafts(2), user)).rejects.toMatchObject(refusal);
    const last = await appendPolicy(installation, TWICE, 'many', {}, user);
    await expect(append(installation, drafts(1), user)).rejects.toMatchObject(refusal);
    await append(installation, [{ ...policyDraft(TWICE, 'many'), id: last }], user);
    await append(installation, [{ ...policyDraft(TWICE, 'many'), code: null }], user); // rules alone are asked by nobody
    await retire(installation, last, user);
    await Promise.allSettled([1, 2, 3, 4].map(() => append(installation, drafts(1), user)));
    const { rows } = await installation.admin.query(
      `select count(*)::int as n from ledger.policy_cursor where tenant_id = 'many'`,
    );
    expect(rows[0].n).toBe(100);
    expect(ids).toHaveLength(99);
  });

  it('or than the sandbox has room for, are asked again and not blamed', async () => {
    const small = await Installation.create({ maxChildren: 2, maxWaiting: 1 });
    try {
      await small.seed();
      const ids: string[] = [];
      for (let i = 0; i < 6; i++) ids.push(await appendPolicy(small, TWICE, 'crowd'));
      await append(small, [{ entity_type: 'crowd', name: 'a' }]);
      const agent = startBeside(small.container(), 'policy-agent');
      for (const id of ids) await until(async () => (await doneBy(small, id)).length === 2);
      expect(await agent.stop()).toMatchObject({ ok: true, output: { failed: 0 } });
      expect(await small.spans(`entity_type = 'policy_error'`)).toEqual([]);
    } finally {
      await small.close();
    }
  });
});

describe('a sandbox that has no room for a while', () => {
  it('is no failure of the policies that wait for it, neither a new one nor an end of the old', async () => {
    const small = await Installation.create({ maxChildren: 2, maxWaiting: 1 });
    try {
      await small.seed();
      const id = await appendPolicy(small, TWICE, 'crowd');
      await small.admin.query('update ledger.policy_cursor set failures = 2 where policy_id = $1', [id]);
      await append(small, [{ entity_type: 'crowd', name: 'a' }]);
      const limits = { timeoutMs: 5_000, memoryMb: 64, outputBytes: 1_000, calls: 0 };
      const job = { trust: 'untrusted', compartment: 'tenant:acme', entry: 'on', input: null, limits } as const;
      const code = 'export default function on() { for (;;); }';
      const occupy = () => small.sandbox.run({ ...job, code, codeHash: '0'.repeat(64), fileName: 'hangs.js' });
      const running = occupy();
      await sleep(1_000); // in which its child has started
      const waiting = occupy();
      const agent = startBeside(small.container(), 'policy-agent');
      await running;
      const { rows } = await small.admin.query('select * from ledger.policy_cursor where policy_id = $1', [id]);
      expect(rows[0]).toMatchObject({ failures: 2, paused_until: null });
      await until(async () => (await doneBy(small, id)).length === 2);
      expect(await agent.stop()).toMatchObject({ ok: true, output: { failed: 0 } });
      expect(await small.spans(`entity_type = 'policy_error'`)).toEqual([]);
      await waiting;
    } finally {
      await small.close();
    }
  });
});

describe('a policy that asks for runs', () => {
  it('gets each once, and is not shown what it caused', async () => {
    const fn = await installation.appendFunction('return input.n + 1');
    const code = `const n = span.entity_type === 'execution' ? -1 : Number(span.name);
      return [{ run: 'run_code', span_id: '${fn.id}', input: { n } }];`;
    const id = await appendPolicy(installation, code, ['task', 'execution']);
    const agent = startBeside(installation.container(), 'policy-agent');
    const worker = startRole(installation.container(), 'request-worker');
    const tasks = await append(
      installation,
      Array.from({ length: 30 }, (_, n) => ({ entity_type: 'task', name: `${n}`, trace_id: `trace ${n}` })),
    );
    const executions = () => installation.spans(`entity_type = 'execution' and parent_id = $1`, [fn.id]);
    await until(async () => (await executions()).length >= 30 && (await openRequests(installation)) === 0);
    await until(async () => (await errorsOf(installation, id)).length > 0);
    await sleep(1_000);
    await Promise.all([agent.stop(), worker.stop()]);

    const requests = await doneBy(installation, id, `entity_type = 'request' and seq = 0`);
    expect(requests.map(({ caused_by }) => caused_by).sort()).toEqual([...tasks].sort());
    expect(requests[0]).toMatchObject({ owner_id: 'alice', tenant_id: 'acme', did: 'requested' });
    expect((await executions()).map(({ output }) => output).sort((a, b) => a - b)).toEqual(
      Array.from({ length: 30 }, (_, n) => n + 1),
    );
    for (const { metadata, trace_id, input } of await executions()) {
      expect(metadata.policy.path).toEqual([id]);
      expect(trace_id).toBe(`trace ${input.n}`);
    }
    expect(await errorsOf(installation, id)).toEqual(['LOOP']);
    await retire(installation, id);
  });
});

describe('a policy of days', () => {
  it.each(['0001-01-01T00:00:00.000Z', '9999-12-31T23:59:59.000Z'])(
    'that says it is of %s stops nobody, and begins with yesterday at the earliest',
    async (at) => {
      const content = { trigger: 'day', match: { entity_type: ['day'] } };
      const id = await appendPolicy(installation, TWICE, 'day', { content, at });
      const other = await appendPolicy(installation, TWICE, 'beside');
      const daysBehind = async () => {
        const { rows } = await installation.admin.query(
          `select (now() at time zone 'UTC')::date - day as days from ledger.policy_cursor where policy_id = $1`,
          [id],
        );
        return rows[0].days;
      };
      for (const anew of [false, true]) {
        if (anew) await rebuild();
        expect(await daysBehind()).toBeLessThanOrEqual(1);
        const agent = startBeside(installation.container(), 'policy-agent');
        await append(installation, [{ entity_type: 'beside', name: 'a' }]);
        await until(async () => (await noted(other)).length === (anew ? 2 : 1));
        expect(await agent.stop()).toMatchObject({ ok: true });
      }
      await retire(installation, id);
    },
  );

  it('is shown each day once it is over and settled, for each tenant', async () => {
    const content = { trigger: 'day', match: { entity_type: ['day'] } };
    // Without a key: each day is a span of its own.
    const code = `return [{ emit_span: { entity_type: 'summed', content: span.content } }]`;
    const policy = await appendPolicy(installation, code, 'day', { content });
    const today = new Date().toISOString().slice(0, 10);
    const dayAfter = (n: number) =>
      new Date(Date.parse(`${today}T00:00:00Z`) + n * 86_400_000).toISOString().slice(0, 10);
    const ran = (day: number, duration_ms: number, status = 'complete') => ({
      ...{ entity_type: 'execution', did: 'ran_function', at: `${dayAfter(day)}T23:59:59.000Z`, duration_ms, status },
    });
    await append(installation, [ran(1, 10), ran(1, 30, 'error'), ran(2, 50)]);
    await append(installation, [ran(1, 70), ran(3, 90)], BOB);

    let now = new Date(`${dayAfter(2)}T00:00:20.000Z`);
    const agent = startBeside(installation.container({ now: () => now }), 'policy-agent', 10 * 86_400_000);
    const summed = async () =>
      (await doneBy(installation, policy)).map((span) => [span.content.day, span.content.executions]);
    await sleep(2_000);
    expect(
      (await summed()).filter(([day]) => day === dayAfter(1)),
      'before it has settled',
    ).toEqual([]);
    now = new Date(`${dayAfter(2)}T00:01:20.000Z`);
    await until(async () => (await summed()).some(([day]) => day === dayAfter(1)));
    now = new Date(`${dayAfter(4)}T00:02:00.000Z`);
    await until(async () => (await summed()).some(([day]) => day === dayAfter(2)));
    await sleep(1_000);
    expect(await agent.stop()).toMatchObject({ ok: true });

    const own = (await summed()).filter(([day]) => day !== today);
    expect(own).toEqual([
      [dayAfter(1), 2],
      [dayAfter(2), 1],
    ]);
    const rollups = await installation.spans(`entity_type = 'rollup' and content ->> 'day' > $1`, [today]);
    expect(
      rollups
        .map(({ tenant_id, content: { day, executions, duration_ms } }: AnyJson) => [
          tenant_id,
          day,
          executions,
          duration_ms.sum,
        ])
        .sort(),
    ).toEqual([
      ['acme', dayAfter(1), 2, 40],
      ['acme', dayAfter(2), 1, 50],
      ['bolt', dayAfter(1), 1, 70],
      ['bolt', dayAfter(3), 1, 90],
    ]);
    await retire(installation, policy);
  });

  it('is one of many, for all of which each day is summed up once', async () => {
    await installation.admin.query(`alter database ${installation.ledger.name} set track_functions = 'pl'`);
    const match = { entity_type: ['none'] };
    const wanted = policyDraft('return []', 'none', { content: { trigger: 'day', match } });
    const ids = await append(installation, Array(5).fill(wanted));
    const later = new Date(Date.now() + 10 * 86_400_000);
    const database = installation.ledger.open('loglineos_app');
    const stage0 = installation.container({ now: () => later, database });
    const agent = startBeside(stage0, 'policy-agent', 10 * 86_400_000);
    const numberOf = async (text: string, values: unknown[] = []) =>
      (await installation.admin.query(text, values)).rows[0].n;
    const behind = `select count(*)::int as n from ledger.policy_cursor where policy_id = any ($1) and day < $2`;
    const yesterday = new Date(later.getTime() - 86_400_000).toISOString().slice(0, 10);
    await until(async () => (await numberOf(behind, [ids, yesterday])) === 0);
    expect(await agent.stop()).toMatchObject({ ok: true });
    await installation.admin.query(`alter database ${installation.ledger.name} reset track_functions`);
    const calls = `select coalesce(sum(calls), 0)::int as n from pg_stat_user_functions where funcname = 'day_summary'`;
    await until(async () => (await numberOf(calls)) > 0);
    await sleep(1_500); // in which what is counted late is counted
    expect(await numberOf(calls)).toBeLessThan(2 * 10);
    for (const id of ids) await retire(installation, id);
  });
});
