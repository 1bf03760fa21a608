import { InputError } from '../errors.ts';
import { readText } from './values.ts';

/** For the code around the function, that may take as much of a run as it likes. */
const LIMITS = { timeoutMs: 3_000, memoryMb: 64, outputBytes: 1_000, calls: 0 };
/** What would be so in every run, on every machine. */
const REFUSED = new Set(['CODE_INVALID', 'CODE_REFUSED', 'THREW']);

/**
 * The code in a file, read by the sandbox as it will be when it runs, and nothing in it called: whoever wrote it is there
 * now, and will not be then. A server takes code that does not compile, since it does not read what it does not run.
 *
 * @param entry what the code offers: `function(input)`, or a policy's `on(span)`
 * @throws {InputError} `CODE_INVALID`, `CODE_REFUSED` or `THREW`, with file and line
 */
export async function readCode(file: string, entry: 'function' | 'on'): Promise<string> {
  const code = await readText(file);
  // Only here: every other command would take longer to start.
  const { Sandbox } = await import('../kernel/index.ts');
  const sandbox = new Sandbox({ maxChildren: 1 });
  try {
    const result = await sandbox.run({
      trust: 'untrusted',
      compartment: 'tenant:author',
      code,
      codeHash: '',
      fileName: 'code.js',
      entry,
      input: { items: [], context: {} },
      each: true,
      limits: LIMITS,
    });
    if (result.ok || !REFUSED.has(result.error.code)) return code;
    const { code: why, message, line } = result.error;
    const place = `${file}${line === undefined ? '' : `, line ${line}`}`;
    throw new InputError(why, `${place}: ${message.replace(/^code: /, '')}`, { field: 'code' });
  } finally {
    await sandbox.close();
  }
}
