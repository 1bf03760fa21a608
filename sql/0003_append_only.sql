-- Append only: first a grant nobody holds (not even the owner), then triggers that refuse whoever holds it anyway.
create function ledger.refuse_change() returns trigger
language plpgsql as $$
begin
  raise exception '% on %.% refused: the ledger is append-only', tg_op, tg_table_schema, tg_table_name
    using errcode = 'LL001', hint = 'Append a new version instead.';
end $$;
alter function ledger.refuse_change() owner to loglineos_owner;

-- The witness remembers that a version was appended, so that a row which vanishes is missed by name; and its place in
-- the timeline, which no hash covers because only the database knows it. It has no index: only `verify` reads it, and
-- it reads all of it.
create table ledger.registry_witness (
  id        uuid not null,
  seq       integer not null,
  position  bigint not null,
  tx_id     xid8 not null,
  curr_hash text not null
);
alter table ledger.registry_witness owner to loglineos_owner;
grant select on ledger.registry_witness to loglineos_auditor;
grant insert on ledger.registry_witness to loglineos_guard;

revoke update, delete, truncate on ledger.universal_registry, ledger.registry_witness from loglineos_owner;

-- ENABLE ALWAYS: `session_replication_role = replica` does not switch these off.
create trigger refuse_update_delete before update or delete on ledger.universal_registry
  for each statement execute function ledger.refuse_change();
create trigger refuse_truncate before truncate on ledger.universal_registry
  for each statement execute function ledger.refuse_change();
alter table ledger.universal_registry enable always trigger refuse_update_delete;
alter table ledger.universal_registry enable always trigger refuse_truncate;

create trigger refuse_update_delete before update or delete on ledger.registry_witness
  for each statement execute function ledger.refuse_change();
create trigger refuse_truncate before truncate on ledger.registry_witness
  for each statement execute function ledger.refuse_change();
alter table ledger.registry_witness enable always trigger refuse_update_delete;
alter table ledger.registry_witness enable always trigger refuse_truncate;
