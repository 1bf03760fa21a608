import { spawnSync } from 'node:child_process';
import { expect, it } from 'vitest';
import { HAS_TERRAFORM } from './evaluation.ts';
import { INFRA } from './infrastructure.ts';

it.skipIf(!HAS_TERRAFORM)('is formatted as terraform fmt would (skipped where there is no terraform)', () => {
  const { status, stdout } = spawnSync('terraform', ['fmt', '-check', '-recursive', INFRA], { encoding: 'utf8' });
  expect(stdout).toBe('');
  expect(status).toBe(0);
});
