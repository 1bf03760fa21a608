import { type ServerType, serve } from '@hono/node-server';
import { createApi } from '../api/index.ts';
import { parseOrder } from '../audit/index.ts';
import { ConflictError, GovernanceError, UpstreamError } from '../errors.ts';
import { createAuthenticator, type JwtOptions } from '../identity/index.ts';
import { Sandbox } from '../kernel/index.ts';
import { Database, grantLogins, listenForTimeline, loadMigrations, migrate, readVersions } from '../ledger/index.ts';
import { readRowFiles, seed } from '../seed/index.ts';
import { loadBlake3 } from '../span/blake3-wasm.ts';
import { nodeEd25519 } from '../span/ed25519-node.ts';
import {
  createSignerFromHex,
  requireKeyInUse,
  SYSTEM_ID,
  type TrustedKeys,
  useBlake3,
  verifySpan,
} from '../span/index.ts';
import {
  type BootAnswer,
  boot,
  GovernanceVerifier,
  invokeStage0,
  MANIFEST_ID,
  reapLostBoots,
  type Stage0,
} from '../stage0/index.ts';
import { TimelineHub } from '../timeline/index.ts';
import { type Auditing, startAuditing } from './auditing.ts';
import { CONNECTIONS_PATH, createConnectionsApi } from './connections-api.ts';
import { startEmbeddedPostgres } from './embedded-postgres.ts';
import { type LocalSecrets, lockHome, loginUrl, openSecrets, trustedKeysOf } from './home.ts';
import { createLambdaApi, LAMBDA_API_PATH } from './lambda-api.ts';
import { type Roles, roleFunctions, startRoles } from './roles.ts';
import { LocalSandboxFunction } from './sandbox-function.ts';
import { isSocketHandshake, SocketServer } from './sockets.ts';

export interface StackOptions {
  home: string;
  /** An administrator's connection to a Postgres of the user's own; without it, the embedded one. */
  databaseUrl: string | undefined;
  /** 0 takes any free port. */
  port: number;
  /** Whose JWTs count beside the local token and API tokens. */
  jwt?: JwtOptions | undefined;
  /** Where untrusted code runs: in children of this process, or in `loglineos-sandbox`, a process of its own. */
  sandbox?: 'children' | 'function';
  log: (entry: Record<string, unknown>) => void;
}

/** What `npm start -- --json` prints when ready. */
export interface Ready {
  ready: true;
  url: string;
  /** Where WebSockets are opened. */
  ws_url: string;
  lambda_endpoint: string;
  token: string;
  tenant_id: string;
  user_id: string;
  database_url: string;
  /** Only for the embedded server: with `DATABASE_URL` the user has it already. */
  admin_database_url?: string;
  boot: ShownBoot;
}

/** The boot that a start makes to show that the whole way works; refused when the manifest says no, for instance when the tenant's day is used up. */
export type ShownBoot =
  | (BootAnswer & { verified: boolean })
  | { ok: false; status: 'refused'; error: { code: string; message: string } };

export interface Stack {
  ready: Ready;
  stop(): Promise<void>;
}

const PROJECT = new URL('../../', import.meta.url).pathname;
export const SQL_FOLDER = `${PROJECT}sql`;
export const ROW_FOLDER = `${PROJECT}ROW`;

const LOCAL_IDENTITY = { userId: 'local', tenantId: 'local' };
const RUN_CODE_KERNEL_ID = '00000000-0000-4000-8000-000000000001';
/** Kernels, and functions, that run at the same time. */
export const BOOTS_MAX = 8;
/** Each boot may hold one for its lock, and needs another beside it. */
const CONNECTIONS_MAX = 20;
/** Those who read the timeline live wait for no boot. */
const TIMELINE_CONNECTIONS_MAX = 4;
/** How long a stop waits for requests under way. */
const STOP_GRACE_MS = 3_000;

/**
 * The whole system in one process: the same rooms as in AWS, with other edges. Started in the order in which things
 * need each other; stopped in the other.
 */
export async function startStack(options: StackOptions): Promise<Stack> {
  const { home, port, log } = options;
  const undo: (() => Promise<unknown>)[] = [];
  const stop = async () => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  try {
    undo.push(await lockHome(home));
    useBlake3(await loadBlake3());
    const secrets = await openSecrets(home);
    const trustedKeys = trustedKeysOf(secrets);
    const signer = createSignerFromHex(nodeEd25519, secrets.runtime_key);
    requireKeyInUse(trustedKeys.runtime, signer);

    const adminUrl = options.databaseUrl ?? (await startOwnPostgres(home, secrets, undo));
    await migrateDatabase(adminUrl, secrets);

    const seeder = new Database({
      url: loginUrl(adminUrl, 'loglineos_seeder', secrets),
      applicationName: 'loglineos-seed',
    });
    undo.push(() => seeder.close());
    await seedDatabase(seeder, secrets);

    const appUrl = loginUrl(adminUrl, 'loglineos_app', secrets);
    const database = new Database({ url: appUrl, applicationName: 'loglineos-local', connectionsMax: CONNECTIONS_MAX });
    undo.push(() => database.close());
    let roles: Roles | undefined;
    undo.push(async () => roles?.ended);
    const sandboxFunction = options.sandbox === 'function' ? new LocalSandboxFunction() : undefined;
    undo.push(async () => sandboxFunction?.stop());
    const sandbox = new Sandbox({ maxChildren: BOOTS_MAX, untrusted: sandboxFunction, maxInvocations: BOOTS_MAX });
    undo.push(() => sandbox.close());
    await Promise.all([
      sandbox.prewarm('kernel', 'kernel:0'),
      sandboxFunction?.start() ?? sandbox.prewarm('untrusted', ''),
    ]);
    const stage0: Stage0 = {
      database,
      sandbox,
      signer,
      scheme: nodeEd25519,
      verifier: new GovernanceVerifier(trustedKeys, nodeEd25519),
      admissions: new Map(),
      tenantMasterKey: Buffer.from(secrets.tenant_master_key, 'hex'),
      providerSecrets: async (name) => process.env[name] || null,
      now: () => new Date(),
      log,
    };

    // Nothing else runs on an embedded database: a boot without an end was ours and is lost, due or not.
    await reapLostBoots(stage0, '-infinity', options.databaseUrl === undefined ? 'infinity' : new Date());

    const local = { token: secrets.token, identity: LOCAL_IDENTITY };
    const authenticator = createAuthenticator({ ...stage0, trustedKeys, jwt: options.jwt, local });
    const auditing = openAuditing(home, loginUrl(adminUrl, 'loglineos_auditor', secrets), stage0, trustedKeys, undo);
    const lambdaFunctions = {
      'loglineos-db-migration': () => migrateDatabase(adminUrl, secrets),
      'loglineos-seed': () => seedDatabase(seeder, secrets),
      'loglineos-stage0-loader': (event: unknown, endOfTime: Date) => invokeStage0(stage0, event, endOfTime),
      ...roleFunctions(stage0),
      'loglineos-auditor': async (event: unknown, endOfTime: Date) => auditing.run(parseOrder(event), endOfTime),
    };
    const lambdaApi = createLambdaApi(lambdaFunctions, log);
    // When somebody first looks: a start should not wait for it.
    const consoleFiles = async () => (await import('../console/build.ts')).buildConsole();
    const timeline = openTimeline(appUrl, stage0, trustedKeys, undo);
    const api = createApi({ stage0, trustedKeys, authenticator, timeline, consoleFiles });
    const sockets = new SocketServer((request, env) => api.fetch(request, env), timeline);
    const connectionsApi = createConnectionsApi(sockets.connections);
    const fetch = (request: Request, env: object) => {
      const { pathname } = new URL(request.url);
      if (pathname.startsWith(LAMBDA_API_PATH)) return lambdaApi.fetch(request);
      return CONNECTIONS_PATH.test(pathname) ? connectionsApi.fetch(request) : api.fetch(request, env);
    };
    undo.push(async () => sockets.close());
    const url = `http://127.0.0.1:${await listen(fetch, sockets, port, undo)}`;
    undo.push(() => timeline.stop());

    const firstBoot = await bootForShow(stage0, trustedKeys);
    roles = startRoles(stage0, { url: appUrl });
    undo.push(roles.stop);

    return {
      ready: {
        ready: true,
        url,
        ws_url: `${url.replace('http', 'ws')}/ws`,
        lambda_endpoint: url,
        token: secrets.token,
        tenant_id: LOCAL_IDENTITY.tenantId,
        user_id: LOCAL_IDENTITY.userId,
        database_url: appUrl,
        ...(options.databaseUrl === undefined ? { admin_database_url: adminUrl } : {}),
        boot: firstBoot,
      },
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Boot run_code_kernel with its own sample, read its execution back and verify it. */
async function bootForShow(stage0: Stage0, trustedKeys: TrustedKeys): Promise<ShownBoot> {
  try {
    const request = { boot_function_id: RUN_CODE_KERNEL_ID, identity: LOCAL_IDENTITY, input: null };
    const answer = await boot(stage0, request);
    const [execution] = await readVersions(stage0.database, LOCAL_IDENTITY, answer.execution_id);
    const verified = execution !== undefined && verifySpan(execution, trustedKeys, stage0.scheme).length === 0;
    return { ...answer, verified };
  } catch (error) {
    if (!(error instanceof GovernanceError)) throw error;
    return { ok: false, status: 'refused', error: { code: error.code, message: error.message } };
  }
}

async function startOwnPostgres(
  home: string,
  secrets: LocalSecrets,
  undo: (() => Promise<unknown>)[],
): Promise<string> {
  const postgres = await startEmbeddedPostgres(home, secrets.passwords.admin);
  undo.push(() => postgres.stop());
  return postgres.url;
}

async function migrateDatabase(adminUrl: string, secrets: LocalSecrets) {
  const connection = { url: adminUrl };
  const result = await migrate(connection, await loadMigrations(SQL_FOLDER));
  await requireOwnLedger(adminUrl, secrets);
  const { admin: _admin, ...passwords } = secrets.passwords;
  await grantLogins(connection, passwords);
  return result;
}

/** Before any login of the server is touched: a ledger that no root key of ours, or of before, governs is not ours. */
async function requireOwnLedger(adminUrl: string, secrets: LocalSecrets): Promise<void> {
  const admin = new Database({ url: adminUrl, applicationName: 'loglineos-start' });
  try {
    const statement = {
      text: 'select public_key from ledger.universal_registry where id = $1 order by seq desc limit 1',
      values: [MANIFEST_ID],
    };
    const identity = { userId: SYSTEM_ID, tenantId: SYSTEM_ID };
    const options = { role: 'loglineos_auditor', readOnly: true } as const;
    const [manifest] = await admin.transaction(identity, (query) => query<{ public_key: string }>(statement), options);
    const { publicKey } = createSignerFromHex(nodeEd25519, secrets.root_key);
    if (manifest !== undefined && !trustedKeysOf(secrets).root.has(manifest.public_key)) {
      throw new GovernanceError(
        'ROOT_KEY_DIFFERS',
        `this ledger is governed by root key ${manifest.public_key}; this folder's is ${publicKey}`,
      );
    }
  } finally {
    await admin.close();
  }
}

async function seedDatabase(seeder: Database, secrets: LocalSecrets) {
  const overridePublicKey = createSignerFromHex(nodeEd25519, secrets.override_key).publicKey;
  const rows = await readRowFiles(ROW_FOLDER, { overridePublicKey });
  const rootKeys = trustedKeysOf(secrets).root;
  const rootSigner = createSignerFromHex(nodeEd25519, secrets.root_key);
  requireKeyInUse(rootKeys, rootSigner);
  return seed(seeder, rows, rootSigner, () => new Date(), rootKeys);
}

/** The timeline live. Whoever watches is sent away before the server stops. */
function openTimeline(
  url: string,
  stage0: Stage0,
  trustedKeys: TrustedKeys,
  undo: (() => Promise<unknown>)[],
): TimelineHub {
  const applicationName = 'loglineos-timeline';
  const database = new Database({ url, applicationName, connectionsMax: TIMELINE_CONNECTIONS_MAX });
  undo.push(() => database.close());
  // One connection that nobody else waits for: slow lists, and slow timelines, must not look like credentials that ended.
  const credentials = new Database({ url, applicationName: 'loglineos-credentials' });
  undo.push(() => credentials.close());
  const authenticator = createAuthenticator({ ...stage0, database: credentials, trustedKeys });
  const { now, log } = stage0;
  const listen = (onSpans: () => void) => listenForTimeline({ url }, onSpans);
  return new TimelineHub({ database, authenticator, listen, now, log });
}

/** The auditor, each minute. Stopped, it ends within a moment and leaves the rest to the next start. */
function openAuditing(
  home: string,
  url: string,
  { scheme, now, log }: Stage0,
  keys: TrustedKeys,
  undo: (() => Promise<unknown>)[],
): Auditing {
  const database = new Database({ url, applicationName: 'loglineos-auditor' });
  undo.push(() => database.close());
  const auditing = startAuditing(home, { database, keys, scheme, now }, log);
  undo.push(() => auditing.stop());
  return auditing;
}

function listen(
  fetch: (request: Request, env: object) => Response | Promise<Response>,
  sockets: SocketServer,
  port: number,
  undo: (() => Promise<unknown>)[],
): Promise<number> {
  return new Promise((resolve, reject) => {
    const serverOptions = { shouldUpgradeCallback: isSocketHandshake };
    const server = serve({ fetch, port, hostname: '127.0.0.1', serverOptions }, (info) => {
      undo.push(() => closeServer(server));
      resolve(info.port);
    });
    server.on('upgrade', (request, stream, head) => void sockets.upgrade(request, stream, head));
    server.on('error', (cause: { code?: string }) =>
      reject(
        cause.code === 'EADDRINUSE'
          ? new ConflictError('PORT_TAKEN', `port ${port} is taken; set PORT to another`, { field: 'PORT', cause })
          : new UpstreamError('LISTEN_FAILED', `cannot listen on port ${port}`, { cause }),
      ),
    );
  });
}

/** Take no new requests and let those under way end, for a while; then the sandbox is closed, which ends them all. */
async function closeServer(server: ServerType): Promise<void> {
  const closed = new Promise((resolve) => server.close(resolve));
  await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, STOP_GRACE_MS).unref())]);
}
