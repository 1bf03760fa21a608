import { randomUUID } from 'node:crypto';
import {
  copyFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  realpath,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ConflictError } from '../../src/errors.ts';
import { appendSpans, type Database, type Row } from '../../src/ledger/index.ts';
import { lockFile } from '../../src/local/home.ts';
import { createHome, type Ended, Program, postmastersOf, StackProcess } from '../local/stack-process.ts';
import type { AnyJson } from '../stage0/installation.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { trustedKeys } from '../support/keys.ts';
import { ALICE, contextOf, draft } from '../support/spans.ts';

const keys = {
  TRUSTED_ROOT_KEYS: [...trustedKeys.root.keys()].join(),
  TRUSTED_RUNTIME_KEYS: [...trustedKeys.runtime.keys()].join(),
};
const ROWS = 3_000;

let folder: string;
let source: TestDatabase;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'loglineos-backup-'));
  source = await createTestDatabase();
  await appendNotes(ROWS);
});
afterAll(async () => {
  await source?.close();
  await rm(folder, { recursive: true, force: true });
});

async function appendNotes(count: number): Promise<string[]> {
  const app = source.open('loglineos_app');
  const ids: string[] = [];
  for (let i = 0; i < count; i += 1_000) {
    const drafts = Array.from({ length: Math.min(1_000, count - i) }, () =>
      draft({ input: { text: 'ação '.repeat(20) } }),
    );
    ids.push(...(await appendSpans(app, drafts, contextOf(ALICE))).map(({ id }) => id));
  }
  return ids;
}

function run(name: 'export' | 'import', database: TestDatabase, args: string[], more: NodeJS.ProcessEnv = {}): Program {
  return new Program(`scripts/${name}.ts`, args, { DATABASE_URL: database.adminUrl, ...keys, ...more });
}

async function json(name: 'export' | 'import', database: TestDatabase, args: string[], code = 0): Promise<AnyJson> {
  const ended = await run(name, database, [...args, '--json']).ended;
  expect([ended.code, ended.stdout.trimEnd().split('\n').length], ended.stderr).toEqual([code, 1]);
  return JSON.parse(ended.stdout);
}

/** Other tests' transactions hold the end of the timeline back: gone on with until all is there. */
async function exportAll(file: string): Promise<void> {
  for (let rows = 0; rows < (await countOf(source)); ) {
    await json('export', source, ['--out', file]);
    const lines = (await readFile(file, 'utf8')).split('\n');
    rows = lines.filter((line) => line.startsWith('{"id"')).length;
  }
}

const admins = new Map<TestDatabase, Database>();

async function ask<R extends Row>(database: TestDatabase, text: string): Promise<R[]> {
  const admin = admins.get(database) ?? database.open('admin', { connectionsMax: 1 });
  admins.set(database, admin);
  return admin.query<R>({ text });
}

async function countOf(database: TestDatabase): Promise<number> {
  const [row] = await ask<{ rows: number }>(database, 'select count(*)::int as rows from ledger.universal_registry');
  return row?.rows as number;
}

function hashesOf(database: TestDatabase): Promise<Row[]> {
  return ask(database, 'select position, curr_hash from ledger.universal_registry order by tx_id, position');
}

const file = (name: string) => join(folder, name);
const refused = ({ code, stdout, stderr }: Ended) => [code, stdout, stderr.trimEnd().split('\n').length];

describe('loglineos export and import', () => {
  it('bring a destroyed database back, with nothing lost', async () => {
    await exportAll(file('all'));
    expect((await stat(file('all'))).mode & 0o777).toBe(0o600);
    const before = await hashesOf(source);
    const lost = source;
    source = await createTestDatabase();
    await lost.close();
    expect(await json('import', source, [file('all')])).toEqual({
      ok: true,
      rows: ROWS,
      there: 0,
      imported: ROWS,
      checked: ROWS,
      problems: [],
    });
    expect(await hashesOf(source)).toEqual(before);
    // What was exported before can be gone on with in the ledger that came back.
    const [id] = await appendNotes(1);
    await exportAll(file('all'));
    expect(await readFile(file('all'), 'utf8')).toContain(id);
    expect(await json('import', source, ['--dry-run', file('all')])).toMatchObject({ ok: true, missing: 0 });
  });

  it('show what was lost when a ledger came back as it was at an earlier point in time', async () => {
    await exportAll(file('earlier'));
    const later = await appendNotes(3);
    await copyFile(file('earlier'), file('later'));
    await exportAll(file('later'));
    const target = await createTestDatabase();
    expect(await json('import', target, [file('earlier')])).toMatchObject({ ok: true });
    expect(await json('import', target, ['--dry-run', file('later')], 1)).toMatchObject({ ok: false, missing: 3 });
    const { code, stdout } = await run('import', target, ['--dry-run', file('later')]).ended;
    expect(code).toBe(1);
    expect(stdout.split('\n').slice(0, 3)).toEqual(later.map((id) => expect.stringContaining(id)));
    expect(stdout.split('\n')[3]).toMatch(/ 3 are missing$/);
    // And it comes back from the later one.
    expect(await json('import', target, [file('later')])).toMatchObject({ ok: true, imported: 3 });
    expect(await hashesOf(target)).toEqual(await hashesOf(source));
    await target.close();
  });

  it('go on where they were killed', async () => {
    await exportAll(file('killed'));
    const target = await createTestDatabase();
    const rows = await countOf(source);
    const importing = new Program('scripts/import.ts', [file('killed')], { DATABASE_URL: target.adminUrl, ...keys });
    while ((await countOf(target)) === 0) await sleep(1);
    expect((await importing.kill('SIGKILL')).signal).toBe('SIGKILL');
    const there = await countOf(target);
    expect(there).toBeGreaterThan(0);
    expect(there).toBeLessThan(rows);
    const report = await json('import', target, [file('killed')]);
    expect(report).toMatchObject({ ok: true, rows, checked: rows });
    expect(report.there).toBeGreaterThanOrEqual(there); // the server may have ended what it was doing
    expect(await hashesOf(target)).toEqual(await hashesOf(source));
    expect(await json('import', target, [file('killed')])).toMatchObject({ ok: true, there: rows, imported: 0 });
    await target.close();

    // A file that breaks off, in the middle of a character even, is refused as it is and gone on with.
    const whole = await readFile(file('killed'));
    await truncate(file('killed'), whole.lastIndexOf('ç') + 1);
    const fresh = await createTestDatabase();
    const broken = await run('import', fresh, [file('killed')]).ended;
    expect(refused(broken)).toEqual([2, '', 1]);
    expect(broken.stderr).toContain('EXPORT_TRUNCATED');
    expect(await countOf(fresh)).toBe(0);
    await exportAll(file('killed'));
    const contents = (await readFile(file('killed'), 'utf8')).split('\n').filter((line) => line.startsWith('{"id"'));
    expect(contents).toHaveLength(rows);
    expect(await json('import', fresh, [file('killed')])).toMatchObject({ ok: true, rows, imported: rows });
    await fresh.close();
  });

  it('work through a pipe', async () => {
    const target = await createTestDatabase();
    await exportAll(file('pipe'));
    const after = JSON.parse((await readFile(file('pipe'), 'utf8')).split('\n')[1_000] as string);
    const cursor = BigInt(after.tx_id).toString(16).padStart(16, '0') + after.position.toString(16).padStart(16, '0');
    const { stdout, stderr } = await run('export', source, ['--after', cursor, '--json']).ended;
    expect(stdout.trimEnd().split('\n')).toHaveLength(JSON.parse(stderr).rows + 2);
    expect(JSON.parse(stdout.split('\n')[0] as string).begin.after).toMatchObject({ id: after.id, seq: 0 });

    const importing = new Program(
      '-e',
      [
        `require('node:child_process').spawn(process.execPath, ['scripts/import.ts', '--json', '-'],
          { stdio: [require('node:fs').openSync(process.argv[1]), 'inherit', 'inherit'] }).on('exit', (code) => process.exit(code))`,
        file('pipe'),
      ],
      { DATABASE_URL: target.adminUrl, ...keys },
    );
    const ended = await importing.ended;
    expect([ended.code, JSON.parse(ended.stdout)], ended.stderr).toMatchObject([
      0,
      { ok: true, checked: await countOf(source) },
    ]);
    await target.close();
  });

  it('name the line of a row that was changed, and write nothing of the file', async () => {
    await exportAll(file('changed'));
    const lines = (await readFile(file('changed'), 'utf8')).split('\n');
    lines[1_700] = (lines[1_700] as string).replace('ação', 'acao');
    await writeFile(file('changed'), lines.join('\n'));
    const target = await createTestDatabase();
    const ended = await run('import', target, [file('changed')]).ended;
    expect(refused(ended)).toEqual([2, '', 1]);
    expect(ended.stderr).toMatch(/^line 1701: hash: .*ROW_NOT_PROVED/);
    expect(await countOf(target)).toBe(0);
    // A row that was taken out proves nothing wrong, and yet the file is not what it was.
    await writeFile(file('changed'), lines.toSpliced(1_700, 1).join('\n'));
    expect((await run('import', target, [file('changed')]).ended).stderr).toContain('EXPORT_INVALID');
    expect(await countOf(target)).toBe(0);
    await target.close();
  });

  it('want the digest of the file where a key has an end, and write nothing of another', async () => {
    await exportAll(file('noted'));
    await appendNotes(1);

    const later = file('later part');
    await copyFile(file('noted'), later);
    await exportAll(later);
    // The line that export prints says it, and one digest stands for all parts of the file.
    const { stdout } = await run('export', source, ['--out', later]).ended;
    const [, digest] = /; digest ([0-9a-f]{64})\n$/.exec(stdout) as unknown as [string, string];
    expect((await readFile(later, 'utf8')).split('\n').filter((line) => line.startsWith('{"begin"'))).not.toHaveLength(
      1,
    );

    const target = await createTestDatabase();
    const ended = { TRUSTED_RUNTIME_KEYS: `${keys.TRUSTED_RUNTIME_KEYS},${'ab'.repeat(32)}@7` };
    const refusal = async (args: string[], env: NodeJS.ProcessEnv = ended) => {
      const refusedImport = await run('import', target, args, env).ended;
      expect(refused(refusedImport)).toEqual([2, '', 1]);
      expect(await countOf(target)).toBe(0);
      return refusedImport.stderr;
    };
    expect(await refusal([later])).toMatch(/--digest HEX.*\(DIGEST_MISSING\)/);
    expect(await refusal(['--digest', digest, file('noted')])).toMatch(/\(DIGEST_DIFFERS\)/);
    expect(await refusal(['--digest', digest, file('noted')], {})).toMatch(/\(DIGEST_DIFFERS\)/);
    expect(await refusal(['--digest', 'abc', later])).toMatch(/^--digest: .*\(FIELD_INVALID\)/);
    expect(await refusal(['--digest', digest, '-'])).toMatch(/\(FILE_MISSING\)/);
    const done = await run('import', target, ['--digest', digest, later], ended).ended;
    expect([done.code, await countOf(target)], done.stderr).toEqual([0, await countOf(source)]);
    await target.close();
  });

  it('are one at a time at a file', async () => {
    await exportAll(file('held'));
    const lock = `${await realpath(file('held'))}.lock`;
    const link = file('another name');
    await symlink(file('held'), link);
    const before = await readFile(file('held'), 'utf8');
    const unlock = await lockFile(lock, () => new ConflictError('FILE_IN_USE', 'held already'));
    for (const name of [file('held'), link]) {
      const ended = await run('export', source, ['--out', name]).ended;
      expect(refused(ended)).toEqual([2, '', 1]);
      expect(ended.stderr).toMatch(new RegExp(`^process ${process.pid} already exports into .*\\(FILE_IN_USE\\)`));
    }
    expect(await readFile(file('held'), 'utf8')).toBe(before);
    await unlock();
    await writeFile(lock, '999999999 12345'); // of a process that is gone
    await json('export', source, ['--out', file('held')]);
    expect((await readdir(folder)).filter((name) => name.includes('.lock'))).toEqual([]);
  });

  it.each<[string, 'export' | 'import', () => Promise<string[]> | string[], string]>([
    ['a file that is not there', 'import', () => [file('nowhere')], 'FILE_UNREADABLE'],
    ['a file that is no export', 'import', () => textFile('dear diary\n'), 'EXPORT_INVALID'],
    ['a place of another ledger', 'export', () => ['--after', `${'0'.repeat(31)}1`], 'CURSOR_INVALID'],
    ['a folder to write to', 'export', () => ['--out', folder], 'FILE_UNREADABLE'],
    [
      'a place and a file that says one',
      'export',
      () => ['--out', file('all'), '--after', '0'.repeat(32)],
      'FILE_EXISTS',
    ],
  ])('refuse %s in a line, exit 2', async (_what, name, args, code) => {
    const ended = await run(name, source, await args()).ended;
    expect(refused(ended)).toEqual([2, '', 1]);
    expect(ended.stderr).toContain(code);
    expect(ended.stderr).not.toContain(new URL(source.adminUrl).password);
  });

  async function textFile(text: string): Promise<string[]> {
    const name = file(randomUUID());
    await writeFile(name, text);
    return [name];
  }

  it.each(['dear diary', 'dear diary\n'])('leave a file of something else as it was: %j', async (text) => {
    const [name] = (await textFile(text)) as [string];
    const ended = await run('export', source, ['--out', name]).ended;
    expect([ended.code, ended.stderr]).toEqual([2, expect.stringContaining('EXPORT_INVALID')]);
    expect(await readFile(name, 'utf8')).toBe(text);
  });
});

describe('a local stack', () => {
  it('comes back in another folder from its secrets and an export, and what waited runs', async () => {
    const [first, second] = [await createHome(), await createHome()];
    try {
      const { stack, ready } = await StackProcess.start(first.home);
      const call = async (url: string, path: string, body?: object): Promise<AnyJson> => {
        const headers = { Authorization: `Bearer ${ready.token}` };
        const init = body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) };
        return (await fetch(`${url}${path}`, { headers, ...init })).json();
      };
      const code = 'export default () => 42';
      const made = await call(ready.url, '/api/spans', { entity_type: 'function', name: 'f', status: 'active', code });
      const asked = await call(ready.url, '/api/execute', { span_id: made.id, delay_ms: 3_600_000 });
      const soon = await call(ready.url, '/api/execute', { span_id: made.id });
      const execute = async (url: string, id: string) => {
        for (;;) {
          const request = await call(url, `/api/requests/${id}`);
          if (request.status === 'complete') return request;
          await sleep(50);
        }
      };
      const done = await execute(ready.url, soon.request_id);
      const env = { LOGLINEOS_HOME: first.home };
      await stack.kill('SIGTERM');
      const out = join(folder, 'stack');
      expect((await new Program('src/cli/main.ts', ['export', '--out', out], env).ended).code).toBe(0);
      expect(postmastersOf(first.home)).toEqual([]);

      await mkdir(second.home, { recursive: true });
      await copyFile(join(first.home, 'secrets.json'), join(second.home, 'secrets.json'));
      const other = { LOGLINEOS_HOME: second.home };
      const imported = await new Program('src/cli/main.ts', ['import', out, '--json'], other).ended;
      expect([imported.code, JSON.parse(imported.stdout)], imported.stderr).toMatchObject([0, { ok: true, there: 0 }]);
      expect(postmastersOf(second.home)).toEqual([]);

      const again = await StackProcess.start(second.home);
      expect(again.ready.boot).toMatchObject({ ok: true, verified: true });
      expect(await call(again.ready.url, `/api/requests/${soon.request_id}`)).toMatchObject({ output: done.output });
      expect(await call(again.ready.url, `/api/requests/${asked.request_id}`)).toMatchObject({ state: 'delayed' });
      const next = await call(again.ready.url, '/api/execute', { span_id: made.id });
      expect(await execute(again.ready.url, next.request_id)).toMatchObject({ output: 42 });
      const verified = await new Program('scripts/verify.ts', [], other).ended;
      expect([verified.code, verified.stdout]).toEqual([0, expect.stringContaining('every one proves itself')]);
      await again.stack.kill('SIGTERM');
    } finally {
      await first.remove();
      await second.remove();
    }
  }, 90_000);
});
