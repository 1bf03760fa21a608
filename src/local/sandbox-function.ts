import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { RemoteFunction } from '../aws/lambda.ts';
import { UpstreamError } from '../errors.ts';
import type { SandboxFunction } from '../kernel/index.ts';

const SCRIPT = fileURLToPath(new URL('./sandbox-process.ts', import.meta.url));
const STARTING_MS_MAX = 10_000;

/**
 * `loglineos-sandbox` on this machine: a process beside the stack, reached as in AWS, by Invoke through the SDK. One that
 * died is replaced when it is next asked.
 */
export class LocalSandboxFunction implements SandboxFunction {
  #process: ChildProcess | undefined;
  #started: Promise<RemoteFunction> | undefined;

  /** @throws {UpstreamError} `SANDBOX_UNAVAILABLE` */
  start(): Promise<RemoteFunction> {
    this.#started ??= this.#start().catch((error) => {
      this.#started = undefined;
      throw error;
    });
    return this.#started;
  }

  async invokeForText(payload: string, signal: AbortSignal): Promise<string> {
    return (await this.start()).invokeForText(payload, signal);
  }

  /** The process, while there is one. */
  get pid(): number | undefined {
    return this.#process?.pid;
  }

  async stop(): Promise<void> {
    const child = this.#process;
    if (child === undefined) return;
    const ended = once(child, 'exit');
    child.ref();
    child.kill();
    await ended;
  }

  async #start(): Promise<RemoteFunction> {
    const child = fork(SCRIPT, {
      env: {},
      execArgv: [],
      cwd: '/',
      // Not within the terminal's reach: it ends when the stack ends it. What it says goes to the log.
      detached: true,
      stdio: ['ignore', 2, 2, 'ipc'],
    });
    this.#process = child;
    child.once('exit', () => {
      this.#process = undefined;
      this.#started = undefined;
    });
    const ready = AbortSignal.timeout(STARTING_MS_MAX);
    const [message] = await Promise.race([
      once(child, 'message', { signal: ready }),
      once(child, 'exit').then(() => [undefined]),
    ]).catch(() => {
      child.kill('SIGKILL');
      return [undefined];
    });
    const { port } = (message ?? {}) as { port?: number };
    if (port === undefined) throw new UpstreamError('SANDBOX_UNAVAILABLE', 'sandbox: its process did not start');
    child.unref();
    child.channel?.unref();
    return new RemoteFunction('loglineos-sandbox', {
      endpoint: `http://127.0.0.1:${port}`,
      region: 'local',
      credentials: { accessKeyId: 'local', secretAccessKey: 'local' },
    });
  }
}
