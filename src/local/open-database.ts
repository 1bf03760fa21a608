import { InputError } from '../errors.ts';
import { readTrustedKeys } from '../keys/index.ts';
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
  if (secrets === null) throw noLedger(home);
  const running = await findRunningPostgres(home, secrets.passwords.admin);
  return running === null ? openDatabaseAlone(env) : { adminUrl: running, secrets, close: async () => {} };
}

/**
 * The same for who changes the folder: no stack runs in it meanwhile, and none starts.
 *
 * @throws {ConflictError} `ALREADY_RUNNING`
 */
export async function openDatabaseAlone(env: NodeJS.ProcessEnv): Promise<OpenedDatabase & { secrets: LocalSecrets }> {
  const home = homeFolder(env);
  if ((await readSecrets(home)) === null) throw noLedger(home);
  const undo = [await lockHome(home)];
  const close = async () => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  try {
    const secrets = (await readSecrets(home)) as LocalSecrets; // as they are now that nobody else changes them
    if (env.DATABASE_URL) return { adminUrl: env.DATABASE_URL, secrets, close };
    const postgres = await startEmbeddedPostgres(home, secrets.passwords.admin);
    undo.push(() => postgres.stop());
    return { adminUrl: postgres.url, secrets, close };
  } catch (error) {
    await close();
    throw error;
  }
}

function noLedger(home: string): InputError {
  return new InputError('NO_DATABASE', `there is no ledger in ${home}; set DATABASE_URL or LOGLINEOS_HOME`);
}

/** Keys to trust: `TRUSTED_ROOT_KEYS` and `TRUSTED_RUNTIME_KEYS`, or else the folder's. */
export function trustedKeys(env: NodeJS.ProcessEnv, secrets: LocalSecrets | null): TrustedKeys {
  if (env.TRUSTED_ROOT_KEYS || env.TRUSTED_RUNTIME_KEYS) return readTrustedKeys(env);
  if (secrets !== null) return trustedKeysOf(secrets);
  throw new InputError('NO_TRUSTED_KEYS', 'set TRUSTED_ROOT_KEYS and TRUSTED_RUNTIME_KEYS, or LOGLINEOS_HOME');
}
