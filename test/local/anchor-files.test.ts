import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AnchorFiles } from '../../src/local/anchor-files.ts';

let folder: string;
let files: AnchorFiles;
beforeEach(async () => {
  folder = join(await mkdtemp(join(tmpdir(), 'loglineos-anchors-')), 'audit');
  files = await AnchorFiles.open(folder);
});
afterEach(async () => {
  await files.close();
  await rm(join(folder, '..'), { recursive: true });
});

describe('anchors in files', () => {
  it('are read as they were added, each from a file that its user alone reads, and nothing else is left', async () => {
    expect(await files.read('anchor#1#000000000001')).toBeNull();
    expect(await files.add('anchor#1#000000000001', '{"rows":1000}')).toBe(true);
    expect(await files.read('anchor#1#000000000001')).toBe('{"rows":1000}');
    expect((await readdir(folder)).sort()).toEqual(['anchor-1-000000000001.json', 'lock']);
    expect((await stat(join(folder, 'anchor-1-000000000001.json'))).mode & 0o777).toBe(0o600);
  });

  it('are never added over what is there', async () => {
    await files.add('a', 'first');
    expect(await files.add('a', 'second')).toBe(false);
    expect(await files.read('a')).toBe('first');
    expect((await readdir(folder)).sort()).toEqual(['a.json', 'lock']);
  });

  it('are replaced when they are still what they were, and not made of nothing', async () => {
    expect(await files.replace('state', 'old', 'new')).toBe(false);
    expect(await files.read('state')).toBeNull();
    await files.add('state', 'old');
    expect(await files.replace('state', 'older', 'new')).toBe(false);
    expect(await files.replace('state', 'old', 'new')).toBe(true);
    expect(await files.read('state')).toBe('new');
  });

  it('are one auditor’s at a time', async () => {
    await expect(AnchorFiles.open(folder)).rejects.toMatchObject({ code: 'ALREADY_RUNNING' });
    await files.close();
    files = await AnchorFiles.open(folder);
  });
});
