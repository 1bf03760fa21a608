import { spawnSync } from 'node:child_process';
import { expect, it } from 'vitest';

const INFRA = new URL('../../infra', import.meta.url).pathname;
const isThere = spawnSync('terraform', ['version']).status === 0;

it.skipIf(!isThere)('is formatted as terraform fmt would (skipped where there is no terraform)', () => {
  const { status, stdout } = spawnSync('terraform', ['fmt', '-check', '-recursive', INFRA], { encoding: 'utf8' });
  expect(stdout).toBe('');
  expect(status).toBe(0);
});
