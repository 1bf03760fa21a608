-- Versions of a span are a dense, hash-linked chain that keeps its tenant, owner and entity type.
--
-- One check for all rows of a statement (a transition table), because a check for each row costs a batch append as
-- much as the insert itself. It runs as loglineos_guard: the version before may be hidden from the writer.
create function ledger.check_appended() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  has_later_version boolean;
  bad record;
begin
  with witnessed as (
    insert into ledger.registry_witness (id, seq, position, tx_id, curr_hash)
      select id, seq, position, tx_id, curr_hash from appended
  )
  select bool_or(seq > 0) into has_later_version from appended;
  if has_later_version is not true then
    return null;
  end if;

  select n.id, n.seq, p.id is null as is_gap, p.curr_hash is distinct from n.prev_hash as is_unlinked,
         (p.tenant_id, p.owner_id, p.entity_type) is distinct from (n.tenant_id, n.owner_id, n.entity_type)
           as is_foreign,
         p.visibility = 'public' and n.visibility <> 'public' as is_withdrawn
    into bad
    from appended n
    left join ledger.universal_registry p on p.id = n.id and p.seq = n.seq - 1
   where n.seq > 0
     and (p.id is null
          or p.curr_hash is distinct from n.prev_hash
          or (p.tenant_id, p.owner_id, p.entity_type) is distinct from (n.tenant_id, n.owner_id, n.entity_type)
          or (p.visibility = 'public' and n.visibility <> 'public'))
   limit 1;
  if found then
    if bad.is_gap then
      raise exception 'version % of span % has no version before it', bad.seq, bad.id using errcode = 'LL002';
    elsif bad.is_foreign then
      raise exception 'version % of span % changes its tenant, owner or entity type', bad.seq, bad.id
        using errcode = 'LL003';
    elsif bad.is_withdrawn then
      -- Every tenant reads public spans (the manifest is one), and row level security lets only a publisher write them.
      -- Were they allowed to become private again, whoever may not publish could still supersede one.
      raise exception 'version % of span % is not public, the version before it is', bad.seq, bad.id
        using errcode = 'LL003', hint = 'To withdraw a public span, append a public version with is_deleted.';
    else
      raise exception 'prev_hash of version % of span % is not the curr_hash of the version before it', bad.seq, bad.id
        using errcode = 'LL004';
    end if;
  end if;

  return null;
end $$;

grant create on schema ledger to loglineos_guard;
alter function ledger.check_appended() owner to loglineos_guard;
revoke create on schema ledger from loglineos_guard;
revoke execute on function ledger.check_appended() from public;

create trigger check_appended after insert on ledger.universal_registry
  referencing new table as appended
  for each statement execute function ledger.check_appended();
alter table ledger.universal_registry enable always trigger check_appended;
