-- The one table. Sparse: an entity fills the columns that mean something to it. Blueprint4.md describes every column.
create table ledger.universal_registry (
  -- identity and order
  id              uuid not null,
  seq             integer not null,
  position        bigint not null generated always as identity,
  tx_id           xid8 not null default pg_current_xact_id(),
  -- sentence
  entity_type     text not null,
  who             text not null,
  did             text,
  "this"          text,
  at              timestamptz not null,
  confirmed_by    text,
  if_ok           text,
  if_doubt        text,
  if_not          text,
  -- relations
  parent_id       uuid,
  related_to      uuid[],
  caused_by       uuid,
  session_id      text,
  -- access
  owner_id        text not null,
  tenant_id       text not null,
  visibility      text not null,
  app_id          text,
  device_id       text,
  -- lifecycle
  status          text,
  is_deleted      boolean,
  priority        integer,
  attempt         integer,
  max_attempts    integer,
  idempotency_key text,
  scheduled_at    timestamptz,
  started_at      timestamptz,
  finished_at     timestamptz,
  expires_at      timestamptz,
  -- code
  name            text,
  description     text,
  code            text,
  language        text,
  runtime         text,
  schema_id       text,
  -- payload
  input           jsonb,
  output          jsonb,
  error           jsonb,
  content         jsonb,
  tags            text[],
  -- measure
  duration_ms     integer,
  queue_ms        integer,
  cpu_ms          integer,
  memory_bytes    bigint,
  metric_name     text,
  metric_value    double precision,
  metric_unit     text,
  score           double precision,
  confidence      double precision,
  cost_micros     bigint,
  -- models
  provider_id     uuid,
  model           text,
  prompt_family   text,
  compiled_hash   text,
  tokens_in       integer,
  tokens_out      integer,
  tool_use_count  integer,
  -- memory
  memory_layer    text,
  memory_type     text,
  sensitivity     text,
  -- trace
  trace_id        text,
  trace_span_id   text,
  -- proof
  prev_hash       text,
  curr_hash       text not null,
  signature       text not null,
  public_key      text not null,
  -- open
  metadata        jsonb,

  -- Two writers racing for one seq: this key lets one win. What else a row must be is in 0004_versions.sql: a check
  -- constraint is parsed anew for every statement, and five of them cost a single append a third of its time.
  constraint universal_registry_pkey primary key (id, seq)
);

alter table ledger.universal_registry owner to loglineos_owner;

-- The timeline's order, and the cursor's: see 0006_timeline.sql.
create unique index universal_registry_timeline on ledger.universal_registry (tx_id, position);
-- Children of one span: the executions of a function.
create index universal_registry_parent on ledger.universal_registry (parent_id) where parent_id is not null;
-- Due spans: lost boots, expiring memories.
create index universal_registry_expires on ledger.universal_registry (expires_at) where expires_at is not null;

grant select on ledger.universal_registry to loglineos_app, loglineos_kernel, loglineos_auditor, loglineos_guard;
-- Everything but `position` and `tx_id`, which only the database assigns.
grant insert (
  id, seq, entity_type, who, did, "this", at, confirmed_by, if_ok, if_doubt, if_not, parent_id, related_to, caused_by,
  session_id, owner_id, tenant_id, visibility, app_id, device_id, status, is_deleted, priority, attempt, max_attempts,
  idempotency_key, scheduled_at, started_at, finished_at, expires_at, name, description, code, language, runtime,
  schema_id, input, output, error, content, tags, duration_ms, queue_ms, cpu_ms, memory_bytes, metric_name,
  metric_value, metric_unit, score, confidence, cost_micros, provider_id, model, prompt_family, compiled_hash,
  tokens_in, tokens_out, tool_use_count, memory_layer, memory_type, sensitivity, trace_id, trace_span_id, prev_hash,
  curr_hash, signature, public_key, metadata
) on ledger.universal_registry to loglineos_app;
