-- What every appended row must be, and how the versions of a span hang together: a dense, hash-linked chain that keeps
-- its tenant, owner and entity type.
--
-- A trigger and not check constraints: those are parsed anew for every statement, and cost a single append a third of
-- its time. After the insert, so that a batch may hold several versions of one span. It runs as loglineos_guard: the
-- version before may be hidden from the writer.
create function ledger.check_appended() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  before ledger.universal_registry;
begin
  -- Lower-case hex of the right size: BLAKE3-256, Ed25519 signature, Ed25519 public key.
  if octet_length(new.curr_hash) <> 64 or encode(decode(new.curr_hash, 'hex'), 'hex') <> new.curr_hash
     or octet_length(new.signature) <> 128 or encode(decode(new.signature, 'hex'), 'hex') <> new.signature
     or octet_length(new.public_key) <> 64 or encode(decode(new.public_key, 'hex'), 'hex') <> new.public_key then
    raise exception 'curr_hash, signature and public_key must be 64, 128 and 64 lower-case hex digits'
      using errcode = 'LL007';
  elsif new.visibility not in ('private', 'tenant', 'public') then
    raise exception 'visibility must be private, tenant or public' using errcode = 'LL008', column = 'visibility';
  elsif new.entity_type = '' or new.who = '' or new.owner_id = '' or new.tenant_id = '' then
    raise exception 'entity_type, who, owner_id and tenant_id may not be empty' using errcode = 'LL008';
  elsif new.position < 1 then
    raise exception 'position counts from 1: a cursor has no sign' using errcode = 'LL008', column = 'position';
  elsif new.seq < 0 or (new.seq = 0) <> (new.prev_hash is null) then
    raise exception 'seq counts from 0, and prev_hash is null at 0 and only there' using errcode = 'LL004';
  end if;

  if new.seq > 0 then
    select * into before from ledger.universal_registry r where r.id = new.id and r.seq = new.seq - 1;
    if not found then
      raise exception 'version % of span % has no version before it', new.seq, new.id using errcode = 'LL002';
    elsif (before.tenant_id, before.owner_id, before.entity_type)
          is distinct from (new.tenant_id, new.owner_id, new.entity_type) then
      raise exception 'version % of span % changes its tenant, owner or entity type', new.seq, new.id
        using errcode = 'LL003';
    elsif array_position('{private,tenant,public}', new.visibility)
          < array_position('{private,tenant,public}', before.visibility) then
      -- Who saw the version before would not see this one, and would take the older for the newest; and a public span
      -- (the manifest is one) could be superseded by whoever may not publish.
      raise exception 'version % of span % is less visible than the version before it', new.seq, new.id
        using errcode = 'LL003', hint = 'To withdraw a span, append a version with is_deleted.';
    elsif before.curr_hash <> new.prev_hash then
      raise exception 'prev_hash of version % of span % is not the curr_hash of the version before it', new.seq, new.id
        using errcode = 'LL004';
    end if;
  end if;

  insert into ledger.registry_witness (id, seq, position, tx_id, curr_hash)
    values (new.id, new.seq, new.position, new.tx_id, new.curr_hash);
  return null;
end $$;

grant create on schema ledger to loglineos_guard;
alter function ledger.check_appended() owner to loglineos_guard;
revoke create on schema ledger from loglineos_guard;
revoke execute on function ledger.check_appended() from public;

create trigger check_appended after insert on ledger.universal_registry
  for each row execute function ledger.check_appended();
alter table ledger.universal_registry enable always trigger check_appended;
