import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ConflictError, IntegrityError } from '../../src/errors.ts';
import { homeFolder, lockHome, openSecrets, readSecrets, trustedKeysOf, writeSecrets } from '../../src/local/home.ts';

let home: string;
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'loglineos-home-'));
});
afterEach(() => rm(home, { recursive: true, force: true }));

/** Everybody tries at once; exactly one may get it. */
async function expectOneWinner(): Promise<void> {
  const tries = await Promise.allSettled(Array.from({ length: 30 }, () => lockHome(home)));
  const refused = tries.filter((one) => one.status === 'rejected');
  for (const { reason } of refused) {
    expect(reason).toBeInstanceOf(ConflictError);
    expect(reason).toMatchObject({ code: 'ALREADY_RUNNING' });
  }
  expect(tries.length - refused.length, 'winners').toBe(1);
}

describe('the lock of a folder', () => {
  it('is held by one, until that one lets go', async () => {
    const unlock = await lockHome(home);
    await expect(lockHome(home)).rejects.toMatchObject({ code: 'ALREADY_RUNNING' });
    await unlock();
    await (await lockHome(home))();
  });

  it('is got by one of many that come at the same time', async () => {
    await expectOneWinner();
  });

  it.each<[string, string]>([
    ['of a process that is gone', '999999999 12345'],
    ['of a process id that another process has now', `${process.pid} 1`],
    ['that a crash left half written', `${process.pid}`],
    ['that a crash left empty', ''],
  ])('counts for nothing %s, and is got by one of many', async (_what, text) => {
    await writeFile(join(home, 'lock'), text);
    await expectOneWinner();
  });
});

describe('the secrets of a folder', () => {
  it('are made once, are all different, and may be read by the user alone', async () => {
    const secrets = await openSecrets(join(home, 'new'));
    expect(await openSecrets(join(home, 'new'))).toEqual(secrets);
    const { passwords, ...keys } = secrets;
    const all = [...Object.values(passwords), ...Object.values(keys)];
    expect(new Set(all).size).toBe(all.length);
    for (const secret of all) expect(secret).toMatch(/^(llt_)?[0-9a-f]{64}$/);
    expect((await stat(join(home, 'new', 'secrets.json'))).mode & 0o777).toBe(0o600);
  });

  it('are written over as a whole, for the user alone, and keep the keys before them', async () => {
    const secrets = await openSecrets(home);
    const former = `${'a1'.repeat(32)}@7,${'b2'.repeat(32)}`;
    await chmod(join(home, 'secrets.json'), 0o644);
    await writeFile(join(home, `secrets.json.${process.pid}`), 'left by a crash', { mode: 0o644 });
    await writeSecrets(home, { ...secrets, former_runtime_keys: former });
    expect(await readSecrets(home)).toEqual({ ...secrets, former_runtime_keys: former });
    expect((await stat(join(home, 'secrets.json'))).mode & 0o777).toBe(0o600);
    expect(await readdir(home)).toEqual(['secrets.json']);
    expect([...trustedKeysOf(await openSecrets(home)).runtime.values()]).toEqual([Infinity, 7, Infinity]);
    expect(trustedKeysOf(secrets).runtime.size).toBe(1);
  });

  it('with former keys that cannot be read are not taken for keys without former ones', async () => {
    const secrets = await openSecrets(home);
    await writeSecrets(home, { ...secrets, former_root_keys: 'a1'.repeat(32).toUpperCase() });
    await expect(openSecrets(home)).rejects.toMatchObject({
      code: 'SECRETS_UNREADABLE',
      message: expect.stringContaining('former_root_keys'),
    });
  });

  it('are none where nobody started', async () => {
    expect(await readSecrets(home)).toBeNull();
  });

  it('are never replaced when they cannot be read: that would lock their owner out', async () => {
    await writeFile(join(home, 'secrets.json'), '{"root_key":');
    const error = await openSecrets(home).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(IntegrityError);
    expect(error).toMatchObject({ code: 'SECRETS_UNREADABLE' });
    expect(await readFile(join(home, 'secrets.json'), 'utf8')).toBe('{"root_key":');
  });
});

describe('LOGLINEOS_HOME', () => {
  it('is a folder of that name, or .loglineos where it is started', () => {
    expect(homeFolder({ LOGLINEOS_HOME: '/tmp/a/../b' })).toBe('/tmp/b');
    expect(homeFolder({})).toBe(join(process.cwd(), '.loglineos'));
    expect(homeFolder({ LOGLINEOS_HOME: '' })).toBe(join(process.cwd(), '.loglineos'));
  });
});
