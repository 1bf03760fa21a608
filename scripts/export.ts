/**
 * `loglineos export`: every row of the ledger of this machine (or of `DATABASE_URL`) as signed lines of JSON, into a file
 * or to standard output. A file that is there already is gone on with. Exit 0: whole. 2: not done.
 */
import { once } from 'node:events';
import { type FileHandle, open, realpath } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { ConflictError, failureText, InputError, IntegrityError } from '../src/errors.ts';
import { ExportReader, type ExportSummary, exportLedger, linesOf, rowAt } from '../src/ledger/index.ts';
import { lockFile } from '../src/local/home.ts';
import { openAsAuditor } from '../src/local/open-database.ts';
import { loadBlake3 } from '../src/span/blake3-wasm.ts';
import { useBlake3 } from '../src/span/index.ts';

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { out: { type: 'string' }, after: { type: 'string' }, json: { type: 'boolean', default: false } },
  });
  useBlake3(await loadBlake3());
  const { database, close } = await openAsAuditor(process.env, 'loglineos-export');
  let file: FileHandle | undefined;
  let unlock = async () => {};
  try {
    if (values.out !== undefined) {
      file = await openFile(values.out);
      unlock = await lockOutput(values.out);
    }
    const earlier = file === undefined ? new ExportReader() : await readEarlier(file, values.out as string);
    if (earlier.lines > 0 && values.after !== undefined) {
      throw new InputError('FILE_EXISTS', `${values.out} itself says where it goes on; --after is for a new file`);
    }
    const after = values.after === undefined ? earlier.last : await rowAt(database, values.after);
    const showProgress = process.stderr.isTTY && !values.json;
    let summary: ExportSummary | undefined;
    for await (const page of exportLedger(database, after, earlier)) {
      if (file !== undefined) await file.appendFile(page.text);
      else if (!process.stdout.write(page.text)) await once(process.stdout, 'drain');
      summary = page.summary;
      if (showProgress) process.stderr.write(`\r${summary.rows} rows exported`);
    }
    await file?.sync();
    if (showProgress) process.stderr.write('\r\x1b[K');
    // Where there is no file, standard output holds the rows themselves.
    const output = file === undefined ? process.stderr : process.stdout;
    output.write(values.json ? `${JSON.stringify(summary)}\n` : describe(summary as ExportSummary));
  } finally {
    await file?.close();
    await unlock();
    await close();
  }
}

function describe({ rows, cursor, digest }: ExportSummary): string {
  return `${rows} rows exported${cursor === null ? '' : `, up to ${cursor}`}; digest ${digest}\n`;
}

async function openFile(name: string): Promise<FileHandle> {
  try {
    return await open(name, 'a+', 0o600);
  } catch (cause) {
    throw new InputError('FILE_UNREADABLE', `${name} cannot be opened (${(cause as { code?: string }).code})`, {
      cause,
    });
  }
}

/** Two exports into one file would mix their rows: a file `.lock` beside it says who is at it. */
async function lockOutput(name: string): Promise<() => Promise<void>> {
  try {
    return await lockFile(
      `${await realpath(name)}.lock`,
      (pid) => new ConflictError('FILE_IN_USE', `process ${pid} already exports into ${name}; let it end, or stop it`),
    );
  } catch (cause) {
    const { code, syscall } = cause as { code?: string; syscall?: string };
    if (syscall === undefined) throw cause;
    throw new InputError('FILE_UNREADABLE', `${name}.lock cannot be made (${code})`, { cause });
  }
}

/** What a file has already. The line in the middle of which it breaks off is cut off. */
async function readEarlier(file: FileHandle, name: string): Promise<ExportReader> {
  const reader = new ExportReader();
  let bytes = 0;
  for await (const { text, bytesUntil, isWhole } of linesOf(file.createReadStream({ start: 0, autoClose: false }))) {
    if (isWhole) {
      reader.take(text);
      bytes = bytesUntil;
    } else if (reader.lines === 0) {
      throw new IntegrityError('EXPORT_INVALID', `${name} is no export`);
    }
  }
  await file.truncate(bytes);
  return reader;
}

process.stdout.on('error', () => process.exit(2)); // a pipe whose reader has gone

main().then(
  () => process.exit(0),
  (error) => {
    process.stderr.write(failureText(error, 'export failed'));
    process.exit(2);
  },
);
