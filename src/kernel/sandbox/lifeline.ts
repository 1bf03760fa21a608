import type { ChildProcess } from 'node:child_process';

/**
 * Remembers process ids, one line each, and kills what is left of them when its input ends. A child reads the end of
 * its own input as the death of the parent, but not while it runs a loop; this shell is what ends that one.
 */
const SCRIPT = `
trap '' INT TERM HUP
pids=' '
while read -r sign pid; do
  case $sign in
    +) pids="$pids$pid " ;;
    -) pids="\${pids%% $pid *} \${pids#* $pid }" ;;
  esac
done
for pid in $pids; do kill -9 "$pid"; done
`;

/** One small shell per sandbox that outlives the parent just long enough to kill its children. */
export class Lifeline {
  #shell: ChildProcess | undefined;
  readonly #pids = new Set<number>();

  watch(pid: number): void {
    this.#pids.add(pid);
    if (this.#shell === undefined) this.#start();
    else this.#tell(`+ ${pid}`);
  }

  release(pid: number): void {
    if (this.#pids.delete(pid)) this.#tell(`- ${pid}`);
  }

  /** Resolves when the shell is gone; whatever is still watched is killed. */
  close(): Promise<void> {
    const shell = this.#shell;
    if (shell === undefined) return Promise.resolve();
    this.#shell = undefined;
    return new Promise((resolve) => {
      shell.once('exit', () => resolve());
      shell.ref();
      shell.stdin?.end();
    });
  }

  #start(): void {
    const shell = process
      .getBuiltinModule('node:child_process')
      .spawn('/bin/sh', ['-c', SCRIPT], { stdio: ['pipe', 'ignore', 'ignore'], env: {}, detached: true });
    this.#shell = shell;
    const forget = () => {
      if (this.#shell === shell) this.#shell = undefined;
    };
    shell.once('error', forget);
    shell.once('exit', forget);
    shell.stdin?.on('error', forget);
    shell.unref();
    // A socket underneath, which the type of stdin does not tell; a waiting shell must not keep the process alive.
    (shell.stdin as unknown as { unref?: () => void } | null)?.unref?.();
    for (const pid of this.#pids) this.#tell(`+ ${pid}`);
  }

  #tell(line: string): void {
    this.#shell?.stdin?.write(`${line}\n`);
  }
}
