/**
 * `npm run bench`: what the system does beside what this machine and this database can do at all, measured in the same
 * run. Prints a table; `--json` prints one object; `--out FILE` also writes it (default dist/bench.json). Names of sections
 * (`boot append work stream verify http imports`) measure those alone.
 *
 * Each pair is measured in turns (ours, theirs, ours, theirs …) and the medians are compared, because the machine may be
 * shared: an absolute number says little, the ratio of neighbours much.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { parseArgs } from 'node:util';
import { type LocalSecrets, trustedKeysOf } from '../src/local/home.ts';
import type { Stage0 } from '../src/stage0/index.ts';
import { type Figure, HEADINGS, line } from './bench/figures.ts';
import { benchHttp } from './bench/http.ts';
import { benchImports } from './bench/imports.ts';
import { createStage0, EMPTY_KERNEL_ID, RUN_CODE_KERNEL_ID, withLedger } from './bench/installation.ts';
import { benchAppend, benchBoot, benchVerify } from './bench/ledger.ts';
import { benchStream } from './bench/stream.ts';
import { benchWork } from './bench/work.ts';

type Section = (stage0: Stage0, adminUrl: string, secrets: LocalSecrets) => Promise<Figure[]>;

/** In this order, each on a ledger of its own: what one leaves behind is no load on the next. */
const SECTIONS: Record<string, Section> = {
  boot: async (stage0, adminUrl) => [
    await benchBoot(stage0, adminUrl, 'boot_c1', EMPTY_KERNEL_ID, 1),
    await benchBoot(stage0, adminUrl, 'boot_c8', EMPTY_KERNEL_ID, 8),
    await benchBoot(stage0, adminUrl, 'boot_run_code_c8', RUN_CODE_KERNEL_ID, 8),
  ],
  append: async (stage0, adminUrl) => [await benchAppend(stage0, adminUrl)],
  work: benchWork,
  stream: async (stage0, adminUrl, secrets) => [await benchStream(stage0, adminUrl, secrets)],
  verify: async (stage0, adminUrl, secrets) => [await benchVerify(stage0, adminUrl, secrets)],
  http: (stage0, _adminUrl, secrets) => benchHttp(stage0, trustedKeysOf(secrets)),
};

async function main(): Promise<void> {
  const { values: options, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      json: { type: 'boolean', default: false },
      out: { type: 'string', default: new URL('../dist/bench.json', import.meta.url).pathname },
    },
  });
  const all = [...Object.keys(SECTIONS), 'imports'];
  const unknown = positionals.find((name) => !all.includes(name));
  if (unknown !== undefined) throw new Error(`no section ${unknown}; there are ${all.join(', ')}`);
  const figures: Figure[] = [];
  if (!options.json) process.stdout.write(HEADINGS);
  for (const name of all.filter((each) => positionals.length === 0 || positionals.includes(each))) {
    const section = SECTIONS[name];
    const measured = section === undefined ? await benchImports() : await onLedger(section);
    if (!options.json) for (const figure of measured) process.stdout.write(line(figure));
    figures.push(...measured);
  }
  const report = `${JSON.stringify({ figures })}\n`;
  await mkdir(dirname(options.out), { recursive: true });
  await writeFile(options.out, report);
  if (options.json) process.stdout.write(report);
}

function onLedger(section: Section): Promise<Figure[]> {
  return withLedger(async (adminUrl, secrets) => {
    const stage0 = await createStage0(adminUrl, secrets);
    try {
      return await section(stage0, adminUrl, secrets);
    } finally {
      await stage0.sandbox.close();
      await stage0.database.close();
    }
  });
}

main().catch((error) => {
  process.stderr.write(`bench failed: ${error.message}\n`);
  process.exit(1);
});
