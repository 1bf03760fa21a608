/**
 * The 70 columns of `ledger.universal_registry` and the type of each, as the database has them.
 *
 * `sql/0002_universal_registry.sql` defines the table; a test holds this list equal to it.
 */
export const COLUMN_TYPES = {
  id: 'uuid',
  seq: 'integer',
  position: 'bigint',
  tx_id: 'xid8',
  entity_type: 'text',
  who: 'text',
  did: 'text',
  this: 'text',
  at: 'timestamptz',
  confirmed_by: 'text',
  if_ok: 'text',
  if_doubt: 'text',
  if_not: 'text',
  parent_id: 'uuid',
  related_to: 'uuid[]',
  caused_by: 'uuid',
  session_id: 'text',
  owner_id: 'text',
  tenant_id: 'text',
  visibility: 'text',
  app_id: 'text',
  device_id: 'text',
  status: 'text',
  is_deleted: 'boolean',
  priority: 'integer',
  attempt: 'integer',
  max_attempts: 'integer',
  idempotency_key: 'text',
  scheduled_at: 'timestamptz',
  started_at: 'timestamptz',
  finished_at: 'timestamptz',
  expires_at: 'timestamptz',
  name: 'text',
  description: 'text',
  code: 'text',
  language: 'text',
  runtime: 'text',
  schema_id: 'text',
  input: 'jsonb',
  output: 'jsonb',
  error: 'jsonb',
  content: 'jsonb',
  tags: 'text[]',
  duration_ms: 'integer',
  queue_ms: 'integer',
  cpu_ms: 'integer',
  memory_bytes: 'bigint',
  metric_name: 'text',
  metric_value: 'double precision',
  metric_unit: 'text',
  score: 'double precision',
  confidence: 'double precision',
  cost_micros: 'bigint',
  provider_id: 'uuid',
  model: 'text',
  prompt_family: 'text',
  compiled_hash: 'text',
  tokens_in: 'integer',
  tokens_out: 'integer',
  tool_use_count: 'integer',
  memory_layer: 'text',
  memory_type: 'text',
  sensitivity: 'text',
  trace_id: 'text',
  trace_span_id: 'text',
  prev_hash: 'text',
  curr_hash: 'text',
  signature: 'text',
  public_key: 'text',
  metadata: 'jsonb',
} as const;

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type ColumnName = keyof typeof COLUMN_TYPES;
export type ColumnType = (typeof COLUMN_TYPES)[ColumnName];

interface TypeOfColumn {
  uuid: string;
  integer: number;
  bigint: number;
  xid8: string;
  text: string;
  /** RFC 3339, UTC, milliseconds: `2026-11-23T10:00:00.000Z`. */
  timestamptz: string;
  boolean: boolean;
  jsonb: Json;
  'double precision': number;
  'uuid[]': string[];
  'text[]': string[];
}

/** One row: a version of a span. A column that is null in the database is absent (or null) here. */
export type Span = { [C in ColumnName]?: TypeOfColumn[(typeof COLUMN_TYPES)[C]] | null };

/** The columns the database or the proof itself supplies; they are not part of what is hashed. */
export const UNHASHED_COLUMNS: ReadonlySet<ColumnName> = new Set(['curr_hash', 'signature', 'position', 'tx_id']);

/** The columns that an append fills by itself; no caller may. */
export const ASSIGNED_COLUMNS = ['position', 'tx_id', 'prev_hash', 'curr_hash', 'signature', 'public_key'] as const;

/** What every hashed span must have; the database refuses a row without them. */
export type HashableSpan = Span & {
  id: string;
  seq: number;
  entity_type: string;
  who: string;
  at: string;
  owner_id: string;
  tenant_id: string;
  visibility: 'private' | 'tenant' | 'public';
};

/** A span with its proof: ready to be appended. */
export type SealedSpan = HashableSpan & { curr_hash: string; signature: string; public_key: string };

/** A span as read back: the database has given it its place in the timeline. */
export type StoredSpan = SealedSpan & { position: number; tx_id: string };
