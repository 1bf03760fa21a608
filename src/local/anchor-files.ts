import { randomBytes } from 'node:crypto';
import { link, open, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { AnchorStore } from '../audit/index.ts';
import { lockHome } from './home.ts';

/**
 * Anchors as files of a folder, one each. The folder is locked while it is open, so that a text is still the same when it
 * is replaced. What was written is on the disk.
 */
export class AnchorFiles implements AnchorStore {
  readonly #folder: string;
  readonly close: () => Promise<void>;

  private constructor(folder: string, close: () => Promise<void>) {
    this.#folder = folder;
    this.close = close;
  }

  /** @throws {ConflictError} `ALREADY_RUNNING`: another auditor has it. */
  static async open(folder: string): Promise<AnchorFiles> {
    return new AnchorFiles(folder, await lockHome(folder));
  }

  async read(id: string): Promise<string | null> {
    return readFile(this.#file(id), 'utf8').catch((error: { code?: string }) => {
      if (error.code === 'ENOENT') return null;
      throw error;
    });
  }

  async add(id: string, text: string): Promise<boolean> {
    return this.#write(text, async (written) => {
      try {
        await link(written, this.#file(id));
        return true;
      } catch (error) {
        if ((error as { code?: string }).code === 'EEXIST') return false;
        throw error;
      }
    });
  }

  async replace(id: string, before: string, text: string): Promise<boolean> {
    if ((await this.read(id)) !== before) return false;
    return this.#write(text, async (written) => {
      await rename(written, this.#file(id));
      return true;
    });
  }

  /** Written whole and beside, then put in place, so that nobody ever reads half of it. */
  async #write(text: string, put: (written: string) => Promise<boolean>): Promise<boolean> {
    const temporary = join(this.#folder, `${process.pid}.${randomBytes(8).toString('hex')}`);
    try {
      await synced(temporary, 'wx', (file) => file.writeFile(text));
      const isPut = await put(temporary);
      await synced(this.#folder, 'r');
      return isPut;
    } finally {
      await rm(temporary, { force: true });
    }
  }

  #file(id: string): string {
    return join(this.#folder, `${id.replaceAll('#', '-')}.json`);
  }
}

async function synced(
  path: string,
  flags: string,
  use?: (file: { writeFile: (text: string) => Promise<void> }) => Promise<void>,
): Promise<void> {
  const file = await open(path, flags, 0o600);
  try {
    await use?.(file);
    await file.sync();
  } finally {
    await file.close();
  }
}
