/**
 * The room where code from rows runs.
 *
 * `Sandbox.run` takes the source of a row and gives back JSON or one of seven reasons why not. The code runs in a child
 * process that holds nothing: no environment, no file, no descriptor, no connection. A kernel (reviewed, signed by a
 * root key) also gets `ctx`, whose every power is a message to `systemCall` on this side (`contract.ts`).
 *
 * Six layers, because `node:vm` alone is no boundary: the gate on the source (`sandbox/source.ts`), the context and the
 * emptied realm around it (`sandbox/child.cjs`), the flags and kernel limits of the child (`sandbox/child-process.ts`),
 * and this side's clock, memory poll and distrust of everything that comes back. What remains: a memory-corruption
 * fault of V8 has the rights of the user that started us, in a process without descriptors to begin with.
 *
 * Untrusted code may as well run behind a function that is invoked (`sandbox/remote-child.ts`): the same children there,
 * and nothing believed of what it answers.
 *
 * This room decides nothing about whether code may run (Stage-0 does), and must never: hand a secret, a host object or
 * another compartment's child to code; await, inspect or print what came out of a context other than as JSON; read the
 * environment; know the ledger.
 */
export type { Json, KernelContext, KernelEnv, Row, UntrustedRun, WorkKind } from './contract.ts';
export { SYSTEM_CALLS } from './contract.ts';
export type { LimitCode, SandboxError, SandboxJob, SandboxResult } from './sandbox/job.ts';
export type { SandboxFunction } from './sandbox/remote-child.ts';
export { type RemoteResult, readRemoteJob, remoteResultOf } from './sandbox/remote-job.ts';
export { Sandbox, type SandboxOptions } from './sandbox/sandbox.ts';
export { refusal } from './sandbox/source.ts';
