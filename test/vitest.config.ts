import { defineConfig } from 'vitest/config';

// Of the hundreds of processes that the tests start, the first strips the types and the others find it done.
process.env.NODE_COMPILE_CACHE ??= new URL('../node_modules/.cache/compile', import.meta.url).pathname;

export default defineConfig({
  root: new URL('..', import.meta.url).pathname,
  // Vite's own cache has no business at the root.
  cacheDir: 'node_modules/.vite',
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/postgres-server.ts'],
    pool: 'forks',
    // Node itself loads the modules, as in production: the code uses import.meta.resolve and starts processes of .ts files.
    experimental: { viteModuleRunner: false },
    // Two processes beside one Postgres: more of them disturb tests of time, and two cores are busy anyway.
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 60_000,
    teardownTimeout: 30_000,
  },
});
