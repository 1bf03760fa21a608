import { readFile } from 'node:fs/promises';
import { buildSync } from 'esbuild';
import type { ConsoleFiles } from '../api/console.ts';

const PAGE = new URL('./page/', import.meta.url).pathname;

/**
 * The console's files as a browser wants them: the page, its style and icon, and one script. Some 50 ms, in which nothing
 * else is done: the other way would leave a process of the bundler behind.
 */
export async function buildConsole(): Promise<ConsoleFiles> {
  const { outputFiles } = buildSync({
    entryPoints: [`${PAGE}main.ts`, `${PAGE}style.css`],
    outdir: PAGE,
    bundle: true,
    minify: true,
    write: false,
    platform: 'browser',
    format: 'esm',
    target: 'es2024',
    legalComments: 'none',
    logLevel: 'warning',
  });
  const built = outputFiles.map(({ path, contents }): [string, Uint8Array] => [path.slice(PAGE.length), contents]);
  const asTheyAre = ['index.html', 'icon.svg'].map(
    async (name): Promise<[string, Uint8Array]> => [name, await readFile(`${PAGE}${name}`)],
  );
  return new Map([...built, ...(await Promise.all(asTheyAre))]);
}
