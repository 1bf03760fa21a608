-- Bringing a ledger back from an export (src/ledger/import.ts). A row keeps its position and all that is signed; its tx_id
-- is new, because that counter is this server's.
--
-- The owner alone may, which nobody logs in as, and only with the transaction-scoped setting app.import. Every trigger is
-- at work, as for everybody. A row's tx_id is that of the importing transaction, or one that was drawn while it ran: what
-- is settled stays as it is, and nothing can be put in front of it.
create policy import_rows on ledger.universal_registry for insert to loglineos_owner with check (
  current_setting('app.import', true) = 'on'
  and (tx_id = pg_current_xact_id()
       or (tx_id > pg_current_xact_id() and tx_id < pg_snapshot_xmax(pg_current_snapshot())))
);

create function ledger.require_import_alone() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if exists (select from pg_stat_activity
              where datname = current_database() and usename in ('loglineos_app', 'loglineos_seeder')) then
    raise exception 'the system is connected to this ledger: while rows are imported nobody else may use it'
      using errcode = 'LL011';
  end if;
end $$;
alter function ledger.require_import_alone() owner to loglineos_owner;
revoke execute on function ledger.require_import_alone() from public;

-- Append rows behind the last row of the ledger, which the caller names. One statement, so that a version may stand in
-- the timeline before the version that it follows; in the order of positions, so that triggers see the older one first.
create function ledger.import_rows(p_rows jsonb, p_last_tx_id xid8, p_last_position bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  perform set_config('app.user_id', 'import', true), set_config('app.tenant_id', 'system', true),
          set_config('app.rebuild', 'on', true), set_config('app.import', 'on', true),
          set_config('synchronous_commit', 'off', true); -- what a crash takes is imported again

  perform pg_advisory_xact_lock(hashtextextended('loglineos import_rows', 0));
  perform ledger.require_import_alone();
  if exists (select from ledger.universal_registry r
                 where (r.tx_id, r.position) > (p_last_tx_id, p_last_position)) then
    raise exception 'somebody else appended to this ledger while rows were imported' using errcode = 'LL011';
  end if;

  insert into ledger.universal_registry overriding system value
    select r.* from jsonb_populate_recordset(null::ledger.universal_registry, p_rows) r order by r.position;
  perform setval('ledger.universal_registry_position_seq', greatest(
    (select s.last_value from ledger.universal_registry_position_seq s),
    (select max((r ->> 'position')::bigint) from jsonb_array_elements(p_rows) r)
  ));

  -- Who came while rows were written. What is known of sessions is kept for a transaction, unless it is let go.
  perform pg_stat_clear_snapshot();
  perform ledger.require_import_alone();
end $$;
alter function ledger.import_rows(jsonb, xid8, bigint) owner to loglineos_owner;
revoke execute on function ledger.import_rows(jsonb, xid8, bigint) from public;
