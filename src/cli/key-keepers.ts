import { randomBytes } from 'node:crypto';
import { fetchSecret, putFirstSecret, putSecret } from '../aws/secrets.ts';
import { InputError, UpstreamError } from '../errors.ts';
import {
  KEY_KINDS,
  type KeyKind,
  type KeyRing,
  publicKeyOf,
  readKeyRing,
  rotateKey,
  trustKey,
  writeKeyRing,
} from '../keys/index.ts';
import { Database, readLastPosition } from '../ledger/index.ts';
import { homeFolder, lockHome, openSecrets, readSecrets, writeSecrets } from '../local/home.ts';
import { openDatabase, openDatabaseAlone } from '../local/open-database.ts';

/** Where keys are kept, and how they change there. What is printed of it, and what is to be done next, is text for people. */
export interface KeyKeeper {
  /** The kinds of keys that it holds. */
  readonly kinds: readonly KeyKind[];
  /** Whether what it holds is told to the system by configuration: it must be brought there. */
  readonly isConfigured: boolean;
  read(kind: KeyKind): Promise<KeyRing>;
  /** A key that was made to sign next: already to be trusted, and not in use yet. */
  readWaiting(kind: KeyKind): Promise<string | null>;
  write(kind: KeyKind, ring: KeyRing): Promise<void>;
  /** Make what is not there; what is there stays. */
  create(): Promise<CreatedKeys>;
  /** @returns what is to be done next. */
  rotate(kind: KeyKind, options: { activate: boolean }): Promise<string[]>;
  /** A client's runtime key counts from now on. @returns what is to be done next. */
  trust(publicKey: string): Promise<string[]>;
  /** The ledger that is signed with them; nothing else changes the keys while it is open. */
  openLedger(): Promise<{ database: Database; close(): Promise<void> }>;
}

export interface CreatedKeys {
  /** Where something was made. */
  made: string[];
  /** Null where the key that passes the quota is not among them. */
  overridePublicKey: string | null;
}

const newSecret = () => randomBytes(32).toString('hex');

/** The local stack's folder. It is changed while no stack runs, so one step is enough: nobody signs meanwhile. */
export class LocalKeys implements KeyKeeper {
  readonly kinds = KEY_KINDS;
  readonly isConfigured = false;
  readonly #env: NodeJS.ProcessEnv;

  constructor(env: NodeJS.ProcessEnv) {
    this.#env = env;
  }

  async read(kind: KeyKind): Promise<KeyRing> {
    return readKeyRing(await this.#secrets(), kind);
  }

  async readWaiting(): Promise<null> {
    return null;
  }

  async write(kind: KeyKind, ring: KeyRing): Promise<void> {
    await writeSecrets(homeFolder(this.#env), { ...(await this.#secrets()), ...writeKeyRing(ring, kind) });
  }

  async create(): Promise<CreatedKeys> {
    const home = homeFolder(this.#env);
    const made = (await readSecrets(home)) === null ? [home] : [];
    const { override_key } = await openSecrets(home);
    return { made, overridePublicKey: publicKeyOf(override_key) };
  }

  /** The former key ends where the ledger ends. One write changes all of it, so there is no half of a rotation. */
  async rotate(kind: KeyKind): Promise<string[]> {
    const { database, close } = await this.openLedger();
    try {
      const end = await readLastPosition(database);
      await this.write(kind, rotateKey(await this.read(kind), newSecret(), end));
    } finally {
      await close();
    }
    return [
      kind === 'root'
        ? 'npm start; it signs manifest, kernels, policies and providers anew'
        : 'npm start; from then on the new key signs',
    ];
  }

  async trust(publicKey: string): Promise<string[]> {
    await this.#secrets(); // where there are none, no folder is made
    const unlock = await lockHome(homeFolder(this.#env));
    try {
      await this.write('runtime', trustKey(await this.read('runtime'), publicKey));
    } finally {
      await unlock();
    }
    return ['npm start'];
  }

  async openLedger() {
    const { adminUrl, close } = await openDatabaseAlone(this.#env);
    return openLedger(adminUrl, close);
  }

  async #secrets() {
    const home = homeFolder(this.#env);
    const secrets = await readSecrets(home);
    if (secrets !== null) return secrets;
    throw new InputError('NO_KEYS', `there are no keys in ${home}; set LOGLINEOS_HOME, or make some with keys create`);
  }
}

/** Names or ARNs of the secrets in Secrets Manager; what is not said is not touched. */
export interface KeySecrets {
  root?: string | undefined;
  runtime?: string | undefined;
  override?: string | undefined;
}

const WAITING = 'AWSPENDING';
const CURRENT = 'AWSCURRENT';

/**
 * Secrets of AWS Secrets Manager. Functions run meanwhile, and know whom to trust from their configuration: so a new key
 * waits in a version `AWSPENDING` until every function trusts it, and only then becomes the one that signs.
 */
export class SecretsManagerKeys implements KeyKeeper {
  readonly kinds: readonly KeyKind[];
  readonly isConfigured = true;
  readonly #secrets: KeySecrets;
  readonly #env: NodeJS.ProcessEnv;

  constructor(secrets: KeySecrets, env: NodeJS.ProcessEnv) {
    this.kinds = KEY_KINDS.filter((kind) => secrets[kind] !== undefined);
    this.#secrets = secrets;
    this.#env = env;
  }

  async read(kind: KeyKind): Promise<KeyRing> {
    return this.#ringOf(await this.#current(kind), kind);
  }

  async readWaiting(kind: KeyKind): Promise<string | null> {
    const waiting = await fetchSecret(this.#idOf(kind), WAITING);
    if (waiting === null) return null;
    const { secretKey } = this.#ringOf(waiting, kind);
    return secretKey === (await this.read(kind)).secretKey ? null : secretKey;
  }

  async write(kind: KeyKind, ring: KeyRing): Promise<void> {
    await this.#put(kind, ring, [CURRENT]);
  }

  async create(): Promise<CreatedKeys> {
    const { root, runtime, override } = this.#secrets;
    const made: string[] = [];
    const complete = async (id: string | undefined, names: string[]) => {
      if (id !== undefined && (await this.#complete(id, names))) made.push(id);
    };
    await complete(root, ['root_key']);
    await complete(runtime, ['runtime_key', 'tenant_master_key']);
    await complete(override, ['override_key']);
    if (override === undefined) return { made, overridePublicKey: null };
    const { override_key } = (await fetchSecret(override)) ?? {};
    return { made, overridePublicKey: publicKeyOf(String(override_key)) };
  }

  /** Twice, with a deployment between: the first time the new key is made, the second time it is put to use. */
  async rotate(kind: KeyKind, { activate }: { activate: boolean }): Promise<string[]> {
    const secret = this.#idOf(kind);
    const waiting = await this.readWaiting(kind);
    const ring = await this.read(kind);
    const again = `loglineos keys rotate ${kind} --${kind}-secret ${secret} --activate`;
    if (!activate) {
      if (waiting === null) await this.#put(kind, rotateKey(ring, newSecret()), [WAITING]);
      return ['apply the lines above: every function must trust the new key before it signs', again];
    }
    if (waiting === null) {
      throw new InputError('NO_KEY_WAITING', `secret ${secret} has no new key; make one without --activate first`);
    }
    // From the ring as it is now: whoever was revoked since the new key was made stays revoked.
    await this.#put(kind, rotateKey(ring, waiting), [CURRENT, WAITING]);
    return [
      kind === 'root'
        ? 'invoke loglineos-seed: it signs manifest, kernels, policies and providers anew'
        : 'deploy, so that no container with the former key is left',
      `loglineos keys revoke ${publicKeyOf(ring.secretKey)} --${kind}-secret ${secret}`,
      'apply the lines that it prints: then the former key has an end',
    ];
  }

  async trust(publicKey: string): Promise<string[]> {
    await this.write('runtime', trustKey(await this.read('runtime'), publicKey));
    return ['apply the lines above'];
  }

  async openLedger() {
    if (this.#env.DATABASE_URL) {
      const { adminUrl, close } = await openDatabase(this.#env);
      return openLedger(adminUrl, close);
    }
    const message = 'set DATABASE_URL to the ledger, as loglineos_auditor or an administrator';
    throw new InputError('NO_DATABASE', message, { field: 'DATABASE_URL' });
  }

  /** Fill in what a secret does not have; what it has stays, whatever it is. */
  async #complete(id: string, names: string[]): Promise<boolean> {
    const existing = await fetchSecret(id);
    const missing = names.filter((name) => existing?.[name] === undefined);
    if (missing.length === 0) return false;
    const fields = { ...existing, ...Object.fromEntries(missing.map((name) => [name, newSecret()])) };
    if (existing === null) await putFirstSecret(id, fields);
    else await putSecret(id, fields, [CURRENT]);
    return true;
  }

  async #put(kind: KeyKind, ring: KeyRing, stages: string[]): Promise<void> {
    await putSecret(this.#idOf(kind), { ...(await this.#current(kind)), ...writeKeyRing(ring, kind) }, stages);
  }

  async #current(kind: KeyKind): Promise<Record<string, unknown>> {
    const id = this.#idOf(kind);
    const current = await fetchSecret(id);
    if (current !== null) return current;
    throw new UpstreamError('SECRET_UNAVAILABLE', `secret ${id} is not there, or is empty; make it with keys create`);
  }

  #ringOf(secret: unknown, kind: KeyKind): KeyRing {
    try {
      return readKeyRing(secret, kind);
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      throw new UpstreamError('SECRET_MALFORMED', `secret ${this.#idOf(kind)}: ${error.message}`, { cause: error });
    }
  }

  #idOf(kind: KeyKind): string {
    const id = this.#secrets[kind];
    if (id !== undefined) return id;
    const field = `--${kind}-secret`;
    throw new InputError('FIELD_MISSING', `${field} is missing: it names the secret of the ${kind} key`, { field });
  }
}

function openLedger(url: string, close: () => Promise<void>) {
  const database = new Database({ url, applicationName: 'loglineos-keys' });
  return {
    database,
    close: async () => {
      await database.close();
      await close();
    },
  };
}
