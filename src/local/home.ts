import { randomBytes } from 'node:crypto';
import { link, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { ConflictError, InputError, IntegrityError } from '../errors.ts';
import { Fields } from '../fields.ts';
import { type KeyFields, keyEndsOf, readKeyRing, writeKeyRing } from '../keys/index.ts';
import type { LoginRole } from '../ledger/index.ts';
import type { TrustedKeys } from '../span/index.ts';

/** Where the local stack keeps its data: `LOGLINEOS_HOME`, or `.loglineos` where it is started. */
export function homeFolder(env: NodeJS.ProcessEnv): string {
  return resolve(env.LOGLINEOS_HOME || '.loglineos');
}

/** The secrets of a local stack, made once. They stand in for what Secrets Manager holds in AWS. */
export interface LocalSecrets extends KeyFields<'root'>, KeyFields<'runtime'> {
  /** An Ed25519 seed, 64 hex digits. */
  override_key: string;
  /** 32 bytes in hex: tenants' encryption keys are derived from it. */
  tenant_master_key: string;
  /** Bearer token of the one local user. */
  token: string;
  passwords: Record<LoginRole | 'admin', string>;
}

/** Read the folder's secrets, making them the first time. Only the user may read the file. */
export async function openSecrets(home: string): Promise<LocalSecrets> {
  await mkdir(home, { recursive: true });
  const existing = await readSecrets(home);
  if (existing !== null) return existing;
  if ((await readdir(home)).includes('postgres')) {
    throw new IntegrityError(
      'SECRETS_MISSING',
      `${home} has a ledger and no secrets.json; put it back, new keys cannot sign for it`,
    );
  }
  const secret = () => randomBytes(32).toString('hex');
  const secrets: LocalSecrets = {
    root_key: secret(),
    runtime_key: secret(),
    override_key: secret(),
    tenant_master_key: secret(),
    token: `llt_${secret()}`,
    passwords: {
      admin: secret(),
      loglineos_app: secret(),
      loglineos_seeder: secret(),
      loglineos_auditor: secret(),
    },
  };
  await writeSecrets(home, secrets);
  return secrets;
}

/** Written whole or not at all: half a key file would lock its owner out of the ledger. */
export async function writeSecrets(home: string, secrets: LocalSecrets): Promise<void> {
  const temporary = `${secretsFile(home)}.${process.pid}`;
  await rm(temporary, { force: true }); // an earlier process of this number may have left one
  await writeFile(temporary, `${JSON.stringify(secrets, null, 2)}\n`, { mode: 0o600, flag: 'wx', flush: true });
  await rename(temporary, secretsFile(home));
}

export async function readSecrets(home: string): Promise<LocalSecrets | null> {
  let text: string;
  try {
    text = await readFile(secretsFile(home), 'utf8');
  } catch (error) {
    if ((error as { code?: string }).code === 'ENOENT') return null;
    throw error;
  }
  try {
    return readFields(JSON.parse(text));
  } catch (cause) {
    const why = cause instanceof InputError ? cause.message : 'not JSON';
    throw new IntegrityError('SECRETS_UNREADABLE', `${secretsFile(home)}: ${why}`);
  }
}

function readFields(value: unknown): LocalSecrets {
  const fields = new Fields(value, '');
  const passwords = fields.object('passwords');
  const key = (name: string) => fields.text(name, /^[0-9a-f]{64}$/, '64 hex digits');
  const password = (name: string) => passwords.text(name, /./, 'text');
  return {
    ...writeKeyRing(readKeyRing(value, 'root'), 'root'),
    ...writeKeyRing(readKeyRing(value, 'runtime'), 'runtime'),
    override_key: key('override_key'),
    tenant_master_key: key('tenant_master_key'),
    token: fields.text('token', /^[\x21-\x7e]+$/, 'text'),
    passwords: {
      admin: password('admin'),
      loglineos_app: password('loglineos_app'),
      loglineos_seeder: password('loglineos_seeder'),
      loglineos_auditor: password('loglineos_auditor'),
    },
  };
}

/** The same server and database, as another login. */
export function loginUrl(adminUrl: string, role: LoginRole, secrets: LocalSecrets): string {
  const url = new URL(adminUrl);
  url.username = role;
  url.password = secrets.passwords[role];
  return url.href;
}

export function trustedKeysOf(secrets: LocalSecrets): TrustedKeys {
  return { root: keyEndsOf(readKeyRing(secrets, 'root')), runtime: keyEndsOf(readKeyRing(secrets, 'runtime')) };
}

/**
 * Make this process the folder's only one. A lock whose process is gone counts for nothing.
 *
 * @returns how to let go.
 * @throws {ConflictError} `ALREADY_RUNNING`
 */
export async function lockHome(home: string): Promise<() => Promise<void>> {
  await mkdir(home, { recursive: true });
  return lockFile(join(home, 'lock'), (pid) => {
    const message = `process ${pid} already runs on ${home}; stop it, or set LOGLINEOS_HOME`;
    return new ConflictError('ALREADY_RUNNING', message);
  });
}

/**
 * Hold a lock file. One whose process is gone counts for nothing.
 *
 * @param refuse the error for whoever comes while a process holds it.
 * @returns how to let go.
 */
export async function lockFile(file: string, refuse: (pid: string) => ConflictError): Promise<() => Promise<void>> {
  // Linked into place, so that nobody ever reads half of it.
  const claim = `${file}.${process.pid}.${randomBytes(8).toString('hex')}`;
  await writeFile(claim, `${process.pid} ${await startOf(process.pid)}`, { mode: 0o600 });
  try {
    for (;;) {
      if (await take(claim, file)) return () => rm(file, { force: true });
      const holder = await holderOf(file);
      if (holder.isAlive) throw refuse(holder.pid);
      await breakStale(claim, file);
    }
  } finally {
    await rm(claim, { force: true });
  }
}

/** One at a time removes a dead process's lock, or it could remove the lock that came in its place. */
async function breakStale(claim: string, file: string): Promise<void> {
  const breaking = `${file}.breaking`;
  if (await take(claim, breaking)) {
    if ((await holderOf(file)).isStale) await rm(file, { force: true });
    await rm(breaking, { force: true });
  } else if ((await holderOf(breaking)).isStale) {
    await rm(breaking, { force: true });
  } else {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

async function take(claim: string, file: string): Promise<boolean> {
  try {
    await link(claim, file);
    return true;
  } catch (error) {
    if ((error as { code?: string }).code === 'EEXIST') return false;
    throw error;
  }
}

async function holderOf(file: string): Promise<{ pid: string; isAlive: boolean; isStale: boolean }> {
  const text = await readFile(file, 'utf8').catch(() => null);
  const [pid = '', start = ''] = (text ?? '').split(' ');
  const isAlive = start !== '' && start === (await startOf(Number(pid)));
  return { pid, isAlive, isStale: text !== null && !isAlive };
}

/** When a process began, so that a process id used anew is not taken for the old one. Empty when it is gone. */
async function startOf(pid: number): Promise<string> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  if (stat !== '') return stat.slice(stat.lastIndexOf(')')).split(' ')[20] ?? '';
  try {
    process.kill(pid, 0);
    return process.platform === 'linux' ? '' : 'alive'; // no /proc: being alive has to do
  } catch {
    return '';
  }
}

function secretsFile(home: string): string {
  return join(home, 'secrets.json');
}
