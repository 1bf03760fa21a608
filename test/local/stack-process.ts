import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Ready } from '../../src/local/stack.ts';

export const PROJECT = new URL('../..', import.meta.url).pathname;
const READY_TIMEOUT_MS = 30_000;

export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
  elapsedMs: number;
}

/** A program of this project as a process of its own, with an environment of its own. */
export class Program {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
  stdout = '';
  stderr = '';

  constructor(script: string, args: string[], env: NodeJS.ProcessEnv) {
    const startedAt = Date.now();
    const { PATH, HOME, NODE_COMPILE_CACHE } = process.env;
    this.child = spawn(process.execPath, [script, ...args], {
      cwd: PROJECT,
      env: { PATH, HOME, NODE_COMPILE_CACHE, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.child.stdout?.on('data', (chunk) => {
      this.stdout += chunk;
    });
    this.child.stderr?.on('data', (chunk) => {
      this.stderr += chunk;
    });
    this.ended = once(this.child, 'close').then(([code, signal]) => ({
      code,
      signal,
      stdout: this.stdout,
      stderr: this.stderr,
      elapsedMs: Date.now() - startedAt,
    }));
  }

  /** Ends it and says how it ended, and how long that took. */
  async kill(signal: NodeJS.Signals): Promise<Ended> {
    const startedAt = Date.now();
    this.child.kill(signal);
    return { ...(await this.ended), elapsedMs: Date.now() - startedAt };
  }
}

/** `npm start -- --json` as a process. */
export class StackProcess extends Program {
  constructor(home: string, env: NodeJS.ProcessEnv = {}) {
    super('src/local/main.ts', ['--json'], { LOGLINEOS_HOME: home, PORT: '0', ...env });
    stacksOf.set(home, [...(stacksOf.get(home) ?? []), this]);
  }

  /** The line it prints when it is ready. */
  async ready(): Promise<Ready> {
    const deadline = Date.now() + READY_TIMEOUT_MS;
    while (!this.stdout.includes('\n')) {
      if (this.child.exitCode !== null || this.child.signalCode !== null || Date.now() > deadline) {
        throw new Error(`the stack did not start: ${this.stderr}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return JSON.parse(this.stdout) as Ready;
  }

  /** How it ends that is expected not to start; if it does start, it is ended. */
  async refused(): Promise<Ended> {
    const started = await Promise.race([
      this.ended,
      this.ready().then(
        () => null,
        () => this.ended,
      ),
    ]);
    return started ?? this.kill('SIGTERM');
  }

  static async start(home: string, env: NodeJS.ProcessEnv = {}): Promise<{ stack: StackProcess; ready: Ready }> {
    const stack = new StackProcess(home, env);
    try {
      return { stack, ready: await stack.ready() };
    } catch (error) {
      await stack.kill('SIGKILL');
      throw error;
    }
  }
}

/** Stacks by their folder, so that a test that gives up leaves none behind. */
const stacksOf = new Map<string, StackProcess[]>();

/** A folder for a stack; `remove` first ends whatever still runs in it. */
export async function createHome(): Promise<{ home: string; remove: () => Promise<void> }> {
  const home = await mkdtemp(join(tmpdir(), 'loglineos-e2e-'));
  return {
    home,
    remove: async () => {
      for (const stack of stacksOf.get(home) ?? []) await stack.kill('SIGKILL');
      for (const pid of postmastersOf(home)) await endProcess(pid);
      await rm(home, { recursive: true, force: true });
    },
  };
}

/** Postgres servers whose data are in this folder. */
export function postmastersOf(home: string): number[] {
  return processes()
    .filter(({ command }) => command.includes('-D') && command.includes(`${home}/postgres`))
    .map(({ pid }) => pid);
}

/** All that a process has started, directly or not, and that is still alive. */
export function descendantsOf(pid: number): number[] {
  const all = processes();
  const found = [pid];
  for (const ancestor of found)
    found.push(...all.filter(({ parent }) => parent === ancestor).map((child) => child.pid));
  return found.slice(1);
}

export function isAlive(pid: number): boolean {
  return processes().some((process) => process.pid === pid);
}

async function endProcess(pid: number): Promise<void> {
  process.kill(pid, 'SIGQUIT');
  for (let i = 0; i < 200 && isAlive(pid); i++) await new Promise((resolve) => setTimeout(resolve, 25));
}

function processes(): { pid: number; parent: number; command: string }[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
        const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
        if (state === 'Z') return [];
        const command = readFileSync(`/proc/${name}/cmdline`, 'utf8').replaceAll('\0', ' ');
        return [{ pid: Number(name), parent: Number(parent), command }];
      } catch {
        return []; // gone meanwhile
      }
    });
}
