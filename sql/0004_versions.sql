-- What every appended row must be, and how the versions of a span hang together: a dense, hash-linked chain that keeps
-- its tenant, owner and entity type.
--
-- A trigger and not check constraints: those are parsed anew for every statement, and cost a single append a third of
-- its time. After the insert, so that a batch may hold several versions of one span; and once for all rows of a statement,
-- because in a batch that costs each of them a third. It runs as loglineos_guard: the version before may be hidden from
-- the writer. The version before is looked up by its key, row by row, whatever the planner takes the table for.
create function ledger.check_appended() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
declare
  fault integer;
  last_seq integer;
  wrong record;
begin
  select max(a.seq), min(case
           -- Lower-case hex of the right size: BLAKE3-256, Ed25519 signature, Ed25519 public key.
           when octet_length(a.curr_hash) <> 64 or encode(decode(a.curr_hash, 'hex'), 'hex') <> a.curr_hash
                or octet_length(a.signature) <> 128 or encode(decode(a.signature, 'hex'), 'hex') <> a.signature
                or octet_length(a.public_key) <> 64 or encode(decode(a.public_key, 'hex'), 'hex') <> a.public_key then 1
           when a.visibility not in ('private', 'tenant', 'public') then 2
           when a.entity_type = '' or a.who = '' or a.owner_id = '' or a.tenant_id = '' then 3
           when a.position < 1 then 4
           when a.seq < 0 or (a.seq = 0) <> (a.prev_hash is null) then 5
         end)
    into last_seq, fault
    from appended a;
  if fault = 1 then
    raise exception 'curr_hash, signature and public_key must be 64, 128 and 64 lower-case hex digits'
      using errcode = 'LL007';
  elsif fault = 2 then
    raise exception 'visibility must be private, tenant or public' using errcode = 'LL008', column = 'visibility';
  elsif fault = 3 then
    raise exception 'entity_type, who, owner_id and tenant_id may not be empty' using errcode = 'LL008';
  elsif fault = 4 then
    raise exception 'position counts from 1: a cursor has no sign' using errcode = 'LL008', column = 'position';
  elsif fault = 5 then
    raise exception 'seq counts from 0, and prev_hash is null at 0 and only there' using errcode = 'LL004';
  end if;

  if last_seq > 0 then
    select f.* into wrong
      from (select a.id, a.seq, a.position, case
                     when before.curr_hash is null then 1
                     when (before.tenant_id, before.owner_id, before.entity_type)
                          is distinct from (a.tenant_id, a.owner_id, a.entity_type) then 2
                     when array_position('{private,tenant,public}', a.visibility)
                          < array_position('{private,tenant,public}', before.visibility) then 3
                     when before.curr_hash <> a.prev_hash then 4
                     when a.entity_type = 'request' and (
                       before.status in ('complete', 'cancelled') or (before.status = 'dead' and a.status <> 'scheduled')
                     ) then 5
                     when before.position > a.position then 6
                   end as fault, before.status as status_before, a.status
              from appended a
              left join lateral (
                select r.tenant_id, r.owner_id, r.entity_type, r.visibility, r.curr_hash, r.status, r.position
                  from ledger.universal_registry r
                 where r.id = a.id and r.seq = a.seq - 1
                 limit 1
              ) before on true
             where a.seq > 0) f
     where f.fault is not null
     order by f.fault = 6, f.position limit 1;
    if wrong.fault = 1 then
      raise exception 'version % of span % has no version before it', wrong.seq, wrong.id using errcode = 'LL002';
    elsif wrong.fault = 2 then
      raise exception 'version % of span % changes its tenant, owner or entity type', wrong.seq, wrong.id
        using errcode = 'LL003';
    elsif wrong.fault = 3 then
      -- Who saw the version before would not see this one, and would take the older for the newest; and a public span
      -- (the manifest is one) could be superseded by whoever may not publish.
      raise exception 'version % of span % is less visible than the version before it', wrong.seq, wrong.id
        using errcode = 'LL003', hint = 'To withdraw a span, append a version with is_deleted.';
    elsif wrong.fault = 4 then
      raise exception 'prev_hash of version % of span % is not the curr_hash of the version before it',
        wrong.seq, wrong.id using errcode = 'LL004';
    elsif wrong.fault = 5 then
      -- See 0012_request_queue.sql. Asked here, where all rows are there: their order in a statement is the caller's.
      raise exception 'request % is % and cannot become %', wrong.id, wrong.status_before, wrong.status
        using errcode = 'LL010';
    elsif wrong.fault = 6 then
      -- The timeline, and the triggers that keep derived tables, would meet the newer one first.
      raise exception 'version % of span % comes before the version that it follows', wrong.seq, wrong.id
        using errcode = 'LL004';
    end if;
  end if;

  insert into ledger.registry_witness (id, seq, position, tx_id, curr_hash)
    select a.id, a.seq, a.position, a.tx_id, a.curr_hash from appended a;
  return null;
end $$;

grant create on schema ledger to loglineos_guard;
alter function ledger.check_appended() owner to loglineos_guard;
revoke create on schema ledger from loglineos_guard;
revoke execute on function ledger.check_appended() from public;

create trigger check_appended after insert on ledger.universal_registry
  referencing new table as appended for each statement execute function ledger.check_appended();
alter table ledger.universal_registry enable always trigger check_appended;
