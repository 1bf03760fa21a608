import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type pg from 'pg';
import { expect } from 'vitest';
import type { LogLineError } from '../../src/errors.ts';
import { Sandbox, type SandboxOptions } from '../../src/kernel/index.ts';
import { appendSpans, type Database, type Identity, type SpanDraft } from '../../src/ledger/index.ts';
import { readRowFiles, type SeedResult, seed } from '../../src/seed/index.ts';
import { nodeEd25519 } from '../../src/span/ed25519-node.ts';
import { createSigner, type SealedSpan, type StoredSpan } from '../../src/span/index.ts';
import {
  type BootAnswer,
  boot,
  GovernanceVerifier,
  invokeStage0,
  MANIFEST_ID,
  type Stage0,
} from '../../src/stage0/index.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { rootSigner, runtimeSigner, trustedKeys } from '../support/keys.ts';
import { ALICE } from '../support/spans.ts';

export const RUN_CODE = '00000000-0000-4000-8000-000000000001';
/** `kernels/probe.js`: a kernel of the tests' own. */
export const PROBE = '00000000-0000-4000-8000-00000000f001';
export const PLAN_PAYLOAD = { boot_function_id: RUN_CODE, user_id: 'test', tenant_id: 'system' };
export const overrideSigner = createSigner(nodeEd25519, new Uint8Array(32).fill(4));

const ROW = new URL('../../ROW', import.meta.url).pathname;
const KERNELS = new URL('./kernels', import.meta.url).pathname;

// biome-ignore lint/suspicious/noExplicitAny: JSON that a test looks into, or is about to change to something wrong
export type AnyJson = any;
export interface ExtraKernel {
  id: string;
  name: string;
  code: string;
  status?: string;
  is_deleted?: boolean;
}

/** A seeded ledger of a test's own, with the Stage-0 of one container over it. */
export class Installation {
  readonly ledger: TestDatabase;
  readonly sandbox: Sandbox;
  readonly admin: pg.Client;
  readonly logged: Record<string, unknown>[] = [];
  readonly #rows: string;
  readonly #seeder: Database;
  readonly #database: Database;
  readonly #ownsSandbox: boolean;
  #stage0: Stage0;

  private constructor(ledger: TestDatabase, admin: pg.Client, rows: string, sandbox: Sandbox, ownsSandbox: boolean) {
    this.ledger = ledger;
    this.admin = admin;
    this.#rows = rows;
    this.sandbox = sandbox;
    this.#ownsSandbox = ownsSandbox;
    this.#seeder = ledger.open('loglineos_seeder', { connectionsMax: 1 });
    this.#database = ledger.open('loglineos_app', { connectionsMax: 20 });
    this.#stage0 = this.container();
  }

  /** `sandbox`: one that is shared with other installations; its owner closes it. */
  static async create(sandbox?: Sandbox | Partial<SandboxOptions>): Promise<Installation> {
    const ledger = await createTestDatabase();
    const rows = await mkdtemp(join(tmpdir(), 'loglineos-rows-'));
    await cp(ROW, rows, { recursive: true });
    const shared = sandbox instanceof Sandbox;
    return new Installation(
      ledger,
      await ledger.connect('admin'),
      rows,
      shared ? sandbox : new Sandbox(sandbox),
      !shared,
    );
  }

  /** Stage-0 as another container has it: nothing is warm. */
  container(more: Partial<Stage0> = {}): Stage0 {
    return {
      database: this.#database,
      sandbox: this.sandbox,
      signer: runtimeSigner,
      scheme: nodeEd25519,
      verifier: new GovernanceVerifier(trustedKeys, nodeEd25519),
      admissions: new Map(),
      tenantMasterKey: new Uint8Array(32).fill(5),
      providerSecrets: async () => null,
      now: () => new Date(),
      log: (entry) => this.logged.push(entry),
      ...more,
    };
  }

  get stage0(): Stage0 {
    return this.#stage0;
  }

  /** Seed `ROW/`, the probe and more kernels, under a manifest that a test may change. */
  async seed(changeManifest: (content: AnyJson) => void = () => {}, kernels: ExtraKernel[] = []): Promise<SeedResult> {
    const probe = { id: PROBE, name: 'probe', code: await readFile(join(KERNELS, 'probe.js'), 'utf8') };
    const lines = [(await readFile(join(ROW, 'kernels/01-kernels.ndjson'), 'utf8')).trimEnd()];
    const manifest = JSON.parse(await readFile(join(ROW, 'manifest/03-manifest.ndjson'), 'utf8'));
    for (const { code, ...kernel } of [probe, ...kernels]) {
      await writeFile(join(this.#rows, 'kernels', `${kernel.name}.js`), code);
      const row = { entity_type: 'function', runtime: 'kernel', status: 'active', visibility: 'public', ...kernel };
      lines.push(JSON.stringify({ ...row, code_file: `${kernel.name}.js` }));
      manifest.content.kernels[kernel.name] = kernel.id;
      manifest.content.allowed_boot_ids.push(kernel.id);
    }
    changeManifest(manifest.content);
    await writeFile(join(this.#rows, 'kernels/01-kernels.ndjson'), lines.join('\n'));
    await writeFile(join(this.#rows, 'manifest/03-manifest.ndjson'), JSON.stringify(manifest));
    const drafts = await readRowFiles(this.#rows, { overridePublicKey: overrideSigner.publicKey });
    return seed(this.#seeder, drafts, rootSigner, () => new Date());
  }

  /** Boot as `aws lambda invoke` does, but with the answer also of a boot that did not end well. */
  boot(id: string, input: unknown = null, identity: Identity = ALICE, more: object = {}): Promise<BootAnswer> {
    return boot(this.stage0, { boot_function_id: id, identity, input, ...more });
  }

  runCode(input: unknown, identity: Identity = ALICE, more: object = {}): Promise<BootAnswer> {
    return this.boot(RUN_CODE, input, identity, more);
  }

  /** The answer of a probe that succeeded. */
  async probe(input: object, identity: Identity = ALICE): Promise<AnyJson> {
    const answer = await this.boot(PROBE, input, identity);
    expect(answer).toMatchObject({ ok: true, status: 'complete', error: null });
    return answer.output;
  }

  /** What the execution of a probe says, that failed. */
  async failedProbe(input: object, identity: Identity = ALICE): Promise<AnyJson> {
    const answer = await this.boot(PROBE, input, identity);
    expect(answer).toMatchObject({ ok: false, output: null });
    return (await this.span(answer.execution_id)).error;
  }

  invoke(event: unknown): Promise<BootAnswer> {
    return invokeStage0(this.stage0, event);
  }

  /** A function of a tenant. */
  async appendFunction(code: string, more: Partial<SpanDraft> = {}, identity: Identity = ALICE) {
    const draft: SpanDraft = { entity_type: 'function', name: 'a function', status: 'active', code, ...more };
    const [appended] = await appendSpans(this.#database, [draft], {
      identity,
      signer: runtimeSigner,
      now: () => new Date(),
    });
    return appended as { id: string; seq: number; curr_hash: string };
  }

  /** Rows as the administrator sees them: all of them. */
  async spans(where: string, values: unknown[] = []): Promise<AnyJson[]> {
    const text = `select * from ledger.universal_registry where ${where} order by tx_id, position`;
    return (await this.admin.query(text, values)).rows;
  }

  async span(id: string): Promise<AnyJson> {
    const rows = await this.spans('id = $1', [id]);
    expect(rows, `versions of span ${id}`).toHaveLength(1);
    return rows[0];
  }

  /** Of all rows but those that say, after the answer and beside it, that somebody was denied access. */
  async count(): Promise<number> {
    const text = "select count(*)::int as n from ledger.universal_registry where entity_type <> 'access_denied'";
    return (await this.admin.query(text)).rows[0].n;
  }

  /** Function executions that the tenant's counter says it has used, over all days. */
  async usage(tenantId: string): Promise<number> {
    const text = 'select coalesce(sum(executions), 0)::int as n from ledger.daily_usage where tenant_id = $1';
    return (await this.admin.query(text, [tenantId])).rows[0].n;
  }

  /** What a superuser can do who switches the triggers off: anything. */
  async tamper(text: string, values: unknown[] = []): Promise<void> {
    const triggers = ['refuse_update_delete', 'refuse_truncate', 'check_appended'];
    const alter = (how: string) =>
      triggers.map((name) => `alter table ledger.universal_registry ${how} trigger ${name};`).join('');
    await this.admin.query(`begin; ${alter('disable')}`);
    try {
      const { rowCount } = await this.admin.query(text, values);
      expect(rowCount, text).toBe(1);
      await this.admin.query(`${alter('enable always')} commit`);
    } catch (error) {
      await this.admin.query('rollback');
      throw error;
    }
  }

  /** A sealed row put in by the app, for whatever identity it claims. */
  async append({ userId, tenantId }: Identity, span: SealedSpan): Promise<void> {
    await this.#database.query({
      text: 'select ledger.append($1, $2, $3)',
      values: [userId, tenantId, JSON.stringify([span])],
    });
  }

  /** A row put in by a superuser, past every role and policy. */
  async insert(span: SealedSpan): Promise<void> {
    const row = JSON.stringify([span]);
    const columns = Object.keys(span)
      .map((name) => `"${name}"`)
      .join(', ');
    const text = `insert into ledger.universal_registry (${columns})
      select ${columns} from jsonb_populate_recordset(null::ledger.universal_registry, $1)`;
    await this.tamper(text, [row]);
  }

  /** The version in force of a seeded row, as it was sealed. */
  async sealed(id: string): Promise<SealedSpan> {
    const { rows } = await this.admin.query(
      `select to_jsonb(r) - 'position' - 'tx_id' as span, to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as at
         from ledger.universal_registry r where id = $1 order by seq desc limit 1`,
      [id],
    );
    const { span, at } = rows[0] as { span: StoredSpan; at: string };
    return { ...Object.fromEntries(Object.entries(span).filter(([, value]) => value !== null)), at } as SealedSpan;
  }

  manifest(): Promise<SealedSpan> {
    return this.sealed(MANIFEST_ID);
  }

  async close(): Promise<void> {
    if (this.#ownsSandbox) await this.sandbox.close();
    await this.ledger.close();
    await rm(this.#rows, { recursive: true, force: true });
  }
}

/**
 * A refusal: an error of this class and code, after which the ledger holds no row more and the tenant has used nothing.
 */
export async function expectRefusal(
  installation: Installation,
  attempt: () => Promise<unknown>,
  // biome-ignore lint/suspicious/noExplicitAny: constructors of any error class
  errorClass: abstract new (...args: any[]) => LogLineError,
  code: string,
): Promise<LogLineError> {
  const before = [await installation.count(), await installation.usage(ALICE.tenantId)];
  const error = await attempt().then(
    (answer) => expect.fail(`expected ${code}, but it answered ${JSON.stringify(answer)}`),
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(errorClass);
  expect(error).toMatchObject({ code });
  expect(
    [await installation.count(), await installation.usage(ALICE.tenantId)],
    'rows and usage after a refusal',
  ).toEqual(before);
  return error as LogLineError;
}
