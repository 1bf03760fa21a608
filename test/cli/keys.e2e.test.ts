import { chmod, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { keyId, publicKeyOf } from '../../src/keys/index.ts';
import { appendSpans, Database } from '../../src/ledger/index.ts';
import type { LocalSecrets } from '../../src/local/home.ts';
import { nodeEd25519 } from '../../src/span/ed25519-node.ts';
import { createSignerFromHex, sealSpan } from '../../src/span/index.ts';
import { createHome, type Ended, Program, postmastersOf, StackProcess } from '../local/stack-process.ts';
import type { AnyJson } from '../stage0/installation.ts';
import { contextOf, draft, hashable } from '../support/spans.ts';

const MANIFEST = '00000000-0000-4000-8000-0000000000aa';

let home: string;
let remove: () => Promise<void>;
beforeAll(async () => {
  ({ home, remove } = await createHome());
});
afterAll(() => remove?.());

const secretsFile = () => join(home, 'secrets.json');
const secretsOf = async (): Promise<LocalSecrets> => JSON.parse(await readFile(secretsFile(), 'utf8'));

function loglineos(args: string[], more: NodeJS.ProcessEnv = {}): Promise<Ended> {
  return new Program('src/cli/main.ts', args, { LOGLINEOS_HOME: home, ...more }).ended;
}

/** A command that must end well and say no secret. */
async function keys(...args: string[]): Promise<AnyJson> {
  const { code, stdout, stderr } = await loglineos(['keys', ...args, '--json']);
  expect(code, stderr).toBe(0);
  const { root_key, runtime_key } = await secretsOf();
  for (const secret of [root_key, runtime_key]) expect(stdout + stderr).not.toContain(secret);
  return JSON.parse(stdout);
}

async function expectFailure(message: RegExp, ...args: string[]): Promise<void> {
  const before = await readFile(secretsFile(), 'utf8').catch(() => null);
  const { code, stdout, stderr } = await loglineos(['keys', ...args]);
  expect([code, stdout, stderr]).toEqual([2, '', expect.stringMatching(message)]);
  expect(await readFile(secretsFile(), 'utf8').catch(() => null)).toBe(before);
}

async function verify(): Promise<AnyJson> {
  const { stdout } = await loglineos(['verify', '--json']);
  return JSON.parse(stdout);
}

describe('keys, of the local folder', () => {
  it('are rotated and revoked, and what was signed before stays proved', async () => {
    await expectFailure(/\(NO_DATABASE\)/, 'rotate', 'root');
    const one = await StackProcess.start(home);
    const call = async (
      ready: typeof one.ready,
      path: string,
      { token = ready.token, body = null as unknown } = {},
    ) => {
      const response = await fetch(ready.url + path, {
        method: body === null ? 'GET' : 'POST',
        headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' },
        ...(body === null ? {} : { body: JSON.stringify(body) }),
      });
      return { status: response.status, ...((await response.json()) as AnyJson) };
    };
    const newToken = async (): Promise<string> =>
      (await call(one.ready, '/api/tokens', { body: { name: 'a token', scopes: ['*'] } })).token;
    const early = await newToken();
    const { at: leakedAt } = await call(
      one.ready,
      '/api/spans/'.concat(one.ready.boot.ok ? one.ready.boot.execution_id : ''),
    );
    await new Promise((resolve) => setTimeout(resolve, 50));
    const leaked = new Date().toISOString();
    expect(leaked > leakedAt).toBe(true);
    const late = await newToken();
    const first = await secretsOf();
    await expectFailure(/^process \d+ already runs on .*\(ALREADY_RUNNING\)\n$/, 'rotate', 'runtime');
    await expectFailure(/^process \d+ already runs on .*\(ALREADY_RUNNING\)\n$/, 'trust', 'ab'.repeat(32));
    expect((await keys('list')).keys).toHaveLength(2);
    await one.stack.kill('SIGTERM');
    // Killed while it is about to: nothing has changed, and it is done the next time.
    const killed = new Program('src/cli/main.ts', ['keys', 'rotate', 'runtime'], { LOGLINEOS_HOME: home });
    while (postmastersOf(home).length === 0) await new Promise((resolve) => setTimeout(resolve, 10));
    await killed.kill('SIGKILL');
    expect(await secretsOf()).toEqual(first);
    await chmod(secretsFile(), 0o644);
    await keys('rotate', 'runtime');
    const rotated = await keys('rotate', 'root');
    expect((await stat(secretsFile())).mode & 0o777).toBe(0o600);
    const second = await secretsOf();
    const formerKeys = [publicKeyOf(first.root_key), publicKeyOf(first.runtime_key)];
    const text = await readFile(secretsFile(), 'utf8');
    for (const secret of [first.root_key, first.runtime_key]) expect(text).not.toContain(secret);
    expect(rotated.keys.map(({ kind, key_id, state, until }: AnyJson) => [kind, key_id, state, until])).toEqual([
      ['root', keyId(publicKeyOf(second.root_key)), 'in use', null],
      ['root', keyId(formerKeys[0] ?? ''), 'former', expect.any(Number)],
      ['runtime', keyId(publicKeyOf(second.runtime_key)), 'in use', null],
      ['runtime', keyId(formerKeys[1] ?? ''), 'former', expect.any(Number)],
    ]);

    const two = await StackProcess.start(home);
    expect(two.ready.boot).toMatchObject({ ok: true, verified: true });
    const execution = await call(two.ready, `/api/spans/${two.ready.boot.ok ? two.ready.boot.execution_id : ''}`);
    expect(execution.public_key).toBe(publicKeyOf(second.runtime_key));
    const { versions } = await call(two.ready, `/api/spans/${MANIFEST}/versions`);
    expect(versions.map(({ public_key }: AnyJson) => public_key)).toEqual([
      formerKeys[0],
      publicKeyOf(second.root_key),
    ]);
    for (const token of [early, late]) expect((await call(two.ready, '/api/me', { token })).status).toBe(200);
    expect(await verify()).toMatchObject({ ok: true, problems: [] });

    // Whoever kept the former key, and has the login of the app.
    const app = new Database({ url: two.ready.database_url, applicationName: 'test' });
    const thief = createSignerFromHex(nodeEd25519, first.runtime_key);
    const [forged] = await appendSpans(app, [draft({ at: '2020-01-01T00:00:00.000Z' })], contextOf(undefined, thief));
    await app.close();
    const named = await verify();
    expect(named.problems).toMatchObject([{ id: forged?.id, seq: 0, class: 'key' }]);
    await two.stack.kill('SIGTERM');

    const revoked = await keys('revoke', keyId(formerKeys[1] ?? ''), '--from', leaked);
    const behind = revoked.rows.map(({ id, seq }: AnyJson) => `${id} ${seq}`);
    expect(behind).toContain(`${forged?.id} 0`);
    expect(revoked.row_count).toBe(behind.length);
    expect(revoked.rows.some(({ entity_type }: AnyJson) => entity_type === 'api_token')).toBe(true);
    const client = createSignerFromHex(nodeEd25519, '0c'.repeat(32));
    await expectFailure(/expected 64 hex digits/, 'trust', 'abc');
    expect((await keys('trust', client.publicKey)).keys.at(-1)).toMatchObject({ state: 'trusted', until: null });
    const three = await StackProcess.start(home);
    const signed = sealSpan(hashable({}, { userId: 'local', tenantId: 'local' }), client);
    expect((await call(three.ready, '/api/spans', { body: signed })).status).toBe(201);
    expect(three.ready.boot).toMatchObject({ ok: true, verified: true });
    expect((await call(three.ready, '/api/me', { token: early })).status).toBe(200);
    expect(await call(three.ready, '/api/me', { token: late })).toMatchObject({ status: 401, code: 'TOKEN_INVALID' });
    const { problems } = await verify();
    expect(problems.map(({ class: found, id, seq }: AnyJson) => `${found} ${id} ${seq}`).sort()).toEqual(
      behind.map((row: string) => `key ${row}`).sort(),
    );
    await three.stack.kill('SIGTERM');

    // A folder that says that its own key has ended does not start with it.
    const now = await secretsOf();
    const ownEnded = { ...now, former_runtime_keys: `${publicKeyOf(now.runtime_key)}@1` };
    await writeFile(secretsFile(), JSON.stringify(ownEnded));
    const refused = await new StackProcess(home).refused();
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringMatching(/\(SIGNING_KEY_NOT_TRUSTED\)/)]);
  }, 120_000);
});
