import { readFile } from 'node:fs/promises';
import { InvalidArgumentError } from 'commander';
import type { Client } from '../client/index.ts';
import { InputError } from '../errors.ts';
import { isUuid, type Json, parseJson, type StoredSpan, SYSTEM_ID } from '../span/index.ts';

/** A whole number behind an option. */
export function wholeNumber(text: string): number {
  if (/^-?\d{1,15}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('expected a whole number');
}

/** JSON behind an option, or in the file behind an `@`. */
export async function readJsonOption(option: string, text: string | undefined): Promise<Json | undefined> {
  if (text === undefined) return undefined;
  const json = text.startsWith('@') ? await readText(text.slice(1)) : text;
  try {
    return parseJson(json) as Json;
  } catch {
    throw new InputError('JSON_INVALID', `--${option}: expected JSON, or @ and the name of a file that holds it`, {
      field: option,
    });
  }
}

export async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (cause) {
    throw new InputError('FILE_UNREADABLE', `${file} cannot be read (${(cause as { code?: string }).code})`, { cause });
  }
}

/** A kernel by its id or its name. */
export async function resolveKernel(client: Client, nameOrId: string): Promise<string> {
  if (isUuid(nameOrId)) return nameOrId;
  const { spans } = await client.spans({ entity_type: 'function', name: nameOrId, owner: SYSTEM_ID });
  const kernel = spans.find(({ tenant_id }) => tenant_id === SYSTEM_ID);
  if (kernel !== undefined) return kernel.id;
  throw new InputError('KERNEL_NOT_FOUND', `there is no kernel ${nameOrId}`);
}

/** A function by its id or its name; of several with one name, the caller's own. */
export async function resolveFunction(client: Client, nameOrId: string): Promise<string> {
  if (isUuid(nameOrId)) return nameOrId;
  const own = await findOwn(client, 'function', nameOrId);
  if (own !== undefined) return own.id;
  const { spans } = await client.spans({ entity_type: 'function', name: nameOrId });
  const [only, ...others] = spans;
  if (only === undefined) throw new InputError('SPAN_NOT_FOUND', `no function ${nameOrId} is visible to you`);
  if (others.length === 0) return only.id;
  const ids = spans.map(({ id }) => id).join(', ');
  throw new InputError('NAME_AMBIGUOUS', `several functions are called ${nameOrId}; say which: ${ids}`);
}

/** The caller's own span of this name. */
export async function findOwn(client: Client, entityType: string, name: string): Promise<StoredSpan | undefined> {
  const me = await client.me();
  const { spans } = await client.spans({ entity_type: entityType, name, owner: me.user_id });
  return spans.find(({ tenant_id }) => tenant_id === me.tenant_id);
}
