import { InputError } from '../errors.ts';
import { readText } from './values.ts';

/** It reads the code and calls nothing in it. */
const LIMITS = { timeoutMs: 3_000, memoryMb: 64, outputBytes: 1_000, calls: 0 };

/**
 * The code in a file, read by the sandbox as it will be when it runs: whoever wrote it is there now, and will not be then.
 * A server takes code that does not compile, since it does not read what it does not run.
 *
 * @param entry what the code offers: `function(input)`, or a policy's `on(span)`
 * @throws {InputError} `CODE_INVALID`, or what else ends it before it is called; with file and line
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
    if (result.ok) return code;
    const { code: why, message, line } = result.error;
    throw new InputError(why, `${file}${line === undefined ? '' : `, line ${line}`}: ${message}`, { field: 'code' });
  } finally {
    await sandbox.close();
  }
}
