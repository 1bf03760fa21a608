import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { Sandbox } from '../../src/kernel/index.ts';
import { Database, grantLogins, loadMigrations, migrate, type SpanDraft } from '../../src/ledger/index.ts';
import { startEmbeddedPostgres } from '../../src/local/embedded-postgres.ts';
import { type LocalSecrets, loginUrl, openSecrets, trustedKeysOf } from '../../src/local/home.ts';
import { BOOTS_MAX, ROW_FOLDER, SQL_FOLDER } from '../../src/local/stack.ts';
import { readRowFiles, seed } from '../../src/seed/index.ts';
import { loadBlake3 } from '../../src/span/blake3-wasm.ts';
import { nodeEd25519 } from '../../src/span/ed25519-node.ts';
import { createSignerFromHex, type Json, useBlake3 } from '../../src/span/index.ts';
import { GovernanceVerifier, MANIFEST_ID, type Stage0 } from '../../src/stage0/index.ts';

export const RUN_CODE_KERNEL_ID = '00000000-0000-4000-8000-000000000001';
export const EMPTY_KERNEL_ID = '00000000-0000-4000-8000-00000000be00';
const EMPTY_KERNEL: SpanDraft = {
  id: EMPTY_KERNEL_ID,
  entity_type: 'function',
  name: 'empty_kernel',
  who: 'bench',
  owner_id: 'system',
  tenant_id: 'system',
  visibility: 'public',
  status: 'active',
  code: 'export default async function main(ctx) {\n  return ctx.input;\n}\n',
};
export const IDENTITY = { userId: 'bench', tenantId: 'bench' };

/** A fresh ledger on a Postgres of its own, gone afterwards. */
export async function withLedger<T>(run: (adminUrl: string, secrets: LocalSecrets) => Promise<T>): Promise<T> {
  const home = await mkdtemp(join(tmpdir(), 'loglineos-bench-'));
  const secrets = await openSecrets(home);
  const postgres = await startEmbeddedPostgres(home, secrets.passwords.admin);
  try {
    const connection = { url: postgres.url };
    await migrate(connection, await loadMigrations(SQL_FOLDER));
    const { admin: _admin, ...passwords } = secrets.passwords;
    await grantLogins(connection, passwords);
    return await run(postgres.url, secrets);
  } finally {
    await postgres.stop();
    await rm(home, { recursive: true, force: true });
  }
}

type ManifestJson = { allowed_boot_ids: string[]; throttle: { tenants: Json } };

/** Stage-0 on a fresh ledger, whose manifest lets the bench's tenant run as often as it likes. */
export async function createStage0(adminUrl: string, secrets: LocalSecrets): Promise<Stage0> {
  useBlake3(await loadBlake3());
  const rows = await readRowFiles(ROW_FOLDER, { overridePublicKey: null });
  const manifest = rows.find((row) => row.id === MANIFEST_ID) as { content: ManifestJson } & SpanDraft;
  manifest.content.allowed_boot_ids.push(EMPTY_KERNEL_ID);
  manifest.content.throttle.tenants = { bench: { per_tenant_daily_exec_limit: 1_000_000_000 } };
  rows.push(EMPTY_KERNEL);
  const seeder = new Database({ url: loginUrl(adminUrl, 'loglineos_seeder', secrets), applicationName: 'bench-seed' });
  await seed(seeder, rows, createSignerFromHex(nodeEd25519, secrets.root_key), () => new Date());
  await seeder.close();
  return {
    database: new Database({
      url: loginUrl(adminUrl, 'loglineos_app', secrets),
      applicationName: 'bench',
      connectionsMax: 20,
    }),
    sandbox: new Sandbox({ maxChildren: BOOTS_MAX }),
    signer: createSignerFromHex(nodeEd25519, secrets.runtime_key),
    scheme: nodeEd25519,
    verifier: new GovernanceVerifier(trustedKeysOf(secrets), nodeEd25519),
    admissions: new Map(),
    tenantMasterKey: Buffer.from(secrets.tenant_master_key, 'hex'),
    providerSecrets: async () => null,
    now: () => new Date(),
    log: () => {},
  };
}

/** The limit's own connections: an administrator's, bound by no row security. */
export function plainPool(adminUrl: string, max: number): pg.Pool {
  const pool = new pg.Pool({ connectionString: adminUrl, max });
  pool.on('error', () => {}); // the server stops when a measurement failed; the failure itself is what to report
  return pool;
}
