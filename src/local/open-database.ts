import { InputError } from '../errors.ts';
import { Fields } from '../fields.ts';
import type { TrustedKeys } from '../span/index.ts';
import { findRunningPostgres, startEmbeddedPostgres } from './embedded-postgres.ts';
import { homeFolder, type LocalSecrets, lockHome, readSecrets, trustedKeysOf } from './home.ts';

/** A database for a tool beside the stack: `verify`, `rebuild`, `bench`. */
export interface OpenedDatabase {
  adminUrl: string;
  secrets: LocalSecrets | null;
  close(): Promise<void>;
}

/**
 * The database of `DATABASE_URL`, or else of the local stack's folder: its server when the stack runs, otherwise the
 * server is started for the tool alone.
 */
export async function openDatabase(env: NodeJS.ProcessEnv): Promise<OpenedDatabase> {
  const home = homeFolder(env);
  const secrets = await readSecrets(home);
  if (env.DATABASE_URL) return { adminUrl: env.DATABASE_URL, secrets, close: async () => {} };
  if (secrets === null) {
    throw new InputError('NO_DATABASE', `there is no ledger in ${home}; set DATABASE_URL or LOGLINEOS_HOME`);
  }
  const running = await findRunningPostgres(home, secrets.passwords.admin);
  if (running !== null) return { adminUrl: running, secrets, close: async () => {} };

  const unlock = await lockHome(home);
  const postgres = await startEmbeddedPostgres(home, secrets.passwords.admin).catch(async (error) => {
    await unlock();
    throw error;
  });
  const close = async () => {
    await postgres.stop();
    await unlock();
  };
  return { adminUrl: postgres.url, secrets, close };
}

/** Keys to trust: `TRUSTED_ROOT_KEYS` and `TRUSTED_RUNTIME_KEYS` (hex, separated by commas), or else the folder's. */
export function trustedKeys(env: NodeJS.ProcessEnv, secrets: LocalSecrets | null): TrustedKeys {
  if (env.TRUSTED_ROOT_KEYS || env.TRUSTED_RUNTIME_KEYS) {
    const fields = new Fields(env, '');
    const keys = (name: string) => new Set(fields.text(name, PUBLIC_KEYS, 'public keys of 64 hex digits').split(','));
    return { root: keys('TRUSTED_ROOT_KEYS'), runtime: keys('TRUSTED_RUNTIME_KEYS') };
  }
  if (secrets !== null) return trustedKeysOf(secrets);
  throw new InputError('NO_TRUSTED_KEYS', 'set TRUSTED_ROOT_KEYS and TRUSTED_RUNTIME_KEYS, or LOGLINEOS_HOME');
}

const PUBLIC_KEYS = /^[0-9a-f]{64}(,[0-9a-f]{64})*$/;
