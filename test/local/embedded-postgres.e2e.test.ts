import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { findRunningPostgres, startEmbeddedPostgres } from '../../src/local/embedded-postgres.ts';

it('leaves a process alone that only has the number of a Postgres of before', async () => {
  const home = await mkdtemp(join(tmpdir(), 'loglineos-stale-'));
  const stranger = spawn('sleep', ['60']);
  try {
    const postgres = await startEmbeddedPostgres(home, 'secret');
    await postgres.stop();
    await writeFile(join(home, 'postgres', 'postmaster.pid'), `${stranger.pid}\n${home}\n0\n1\n`);
    expect(await findRunningPostgres(home, 'secret')).toBeNull();
    const again = await startEmbeddedPostgres(home, 'secret');
    expect(await findRunningPostgres(home, 'secret')).toBe(again.url);
    await again.stop();
    expect(stranger.exitCode).toBeNull();
    expect(stranger.signalCode).toBeNull();
  } finally {
    const ended = once(stranger, 'exit');
    stranger.kill('SIGKILL');
    await ended;
    await rm(home, { recursive: true, force: true });
  }
});

it('starts over where a first start was interrupted', async () => {
  const home = await mkdtemp(join(tmpdir(), 'loglineos-half-'));
  try {
    await mkdir(join(home, 'postgres.new'));
    await writeFile(join(home, 'postgres.new', 'PG_VERSION'), '18\n');
    const postgres = await startEmbeddedPostgres(home, 'secret');
    expect(await findRunningPostgres(home, 'secret')).toBe(postgres.url);
    await postgres.stop();
  } finally {
    await rm(home, { recursive: true, force: true });
  }
});
