import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SECRET_KEYS, TRUSTED_KEYS_ENV } from '../support/keys.ts';
import { FunctionProcess } from './function-process.ts';
import { SecretsManager } from './secrets-manager.ts';

const hex = (key: Uint8Array) => Buffer.from(key).toString('hex');

let manager: SecretsManager;
let env: Record<string, string>;
beforeAll(async () => {
  manager = await SecretsManager.start();
  const runtime = { runtime_key: hex(SECRET_KEYS.runtime), tenant_master_key: 'f00dfacef00dface'.repeat(4) };
  env = {
    ...manager.env,
    // No server is there: who gets as far as the database says DATABASE_UNAVAILABLE.
    DATABASE_HOST: '127.0.0.1',
    DATABASE_PORT: '1',
    DATABASE_NAME: 'none',
    DATABASE_USER: 'none',
    DATABASE_SECRET_ARN: manager.put('database', { password: 'none' }),
    RUNTIME_SECRET_ARN: manager.put('runtime', runtime),
    ROOT_SECRET_ARN: manager.put('root', { root_key: hex(SECRET_KEYS.root) }),
    ...TRUSTED_KEYS_ENV,
  };
});
afterAll(() => manager?.stop());

const BOOT = { boot_function_id: '00000000-0000-4000-8000-000000000001', user_id: 'test', tenant_id: 'system' };
const CONNECT = { type: 'TOKEN', methodArn: 'arn:aws:execute-api:a:1:b/c/GET/', authorizationToken: 'Bearer llo_none' };

describe('a function whose secret holds a key that may not sign', () => {
  it.each<[string, object, 'TRUSTED_ROOT_KEYS' | 'TRUSTED_RUNTIME_KEYS']>([
    ['stage0', BOOT, 'TRUSTED_RUNTIME_KEYS'],
    ['authorizer', CONNECT, 'TRUSTED_RUNTIME_KEYS'],
    ['seed', {}, 'TRUSTED_ROOT_KEYS'],
  ])('%s does nothing, and says which key', async (name, event, variable) => {
    const invoke = async (keys: string) => {
      const handler = new URL(`../../src/lambda/${name}.ts`, import.meta.url).pathname;
      const container = new FunctionProcess(handler, { ...env, [variable]: keys });
      const { error } = await container.invoke(event);
      await container.end();
      return error;
    };
    const key = TRUSTED_KEYS_ENV[variable];
    const [ended, unknown, inUse] = await Promise.all([invoke(`${key}@7`), invoke('a1'.repeat(32)), invoke(key)]);
    expect(ended).toMatchObject({ name: 'SIGNING_KEY_NOT_TRUSTED', message: expect.stringContaining(key) });
    expect(unknown).toMatchObject({ name: 'SIGNING_KEY_NOT_TRUSTED', message: expect.stringContaining(key) });
    expect(inUse).toMatchObject({ name: 'DATABASE_UNAVAILABLE' });
  });
});
