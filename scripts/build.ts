/**
 * `npm run build`: one minified bundle and one reproducible zip for each Lambda function, under `dist/`, and a table of
 * their sizes. Same sources, same bytes: the zip holds no time and no path of the machine.
 */
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type BuildOptions, build, type Plugin } from 'esbuild';
import { type Zippable, zipSync } from 'fflate';
import { buildConsole } from '../src/console/build.ts';

interface FunctionBundle {
  /** The function's name in AWS, and of its folder under `dist/`. */
  name: string;
  entry: string;
  /** Files and folders packed beside the bundle: place in the project → place in the zip. */
  beside: Record<string, string>;
}

const PROJECT = new URL('../', import.meta.url).pathname;
export const DIST = join(PROJECT, 'dist');

export const FUNCTIONS: FunctionBundle[] = [
  { name: 'loglineos-db-migration', entry: 'src/lambda/migrate.ts', beside: { sql: 'sql' } },
  { name: 'loglineos-seed', entry: 'src/lambda/seed.ts', beside: { ROW: 'ROW' } },
  { name: 'loglineos-authorizer', entry: 'src/lambda/authorizer.ts', beside: {} },
  ...Object.entries({
    'loglineos-stage0-loader': 'src/lambda/stage0.ts',
    'loglineos-observer': 'src/lambda/observer.ts',
    'loglineos-request-worker': 'src/lambda/request-worker.ts',
    'loglineos-policy-agent': 'src/lambda/policy-agent.ts',
    'loglineos-api-stream': 'src/lambda/api-stream.ts',
    'loglineos-sandbox': 'src/lambda/sandbox.ts',
  }).map(([name, entry]) => ({ name, entry, beside: { 'src/kernel/sandbox/child.cjs': 'child.cjs' } })),
  {
    name: 'loglineos-api',
    entry: 'src/lambda/api.ts',
    beside: { 'src/kernel/sandbox/child.cjs': 'child.cjs', 'dist/console': 'console' },
  },
  ...Object.entries({
    'loglineos-auditor': 'src/lambda/auditor.ts',
    'loglineos-timeline': 'src/lambda/timeline.ts',
    'loglineos-timeline-reader': 'src/lambda/timeline-reader.ts',
    'loglineos-timeline-sender': 'src/lambda/timeline-sender.ts',
  }).map(([name, entry]) => ({ name, entry, beside: {} })),
];

/** `pg` is CommonJS and asks for `require`, which an ES module has to make for itself. */
const REQUIRE_BANNER =
  "import{createRequire as __createRequire}from'node:module';const require=__createRequire(import.meta.url);";

/** zod brings its messages in fifty languages, a quarter of the API's bundle; ours are our own. */
const WITHOUT_LOCALES: Plugin = {
  name: 'without-locales',
  setup: ({ onResolve }) =>
    onResolve({ filter: /^\.\.\/locales\/index\.js$/ }, ({ importer }) =>
      importer.includes('/zod/v4/') ? { path: join(importer, '../../locales/en.js') } : undefined,
    ),
};

/** How each is bundled. */
export const BUNDLE = {
  absWorkingDir: PROJECT,
  outExtension: { '.js': '.mjs' },
  bundle: true,
  // What is imported lazily (the AWS SDK) becomes a file of its own; in one file its imports would all run at start.
  splitting: true,
  minify: true,
  platform: 'node',
  // The SDK as ES modules: as CommonJS, split off, it would have a default export and no names.
  mainFields: ['module', 'main'],
  target: 'node24',
  format: 'esm',
  sourcemap: 'external',
  legalComments: 'none',
  banner: { js: REQUIRE_BANNER },
  // Optional parts of pg that this system never uses.
  external: ['pg-native', 'cloudflare:sockets'],
  plugins: [WITHOUT_LOCALES],
  logLevel: 'warning',
} satisfies BuildOptions;

/** A zip's entries need some time; this is the first one the format knows. */
const ZIP_TIME = new Date(1980, 0, 1);

export async function buildAll(): Promise<{ name: string; bundle_bytes: number; zip_bytes: number; sha256: string }[]> {
  await rm(DIST, { recursive: true, force: true });
  await writeConsole(join(DIST, 'console'));
  return Promise.all(FUNCTIONS.map(buildFunction));
}

async function writeConsole(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  for (const [name, bytes] of await buildConsole()) await writeFile(join(folder, name), bytes);
}

async function buildFunction({ name, entry, beside }: FunctionBundle) {
  const folder = join(DIST, name);
  await build({ ...BUNDLE, entryPoints: { index: entry }, outdir: folder });
  const scripts = (await readdir(folder)).filter((file) => file.endsWith('.mjs')).sort();
  const files: Zippable = {};
  for (const file of scripts) files[file] = await readFile(join(folder, file));
  const bundleBytes = Object.values(files).reduce((sum, bytes) => sum + (bytes as Uint8Array).length, 0);
  for (const [source, target] of Object.entries(beside)) {
    for (const [path, bytes] of await readTree(join(PROJECT, source), target)) {
      files[path] = bytes;
      await mkdir(join(folder, path, '..'), { recursive: true });
      await writeFile(join(folder, path), bytes);
    }
  }
  const zip = zipSync(files, { mtime: ZIP_TIME, level: 9, os: 3, attrs: 0o644 << 16 });
  await writeFile(join(DIST, `${name}.zip`), zip);
  return {
    name,
    bundle_bytes: bundleBytes,
    zip_bytes: zip.length,
    sha256: createHash('sha256').update(zip).digest('hex'),
  };
}

/** A file, or all files of a folder, sorted by path. */
async function readTree(source: string, target: string): Promise<[string, Uint8Array][]> {
  const entries = await readdir(source, { recursive: true, withFileTypes: true }).catch(() => null);
  if (entries === null) return [[target, await readFile(source)]];
  const paths = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const files = paths
    .sort()
    .map(
      async (path): Promise<[string, Uint8Array]> => [
        join(target, path.slice(source.length + 1)),
        await readFile(path),
      ],
    );
  return Promise.all(files);
}

if (import.meta.main) {
  const built = await buildAll();
  const kib = (bytes: number) => `${(bytes / 1024).toFixed(0)} KiB`.padStart(9);
  process.stdout.write(`${'function'.padEnd(26)}${'bundle'.padStart(9)}${'zip'.padStart(9)}  sha256 of the zip\n`);
  for (const { name, bundle_bytes, zip_bytes, sha256 } of built) {
    process.stdout.write(`${name.padEnd(26)}${kib(bundle_bytes)}${kib(zip_bytes)}  ${sha256}\n`);
  }
}
