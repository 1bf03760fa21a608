-- Tables beside the ledger are derived: this makes them again from the ledger. The owner runs it, under an identity
-- and with the transaction-scoped setting app.rebuild; without both it sees no row, as everybody.
create policy rebuild_reads_all on ledger.universal_registry for select to loglineos_owner using (
  (select ledger.session_user_id() is not null and current_setting('app.rebuild', true) = 'on')
);

create function ledger.rebuild_derived() returns void
language plpgsql as $$
begin
  perform set_config('app.user_id', 'rebuild', true), set_config('app.tenant_id', 'system', true),
          set_config('app.rebuild', 'on', true);

  lock table ledger.daily_usage in exclusive mode;
  delete from ledger.daily_usage;
  insert into ledger.daily_usage (tenant_id, day, executions)
    select tenant_id, (coalesce(started_at, at) at time zone 'UTC')::date, count(*)
      from ledger.universal_registry
     where entity_type = 'execution' and did = 'ran_function' and seq = 0
     group by 1, 2;

  -- The witness is only ever added to: what it remembers of a vanished row is the evidence.
  insert into ledger.registry_witness (id, seq, position, tx_id, curr_hash)
    select r.id, r.seq, r.position, r.tx_id, r.curr_hash
      from ledger.universal_registry r
     where not exists (select from ledger.registry_witness w where w.id = r.id and w.seq = r.seq);
end $$;
alter function ledger.rebuild_derived() owner to loglineos_owner;
revoke execute on function ledger.rebuild_derived() from public;
