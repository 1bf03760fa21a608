import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createHome, type Ended, PROJECT, Program, StackProcess } from '../local/stack-process.ts';
import type { AnyJson } from '../stage0/installation.ts';

const COMMAND = 'src/cli/loglineos.mjs';
const RUN_CODE = '00000000-0000-4000-8000-000000000001';

let home: { home: string; remove: () => Promise<void> };
let files: string;
let token: string;
let env: NodeJS.ProcessEnv;
beforeAll(async () => {
  home = await createHome();
  files = await mkdtemp(join(tmpdir(), 'loglineos-files-'));
  const { ready } = await StackProcess.start(home.home);
  token = ready.token;
  env = { LOGLINEOS_HOME: home.home, LOGLINEOS_URL: ready.url };
});
afterAll(async () => {
  await home?.remove();
  await rm(files, { recursive: true, force: true });
});

async function loglineos(args: string[], more: NodeJS.ProcessEnv = {}): Promise<Ended> {
  const ended = await new Program(COMMAND, args, { ...env, ...more }).ended;
  expect(ended.stdout + ended.stderr, 'no stack and no token').not.toMatch(/\n\s+at |node:internal/);
  expect(ended.stdout + ended.stderr).not.toContain(token);
  return ended;
}

/** A command that must end well, for people. */
async function text(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await loglineos(args);
  expect(code, stderr).toBe(0);
  return stdout;
}

/** The same for programs: one JSON document in one line. */
async function json(...args: string[]): Promise<AnyJson> {
  const stdout = await text(...args, '--json');
  expect(stdout.trimEnd()).not.toContain('\n');
  return JSON.parse(stdout);
}

async function expectFailure(code: number, stderr: RegExp, args: string[], more?: NodeJS.ProcessEnv): Promise<void> {
  const ended = await loglineos(args, more);
  expect([ended.code, ended.stderr]).toEqual([code, expect.stringMatching(stderr)]);
}

async function file(name: string, content: string): Promise<string> {
  await writeFile(join(files, name), content);
  return join(files, name);
}

async function until<T>(what: string, look: () => Promise<T | undefined>): Promise<T> {
  for (let i = 0; i < 200; i++) {
    const found = await look();
    if (found !== undefined) return found;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  return expect.fail(`${what} did not come`);
}

describe('loglineos boot', () => {
  it('boots a kernel by name and by id, and says how it went', async () => {
    const input = await file('input.json', '{"code":"return input * 2","input":21}');
    expect(await text('boot', 'run_code_kernel', '--input', `@${input}`)).toMatch(
      /^status +complete\noutput .*"result":42/,
    );
    expect(await json('boot', RUN_CODE)).toMatchObject({ ok: true, output: { result: 42 } });
  });

  it('exits 1 for a kernel that failed, and 2 where none was booted', async () => {
    const { code, stdout } = await loglineos(['boot', RUN_CODE, '--input', '{"colour":1}']);
    expect([code, stdout]).toEqual([1, expect.stringContaining('INPUT_INVALID')]);
    await expectFailure(2, /^there is no kernel nothing \(KERNEL_NOT_FOUND\)\n$/, ['boot', 'nothing']);
    await expectFailure(2, /^--input: expected JSON/, ['boot', RUN_CODE, '--input', '{']);
    await expectFailure(2, /no-such-file cannot be read \(ENOENT\)/, ['boot', RUN_CODE, '--input', '@no-such-file']);
  });
});

describe('loglineos deploy and execute', () => {
  it('brings in a function, runs it, and brings in its next version', async () => {
    const add = await file('add.js', 'return input.a + input.b');
    const first = await json('deploy', add, '--name', 'add');
    expect(first.seq).toBe(0);
    expect(await text('execute', 'add', '--input', '{"a":1,"b":2}', '--wait')).toMatch(
      /status +complete[\s\S]*output +3\n/,
    );
    await writeFile(add, 'return input.a * input.b');
    expect(await text('deploy', add, '--name', 'add')).toBe(`add is ${first.id}, version 1\n`);
    const request = await json('execute', first.id, '--input', '{"a":3,"b":4}', '--wait');
    expect(request).toMatchObject({ status: 'complete', output: 12, attempt: 1, execution_ids: [expect.any(String)] });
    expect(await text('span', request.execution_ids[0], '--verify')).toMatch(/^seq +proof[\s\S]*0 +proved/);
    expect(await text('span', first.id, '--versions')).toMatch(/\n0 .*deployed[\s\S]*\n1 .*deployed/);
    expect(await text('span', first.id)).toContain('return input.a * input.b');
  });

  it('lists versions by pages, and proves them all', async () => {
    const id = crypto.randomUUID();
    const headers = { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' };
    for (const count of [1_000, 1]) {
      const body = JSON.stringify({ spans: Array.from({ length: count }, () => ({ id, entity_type: 'note' })) });
      expect((await fetch(`${env.LOGLINEOS_URL}/api/spans`, { method: 'POST', headers, body })).status).toBe(201);
    }
    expect(await text('span', id, '--versions')).toMatch(/\n999 .*\nmore with --after 999\n$/);
    expect(await text('span', id, '--versions', '--after', '999')).toMatch(/^seq .*\n1000 .*\n$/);
    const proof = await json('span', id, '--verify');
    expect([proof.ok, proof.versions.length, proof.next]).toEqual([true, 1_001, null]);
  });

  it('exits 1 when it did not end well, and says why without obeying it', async () => {
    await json('deploy', await file('bad.js', String.raw`throw new Error('bad \x1b[31mluck')`), '--name', 'bad');
    const { code, stdout } = await loglineos(['execute', 'bad', '--wait', '--max-attempts', '1']);
    expect([code, stdout]).toEqual([1, expect.stringMatching(/status +dead[\s\S]*error +bad ·\[31mluck \(THREW\)/)]);
  });

  it('says where code that came in another way does not compile', async () => {
    const body = JSON.stringify({
      entity_type: 'function',
      name: 'broken',
      status: 'active',
      code: 'const a = 1;\nconst b = ;',
    });
    const headers = { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' };
    expect((await fetch(`${env.LOGLINEOS_URL}/api/spans`, { method: 'POST', headers, body })).status).toBe(201);
    const { code, stdout } = await loglineos(['execute', 'broken', '--wait', '--max-attempts', '1']);
    expect([code, stdout]).toEqual([1, expect.stringMatching(/error +SyntaxError: .* \(CODE_INVALID, line 2\)/)]);
  });

  it('asks once under one key', async () => {
    await json('deploy', await file('one.js', 'return 1'), '--name', 'one');
    const first = await json('execute', 'one', '--key', 'k1');
    expect((await json('execute', 'one', '--key', 'k1')).request_id).toBe(first.request_id);
    await expectFailure(2, /IDEMPOTENCY_KEY_REUSED/, ['execute', 'one', '--key', 'k1', '--input', '7']);
    expect((await json('execute', 'one')).request_id).not.toBe(first.request_id);
  });

  it('lets a function run by the clock, keeps that in a new version, and ends it', async () => {
    const clock = await file('clock.js', 'return "tick"');
    const input = '{"by":"clock"}';
    const when = ['--schedule', 'PT1S', '--timezone', 'Europe/Lisbon', '--input', input];
    const { id } = await json('deploy', clock, '--name', 'clock', ...when);
    expect((await json('span', id)).input).toEqual({ by: 'clock' });
    await until(
      'an execution by the clock',
      async () => (await json('spans', '--entity-type', 'execution', '--parent', id)).spans[0],
    );
    await json('deploy', clock, '--name', 'clock');
    expect(await json('span', id)).toMatchObject({
      status: 'scheduled',
      metadata: { schedule: 'PT1S', timezone: 'Europe/Lisbon' },
    });
    await json('deploy', clock, '--name', 'clock', '--no-schedule');
    const ended = await json('span', id);
    expect([ended.status, ended.metadata]).toEqual(['active', undefined]);
    await expectFailure(2, /metadata\.schedule: expected cron.*SCHEDULE_INVALID/, [
      'deploy',
      clock,
      '--name',
      'clock',
      '--schedule',
      'often',
    ]);
  });

  it('says what cannot be brought in', async () => {
    const bad = await file('import.js', 'import("x")');
    await expectFailure(2, /the word "import" is refused.*CODE_REFUSED/, ['deploy', bad, '--name', 'x']);
    const unfinished = await file('unfinished.js', 'const a = 1;\nreturn a +\n');
    await expectFailure(2, /unfinished.js, line 2: SyntaxError: Unexpected end of input \(CODE_INVALID\)/, [
      'deploy',
      unfinished,
      '--name',
      'x',
    ]);
    await expectFailure(2, /expected `export default function on\(span\)` \(CODE_INVALID\)/, [
      'policy',
      'deploy',
      await file('no-policy.js', 'export default 5'),
      '--name',
      'x',
    ]);
    const coloured = await file('coloured.js', "throw new Error('\\x1b[31mred');\nexport default 1");
    await expectFailure(2, /coloured.js: ·\[31mred \(THREW\)/, ['deploy', coloured, '--name', 'x']);
    expect((await json('spans', '--name', 'x')).spans).toEqual([]);
    // Slow to begin with, which it may be.
    const slow = await file(
      'slow.js',
      'for (const end = Date.now() + 3_200; Date.now() < end; );\nexport default () => 1',
    );
    await json('deploy', slow, '--name', 'slow');
    await expectFailure(2, /required option '--name <name>' not specified/, ['deploy', bad]);
    await expectFailure(2, /no function nobody is visible to you/, ['execute', 'nobody']);
    await expectFailure(2, /expected a whole number/, ['execute', 'nobody', '--priority', 'high']);
  });
});

describe('loglineos requests', () => {
  it('lists, shows, cancels and redrives', async () => {
    await json('deploy', await file('later.js', 'return 1'), '--name', 'later');
    const { request_id: id } = await json('execute', 'later', '--delay', '600000', '--priority', '3');
    expect((await json('requests', '--function', 'later')).requests).toMatchObject([
      { id, state: 'delayed', priority: 3 },
    ]);
    expect(await text('requests', 'show', id)).toMatch(/status +scheduled\nwaits +delayed/);
    expect(await text('requests', 'cancel', id)).toBe('1 request cancelled\n');
    expect(await text('requests', 'list', '--function', 'later')).toContain('cancelled');
    const again = await loglineos(['requests', 'cancel', id]);
    expect([again.code, again.stdout]).toEqual([
      1,
      expect.stringMatching(/^0 requests cancelled\n[\s\S]*REQUEST_CLOSED/),
    ]);
    await expectFailure(2, /say which to cancel: ids, or a filter, or --all/, ['requests', 'cancel']);

    await json('deploy', await file('fails.js', 'throw 1'), '--name', 'fails');
    await loglineos(['execute', 'fails', '--wait', '--max-attempts', '1']);
    expect(await text('requests', 'redrive', '--function', 'fails')).toBe('1 request redriven\n');
    await until('the second end', async () =>
      (await json('requests', 'list', '--function', 'fails')).requests.find(
        ({ status, execution_ids }: AnyJson) => status === 'dead' && execution_ids.length === 2,
      ),
    );
    expect(await text('requests', 'list', '--function', 'later', '--state', 'dead')).toBe('none\n');
  });
});

describe('loglineos policy', () => {
  const MATCH = '{"entity_type":["execution"],"name":["watched"]}';

  it('shows what a policy would do and writes nothing; then it does it', async () => {
    await json('deploy', await file('watched.js', 'return 1'), '--name', 'watched');
    await json('execute', 'watched', '--wait');
    const code = `export default function on(span, { params }) {
      return [{ emit_span: { entity_type: 'notice', name: params.name } }];
    }`;
    const policy = await file('policy.js', code);
    const content = ['--match', MATCH, '--params', '{"name":"seen"}'];
    const { answers, counts } = await json('policy', 'simulate', policy, ...content);
    expect(answers).toMatchObject([{ actions: [{ emit: { entity_type: 'notice', name: 'seen' } }], error: null }]);
    expect(counts).toMatchObject({ matched: 1, actions: 1, errors: 0 });
    expect(await text('policy', 'simulate', policy, ...content)).toMatch(
      /append notice\n\n\d+ spans read, 1 matched, 1 action, 0 errors\n$/,
    );
    expect((await json('policy', 'simulate', policy, ...content, '--to', '2020-01-01')).counts.matched).toBe(0);
    expect((await json('policy', 'simulate', policy, ...content, '--from', '2020-01-01')).counts.matched).toBe(1);
    expect((await json('spans', '--entity-type', 'notice')).spans).toEqual([]);

    await expectFailure(2, /--match is missing/, ['policy', 'deploy', policy, '--name', 'notice']);
    const deployed = await json('policy', 'deploy', policy, '--name', 'notice', ...content);
    await json('execute', 'watched', '--wait');
    const notice = await until('the notice', async () => (await json('spans', '--entity-type', 'notice')).spans[0]);
    expect(notice).toMatchObject({ name: 'seen', who: `policy:${deployed.id}` });
    // What is not said of the next version stays.
    await json('policy', 'deploy', policy, '--name', 'notice', '--params', '{"name":"noticed"}');
    expect((await json('span', deployed.id)).content).toEqual({
      match: JSON.parse(MATCH),
      params: { name: 'noticed' },
    });

    expect(await text('policy', 'list', '--limit', '1')).toMatch(
      new RegExp(`^name +status +.*\\nnotice +active +1 +span +.*${deployed.id}\\nmore with --before `),
    );
    expect(await text('policy', 'retire', 'notice')).toBe('notice is retired, version 2\n');
    const { code: kept, content: still, status } = await json('span', deployed.id);
    expect([kept, still.params, status]).toEqual([code, { name: 'noticed' }, 'retired']);
    await json('execute', 'watched', '--wait');
    await json('execute', 'watched', '--wait');
    expect((await json('spans', '--entity-type', 'notice')).spans).toHaveLength(1);
    await expectFailure(2, /you have no policy other/, ['policy', 'retire', 'other']);
    await expectFailure(2, /you have no policy other/, ['policy', 'simulate', policy, '--name', 'other']);
  });

  it('takes rules, by which the agent answers who may do what', async () => {
    const policy = await file('ruled.js', 'export default function on() { return []; }');
    const rules = '[{"effect":"allow","actions":["read"],"resources":["notes/*"]}]';
    await json('policy', 'deploy', policy, '--name', 'ruled', '--match', '{"name":["nobody"]}', '--rules', rules);
    const ask = async (question: string) => (await json('boot', 'policy_agent_kernel', '--input', question)).output;
    expect(await ask('{"action":"read","resource":"notes/1"}')).toMatchObject({ decision: 'allow', policy: 'ruled' });
    expect(await ask('{"action":"write","resource":"notes/1"}')).toMatchObject({ decision: 'deny', policy: null });
  });

  it('simulates a policy of the system with what its row says', async () => {
    const { counts } = await json('policy', 'simulate', 'ROW/policies/metrics_exec_duration.js');
    expect(counts.matched).toBeGreaterThan(0);
    expect(counts.matched).toBeLessThan(counts.spans);
    expect(counts.actions).toBe(counts.matched);
  });

  it('exits 1 when the policy cannot run, and says why', async () => {
    const policy = await file('unfinished.js', 'export default function on() { return [; }');
    const { code, stdout } = await loglineos(['policy', 'simulate', policy, '--match', '{"name":["run_code_kernel"]}']);
    expect([code, stdout]).toEqual([1, expect.stringMatching(/, last by: SyntaxError: .* \(CODE_INVALID\)/)]);
  });

  it('exits 1 when the policy fails, and says where', async () => {
    const policy = await file('broken.js', 'export default function on() { return [{ run: "everything" }]; }');
    const { code, stdout } = await loglineos(['policy', 'simulate', policy, '--match', '{"name":["run_code_kernel"]}']);
    expect([code, stdout]).toEqual([
      1,
      expect.stringMatching(/fail: actions\[0\]\.run: expected run_code \(ACTION_INVALID\)/),
    ]);
    await expectFailure(2, /content\.match\.colour: a span has no column/, [
      'policy',
      'deploy',
      policy,
      '--name',
      'broken',
      '--match',
      '{"colour":[]}',
    ]);
    await expectFailure(2, /--from: expected a time/, ['policy', 'simulate', policy, '--from', 'yesterday']);
  });
});

describe('loglineos tail', () => {
  it('shows what is appended from now on, one line each, and ends cleanly with Ctrl-C', async () => {
    await json('deploy', await file('tailed.js', 'return 1'), '--name', 'tailed');
    const tail = new Program(COMMAND, ['tail', '--entity-type', 'execution', '--name', 'tailed', '--json'], env);
    const all = new Program(
      COMMAND,
      ['tail', '--name', 'tailed', '--entity-type', 'execution', '--after', 'start'],
      env,
    );
    const found: string[] = [];
    await until('three lines', async () => {
      found.push(...(await json('execute', 'tailed', '--wait')).execution_ids);
      return tail.stdout.trim().split('\n').length >= 3 ? true : undefined;
    });
    const ended = await tail.kill('SIGINT');
    expect([ended.code, ended.stderr]).toEqual([0, '']);
    const shown = ended.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).id);
    expect(found.slice(found.indexOf(shown[0]))).toEqual(expect.arrayContaining(shown));
    expect(new Set(shown).size).toBe(shown.length);

    await until('all of them', async () => (found.every((id) => all.stdout.includes(id)) ? true : undefined));
    const others = await all.kill('SIGTERM');
    expect([others.code, others.stderr]).toEqual([0, expect.stringMatching(/^go on with --after [0-9a-f]{32}\n$/)]);
    const position = others.stderr.trim().slice(-32);
    const rest = new Program(
      COMMAND,
      ['tail', '--name', 'tailed', '--after', position, '--json', '--entity-type', 'execution'],
      env,
    );
    const { execution_ids } = await json('execute', 'tailed', '--wait');
    await until('the one after', async () => (rest.stdout.includes('\n') ? true : undefined));
    const last = await rest.kill('SIGINT');
    expect(
      last.stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line).id),
    ).toEqual(execution_ids);
  });

  it('refuses a position that is none', async () => {
    await expectFailure(2, /^after: expected/, ['tail', '--after', 'yesterday']);
  });
});

describe('loglineos verify and bench', () => {
  it('passes on what it is told, and how it ended', async () => {
    expect(await text('verify')).toMatch(/^\d+ rows checked: every one proves itself\n$/);
    expect(await json('verify')).toMatchObject({ ok: true, problems: [] });
    const keys = { TRUSTED_ROOT_KEYS: 'ab'.repeat(32), TRUSTED_RUNTIME_KEYS: 'ab'.repeat(32) };
    expect((await loglineos(['verify'], keys)).code).toBe(1);
    expect((await loglineos(['bench', '--no-such-option'])).stderr).toMatch(/Unknown option '--no-such-option'/);
  });
});

describe('what goes wrong', () => {
  it.each<[string, string[], NodeJS.ProcessEnv, RegExp]>([
    [
      'nothing runs',
      ['spans'],
      { LOGLINEOS_URL: 'http://127.0.0.1:1' },
      /^nothing answers at .*UNREACHABLE\)\nIs it running\? Start it with npm start/,
    ],
    [
      'the token is another',
      ['spans'],
      { LOGLINEOS_TOKEN: 'llt_other' },
      /TOKEN_INVALID\)\nThe token comes from --token, LOGLINEOS_TOKEN, or secrets.json/,
    ],
    [
      'there is no folder',
      ['spans'],
      { LOGLINEOS_HOME: '/nowhere' },
      /^there is no token: \/nowhere is no folder of a local system/,
    ],
    [
      'the token of the folder would go to another machine',
      ['spans', '--url', 'http://example.com'],
      {},
      /^http:\/\/example\.com is another machine/,
    ],
    [
      'and by a name that only looks like this one',
      ['spans', '--url', 'http://127.0.0.1.example.com'],
      {},
      /is another machine/,
    ],
    ['the command is none', ['dance'], {}, /unknown command 'dance'/],
    ['an option is none', ['spans', '--colour', 'red'], {}, /unknown option '--colour'/],
    ['the id is none', ['span', 'x'], {}, /^id: expected a UUID in lower case \(FIELD_INVALID\)\n$/],
  ])('exits 2 with a line that helps, when %s', async (_what, args, more, stderr) => {
    await expectFailure(2, stderr, args, more);
  });

  it('ends quietly when its reader has seen enough', () => {
    const script = `"${process.execPath}" ${COMMAND} spans --limit 1000 --json | head -c 1`;
    const { status, stderr } = spawnSync('bash', ['-o', 'pipefail', '-c', script], {
      cwd: PROJECT,
      env: { ...process.env, ...env },
    });
    expect([status, String(stderr)]).toEqual([0, '']);
  });
});

/** A Node of the machine's own that is too old to run TypeScript; null when there is none. */
function olderNode(): string | null {
  for (const folder of (process.env.PATH ?? '').split(':')) {
    const node = join(folder, 'node');
    try {
      const major = Number.parseInt(execFileSync(node, ['--version'], { encoding: 'utf8' }).slice(1), 10);
      if (major < 24) return node;
    } catch {} // not here
  }
  return null;
}

describe.skipIf(olderNode() === null)('on a machine whose Node is older', () => {
  it('runs on the one that comes with the packages', () => {
    const run = (...args: string[]) =>
      spawnSync(olderNode() as string, [COMMAND, ...args], { cwd: PROJECT, env: { ...process.env, ...env } });
    const { status, stdout } = run('spans', '--limit', '1', '--json');
    expect([status, JSON.parse(String(stdout)).spans.length]).toEqual([0, 1]);
    expect(run('span', 'x').status).toBe(2);
  });
});
