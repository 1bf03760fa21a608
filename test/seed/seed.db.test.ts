import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Database, readVersions, verifyLedger } from '../../src/ledger/index.ts';
import { readRowFiles, seed } from '../../src/seed/index.ts';
import { nodeEd25519 } from '../../src/span/ed25519-node.ts';
import { checkChain, type KeyEnds, type Signer, SYSTEM_ID, type TrustedKeys } from '../../src/span/index.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { rootSigner, strangerSigner, trustedKeys } from '../support/keys.ts';
import { ALICE, NOW } from '../support/spans.ts';
import { createRowFolder, KERNELS, kernelRow, MANIFEST, manifestRow, type RowFolder } from './row-folder.ts';

const SYSTEM = { userId: SYSTEM_ID, tenantId: SYSTEM_ID };
const KERNEL_ID = kernelRow().id as string;
const trustsBothRoots: TrustedKeys = {
  root: new Map([rootSigner, strangerSigner].map(({ publicKey }) => [publicKey, Infinity])),
  runtime: new Map(),
};

let testDatabase: TestDatabase;
let seeder: Database;
let folder: RowFolder;

beforeEach(async () => {
  testDatabase = await createTestDatabase();
  seeder = testDatabase.open('loglineos_seeder');
  folder = await createRowFolder();
  await folder.write('kernels/run_code.js', 'return 1;\n');
  await folder.writeRows(KERNELS, [kernelRow()]);
  await folder.writeRows(MANIFEST, [manifestRow()]);
});
afterEach(async () => {
  await folder.remove();
  await testDatabase.close();
});

async function seedFolder(signer: Signer = rootSigner, database = seeder, rootKeys?: KeyEnds): Promise<string> {
  const rows = await readRowFiles(folder.path, { overridePublicKey: null });
  const { appended, unchanged } = await seed(database, rows, signer, () => new Date(NOW), rootKeys);
  return [...appended.map(({ name, seq }) => `${name} ${seq}`), `${unchanged} unchanged`].join(', ');
}

async function countRows(): Promise<number> {
  const [row] = await testDatabase
    .open('admin')
    .query<{ n: number }>({ text: 'select count(*)::int as n from ledger.universal_registry' });
  return row?.n as number;
}

describe('seeding', () => {
  it('appends every row, signed by the root key, readable by every tenant', async () => {
    expect(await seedFolder()).toBe('run_code_kernel 0, kernel_manifest 0, 0 unchanged');
    const [kernel] = await readVersions(testDatabase.open('loglineos_app'), ALICE, KERNEL_ID);
    expect(kernel).toMatchObject({
      code: 'return 1;\n',
      public_key: rootSigner.publicKey,
      at: NOW,
      who: 'seed',
      owner_id: SYSTEM_ID,
    });
    const report = await verifyLedger(testDatabase.open('loglineos_auditor'), trustsBothRoots, nodeEd25519);
    expect(report).toEqual({ ok: true, checked: 2, problems: [] });
  });

  it('again appends nothing', async () => {
    await seedFolder();
    expect(await seedFolder()).toBe('2 unchanged');
    expect(await countRows()).toBe(2);
  });

  it('appends the next version of what changed, in code or row, and of nothing else', async () => {
    await seedFolder();
    await folder.write('kernels/run_code.js', 'return 1; \n');
    expect(await seedFolder()).toBe('run_code_kernel 1, 1 unchanged');
    await folder.writeRows(MANIFEST, [manifestRow({ allowed_boot_ids: [KERNEL_ID] })]);
    expect(await seedFolder()).toBe('kernel_manifest 1, 1 unchanged');
    await folder.write('kernels/run_code.js', 'return 1;\n');
    expect(await seedFolder()).toBe('run_code_kernel 2, 1 unchanged');
    const versions = await readVersions(seeder, SYSTEM, KERNEL_ID);
    expect(versions.map(({ code }) => code)).toEqual(['return 1;\n', 'return 1; \n', 'return 1;\n']);
    expect(versions.map((version, i) => checkChain(version, versions[i - 1]))).toEqual([null, null, null]);
  });

  it('takes a column away that left the row', async () => {
    await folder.writeRows(KERNELS, [kernelRow({ description: 'for now' })]);
    await seedFolder();
    await folder.writeRows(KERNELS, [kernelRow()]);
    expect(await seedFolder()).toBe('run_code_kernel 1, 1 unchanged');
    expect((await readVersions(seeder, SYSTEM, KERNEL_ID)).at(-1)?.description).toBeUndefined();
  });

  it('does not mind the order of keys, or a column that is null', async () => {
    await seedFolder();
    const reversed = Object.fromEntries(Object.entries(kernelRow({ model: null })).reverse());
    await folder.writeRows(KERNELS, [reversed]);
    expect(await seedFolder()).toBe('2 unchanged');
  });

  it('leaves a row that was taken out of the files in history', async () => {
    await seedFolder();
    await folder.writeRows(KERNELS, []);
    expect(await seedFolder()).toBe('1 unchanged');
    expect(await readVersions(seeder, SYSTEM, KERNEL_ID)).toHaveLength(1);
  });

  it('with another root key than the ledger has is refused, and writes nothing', async () => {
    await seedFolder();
    const before = await countRows();
    await expect(seedFolder(strangerSigner)).rejects.toMatchObject({ kind: 'governance', code: 'ROOT_KEY_DIFFERS' });
    expect(await countRows()).toBe(before);
    expect(await seedFolder()).toBe('2 unchanged');
  });

  it('with the next root key signs anew what a former one signed, once', async () => {
    await seedFolder();
    const formerEnd = await countRows();
    const rotated = new Map([
      [strangerSigner.publicKey, Infinity],
      [rootSigner.publicKey, formerEnd],
    ]);
    expect(await seedFolder(strangerSigner, seeder, rotated)).toBe('run_code_kernel 1, kernel_manifest 1, 0 unchanged');
    expect(await seedFolder(strangerSigner, seeder, rotated)).toBe('2 unchanged');
    const versions = await readVersions(seeder, SYSTEM, KERNEL_ID);
    expect(versions.map(({ public_key }) => public_key)).toEqual([rootSigner.publicKey, strangerSigner.publicKey]);
    expect(versions.map(({ code }) => code)).toEqual(['return 1;\n', 'return 1;\n']);
    const keys = { root: rotated, runtime: new Map() };
    const auditor = testDatabase.open('loglineos_auditor');
    expect(await verifyLedger(auditor, keys, nodeEd25519)).toMatchObject({ ok: true, checked: 4 });

    // Whoever kept the former key signs once more: it is a version, and the next start takes its place.
    await folder.write('kernels/run_code.js', 'return "forged";\n');
    expect(await seedFolder(rootSigner, seeder, rotated)).toBe('run_code_kernel 2, kernel_manifest 2, 0 unchanged');
    expect((await verifyLedger(auditor, keys, nodeEd25519)).problems.map((problem) => problem.class)).toEqual([
      'key',
      'key',
    ]);
    await folder.write('kernels/run_code.js', 'return 1;\n');
    expect(await seedFolder(strangerSigner, seeder, rotated)).toBe('run_code_kernel 3, kernel_manifest 3, 0 unchanged');
  });

  it('writes nothing of a set with one bad line', async () => {
    await folder.writeRows(KERNELS, [
      kernelRow(),
      kernelRow({ id: '00000000-0000-4000-8000-000000000002', priority: 'high' }),
    ]);
    await expect(seedFolder()).rejects.toMatchObject({ code: 'ROW_INVALID', field: `ROW/${KERNELS}:2` });
    expect(await countRows()).toBe(0);
  });

  it('writes nothing of a set that the database refuses in part', async () => {
    await seedFolder();
    await folder.writeRows(KERNELS, [
      kernelRow({ visibility: 'private' }),
      kernelRow({ id: '00000000-0000-4000-8000-000000000002', name: 'new' }),
    ]);
    await expect(seedFolder()).rejects.toMatchObject({ kind: 'access' });
    expect(await countRows()).toBe(2);
  });

  it('is refused to a login that may not publish', async () => {
    await expect(seedFolder(rootSigner, testDatabase.open('loglineos_app'))).rejects.toMatchObject({ kind: 'access' });
    expect(await countRows()).toBe(0);
  });

  it('at the same time by six seeders leaves one version of each row', async () => {
    const seeders = Array.from({ length: 6 }, () => testDatabase.open('loglineos_seeder', { connectionsMax: 1 }));
    const told = await Promise.all(seeders.map((database) => seedFolder(rootSigner, database)));
    expect(told.filter((line) => line === '2 unchanged')).toHaveLength(5);
    expect(await countRows()).toBe(2);
    await folder.write('kernels/run_code.js', 'return 2;\n');
    await Promise.all(seeders.map((database) => seedFolder(rootSigner, database)));
    expect((await readVersions(seeder, SYSTEM, KERNEL_ID)).map(({ seq }) => seq)).toEqual([0, 1]);
    expect(await verifyLedger(testDatabase.open('loglineos_auditor'), trustedKeys, nodeEd25519)).toMatchObject({
      ok: true,
      checked: 3,
    });
  });
});
