import type { Sandbox } from '../kernel/index.ts';
import type { AppendContext, Database, Identity } from '../ledger/index.ts';
import type { Ed25519, Signer } from '../span/index.ts';
import type { WorkCounters } from '../work/index.ts';
import type { Admission } from './admit.ts';
import type { GovernanceVerifier } from './verify-kernel.ts';

/** What Stage-0 is made of. Built once by a composition root (`lambda/`, `local/`) and never changed. */
export interface Stage0 {
  database: Database;
  sandbox: Sandbox;
  signer: Signer;
  scheme: Ed25519;
  verifier: GovernanceVerifier;
  /** Admissions proved by earlier boots. Each is confirmed by the ledger before it counts again. */
  admissions: Map<string, Admission>;
  /** 32 bytes; each tenant's key for `ctx.crypto.encrypt` is derived from it. */
  tenantMasterKey: Uint8Array;
  /** The secret that a provider row names; null when there is none. Its value goes into a request's header and nowhere else. */
  providerSecrets: (name: string) => Promise<string | null>;
  now: () => Date;
  log: (entry: Record<string, unknown>) => void;
}

export function appendContext({ signer, now }: Pick<Stage0, 'signer' | 'now'>, identity: Identity): AppendContext {
  return { identity, signer, now };
}

/** A boot that was announced: its boot_event is in the ledger, its execution is still to come. */
export interface Announced {
  bootEventId: string;
  executionId: string;
  traceId: string;
  startedAt: Date;
  deadline: Date;
}

/**
 * A kernel that is booted to work, and not to answer a caller: for how long it takes new work, and when it looks for
 * some. Only a composition root has one to give, so that nobody can boot himself into the queue.
 */
export interface Shift {
  /** What the work counts, for whoever publishes it. */
  readonly counters: WorkCounters;
  /** Called once, before the kernel runs: what lets it. */
  admitted(admission: Admission): void;
  /** No new work is taken from here on; what is open may still end. */
  isOver(): boolean;
  /** Resolves after `ms`, or as soon as there may be new work, or when the shift is over. */
  wait(ms: number): Promise<void>;
}
