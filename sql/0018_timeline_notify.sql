-- How whoever shows the timeline live hears that it went on. Polling alone suffices; the bell spares it while nothing
-- happens.
--
-- Not every append notifies: NOTIFY holds one lock of the whole server until its commit is on disk, which makes
-- concurrent appends wait for each other (eight of them take half as long again). A reader at work looks by itself,
-- many times a second; when nothing comes any more it hangs up a bell here and sleeps, and takes the bell down when it
-- rings. So the first appends after silence notify, and those of a busy ledger, or of one that nobody watches, do not.
create table ledger.timeline_bell (
  reader     uuid primary key,
  rung_until timestamptz not null -- a reader that died is rung for no longer than this
);
alter table ledger.timeline_bell owner to loglineos_owner;
grant select on ledger.timeline_bell to loglineos_auditor;
grant select, insert, update, delete on ledger.timeline_bell to loglineos_guard;

-- Hang up a reader's bell for so long; 0 takes it down. Answers the transaction: appends that it does not see have drawn
-- a lower number than the next such call, so they have ended when that one's number has settled.
create function ledger.hang_timeline_bell(p_reader uuid, p_lease_ms integer) returns xid8
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  delete from ledger.timeline_bell where rung_until < clock_timestamp() or p_lease_ms = 0 and reader = p_reader;
  if p_lease_ms > 0 then
    insert into ledger.timeline_bell (reader, rung_until)
      values (p_reader, clock_timestamp() + make_interval(secs => p_lease_ms / 1000.0))
      on conflict (reader) do update set rung_until = excluded.rung_until;
  end if;
  return pg_current_xact_id();
end $$;

-- Without a payload: whoever may listen learns that something was appended, and nothing else.
create function ledger.ring_timeline_bells() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  if exists (select from ledger.timeline_bell where rung_until > clock_timestamp()) then
    perform pg_notify('loglineos_timeline', '');
  end if;
  return null;
end $$;

-- How far the timeline has settled (all below `horizon`), and whose rows that added since an earlier horizon: `tenants`,
-- and whether there are public ones, which everybody sees. One look for all whom a reader serves, whoever they are.
create function ledger.timeline_news(p_since xid8)
returns table (horizon xid8, tenants text[], is_public boolean)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform set_config('app.user_id', 'timeline', true), set_config('app.tenant_id', 'system', true);
  return query
    select pg_snapshot_xmin(pg_current_snapshot()), coalesce(array_agg(distinct r.tenant_id), '{}'),
           coalesce(bool_or(r.visibility = 'public'), false)
      from ledger.universal_registry r
     where r.tx_id >= p_since and r.tx_id < pg_snapshot_xmin(pg_current_snapshot());
end $$;

grant create on schema ledger to loglineos_guard;
alter function ledger.hang_timeline_bell(uuid, integer) owner to loglineos_guard;
alter function ledger.ring_timeline_bells() owner to loglineos_guard;
alter function ledger.timeline_news(xid8) owner to loglineos_guard;
revoke create on schema ledger from loglineos_guard;
revoke execute on function
  ledger.hang_timeline_bell(uuid, integer), ledger.ring_timeline_bells(), ledger.timeline_news(xid8)
from public;
grant execute on function ledger.hang_timeline_bell(uuid, integer), ledger.timeline_news(xid8) to loglineos_app;

create trigger ring_timeline_bells after insert on ledger.universal_registry
  for each statement execute function ledger.ring_timeline_bells();
