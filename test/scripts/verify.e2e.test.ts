import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { VerifyReport } from '../../src/ledger/index.ts';
import { nodeEd25519 } from '../../src/span/ed25519-node.ts';
import { createSigner, type HashableSpan, type Signer, sealSpan } from '../../src/span/index.ts';
import { createHome, Program, postmastersOf, StackProcess } from '../local/stack-process.ts';
import { Installation, RUN_CODE } from '../stage0/installation.ts';
import { runtimeSigner, TRUSTED_KEYS_ENV } from '../support/keys.ts';
import { ALICE, hashable } from '../support/spans.ts';

async function verify(env: NodeJS.ProcessEnv): Promise<{ code: number | null; report: VerifyReport; stderr: string }> {
  const { code, stdout, stderr } = await new Program('scripts/verify.ts', ['--json'], env).ended;
  expect(stdout.trimEnd().split('\n'), stderr).toHaveLength(1);
  return { code, report: JSON.parse(stdout), stderr };
}

/** What a superuser does to one version of a span, and the classes under which `verify` must name it. */
interface Damage {
  what: string;
  sql: string;
  values?: unknown[];
  /** Seq and class of each problem it causes. */
  problems: [number, string][];
}

/** Each to a function of its own, with three versions. */
const DAMAGES: Damage[] = [
  change('one byte of its code', `code = code || ' '`, 'hash'),
  change('a number, in the tenth decimal', `input = jsonb_set(input, '{tenth}', '0.1000000001')`, 'hash'),
  change('a number, in how it is written', `input = jsonb_set(input, '{tenth}', '0.10')`, 'hash'),
  change('a time, by a microsecond', `at = at + interval '1 microsecond'`, 'hash'),
  change('an empty column, to an empty list', `tags = '{}'`, 'hash'),
  change('a true, to a false', `is_deleted = false`, 'hash'),
  change('the name of the key', `public_key = repeat('0', 64)`, 'hash'),
  change('the signature', `signature = repeat('0', 128)`, 'signature'),
  change('its place in the timeline', `tx_id = '3'::xid8`, 'chain'),
  {
    what: 'removed the newest version',
    sql: `delete from ledger.universal_registry where id = $1 and seq = 2`,
    problems: [[2, 'missing']],
  },
  {
    what: 'removed a middle version',
    sql: `delete from ledger.universal_registry where id = $1 and seq = 1`,
    problems: [[1, 'missing']],
  },
  {
    what: 'removed the first version',
    sql: `delete from ledger.universal_registry where id = $1 and seq = 0`,
    problems: [[0, 'missing']],
  },
  {
    what: 'removed a middle version, and what was remembered of it',
    sql: `with forgotten as (delete from ledger.registry_witness where id = $1 and seq = 1 returning id)
          delete from ledger.universal_registry r using forgotten f where r.id = f.id and r.seq = 1`,
    problems: [[1, 'missing']],
  },
];

function change(what: string, set: string, problemClass: string): Damage {
  return {
    what: `changed ${what}`,
    sql: `update ledger.universal_registry set ${set} where id = $1 and seq = 2`,
    problems: [[2, problemClass]],
  };
}

describe('npm run verify, after a superuser switched the triggers off', () => {
  let installation: Installation;
  let env: NodeJS.ProcessEnv;
  const damaged = new Map<string, Damage>();
  let outcome: Awaited<ReturnType<typeof verify>>;
  let stranger: string;
  let resigned: string;

  beforeAll(async () => {
    installation = await Installation.create();
    await installation.seed();
    env = { DATABASE_URL: installation.ledger.adminUrl, ...TRUSTED_KEYS_ENV };
    for (const damage of DAMAGES) {
      const { id } = await installation.appendFunction('return 0');
      for (const seq of [1, 2]) await installation.appendFunction(`return ${seq}`, { id, input: { tenth: 0.1 } });
      damaged.set(id, damage);
    }
    resigned = (await installation.appendFunction('return "as it was"')).id;
    await installation.runCode(null);
    expect(await verify(env)).toMatchObject({
      code: 0,
      report: { ok: true, checked: await installation.count(), problems: [] },
    });

    await installation.admin.query('alter table ledger.registry_witness disable trigger user');
    for (const [id, { sql, values = [] }] of damaged) await installation.tamper(sql, [id, ...values]);
    const unknownKey = createSigner(nodeEd25519, randomBytes(32));
    const span = sealSpan(hashable(), unknownKey);
    await installation.insert(span);
    stranger = span.id;
    await resign(resigned, { code: 'return "forged"' }, unknownKey);
    await resign(RUN_CODE, { code: 'export default () => "forged";' }, runtimeSigner);
    outcome = await verify(env);
  });
  afterAll(() => installation?.close());

  /** A row changed so that its hash and its signature hold, by another key. */
  async function resign(id: string, more: object, signer: Signer): Promise<void> {
    const { curr_hash: _hash, signature: _signature, ...said } = await installation.sealed(id);
    const { code, curr_hash, signature, public_key } = sealSpan({ ...said, ...more } as HashableSpan, signer);
    const set = 'code = $2, curr_hash = $3, signature = $4, public_key = $5';
    await installation.tamper(`update ledger.universal_registry set ${set} where id = $1`, [
      id,
      code,
      curr_hash,
      signature,
      public_key,
    ]);
  }

  const problemsOf = (id: string) =>
    outcome.report.problems.filter((problem) => problem.id === id).map(({ seq, class: found }) => [seq, found]);

  it('exits 1 with one object of its shape', () => {
    expect(outcome.code).toBe(1);
    expect(outcome.report).toEqual({ ok: false, checked: expect.any(Number), problems: expect.any(Array) });
    const shape = {
      id: expect.any(String),
      seq: expect.any(Number),
      class: expect.stringMatching(/^(hash|signature|key|chain|missing)$/),
      detail: expect.stringMatching(/./),
    };
    for (const problem of outcome.report.problems) expect(problem).toEqual(shape);
  });

  it.each(DAMAGES)('names the row by id, seq and class who $what', (damage) => {
    const [id] = [...damaged].find(([, done]) => done === damage) as [string, Damage];
    expect(problemsOf(id)).toEqual(expect.arrayContaining(damage.problems));
  });

  it('names rows that were signed anew, or put in, with a key that may not', () => {
    expect(problemsOf(stranger)).toContainEqual([0, 'key']);
    expect(problemsOf(resigned)).toContainEqual([0, 'key']);
    // The runtime key is known, and may not sign a kernel.
    expect(problemsOf(RUN_CODE)).toContainEqual([0, 'key']);
  });

  it('names no row that is whole', () => {
    const bad = [...damaged.keys(), stranger, resigned, RUN_CODE];
    expect(outcome.report.problems.filter(({ id }) => !bad.includes(id))).toEqual([]);
  });

  it('names the same rows for people', async () => {
    const { code, stdout, stderr } = await new Program('scripts/verify.ts', [], env).ended;
    expect([code, stderr]).toEqual([1, '']);
    const lines = stdout.trimEnd().split('\n');
    expect(lines.at(-1)).toBe(`${outcome.report.checked} rows checked: ${outcome.report.problems.length} problems`);
    expect(lines.slice(0, -1)).toEqual(
      outcome.report.problems.map(({ id, seq, class: found }) =>
        expect.stringMatching(`^${found} +${id} +seq ${seq} `),
      ),
    );
  });
});

describe('npm run verify', () => {
  it.each<[string, NodeJS.ProcessEnv, RegExp]>([
    [
      'where no database is',
      { DATABASE_URL: 'postgres://postgres:hunter2@127.0.0.1:1/none', ...TRUSTED_KEYS_ENV },
      /./,
    ],
    [
      'without trusted keys',
      { LOGLINEOS_HOME: '/nonexistent', DATABASE_URL: 'postgres://127.0.0.1:1/none' },
      /\(NO_TRUSTED_KEYS\)/,
    ],
    ['without any ledger', { LOGLINEOS_HOME: '/nonexistent' }, /\(NO_DATABASE\)/],
  ])('cannot be asked %s: exit 2, one line, no secret', async (_what, broken, message) => {
    const { code, stdout, stderr } = await new Program('scripts/verify.ts', ['--json'], broken).ended;
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr.trimEnd().split('\n')).toEqual([expect.stringMatching(message)]);
    expect(stderr).not.toContain('hunter2');
  });
});

describe('npm run verify, on the folder of the local stack', () => {
  it('reads it while the stack runs and when it is stopped, and leaves it as it was', async () => {
    const { home, remove } = await createHome();
    try {
      const { stack, ready } = await StackProcess.start(home);
      const running = await verify({ LOGLINEOS_HOME: home });
      expect([running.code, running.report]).toMatchObject([0, { ok: true, problems: [] }]);
      expect(running.report.checked).toBeGreaterThanOrEqual(6);
      expect((await fetch(`${ready.url}/health`)).status).toBe(200);
      await stack.kill('SIGTERM');

      const stopped = await verify({ LOGLINEOS_HOME: home });
      expect([stopped.code, stopped.report]).toMatchObject([0, { ok: true, problems: [] }]);
      // What it was doing has ended, and is there too.
      expect(stopped.report.checked).toBeGreaterThanOrEqual(running.report.checked);
      expect(await verify({ LOGLINEOS_HOME: home })).toEqual(stopped);
      expect(postmastersOf(home)).toEqual([]);
      const again = await StackProcess.start(home);
      expect(again.ready.boot).toMatchObject({ ok: true });
      await again.stack.kill('SIGTERM');
    } finally {
      await remove();
    }
  });
});

describe('npm run rebuild', () => {
  it('counts the executions of each day anew, from the ledger alone', async () => {
    const installation = await Installation.create();
    try {
      await installation.seed();
      for (let i = 0; i < 3; i++) await installation.runCode({ code: 'return 1' });
      const usage = () =>
        installation.admin.query('select tenant_id, executions from ledger.daily_usage order by tenant_id');
      const before = (await usage()).rows;
      expect(before).toEqual([{ tenant_id: ALICE.tenantId, executions: 3 }]);
      for (const damage of [
        'truncate ledger.daily_usage',
        'update ledger.daily_usage set executions = 99',
        `insert into ledger.daily_usage values ('nobody', current_date, 7)`,
      ]) {
        await installation.admin.query(damage);
        const { code, stdout, stderr } = await new Program('scripts/rebuild.ts', [], {
          DATABASE_URL: installation.ledger.adminUrl,
        }).ended;
        expect([code, stdout], stderr).toEqual([0, 'derived tables rebuilt from the ledger\n']);
        expect((await usage()).rows).toEqual(before);
      }
      const { code, report } = await verify({ DATABASE_URL: installation.ledger.adminUrl, ...TRUSTED_KEYS_ENV });
      expect([code, report.problems]).toEqual([0, []]);
    } finally {
      await installation.close();
    }
  });

  it('says where it cannot, exit 2', async () => {
    const { code, stdout, stderr } = await new Program('scripts/rebuild.ts', [], {
      DATABASE_URL: 'postgres://postgres:hunter2@127.0.0.1:1/none',
    }).ended;
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    expect(stderr).not.toContain('hunter2');
  });
});
