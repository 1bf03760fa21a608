/**
 * `npm run bench`: what the system does beside what this machine and this database can do at all, measured in the same
 * run. Prints a table; `--json` prints one object; `--out FILE` also writes it (default dist/bench.json).
 *
 * Each pair is measured in turns (ours, theirs, ours, theirs …) and the medians are compared, because the machine may be
 * shared: an absolute number says little, the ratio of neighbours much.
 */
import { spawnSync } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import pg from 'pg';
import { Sandbox } from '../src/kernel/index.ts';
import {
  type AppendContext,
  appendSpans,
  Database,
  grantLogins,
  loadMigrations,
  migrate,
  type SpanDraft,
  verifyLedger,
} from '../src/ledger/index.ts';
import { startEmbeddedPostgres } from '../src/local/embedded-postgres.ts';
import { type LocalSecrets, openSecrets, trustedKeysOf } from '../src/local/home.ts';
import { loginUrl, ROW_FOLDER, SQL_FOLDER } from '../src/local/stack.ts';
import { readRowFiles, seed } from '../src/seed/index.ts';
import { nodeEd25519 } from '../src/span/ed25519-node.ts';
import { createSignerFromHex, type Json, sealSpan } from '../src/span/index.ts';
import { boot, GovernanceVerifier, MANIFEST_ID, type Stage0 } from '../src/stage0/index.ts';
import { buildAll, FUNCTIONS } from './build.ts';

interface Figure {
  name: string;
  value: number;
  unit: string;
  /** What the limit of the same run was, in the same unit. */
  limit: number;
  /** value / limit. For import times smaller is better, for the rest larger. */
  ratio: number;
}

const RUN_CODE_KERNEL_ID = '00000000-0000-4000-8000-000000000001';
const EMPTY_KERNEL_ID = '00000000-0000-4000-8000-00000000be00';
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
const IDENTITY = { userId: 'bench', tenantId: 'bench' };
const ROUNDS = 5;
const ROUND_MS = 1_500;
const BATCH_SPANS = 500;
const IMPORT_RUNS = 15;

async function main(): Promise<void> {
  const { values: options } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      out: { type: 'string', default: new URL('../dist/bench.json', import.meta.url).pathname },
    },
  });
  const figures = [...(await withLedger(benchLedger)), ...(await benchImports())];
  const report = `${JSON.stringify({ figures })}\n`;
  await mkdir(dirname(options.out), { recursive: true });
  await writeFile(options.out, report);
  process.stdout.write(options.json ? report : table(figures));
}

/** A fresh ledger on a Postgres of its own, gone afterwards. */
async function withLedger<T>(run: (adminUrl: string, secrets: LocalSecrets) => Promise<T>): Promise<T> {
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

async function benchLedger(adminUrl: string, secrets: LocalSecrets): Promise<Figure[]> {
  const stage0 = await createStage0(adminUrl, secrets);
  try {
    return [
      await benchBoot(stage0, adminUrl, 'boot_c1', EMPTY_KERNEL_ID, 1),
      await benchBoot(stage0, adminUrl, 'boot_c8', EMPTY_KERNEL_ID, 8),
      await benchBoot(stage0, adminUrl, 'boot_run_code_c8', RUN_CODE_KERNEL_ID, 8),
      await benchAppend(stage0, adminUrl),
      await benchVerify(adminUrl, secrets),
    ];
  } finally {
    await stage0.sandbox.close();
    await stage0.database.close();
  }
}

type ManifestJson = { allowed_boot_ids: string[]; throttle: { tenants: Json } };

/** Stage-0 on a fresh ledger, whose manifest lets the bench's tenant run as often as it likes. */
async function createStage0(adminUrl: string, secrets: LocalSecrets): Promise<Stage0> {
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
    sandbox: new Sandbox(),
    signer: createSignerFromHex(nodeEd25519, secrets.runtime_key),
    scheme: nodeEd25519,
    verifier: new GovernanceVerifier(trustedKeysOf(secrets), nodeEd25519),
    admissions: new Map(),
    tenantMasterKey: Buffer.from(secrets.tenant_master_key, 'hex'),
    now: () => new Date(),
    log: () => {},
  };
}

/**
 * (a) Warm boots against a loop of two committed single-row inserts: the two rows a boot leaves. The kernel of `boot_*`
 * answers its input and nothing else, so that what is measured is Stage-0; `boot_run_code_*` is run_code_kernel with its
 * own sample: a second child for the function, and a third row.
 */
async function benchBoot(
  stage0: Stage0,
  adminUrl: string,
  name: string,
  kernelId: string,
  parallel: number,
): Promise<Figure> {
  const bootOnce = async () => {
    const answer = await boot(stage0, { boot_function_id: kernelId, identity: IDENTITY, input: null });
    if (!answer.ok) throw new Error(`a boot failed: ${JSON.stringify(answer.error)}`);
  };
  const pool = plainPool(adminUrl, parallel);
  await pool.query(
    'create table if not exists bench_plain (like ledger.universal_registry including defaults including identity including indexes)',
  );
  const twoInserts = async () => {
    await insertPlain(pool);
    await insertPlain(pool);
  };
  await repeat(bootOnce, parallel, ROUND_MS); // warm
  await repeat(twoInserts, parallel, ROUND_MS / 3);
  const [ours, theirs] = await inTurns(
    () => repeat(bootOnce, parallel, ROUND_MS),
    () => repeat(twoInserts, parallel, ROUND_MS),
  );
  await pool.end();
  return { name, value: ours, unit: 'boots/s', limit: theirs, ratio: ours / theirs };
}

/** The limit's own connections: an administrator's, bound by no row security. */
function plainPool(adminUrl: string, max: number): pg.Pool {
  const pool = new pg.Pool({ connectionString: adminUrl, max });
  pool.on('error', () => {}); // the server stops when a measurement failed; the failure itself is what to report
  return pool;
}

/** A row of an execution's size, as plainly as pg can: one INSERT with parameters, committed. */
async function insertPlain(pool: pg.Pool): Promise<void> {
  const span = {
    ...exampleSpan(),
    curr_hash: PLACEHOLDER,
    signature: PLACEHOLDER + PLACEHOLDER,
    public_key: PLACEHOLDER,
  };
  const columns = Object.keys(span);
  await pool.query({
    text: `insert into bench_plain (${columns.map((name) => `"${name}"`)}) values (${columns.map((_, i) => `$${i + 1}`)})`,
    values: Object.values(span).map((value) => (typeof value === 'object' ? JSON.stringify(value) : value)),
  });
}

/** (b) Batches of signed spans through append, against the same rows, unsigned, into the same columns without a guard. */
async function benchAppend(stage0: Stage0, adminUrl: string): Promise<Figure> {
  const context: AppendContext = { identity: IDENTITY, signer: stage0.signer, now: stage0.now };
  const pool = plainPool(adminUrl, 1);
  const batch = () => Array.from({ length: BATCH_SPANS }, exampleSpan);
  const appendBatch = () => appendSpans(stage0.database, batch() as SpanDraft[], context);
  const insertBatch = async () => {
    const rows = JSON.stringify(batch());
    await pool.query({ text: PLAIN_BATCH, values: [rows] });
  };
  await pool.query(
    'alter table bench_plain alter curr_hash drop not null, alter signature drop not null, alter public_key drop not null',
  );
  await repeat(appendBatch, 1, ROUND_MS);
  await repeat(insertBatch, 1, ROUND_MS);
  const [ours, theirs] = await inTurns(
    () => repeat(appendBatch, 1, ROUND_MS),
    () => repeat(insertBatch, 1, ROUND_MS),
  );
  await pool.end();
  const value = ours * BATCH_SPANS;
  const limit = theirs * BATCH_SPANS;
  return { name: 'append_batch', value, unit: 'spans/s', limit, ratio: value / limit };
}

const PLACEHOLDER = 'ab'.repeat(32);
const EXAMPLE_COLUMNS = Object.keys(exampleSpan())
  .map((name) => `"${name}"`)
  .join(', ');
const PLAIN_BATCH = `insert into bench_plain (${EXAMPLE_COLUMNS})
  select ${EXAMPLE_COLUMNS} from jsonb_populate_recordset(null::bench_plain, $1::jsonb)`;

function exampleSpan() {
  const at = new Date().toISOString();
  return {
    id: randomUUID(),
    seq: 0,
    entity_type: 'execution',
    who: 'stage0',
    did: 'ran_kernel',
    this: `function:${RUN_CODE_KERNEL_ID}`,
    at,
    parent_id: RUN_CODE_KERNEL_ID,
    caused_by: randomUUID(),
    owner_id: IDENTITY.userId,
    tenant_id: IDENTITY.tenantId,
    visibility: 'private',
    status: 'complete',
    name: 'run_code_kernel',
    input: { a: 19, b: 23 },
    output: { execution_id: randomUUID(), status: 'complete', result: 42 },
    duration_ms: 3,
    started_at: at,
    finished_at: at,
    trace_id: randomBytes(16).toString('hex'),
    metadata: { kernel_hash: PLACEHOLDER, manifest_hash: PLACEHOLDER, kernel_seq: 0, manifest_seq: 0 },
  };
}

/** (c) Rows verified per second, against the Ed25519 checks alone that the same core makes. */
async function benchVerify(adminUrl: string, secrets: LocalSecrets): Promise<Figure> {
  const database = new Database({
    url: loginUrl(adminUrl, 'loglineos_auditor', secrets),
    applicationName: 'bench-verify',
  });
  const started = performance.now();
  const { ok, checked } = await verifyLedger(database, trustedKeysOf(secrets), nodeEd25519);
  const value = checked / ((performance.now() - started) / 1000);
  await database.close();
  if (!ok) throw new Error('the bench wrote a ledger that does not verify');

  const signer = createSignerFromHex(nodeEd25519, secrets.runtime_key);
  const sealed = sealSpan({ ...exampleSpan(), visibility: 'private' }, signer);
  const bytes = (hex: string) => Buffer.from(hex, 'hex');
  const [signature, hash, key] = [bytes(sealed.signature), bytes(sealed.curr_hash), bytes(sealed.public_key)];
  let checks = 0;
  const alone = performance.now();
  while (performance.now() - alone < ROUND_MS) {
    nodeEd25519.verify(signature, hash, key);
    checks++;
  }
  const limit = checks / ((performance.now() - alone) / 1000);
  return { name: 'verify', value, unit: 'spans/s', limit, ratio: value / limit };
}

/** (d) What loading each bundle adds to starting Node. */
async function benchImports(): Promise<Figure[]> {
  await buildAll();
  const arn = 'arn:aws:secretsmanager:eu-west-1:000000000000:secret:bench';
  const env = {
    DATABASE_HOST: 'localhost',
    DATABASE_NAME: 'bench',
    DATABASE_USER: 'bench',
    ...Object.fromEntries(
      ['DATABASE', 'RUNTIME', 'ROOT', 'APP_LOGIN', 'SEEDER_LOGIN', 'AUDITOR_LOGIN'].map((name) => [
        `${name}_SECRET_ARN`,
        arn,
      ]),
    ),
    TRUSTED_ROOT_KEYS: PLACEHOLDER,
    TRUSTED_RUNTIME_KEYS: PLACEHOLDER,
  };
  const start = (args: string[]) => {
    const started = performance.now();
    const { status, stderr } = spawnSync(process.execPath, args, { env, encoding: 'utf8' });
    if (status !== 0) throw new Error(`node ${args.join(' ')}: ${stderr}`);
    return performance.now() - started;
  };
  const measured: Figure[] = [];
  for (const { name } of FUNCTIONS) {
    const bundle = new URL(`../dist/${name}/index.mjs`, import.meta.url).pathname;
    const [value, limit] = await inTurns(
      async () => start([bundle]),
      async () => start(['-e', '0']),
      IMPORT_RUNS,
    );
    measured.push({ name: `import_${name}`, value, unit: 'ms', limit, ratio: value / limit });
  }
  return measured;
}

/** How often a second something ends, with `parallel` of it under way for `ms`. */
async function repeat(run: () => Promise<unknown>, parallel: number, ms: number): Promise<number> {
  let ended = 0;
  const started = performance.now();
  const loop = async () => {
    while (performance.now() - started < ms) {
      await run();
      ended++;
    }
  };
  await Promise.all(Array.from({ length: parallel }, loop));
  return ended / ((performance.now() - started) / 1000);
}

/** Medians of two measurements made in turns. */
async function inTurns(
  ours: () => Promise<number>,
  theirs: () => Promise<number>,
  rounds = ROUNDS,
): Promise<[number, number]> {
  const measured: [number[], number[]] = [[], []];
  for (let round = 0; round < rounds; round++) {
    measured[0].push(await ours());
    measured[1].push(await theirs());
  }
  const median = (numbers: number[]) => numbers.sort((a, b) => a - b)[Math.floor(numbers.length / 2)] as number;
  return [median(measured[0]), median(measured[1])];
}

function table(figures: Figure[]): string {
  const row = (name: string, value: string, limit: string, unit: string, ratio: string) =>
    `${name.padEnd(32)}${value.padStart(10)}${limit.padStart(10)}  ${unit.padEnd(9)}${ratio.padStart(6)}\n`;
  const number = (value: number) => value.toFixed(value < 1000 ? 1 : 0);
  return (
    row('figure', 'value', 'limit', 'unit', 'ratio') +
    figures
      .map(({ name, value, limit, unit, ratio }) => row(name, number(value), number(limit), unit, ratio.toFixed(2)))
      .join('')
  );
}

main().catch((error) => {
  process.stderr.write(`bench failed: ${error.message}\n`);
  process.exit(1);
});
