import { defineConfig } from 'vitest/config';

// Of the hundreds of processes that the tests start, the first strips the types and the others find it done.
process.env.NODE_COMPILE_CACHE ??= new URL('../node_modules/.cache/compile', import.meta.url).pathname;

// Each has a Postgres of its own, so there is only one where the server is given. More than the two cores of a small
// machine: many tests wait for a clock, a child or a page.
const WORKERS = process.env.DATABASE_URL ? 1 : 3;
const OF_TIME = 'test/**/*.time.test.ts';

export default defineConfig({
  root: new URL('..', import.meta.url).pathname,
  // Vite's own cache has no business at the root.
  cacheDir: 'node_modules/.vite',
  test: {
    globalSetup: ['test/support/postgres-server.ts'],
    pool: 'forks',
    // Node itself loads the modules, as in production: the code uses import.meta.resolve and starts processes of .ts files.
    experimental: { viteModuleRunner: false },
    // Bounds for what hangs. A machine that is busy with something else must not fail a test that only waits.
    testTimeout: 90_000,
    hookTimeout: 180_000,
    teardownTimeout: 30_000,
    expect: { poll: { timeout: 30_000 } },
    projects: [
      {
        extends: true,
        test: { name: 'tests', include: ['test/**/*.test.ts'], exclude: [OF_TIME], maxWorkers: WORKERS },
      },
      // What holds a machine to its speed has it alone, when all others are done.
      {
        extends: true,
        test: { name: 'tests of time', include: [OF_TIME], maxWorkers: 1, sequence: { groupOrder: 1 } },
      },
    ],
  },
});
