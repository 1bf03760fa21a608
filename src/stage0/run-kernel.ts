import type { SandboxResult } from '../kernel/index.ts';
import type { Stage0 } from './stage0.ts';
import { type KernelRun, SystemCalls } from './system-calls.ts';

const KERNEL_MEMORY_MB = 256;
const KERNEL_OUTPUT_BYTES = 900_000;
const KERNEL_CALLS_MAX = 1_000;
/** A shift is long, and mostly waiting. */
const SHIFT_CALLS_MAX = 10_000_000;

/**
 * Step 8, run: the kernel in a fresh context of a child that holds nothing, its system calls answered here. Also the
 * way of a nested `ctx.invoke`, whose `outer` is the run that invoked it.
 */
export async function runKernel(stage0: Stage0, run: KernelRun): Promise<SandboxResult> {
  const { identity, kernel, announced } = run;
  const systemCalls = new SystemCalls(stage0, run, runKernel);
  const timeoutMs = Math.max(1, announced.deadline.getTime() - stage0.now().getTime());
  try {
    return await stage0.sandbox.run({
      trust: 'kernel',
      compartment: run.shift === undefined ? `kernel:${systemCalls.depth}` : 'kernel:shift',
      code: kernel.code,
      codeHash: kernel.curr_hash,
      fileName: `${kernel.name ?? kernel.id}.js`,
      entry: 'main',
      input: run.input,
      env: {
        user_id: identity.userId,
        tenant_id: identity.tenantId,
        kernel_id: kernel.id,
        kernel_seq: kernel.seq,
        kernel_hash: kernel.curr_hash,
        boot_event_id: announced.bootEventId,
        trace_id: announced.traceId,
        deadline: announced.deadline.toISOString(),
        policy: run.manifest.policy,
      },
      limits: {
        timeoutMs,
        memoryMb: KERNEL_MEMORY_MB,
        outputBytes: KERNEL_OUTPUT_BYTES,
        calls: run.shift === undefined ? KERNEL_CALLS_MAX : SHIFT_CALLS_MAX,
      },
      deadlineAt: performance.now() + timeoutMs,
      systemCall: (name, args) => systemCalls.call(name, args),
    });
  } finally {
    await systemCalls.end();
  }
}
