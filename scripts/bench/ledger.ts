import { randomBytes, randomUUID } from 'node:crypto';
import type pg from 'pg';
import { appendSpans, Database, type SpanDraft, verifyLedger } from '../../src/ledger/index.ts';
import { type LocalSecrets, loginUrl, trustedKeysOf } from '../../src/local/home.ts';
import { nodeEd25519 } from '../../src/span/ed25519-node.ts';
import { createSignerFromHex, sealSpan } from '../../src/span/index.ts';
import { appendContext, boot, type Stage0 } from '../../src/stage0/index.ts';
import { type Figure, inTurns, repeat } from './figures.ts';
import { IDENTITY, plainPool, RUN_CODE_KERNEL_ID } from './installation.ts';

const ROUND_MS = 1_500;
const BATCH_SPANS = 500;
const VERIFIED_SPANS = 20_000;

/**
 * (a) Warm boots against a loop of two committed single-row inserts: the two rows a boot leaves. The kernel of `boot_*`
 * answers its input and nothing else, so that what is measured is Stage-0; `boot_run_code_*` is run_code_kernel with its
 * own sample: a second child for the function, and a third row.
 */
export async function benchBoot(
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
  await createPlainTable(pool);
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

/** The ledger's columns and indexes, without a guard. */
async function createPlainTable(pool: pg.Pool): Promise<void> {
  await pool.query(
    'create table if not exists bench_plain (like ledger.universal_registry including defaults including identity including indexes)',
  );
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
export async function benchAppend(stage0: Stage0, adminUrl: string): Promise<Figure> {
  const pool = plainPool(adminUrl, 1);
  const appendBatch = () =>
    appendSpans(stage0.database, exampleBatch() as SpanDraft[], appendContext(stage0, IDENTITY));
  const insertBatch = async () => {
    const rows = JSON.stringify(exampleBatch());
    await pool.query({ text: PLAIN_BATCH, values: [rows] });
  };
  await createPlainTable(pool);
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

function exampleBatch() {
  return Array.from({ length: BATCH_SPANS }, exampleSpan);
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
export async function benchVerify(stage0: Stage0, adminUrl: string, secrets: LocalSecrets): Promise<Figure> {
  for (let spans = 0; spans < VERIFIED_SPANS; spans += BATCH_SPANS)
    await appendSpans(stage0.database, exampleBatch() as SpanDraft[], appendContext(stage0, IDENTITY));
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
