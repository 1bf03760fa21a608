import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createHome, type Ended, Program, StackProcess } from '../local/stack-process.ts';

let home: { home: string; remove: () => Promise<void> };
let env: NodeJS.ProcessEnv;
beforeAll(async () => {
  home = await createHome();
  const { ready } = await StackProcess.start(home.home);
  env = { LOGLINEOS_HOME: home.home, LOGLINEOS_URL: ready.url };
});
afterAll(() => home?.remove());

const loglineos = (args: string[], more: NodeJS.ProcessEnv = {}): Promise<Ended> =>
  new Program('src/cli/loglineos.mjs', args, { ...env, ...more }).ended;

async function done(args: string[], more?: NodeJS.ProcessEnv): Promise<string> {
  const { code, stdout, stderr } = await loglineos(args, more);
  expect(code, stderr).toBe(0);
  return stdout;
}

async function expectFailure(stderr: RegExp, args: string[], more?: NodeJS.ProcessEnv): Promise<void> {
  const ended = await loglineos(args, more);
  expect([ended.code, ended.stderr]).toEqual([2, expect.stringMatching(stderr)]);
}

describe('loglineos token', () => {
  it('makes a token that works with what it allows, lists it without itself, and revokes it at once', async () => {
    const made = await done(['token', 'create', '--name', 'reports', '--scopes', 'spans:read', '--expires-in', '12h']);
    const [, token = ''] = /^token +(llo_\S+)$/m.exec(made) ?? [];
    const [, id = ''] = /^id +(\S+)$/m.exec(made) ?? [];
    const withIt = { LOGLINEOS_TOKEN: token };
    expect(await done(['spans', '--limit', '1'], withIt)).toMatch(/^at +type/);
    await expectFailure(/\(SCOPE_MISSING\)\n$/, ['requests', 'list'], withIt);

    const listed = await done(['token']);
    expect(listed).toMatch(new RegExp(`^${id}  reports +active +\\S+ +spans:read$`, 'm'));
    expect(listed).not.toContain(token.slice(4));

    expect(await done(['token', 'revoke', id])).toBe('reports is revoked\n');
    await expectFailure(/\(TOKEN_REVOKED\)\n$/, ['spans'], withIt);
    expect(await done(['token', 'list'])).toMatch(new RegExp(`^${id}  reports +revoked`, 'm'));
  });

  it('speaks JSON to programs', async () => {
    const made = JSON.parse(await done(['token', 'create', '--name', 'x', '--scopes', 'boot,execute', '--json']));
    expect(made).toMatchObject({ token: expect.stringMatching(/^llo_/), scopes: ['boot', 'execute'] });
    expect(JSON.parse(await done(['token', '--json'])).tokens[0]).toMatchObject({ id: made.id, status: 'active' });
  });

  it('says what is wrong, and makes none', async () => {
    const create = ['token', 'create', '--name', 'x', '--scopes'];
    await expectFailure(/scopes\.1: expected one of .*\(FIELD_INVALID\)\n$/s, [...create, 'boot,spans:write']);
    await expectFailure(/expected a time such as 12h or 30d/, [...create, 'boot', '--expires-in', 'soon']);
    await expectFailure(/required option '--scopes/, ['token', 'create', '--name', 'x']);
    await expectFailure(/\(TOKEN_NOT_FOUND\)\n$/, ['token', 'revoke', '5a0e4b6d-7d9f-4c52-9a53-0c1f6f0a2b11']);
  });
});
