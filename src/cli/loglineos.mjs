#!/usr/bin/env node
/**
 * The command `loglineos`, on whatever Node the machine has: what it runs is TypeScript, and a sandbox of Node 24. Where
 * the machine's own is another, the one that comes with the packages does it.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import module from 'node:module';
import { fileURLToPath } from 'node:url';

const NODE_MAJOR = 24;
/** Half of what a command takes is to strip the types of its files: so that is done once. */
const compileCache = fileURLToPath(new URL('../../node_modules/.cache/compile', import.meta.url));
const packaged = fileURLToPath(new URL('../../node_modules/node/bin/node', import.meta.url));

if (Number.parseInt(process.versions.node, 10) === NODE_MAJOR) {
  module.enableCompileCache(compileCache);
  await import('./main.ts');
} else if (existsSync(packaged)) {
  const main = fileURLToPath(new URL('main.ts', import.meta.url));
  const child = spawn(packaged, [main, ...process.argv.slice(2)], {
    stdio: 'inherit',
    env: { NODE_COMPILE_CACHE: compileCache, ...process.env },
  });
  // A terminal sends Ctrl-C to both; others send to this process alone.
  process.on('SIGINT', () => {});
  process.on('SIGTERM', () => child.kill('SIGTERM'));
  child.on('close', (code) => process.exit(code ?? 1));
} else {
  process.stderr.write(`loglineos needs Node ${NODE_MAJOR}; run npm install, which brings it\n`);
  process.exit(2);
}
