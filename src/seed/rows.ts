import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { InputError, LogLineError } from '../errors.ts';
import type { SpanDraft } from '../ledger/index.ts';
import { parseProviderContent } from '../provider/index.ts';
import { ASSIGNED_COLUMNS, canonicalText, isUuid, type Json, parseJson, SYSTEM_ID } from '../span/index.ts';
import { MANIFEST_ID, parseManifestContent } from '../stage0/index.ts';

/** The row files, in the order they are read. A file that is not there seeds nothing. */
const ROW_FILES = [
  'kernels/01-kernels.ndjson',
  'policies/02-policies.ndjson',
  'manifest/03-manifest.ndjson',
  'providers/04-providers.ndjson',
];
const ROW_FILE_NAME = /^[\w-]+\.js$/;

/** What the row files cannot know: it belongs to the installation. */
export interface Installation {
  /** The public key (64 hex digits) whose signature lets a run pass the quota; null when there is none. */
  overridePublicKey: string | null;
}

/**
 * Read `ROW/`: one JSON object a line, code from the file beside it, byte for byte. Every row is checked whole before
 * any is returned.
 *
 * @throws {InputError} `ROW_INVALID`, naming file and line.
 */
export async function readRowFiles(folder: string, installation: Installation): Promise<SpanDraft[]> {
  const drafts: SpanDraft[] = [];
  const places = new Map<string, string>();
  for (const file of ROW_FILES) {
    const path = join(folder, file);
    const bytes = await readFile(path).catch((error: { code?: string }) => {
      if (error.code === 'ENOENT') return Buffer.of();
      throw error;
    });
    // Split as bytes: a line that is not UTF-8 has a number, too.
    for (const [index, line] of bytes.toString('latin1').split('\n').entries()) {
      if (line.trim() === '') continue;
      const place = `ROW/${file}:${index + 1}`;
      const draft = await atPlace(place, () =>
        readRow(decodeUtf8(Buffer.from(line, 'latin1')), dirname(path), installation),
      );
      const earlier = places.get(draft.id as string);
      if (earlier !== undefined)
        throw new InputError('ROW_INVALID', `${place} id: ${earlier} has it already`, { field: place });
      places.set(draft.id as string, place);
      drafts.push(draft);
    }
  }
  return drafts;
}

async function atPlace<T>(place: string, read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (cause) {
    if (!(cause instanceof LogLineError || cause instanceof SyntaxError)) throw cause;
    throw new InputError('ROW_INVALID', `${place} ${cause.message}`, { field: place, cause });
  }
}

function decodeUtf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new InputError('ROW_INVALID', 'not UTF-8', { cause });
  }
}

async function readRow(line: string, folder: string, installation: Installation): Promise<SpanDraft> {
  const parsed: unknown = parseJson(line);
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) {
    throw new InputError('ROW_INVALID', 'expected a JSON object');
  }
  const { code_file, ...row } = parsed as Record<string, Json>;
  if (!isUuid(row.id)) throw new InputError('ROW_INVALID', 'id: expected a UUID in lower case');
  if (typeof row.name !== 'string' || row.name === '') throw new InputError('ROW_INVALID', 'name: expected text');
  const draft = {
    did: 'seeded',
    this: `${row.entity_type}:${row.name}`,
    ...row,
    ...(code_file === undefined ? {} : { code: await readCode(folder, code_file) }),
    ...(row.id === MANIFEST_ID ? { content: manifestContent(row.content, installation) } : {}),
    who: 'seed',
    owner_id: SYSTEM_ID,
    tenant_id: SYSTEM_ID,
  } as SpanDraft;
  if (row.entity_type === 'provider') parseProviderContent(row.content, row.name);
  for (const field of ['seq', 'at'] as const) {
    if (draft[field] !== undefined) throw new InputError('ROW_INVALID', `${field}: is assigned when the row is seeded`);
  }
  checkStorable(draft);
  return draft;
}

async function readCode(folder: string, file: Json): Promise<string> {
  if (typeof file !== 'string' || !ROW_FILE_NAME.test(file)) {
    throw new InputError('ROW_INVALID', 'code_file: expected the name of a .js file beside the row file');
  }
  try {
    return decodeUtf8(await readFile(join(folder, file)));
  } catch (cause) {
    throw new InputError('ROW_INVALID', `code_file: ${file} cannot be read as UTF-8`, { cause });
  }
}

function manifestContent(content: Json | undefined, { overridePublicKey }: Installation): Json {
  const complete = { ...(content as Record<string, Json>), override_pubkey_hex: overridePublicKey };
  parseManifestContent(complete);
  return complete;
}

/** A row as it would be appended must have a canonical form; the proof's own columns stand in with their sizes. */
function checkStorable(draft: SpanDraft): void {
  if (typeof draft.entity_type !== 'string' || draft.entity_type === '')
    throw new InputError('ROW_INVALID', 'entity_type: expected text');
  if (!['private', 'tenant', 'public'].includes(draft.visibility as string)) {
    throw new InputError('ROW_INVALID', 'visibility: expected private, tenant or public');
  }
  for (const field of ASSIGNED_COLUMNS) {
    if (draft[field] !== undefined) throw new InputError('ROW_INVALID', `${field}: is assigned`);
  }
  canonicalText({ ...draft, seq: 0, at: new Date(0).toISOString() } as Parameters<typeof canonicalText>[0]);
}
