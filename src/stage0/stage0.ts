import type { Sandbox } from '../kernel/index.ts';
import type { AppendContext, Database, Identity } from '../ledger/index.ts';
import type { Ed25519, Signer } from '../span/index.ts';
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
  now: () => Date;
  log: (entry: Record<string, unknown>) => void;
}

export function appendContext(stage0: Stage0, identity: Identity): AppendContext {
  return { identity, signer: stage0.signer, now: stage0.now };
}

/** A boot that was announced: its boot_event is in the ledger, its execution is still to come. */
export interface Announced {
  bootEventId: string;
  executionId: string;
  traceId: string;
  startedAt: Date;
  deadline: Date;
}
