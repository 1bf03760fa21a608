import { type ChildProcess, spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { TEST_PASSWORD, withClient } from '../support/postgres-server.ts';

const START_MS_MAX = 10_000;
/** It may not run as root; this user owns nothing. */
const UNPRIVILEGED = 'nobody';

/** The program, where it is installed; system programs lie outside the PATH of many users. */
export function findPgBouncer(): string | null {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin'];
  const paths = folders.filter((folder) => folder !== '').map((folder) => join(folder, 'pgbouncer'));
  return paths.find(isExecutable) ?? null;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** PgBouncer in transaction mode before a database: every transaction may have another connection. */
export class PgBouncer {
  readonly #child: ChildProcess;
  readonly #folder: string;
  readonly #port: number;
  #log = '';

  private constructor(child: ChildProcess, folder: string, port: number) {
    this.#child = child;
    this.#folder = folder;
    this.#port = port;
    child.stderr?.on('data', (chunk) => {
      this.#log += chunk;
    });
  }

  static async start(program: string, databaseUrl: string, poolSize: number): Promise<PgBouncer> {
    const { hostname, port: serverPort } = new URL(databaseUrl);
    const folder = await mkdtemp(join(tmpdir(), 'loglineos-pgbouncer-'));
    await chmod(folder, 0o755);
    const port = await freePort();
    const file = (name: string) => join(folder, name);
    // Plain text: with SCRAM it must log in to the server itself.
    await writeFile(file('users'), `"loglineos_app" "${TEST_PASSWORD}"\n`);
    await writeFile(
      file('ini'),
      `[databases]
* = host=${hostname} port=${serverPort || 5432}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = ${file('users')}
pool_mode = transaction
default_pool_size = ${poolSize}
max_client_conn = 200
`,
    );
    const args = process.getuid?.() === 0 ? ['-u', UNPRIVILEGED] : [];
    const child = spawn(program, [...args, file('ini')], { stdio: ['ignore', 'ignore', 'pipe'] });
    const bouncer = new PgBouncer(child, folder, port);
    await bouncer.#answers(databaseUrl);
    return bouncer;
  }

  /** The same database through it. */
  url(databaseUrl: string): string {
    const url = new URL(databaseUrl);
    url.hostname = '127.0.0.1';
    url.port = String(this.#port);
    return url.href;
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode === null) {
      const ended = new Promise((resolve) => this.#child.once('exit', resolve));
      this.#child.kill('SIGKILL');
      await ended;
    }
    await rm(this.#folder, { recursive: true, force: true });
  }

  async #answers(databaseUrl: string): Promise<void> {
    const deadline = Date.now() + START_MS_MAX;
    for (;;) {
      try {
        return await withClient(this.url(databaseUrl), async (client) => void (await client.query('select 1')));
      } catch (error) {
        if (Date.now() > deadline || this.#child.exitCode !== null) {
          await this.stop();
          throw new Error(`PgBouncer does not answer: ${this.#log}`, { cause: error });
        }
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  }
}

async function freePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as net.AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
