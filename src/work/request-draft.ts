import type { SpanDraft } from '../ledger/index.ts';
import type { Json } from '../span/index.ts';

/** The function that is to be run. */
export interface RequestedFunction {
  id: string;
  name?: string | null;
}

export interface RequestOptions {
  input?: Json | undefined;
  /** ISO 8601 instant; due at once without it. */
  scheduledAt?: string | undefined;
  /** Higher goes first within a tenant; 0 without it. */
  priority?: number | undefined;
  /** Times it may run; the worker's own default without it. */
  maxAttempts?: number | undefined;
  idempotencyKey?: string | undefined;
  visibility?: 'private' | 'tenant' | undefined;
  metadata?: Record<string, Json> | undefined;
}

/** A request to run a function, not yet anybody's: who asks adds the rest. Its versions are in sql/0012_request_queue.sql. */
export function requestDraft(fn: RequestedFunction, options: RequestOptions): SpanDraft {
  return {
    entity_type: 'request',
    did: 'requested',
    this: `function:${fn.id}`,
    parent_id: fn.id,
    name: fn.name ?? null,
    status: 'scheduled',
    visibility: options.visibility ?? 'private',
    input: options.input ?? null,
    scheduled_at: options.scheduledAt ?? null,
    priority: options.priority ?? null,
    attempt: 0,
    max_attempts: options.maxAttempts ?? null,
    idempotency_key: options.idempotencyKey ?? null,
    metadata: options.metadata ?? null,
  };
}
