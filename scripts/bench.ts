/**
 * `npm run bench`: what the system does beside what this machine and this database can do at all, measured in the same
 * run. Prints a table; `--json` prints one object; `--out FILE` also writes it (default dist/bench.json).
 *
 * Each pair is measured in turns (ours, theirs, ours, theirs …) and the medians are compared, because the machine may be
 * shared: an absolute number says little, the ratio of neighbours much.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { parseArgs } from 'node:util';
import { type LocalSecrets, trustedKeysOf } from '../src/local/home.ts';
import { type Figure, table } from './bench/figures.ts';
import { benchHttp } from './bench/http.ts';
import { benchImports } from './bench/imports.ts';
import { createStage0, EMPTY_KERNEL_ID, RUN_CODE_KERNEL_ID, withLedger } from './bench/installation.ts';
import { benchAppend, benchBoot, benchVerify } from './bench/ledger.ts';
import { benchStream } from './bench/stream.ts';
import { benchWork } from './bench/work.ts';

async function main(): Promise<void> {
  const { values: options } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      out: { type: 'string', default: new URL('../dist/bench.json', import.meta.url).pathname },
    },
  });
  const figures = [...(await withLedger(benchLedger)), ...(await withLedger(benchRoutes)), ...(await benchImports())];
  const report = `${JSON.stringify({ figures })}\n`;
  await mkdir(dirname(options.out), { recursive: true });
  await writeFile(options.out, report);
  process.stdout.write(options.json ? report : table(figures));
}

async function benchLedger(adminUrl: string, secrets: LocalSecrets): Promise<Figure[]> {
  const stage0 = await createStage0(adminUrl, secrets);
  try {
    return [
      await benchBoot(stage0, adminUrl, 'boot_c1', EMPTY_KERNEL_ID, 1),
      await benchBoot(stage0, adminUrl, 'boot_c8', EMPTY_KERNEL_ID, 8),
      await benchBoot(stage0, adminUrl, 'boot_run_code_c8', RUN_CODE_KERNEL_ID, 8),
      await benchAppend(stage0, adminUrl),
      ...(await benchWork(stage0, adminUrl)),
      await benchStream(stage0, adminUrl, secrets),
      await benchVerify(adminUrl, secrets),
    ];
  } finally {
    await stage0.sandbox.close();
    await stage0.database.close();
  }
}

async function benchRoutes(adminUrl: string, secrets: LocalSecrets): Promise<Figure[]> {
  const stage0 = await createStage0(adminUrl, secrets);
  try {
    return await benchHttp(stage0, trustedKeysOf(secrets));
  } finally {
    await stage0.sandbox.close();
    await stage0.database.close();
  }
}

main().catch((error) => {
  process.stderr.write(`bench failed: ${error.message}\n`);
  process.exit(1);
});
