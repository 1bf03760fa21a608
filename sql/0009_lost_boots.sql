-- Boots that were announced and never answered: boot_events past their deadline whose execution is not there. The
-- execution's id is fixed in the boot_event (related_to[1]), so that reaper and a late runner write the same row and
-- only one of them can.
create function ledger.lost_boots(p_due_after timestamptz, p_due_before timestamptz, p_limit integer)
returns setof ledger.universal_registry
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  if ledger.session_user_id() is null or ledger.session_tenant_id() is distinct from 'system' then
    raise exception 'lost boots are looked for in the name of tenant system' using errcode = '42501';
  end if;
  return query
    select b.*
      from ledger.universal_registry b
     where b.entity_type = 'boot_event'
       and b.seq = 0
       and b.related_to[1] is not null
       and b.expires_at > p_due_after
       and b.expires_at < p_due_before
       and not exists (
         select from ledger.universal_registry e
          where e.id = b.related_to[1] and e.entity_type = 'execution' and e.caused_by = b.id
       )
     order by b.expires_at
     limit p_limit;
end $$;
grant create on schema ledger to loglineos_guard;
alter function ledger.lost_boots(timestamptz, timestamptz, integer) owner to loglineos_guard;
revoke create on schema ledger from loglineos_guard;
revoke execute on function ledger.lost_boots(timestamptz, timestamptz, integer) from public;
grant execute on function ledger.lost_boots(timestamptz, timestamptz, integer) to loglineos_app;
