-- append_boot_event: what Stage-0 does before it runs a kernel, as one statement, so that it is one decision.
--
-- Stage-0 has proved the manifest and the kernel, now or at an earlier boot. Here the ledger says whether both are still
-- the newest versions, byte for byte (row_digest), before the boot_event is appended: after a revocation, a new version
-- or an altered byte the answer is 'stale', nothing is written, and Stage-0 starts over from the rows themselves.
--
-- A metered kernel (p_limit is not null) takes one execution of the tenant's day; when none is left, the answer is
-- 'quota' and nothing is written.
create function ledger.append_boot_event(
  p_user_id text, p_tenant_id text, p_rows jsonb, p_ids uuid[], p_digests text[], p_day date, p_limit integer
) returns text
language plpgsql as $$
begin
  perform set_config('app.user_id', p_user_id, true), set_config('app.tenant_id', p_tenant_id, true);
  if p_digests is distinct from (
    select array_agg(ledger.row_digest(latest.whole) order by wanted.place)
      from unnest(p_ids) with ordinality wanted (span_id, place)
     cross join lateral (
       select r as whole from ledger.universal_registry r where r.id = wanted.span_id order by r.seq desc limit 1
     ) latest
  ) then
    return 'stale';
  end if;
  if p_limit is not null and not ledger.reserve_execution(p_tenant_id, p_day, p_limit) then
    return 'quota';
  end if;
  perform ledger.append(p_user_id, p_tenant_id, p_rows);
  return 'appended';
end $$;
alter function ledger.append_boot_event(text, text, jsonb, uuid[], text[], date, integer) owner to loglineos_owner;
revoke execute on function ledger.append_boot_event(text, text, jsonb, uuid[], text[], date, integer) from public;
grant execute on function ledger.append_boot_event(text, text, jsonb, uuid[], text[], date, integer) to loglineos_app;
