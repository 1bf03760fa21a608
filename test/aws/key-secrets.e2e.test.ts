import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { publicKeyOf } from '../../src/keys/index.ts';
import { appendSpans } from '../../src/ledger/index.ts';
import { nodeEd25519 } from '../../src/span/ed25519-node.ts';
import { createSignerFromHex } from '../../src/span/index.ts';
import { SecretsManager } from '../lambda/secrets-manager.ts';
import { type Ended, Program } from '../local/stack-process.ts';
import type { AnyJson } from '../stage0/installation.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { contextOf, draft } from '../support/spans.ts';

const SECRET = /^[0-9a-f]{64}$/;
const MASTER = 'f00dfacef00dface'.repeat(4);
const FIRST = '01'.repeat(32);

let manager: SecretsManager;
let ledger: TestDatabase;
beforeAll(async () => {
  manager = await SecretsManager.start();
  ledger = await createTestDatabase();
});
afterAll(async () => {
  await manager?.stop();
  await ledger?.close();
});
afterEach(() => {
  expect(manager.faults).toEqual([]);
});

async function keys(args: string[], env: NodeJS.ProcessEnv = {}): Promise<Ended> {
  const ended = await new Program('src/cli/main.ts', ['keys', ...args], { ...manager.env, ...env }).ended;
  for (const text of [...manager.secrets.values(), ...manager.pending.values()]) {
    for (const [, secret] of text.matchAll(/_key":"([0-9a-f]{64})"/g))
      expect(ended.stdout + ended.stderr).not.toContain(secret);
  }
  return ended;
}

async function json(args: string[], env?: NodeJS.ProcessEnv): Promise<AnyJson> {
  const { code, stdout, stderr } = await keys([...args, '--json'], env);
  expect(code, stderr).toBe(0);
  return JSON.parse(stdout);
}

async function expectFailure(args: string[], code: string, env?: NodeJS.ProcessEnv): Promise<Ended> {
  const written = manager.written.length;
  const ended = await keys(args, env);
  expect([ended.code, ended.stdout, ended.stderr]).toEqual([2, '', expect.stringMatching(`\\(${code}\\)\\n$`)]);
  expect(manager.written.length, 'written in spite of the error').toBe(written);
  return ended;
}

const contentOf = (id: string, of = manager.secrets): AnyJson => JSON.parse(of.get(id) ?? 'null');

describe('keys create, of Secrets Manager', () => {
  it('makes what is not there, fills what is empty, and leaves what it finds', async () => {
    const runtime = 'arn:aws:secretsmanager:eu-central-1:123456789012:secret:made-by-terraform';
    manager.empty.add(runtime);
    const secrets = ['--root-secret', 'new/root', '--runtime-secret', runtime, '--override-secret', 'new/override'];
    const made = await json(['create', ...secrets]);
    expect(made).toMatchObject({ made: ['new/root', runtime, 'new/override'] });
    expect(contentOf('new/root')).toEqual({ root_key: expect.stringMatching(SECRET) });
    expect(contentOf(runtime)).toEqual({
      runtime_key: expect.stringMatching(SECRET),
      tenant_master_key: expect.stringMatching(SECRET),
    });
    const { root_key } = contentOf('new/root');
    const { runtime_key, tenant_master_key } = contentOf(runtime);
    const { override_key } = contentOf('new/override');
    expect(new Set([root_key, runtime_key, tenant_master_key, override_key]).size).toBe(4);
    expect(made).toMatchObject({
      trusted_root_keys: [publicKeyOf(root_key)],
      trusted_runtime_keys: [publicKeyOf(runtime_key)],
      override_public_key: publicKeyOf(override_key),
    });

    const written = manager.written.length;
    const { stdout } = await keys(['create', ...secrets]);
    expect(manager.written.length).toBe(written);
    expect(stdout).toContain(`
trusted_root_keys = ["${publicKeyOf(root_key)}"]
trusted_runtime_keys = ["${publicKeyOf(runtime_key)}"]
override_public_key = "${publicKeyOf(override_key)}"
`);
  });

  it('completes a secret that has a part, and takes no ARN for a name', async () => {
    const half = manager.put('half', { runtime_key: FIRST, more: 'stays' });
    await json(['create', '--runtime-secret', half]);
    expect(contentOf(half)).toEqual({
      runtime_key: FIRST,
      more: 'stays',
      tenant_master_key: expect.stringMatching(SECRET),
    });
    const nowhere = 'arn:aws:secretsmanager:eu-central-1:123456789012:secret:nowhere';
    await expectFailure(['create', '--root-secret', nowhere], 'SECRET_UNAVAILABLE');
  });
});

describe('keys rotate and revoke, of Secrets Manager', () => {
  it('lets a new key wait until it is trusted, and puts it to use', async () => {
    const runtime = manager.put('rotating', { runtime_key: FIRST, tenant_master_key: MASTER });
    const secret = ['--runtime-secret', runtime];
    const first = publicKeyOf(FIRST);
    await expectFailure(['rotate', 'runtime', ...secret, '--activate'], 'NO_KEY_WAITING');

    const prepared = await json(['rotate', 'runtime', ...secret]);
    const { runtime_key } = contentOf(runtime, manager.pending);
    const second = publicKeyOf(runtime_key);
    expect(contentOf(runtime)).toEqual({ runtime_key: FIRST, tenant_master_key: MASTER });
    expect(prepared).toMatchObject({ trusted_runtime_keys: [second, first] });
    expect(prepared.keys.map(({ state, until }: AnyJson) => [state, until])).toEqual([
      ['waiting', null],
      ['in use', null],
    ]);
    // Once more, as after a crash: it is the same key that waits.
    expect(await json(['rotate', 'runtime', ...secret])).toMatchObject({ trusted_runtime_keys: [second, first] });

    const active = await json(['rotate', 'runtime', ...secret, '--activate']);
    expect(active).toMatchObject({ trusted_runtime_keys: [second, first] });
    expect(contentOf(runtime)).toEqual({ runtime_key, tenant_master_key: MASTER, former_runtime_keys: first });
    await expectFailure(['rotate', 'runtime', ...secret, '--activate'], 'NO_KEY_WAITING');
  });

  it('ends a former key where the ledger ends, or before that, and lists what it signed behind', async () => {
    const [first, second] = [FIRST, '04'.repeat(32)].map(publicKeyOf) as [string, string];
    const held = { runtime_key: '04'.repeat(32), tenant_master_key: MASTER };
    const runtime = manager.put('revoking', { ...held, former_runtime_keys: first });
    const secret = ['--runtime-secret', runtime];
    const env = { DATABASE_URL: ledger.adminUrl };
    const signer = createSignerFromHex(nodeEd25519, FIRST);
    const app = ledger.open('loglineos_app');
    for (let i = 0; i < 3; i++) await appendSpans(app, [draft()], contextOf(undefined, signer));

    await Promise.all([
      expectFailure(['revoke', first, ...secret], 'NO_DATABASE'),
      expectFailure(['revoke', second, ...secret], 'KEY_IN_USE', env),
      expectFailure(['revoke', 'a1'.repeat(32), ...secret], 'KEY_UNKNOWN', env),
      expectFailure(['revoke', first, '--from', '5', ...secret], 'FIELD_INVALID', env),
      expectFailure(['revoke', first, '--from', '2999-01-01T00:00:00Z', ...secret], 'FIELD_INVALID', env),
    ]);
    const ended = await json(['revoke', first.slice(0, 16), ...secret], env);
    expect(ended).toMatchObject({ revoked: { public_key: first, until: 3 }, row_count: 0, rows: [] });
    const leaked = await json(['revoke', first, '--from', '2', ...secret], env);
    expect(leaked).toMatchObject({ revoked: { until: 1 }, row_count: 2, rows: [{ position: 2 }, { position: 3 }] });
    // Once more, with a later end: what has ended stays ended.
    expect((await json(['revoke', first, ...secret], env)).revoked).toEqual({ public_key: first, until: 1 });
    expect(leaked.trusted_runtime_keys).toEqual([second, `${first}@1`]);
    expect(contentOf(runtime)).toEqual({ ...held, former_runtime_keys: `${first}@1` });
  });

  it('forgets no revocation that came while a new key waited', async () => {
    const [old, current] = ['02', '03'].map((byte) => byte.repeat(32)) as [string, string];
    const root = manager.put('both', { root_key: current, former_root_keys: publicKeyOf(old) });
    const secret = ['--root-secret', root];
    await json(['rotate', 'root', ...secret]);
    await json(['revoke', publicKeyOf(old), '--from', '1', ...secret], { DATABASE_URL: ledger.adminUrl });
    const { trusted_root_keys } = await json(['rotate', 'root', ...secret, '--activate']);
    expect(trusted_root_keys.slice(1)).toEqual([`${publicKeyOf(old)}@0`, publicKeyOf(current)]);
  });

  it('takes only a position or an instant for where a key ends', async () => {
    const { code, stderr } = await keys(['revoke', 'a1'.repeat(32), '--from', 'yesterday', '--runtime-secret', 'any']);
    expect([code, stderr]).toEqual([2, expect.stringMatching(/expected a position from 1 on, or an instant/)]);
  });

  it.each<[string, string[], string, (() => string) | null]>([
    ['a secret that is not there', ['list'], 'SECRET_UNAVAILABLE', () => 'nowhere'],
    ['a secret that is no JSON', ['list'], 'SECRET_MALFORMED', () => manager.put('text', `secret ${MASTER}`)],
    [
      'a secret with another field',
      ['list'],
      'SECRET_MALFORMED',
      () => manager.put('other', { root_key: `x${MASTER}` }),
    ],
    ['the other secret alone', ['rotate', 'runtime'], 'FIELD_MISSING', () => manager.put('root', { root_key: FIRST })],
  ])('says what is wrong with %s, and nothing of what is in it', async (_what, args, code, secret) => {
    const { stderr } = await expectFailure([...args, '--root-secret', secret?.() ?? ''], code);
    expect(stderr).not.toContain(MASTER);
  });
});
