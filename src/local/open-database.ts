import { readFile } from 'node:fs/promises';
import { InputError } from '../errors.ts';
import { readTrustedKeys } from '../keys/index.ts';
import { Database } from '../ledger/index.ts';
import type { TrustedKeys } from '../span/index.ts';
import { findRunningPostgres, startEmbeddedPostgres } from './embedded-postgres.ts';
import { homeFolder, type LocalSecrets, lockHome, loginUrl, readSecrets, trustedKeysOf } from './home.ts';

/** A database for a tool beside the stack: `verify`, `audit`, `export`, `import`, `rebuild`, `bench`. */
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

/** The same, as who reads the whole ledger. */
export async function openAsAuditor(env: NodeJS.ProcessEnv, applicationName: string) {
  const { adminUrl, secrets, close } = await openDatabase(env);
  // An administrator acts as the auditor itself. A login of the stack may not, but its folder has the auditor's password.
  const isStackLogin = new URL(adminUrl).username.startsWith('loglineos_');
  const url = isStackLogin && secrets !== null ? loginUrl(adminUrl, 'loglineos_auditor', secrets) : adminUrl;
  const database = new Database({ url, applicationName, certificateAuthorities: await readAuthorities(env) });
  return {
    database,
    secrets,
    async close() {
      await database.close();
      await close();
    },
  };
}

/** Certificate authorities to trust beside Node's own (PEM): those in the file `DATABASE_CA_FILE`, for instance RDS's. */
export async function readAuthorities({ DATABASE_CA_FILE: file }: NodeJS.ProcessEnv): Promise<string[]> {
  if (!file) return [];
  try {
    return [await readFile(file, 'utf8')];
  } catch (cause) {
    throw new InputError('FILE_UNREADABLE', `DATABASE_CA_FILE: ${file} cannot be read`, { cause });
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
