-- append_boot_event: what Stage-0 does before it runs a kernel, as one statement, so that it is one decision.
--
-- Stage-0 has proved the manifest and the kernel, now or at an earlier boot. Here the ledger says whether the very rows
-- that it proved are still there and still the newest: a row's place and the transaction that put it there (ctid, xmin)
-- change with every update, a superuser's too. After a revocation, a new version or an altered byte the answer is
-- 'stale', nothing is written, and Stage-0 starts over from the rows themselves.
--
-- A metered kernel (p_limit is not null) takes one execution of the tenant's day; when none is left the statement fails
-- as a whole. The counter comes last, so that its row is locked for no longer than the commit takes.
create function ledger.append_boot_event(
  p_user_id text, p_tenant_id text, p_rows jsonb, p_ids uuid[], p_row_versions text[], p_day date, p_limit integer
) returns text
language plpgsql as $$
begin
  perform set_config('app.user_id', p_user_id, true), set_config('app.tenant_id', p_tenant_id, true);
  -- A loop of look-ups by key: as one statement over unnest() it would be planned anew each time.
  for place in 1 .. cardinality(p_ids) loop
    if p_row_versions[place] is distinct from (
      select r.ctid::text || ' ' || r.xmin::text
        from ledger.universal_registry r
       where r.id = p_ids[place]
       order by r.seq desc
       limit 1
    ) then
      return 'stale';
    end if;
  end loop;
  perform ledger.append(p_user_id, p_tenant_id, p_rows);
  if p_limit is not null and not ledger.reserve_execution(p_tenant_id, p_day, p_limit) then
    raise exception 'tenant % has no function execution left on %', p_tenant_id, p_day using errcode = 'LL006';
  end if;
  return 'appended';
end $$;
alter function ledger.append_boot_event(text, text, jsonb, uuid[], text[], date, integer) owner to loglineos_owner;
revoke execute on function ledger.append_boot_event(text, text, jsonb, uuid[], text[], date, integer) from public;
grant execute on function ledger.append_boot_event(text, text, jsonb, uuid[], text[], date, integer) to loglineos_app;
