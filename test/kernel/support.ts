import { createHash } from 'node:crypto';
import { afterAll, beforeAll } from 'vitest';
import { type KernelEnv, Sandbox, type SandboxJob, type SandboxOptions } from '../../src/kernel/index.ts';
import { LocalSandboxFunction } from '../../src/local/sandbox-function.ts';

/** Where untrusted code runs. What holds for one holds for the other. */
export const WAYS = ['in a child of this process', 'in a function of its own'] as const;

/** A sandbox for the tests beside the call. The function is the real one: its handler in a process, behind HTTP and the SDK. */
export function useSandbox(way: (typeof WAYS)[number], options: Partial<SandboxOptions>): Pick<Sandbox, 'run'> {
  const untrusted = way === WAYS[1] ? new LocalSandboxFunction() : undefined;
  const sandbox = new Sandbox({ ...options, untrusted });
  beforeAll(() => untrusted?.start());
  afterAll(async () => {
    await sandbox.close();
    await untrusted?.stop();
  });
  return sandbox;
}

export const LIMITS: SandboxJob['limits'] = { timeoutMs: 2000, memoryMb: 64, outputBytes: 100_000, calls: 50 };

export const ENV: KernelEnv = {
  user_id: 'user',
  tenant_id: 'acme',
  kernel_id: '00000000-0000-4000-8000-000000000001',
  kernel_seq: 3,
  kernel_hash: 'hash',
  boot_event_id: 'boot',
  trace_id: 'trace',
  deadline: '2030-01-01T00:00:00.000Z',
  policy: { slow_ms: 5000, timeout_ms: 60_000, memory_mb: 128 },
};

/** A job of untrusted code; `more` overrides anything, its limits one by one. */
export function untrusted(
  code: string,
  more: Partial<Omit<SandboxJob, 'limits'>> & { limits?: Partial<SandboxJob['limits']> } = {},
): SandboxJob {
  return {
    trust: 'untrusted',
    compartment: 'tenant:acme',
    code,
    codeHash: createHash('sha256').update(code).digest('hex'),
    fileName: 'function.js',
    entry: 'function',
    input: { a: 1, b: 2 },
    ...more,
    limits: { ...LIMITS, ...more.limits },
  };
}

/** A job of kernel code; the body of `main(ctx)` starts on line 2. */
export function kernel(body: string, more: Parameters<typeof untrusted>[1] = {}): SandboxJob {
  return untrusted(`export default async function main(ctx) {\n${body}\n}\n`, {
    trust: 'kernel',
    compartment: 'kernel:0',
    fileName: 'kernel.js',
    entry: 'main',
    env: ENV,
    systemCall: async (name, args) => ({ name, args }),
    ...more,
  });
}
