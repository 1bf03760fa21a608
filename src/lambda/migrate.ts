import { fileURLToPath } from 'node:url';
import { readSecretField } from '../aws/index.ts';
import { grantLogins, loadMigrations, type MigrationResult, migrate } from '../ledger/index.ts';
import { connectionOptions, readMigrateConfig } from './config.ts';
import { loggedFunctionError } from './function-error.ts';

/** Packed beside the bundle by `scripts/build.ts`. */
const SQL_FOLDER = fileURLToPath(new URL('./sql', import.meta.url));

const config = readMigrateConfig(process.env);

/** `loglineos-db-migration`: bring the schema up to date, and give the logins the passwords of their secrets. */
export async function handler(): Promise<MigrationResult> {
  try {
    const connection = connectionOptions(config.database);
    const result = await migrate(connection, await loadMigrations(SQL_FOLDER));
    await grantLogins(connection, {
      loglineos_app: await readSecretField(config.loginSecretArns.loglineos_app, 'password', true),
      loglineos_seeder: await readSecretField(config.loginSecretArns.loglineos_seeder, 'password', true),
      loglineos_auditor: await readSecretField(config.loginSecretArns.loglineos_auditor, 'password', true),
    });
    return result;
  } catch (error) {
    throw loggedFunctionError(error);
  }
}
