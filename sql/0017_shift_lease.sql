-- Who works in a role of which one at a time suffices (observer, policy agent). A lease and not a lock: a lock would keep
-- a transaction open for as long as the shift lasts. It saves work, nothing more: that two at once do no harm is held by
-- the work itself (0013_schedule.sql, 0014_policies.sql).
create table ledger.shift_lease (
  role       text primary key,
  holder     uuid not null,
  held_until timestamptz not null
);
alter table ledger.shift_lease owner to loglineos_owner;
grant select on ledger.shift_lease to loglineos_auditor;
grant select, insert, update, delete on ledger.shift_lease to loglineos_guard;

-- Take a role, or keep it; false while another holds it.
create function ledger.hold_shift(p_role text, p_holder uuid, p_lease_ms integer) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  insert into ledger.shift_lease as held (role, holder, held_until)
    values (p_role, p_holder, clock_timestamp() + make_interval(secs => p_lease_ms / 1000.0))
    on conflict (role) do update set holder = excluded.holder, held_until = excluded.held_until
     where held.holder = excluded.holder or held.held_until < clock_timestamp();
  return found;
end $$;

create function ledger.end_shift(p_role text, p_holder uuid) returns void
language sql security definer set search_path = pg_catalog, pg_temp as $$
  delete from ledger.shift_lease where role = p_role and holder = p_holder
$$;

grant create on schema ledger to loglineos_guard;
alter function ledger.hold_shift(text, uuid, integer) owner to loglineos_guard;
alter function ledger.end_shift(text, uuid) owner to loglineos_guard;
revoke create on schema ledger from loglineos_guard;
revoke execute on function ledger.hold_shift(text, uuid, integer), ledger.end_shift(text, uuid) from public;
grant execute on function ledger.hold_shift(text, uuid, integer), ledger.end_shift(text, uuid) to loglineos_app;
