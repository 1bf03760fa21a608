import { createHash, createHmac, pbkdf2Sync, randomBytes } from 'node:crypto';
import pg from 'pg';
import type { ConnectionOptions } from './database.ts';
import { withMigrationLock } from './migrate.ts';

export type LoginRole = 'loglineos_app' | 'loglineos_seeder' | 'loglineos_auditor';

/**
 * Let roles log in, each with its password. The server gets a SCRAM verifier and never the password, which so stays out
 * of its log (RFC 5802; Postgres manual, "pg_authid").
 */
export async function grantLogins(connection: ConnectionOptions, passwords: Record<LoginRole, string>): Promise<void> {
  await withMigrationLock(connection, async (client) => {
    for (const [role, password] of Object.entries(passwords)) {
      await client.query(
        `alter role ${pg.escapeIdentifier(role)} with login password ${pg.escapeLiteral(scramVerifier(password))}`,
      );
    }
  });
}

const SCRAM_ITERATIONS = 4096;

function scramVerifier(password: string, salt = randomBytes(16)): string {
  const salted = pbkdf2Sync(password.normalize('NFKC'), salt, SCRAM_ITERATIONS, 32, 'sha256');
  const hmac = (text: string) => createHmac('sha256', salted).update(text).digest();
  const storedKey = createHash('sha256').update(hmac('Client Key')).digest('base64');
  return `SCRAM-SHA-256$${SCRAM_ITERATIONS}:${salt.toString('base64')}$${storedKey}:${hmac('Server Key').toString('base64')}`;
}
