-- append: declare the identity and insert signed rows, in one statement, one round trip, one transaction.
--
-- A function and not a bare INSERT, because a single statement is its own transaction: the identity set inside it ends
-- with it, and no BEGIN and COMMIT travel. It runs as the caller, so grants and row level security decide. Columns that
-- a row leaves out are null; `position` and `tx_id` come from the database.
create function ledger.append(p_user_id text, p_tenant_id text, p_rows jsonb)
returns void
language plpgsql as $$
begin
  perform set_config('app.user_id', p_user_id, true), set_config('app.tenant_id', p_tenant_id, true);
  insert into ledger.universal_registry (
    id, seq, entity_type, who, did, "this", at, confirmed_by, if_ok, if_doubt, if_not, parent_id, related_to,
    caused_by, session_id, owner_id, tenant_id, visibility, app_id, device_id, status, is_deleted, priority, attempt,
    max_attempts, idempotency_key, scheduled_at, started_at, finished_at, expires_at, name, description, code,
    language, runtime, schema_id, input, output, error, content, tags, duration_ms, queue_ms, cpu_ms, memory_bytes,
    metric_name, metric_value, metric_unit, score, confidence, cost_micros, provider_id, model, prompt_family,
    compiled_hash, tokens_in, tokens_out, tool_use_count, memory_layer, memory_type, sensitivity, trace_id,
    trace_span_id, prev_hash, curr_hash, signature, public_key, metadata
  )
  select
    id, seq, entity_type, who, did, "this", at, confirmed_by, if_ok, if_doubt, if_not, parent_id, related_to,
    caused_by, session_id, owner_id, tenant_id, visibility, app_id, device_id, status, is_deleted, priority, attempt,
    max_attempts, idempotency_key, scheduled_at, started_at, finished_at, expires_at, name, description, code,
    language, runtime, schema_id, input, output, error, content, tags, duration_ms, queue_ms, cpu_ms, memory_bytes,
    metric_name, metric_value, metric_unit, score, confidence, cost_micros, provider_id, model, prompt_family,
    compiled_hash, tokens_in, tokens_out, tool_use_count, memory_layer, memory_type, sensitivity, trace_id,
    trace_span_id, prev_hash, curr_hash, signature, public_key, metadata
  from jsonb_populate_recordset(null::ledger.universal_registry, p_rows);
end $$;
alter function ledger.append(text, text, jsonb) owner to loglineos_owner;
revoke execute on function ledger.append(text, text, jsonb) from public;
grant execute on function ledger.append(text, text, jsonb) to loglineos_app;

-- latest_versions: the newest version of each named span that the identity may see, in one round trip.
create function ledger.latest_versions(p_user_id text, p_tenant_id text, p_ids uuid[])
returns setof ledger.universal_registry
language plpgsql as $$
begin
  perform set_config('app.user_id', p_user_id, true), set_config('app.tenant_id', p_tenant_id, true);
  return query
    select latest.*
      from unnest(p_ids) wanted (span_id)
     cross join lateral (
       select r.* from ledger.universal_registry r where r.id = wanted.span_id order by r.seq desc limit 1
     ) latest;
end $$;
alter function ledger.latest_versions(text, text, uuid[]) owner to loglineos_owner;
revoke execute on function ledger.latest_versions(text, text, uuid[]) from public;
grant execute on function ledger.latest_versions(text, text, uuid[]) to loglineos_app;
