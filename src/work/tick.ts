import { ConflictError, InputError, UpstreamError } from '../errors.ts';
import type { Sandbox } from '../kernel/index.ts';
import type { AppendContext, Database, Identity, QueueLimits } from '../ledger/index.ts';
import type { Ed25519, Json, Problem, Signer, StoredSpan } from '../span/index.ts';
import type { WorkCounters } from './metrics.ts';

/** One boot of a tick kernel: what the work behind its `ctx.claim` and `ctx.complete` may use. Stage-0 makes it. */
export interface Tick {
  database: Database;
  sandbox: Sandbox;
  signer: Signer;
  scheme: Ed25519;
  now: () => Date;
  log: (entry: Record<string, unknown>) => void;
  counters: WorkCounters;
  /** When the boot is ended, whatever it is doing. */
  deadline: Date;
  /** What the manifest in force allows. */
  policy: { timeout_ms: number; memory_mb: number };
  limits: QueueLimits;
  /** Goes into the metadata of what is appended: which kernel, under which manifest, in which boot. */
  proof: Record<string, Json>;
  /** An id that follows from its parts, see `stage0/identifiers.ts`. */
  derivedId(...parts: string[]): string;
  /** Whether a signature of the override key lets this version of a function pass the quota. */
  isOverridden(fn: StoredSpan, signature: unknown): boolean;
  /** Null where the key that signed it is a trusted one. */
  checkSigner(span: StoredSpan): Problem | null;
  /** @throws {IntegrityError} the span does not prove itself, or no root key signed it. */
  proveByRoot(span: StoredSpan): Promise<void>;
  /** No new work is taken from here on: the time is up, or the host is being stopped. */
  isOver(): boolean;
  /** Resolves after `ms`, or as soon as there may be new work, or when the host is being stopped. */
  wait(ms: number): Promise<void>;
}

/** One kind of work, as a kernel sees it: take some, let it run, hear what became of it, say how it ends. */
export interface Work {
  claim(options: Record<string, unknown>): Promise<{ work: object[]; next_at?: string | null }>;
  start(ids: string[]): void;
  outcomes(waitMs: number): Promise<object[]>;
  complete(items: Record<string, unknown>[]): Promise<{ done: number; lost: string[] }>;
  /** The boot is over: what is still open goes back. */
  end(): Promise<void>;
}

/**
 * Whether the same may be taken by the ledger later: it is away or in use, or read-only for now (`SQL_REFUSED`, which
 * nothing that is appended can bring about).
 */
export function mayPass(error: unknown): boolean {
  return (
    error instanceof UpstreamError ||
    error instanceof ConflictError ||
    (error instanceof InputError && error.code === 'SQL_REFUSED')
  );
}

export function contextOf({ signer, now }: Tick, identity: Identity): AppendContext {
  return { identity, signer, now };
}

/** Sort by owner: what is appended is appended in its owner's name. */
export function byOwner<T>(items: T[], ownerOf: (item: T) => Identity): { identity: Identity; items: T[] }[] {
  const groups = new Map<string, { identity: Identity; items: T[] }>();
  for (const item of items) {
    const identity = ownerOf(item);
    const key = JSON.stringify([identity.tenantId, identity.userId]);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, { identity, items: [item] });
    else group.items.push(item);
  }
  return [...groups.values()];
}

export function ownerOf(span: StoredSpan): Identity {
  return { userId: span.owner_id, tenantId: span.tenant_id };
}
