/**
 * `loglineos import`: bring the ledger of this machine (or of `DATABASE_URL`) back from exports, in their order; `-` is
 * standard input. `--dry-run` compares and writes nothing. `--digest` says which export is meant, as `export` printed it
 * when it was made: wanted where a trusted key has an end, because positions are in no signature.
 *
 * Exit 0: the ledger is what they say, and proves itself. 1: a row does not prove itself, or in a dry run is not there.
 * 2: not done.
 */
import { createReadStream } from 'node:fs';
import { parseArgs } from 'node:util';
import { failureText, InputError, type IntegrityError } from '../src/errors.ts';
import {
  Database,
  ExportReader,
  type ImportOptions,
  type ImportReport,
  importLedger,
  type Line,
  linesOf,
  loadMigrations,
  migrate,
  rebuildDerived,
  verifyLedger,
} from '../src/ledger/index.ts';
import { openDatabase, openDatabaseAlone, readAuthorities, trustedKeys } from '../src/local/open-database.ts';
import { SQL_FOLDER } from '../src/local/stack.ts';
import { loadBlake3 } from '../src/span/blake3-wasm.ts';
import { nodeEd25519 } from '../src/span/ed25519-node.ts';
import { type StoredSpan, type TrustedKeys, useBlake3 } from '../src/span/index.ts';

const STANDARD_INPUT = '-';

async function main(): Promise<number> {
  const { values, positionals: files } = parseArgs({
    options: {
      'dry-run': { type: 'boolean', default: false },
      digest: { type: 'string', multiple: true },
      json: { type: 'boolean', default: false },
    },
    allowPositionals: true,
  });
  if (files.length === 0) throw new InputError('FILE_MISSING', 'expected the files to import, or - for standard input');
  const digests = values.digest ?? null;
  if (digests?.some((digest) => !/^[0-9a-f]{64}$/.test(digest))) {
    throw new InputError('FIELD_INVALID', '--digest: expected 64 hex digits', { field: '--digest' });
  }
  if (digests !== null && files.includes(STANDARD_INPUT) && !values['dry-run']) {
    const message = '--digest wants files: of standard input it would be known only after rows were written';
    throw new InputError('FILE_MISSING', message);
  }
  useBlake3(await loadBlake3());
  const certificateAuthorities = await readAuthorities(process.env);
  // A database of the user's own cannot be locked, but tells while rows are written that somebody is connected.
  const mayBeInUse = values['dry-run'] || Boolean(process.env.DATABASE_URL);
  const { adminUrl, secrets, close } = await (mayBeInUse ? openDatabase : openDatabaseAlone)(process.env);
  const connection = { url: adminUrl, certificateAuthorities };
  const database = new Database({ ...connection, applicationName: 'loglineos-import', connectionsMax: 2 });
  const showProgress = process.stderr.isTTY && !values.json;
  const progress = (what: string) => {
    if (showProgress) process.stderr.write(`\r\x1b[K${what}`);
  };
  const print = (report: object, text: string) =>
    process.stdout.write(values.json ? `${JSON.stringify(report)}\n` : text);
  try {
    const keys = trustedKeys(process.env, secrets);
    const options: ImportOptions = {
      keys,
      scheme: nodeEd25519,
      isDryRun: values['dry-run'],
      digests,
      onProgress: (rows) => progress(`${rows} rows read`),
    };
    if (options.isDryRun === true) {
      const report = await importLedger(database, linesOfAll(files), {
        ...options,
        onMissing: (row) => values.json || process.stdout.write(lineOf(row)),
      });
      const missing = report.rows - report.there;
      print({ ok: missing === 0, ...report, missing }, describe(report, 'are missing'));
      return missing === 0 ? 0 : 1;
    }

    if (digests === null) requireNoEnds(keys);
    await migrate(connection, await loadMigrations(SQL_FOLDER));
    if (!files.includes(STANDARD_INPUT)) await requireWhole(database, files, options);
    const report = await importLedger(database, linesOfAll(files), options);
    progress('making the derived tables');
    await rebuildDerived(connection);
    const { ok, checked, problems } = await verifyLedger(database, keys, nodeEd25519, (rows) =>
      progress(`${rows} rows verified`),
    );
    progress('');
    const named = problems.map(
      ({ id, seq, class: found, detail }) => `${found.padEnd(9)}  ${id}  seq ${seq}  ${detail}\n`,
    );
    const verdict = ok ? 'every one proves itself' : `${problems.length} problems`;
    print(
      { ok, rows: report.rows, there: report.there, imported: report.rows - report.there, checked, problems },
      `${describe(report, 'imported')}${named.join('')}${checked} rows checked: ${verdict}\n`,
    );
    return ok ? 0 : 1;
  } finally {
    await database.close();
    await close();
  }
}

/** The lines of all files, as if they were one. */
async function* linesOfAll(files: string[]): AsyncGenerator<Line> {
  for (const file of files) {
    try {
      yield* linesOf(file === STANDARD_INPUT ? process.stdin : createReadStream(file, { highWaterMark: 1024 * 1024 }));
    } catch (cause) {
      const { code, syscall } = cause as { code?: string; syscall?: string };
      if (syscall === undefined) throw cause;
      throw new InputError('FILE_UNREADABLE', `${file} cannot be read (${code})`, { cause });
    }
  }
}

/**
 * Whoever has a key that ended could sign rows, and put them into a file below its end.
 *
 * @throws {InputError} `DIGEST_MISSING`
 */
function requireNoEnds({ root, runtime }: TrustedKeys): void {
  if ([...root.values(), ...runtime.values()].every((end) => end === Infinity)) return;
  throw new InputError(
    'DIGEST_MISSING',
    'a trusted key has an end, and positions are in no signature: say with --digest HEX what export printed for each file',
    { field: '--digest' },
  );
}

/**
 * Nothing is written of an export that is not whole, or not the one that is meant. Where it was changed, the row is named,
 * if it is one.
 */
async function requireWhole(database: Database, files: string[], options: ImportOptions): Promise<void> {
  const reader = new ExportReader(options.digests);
  try {
    for await (const { text, isWhole } of linesOfAll(files)) if (isWhole) reader.take(text);
    reader.end();
  } catch (error) {
    if ((error as IntegrityError).code === 'EXPORT_INVALID') {
      await importLedger(database, linesOfAll(files), { ...options, isDryRun: true });
    }
    throw error;
  }
}

function lineOf({ position, at, tenant_id, entity_type, id, seq }: StoredSpan): string {
  return `${String(position).padStart(9)}  ${at}  ${tenant_id}  ${entity_type}  ${id}  seq ${seq}\n`;
}

function describe({ rows, there, beyond }: ImportReport, others: string): string {
  const more = beyond > 0 ? `, and the ledger has ${beyond} more` : '';
  return `${rows} rows in the export: ${there} were there, ${rows - there} ${others}${more}\n`;
}

main().then(
  (code) => process.exit(code),
  (error) => {
    process.stderr.write(failureText(error, 'import failed'));
    process.exit(2);
  },
);
