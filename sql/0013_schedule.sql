-- Which functions run by the clock: those whose newest version has the status `scheduled`. Derived, kept by a trigger.
-- `next_due_at` is worked out by the observer, which knows cron and time zones; null until it has.
create table ledger.schedule (
  function_id uuid primary key,
  seq         integer not null,
  tenant_id   text not null,
  owner_id    text not null,
  done_until  timestamptz not null, -- every due time up to here has its request
  next_due_at timestamptz
);
alter table ledger.schedule owner to loglineos_owner;
create index schedule_due on ledger.schedule (next_due_at nulls first);
create index schedule_tenant on ledger.schedule (tenant_id);

grant select on ledger.schedule to loglineos_auditor;
grant select, insert, update, delete on ledger.schedule to loglineos_guard;

create function ledger.schedule_function() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  scheduled_max constant integer := 1000; -- for each tenant but the system
begin
  if exists (
    select from ledger.schedule s
     where s.function_id = new.id and (s.tenant_id, s.owner_id) <> (new.tenant_id, new.owner_id)
  ) then
    return null; -- somebody else's: 0004_versions.sql refuses it, and nobody waits for anybody until then
  end if;
  if new.status = 'scheduled' and new.is_deleted is not true then
    if new.tenant_id <> 'system' then
      -- One after the other, or many at once would each count the others out.
      perform pg_advisory_xact_lock(hashtextextended('loglineos limits of ' || new.tenant_id, 0));
      if (select count(*) from ledger.schedule s where s.tenant_id = new.tenant_id and s.function_id <> new.id)
         >= scheduled_max then
        raise exception 'a tenant may have % scheduled functions', scheduled_max
          using errcode = 'LL008', column = 'status';
      end if;
    end if;
    insert into ledger.schedule as s (function_id, seq, tenant_id, owner_id, done_until)
      values (new.id, new.seq, new.tenant_id, new.owner_id, new.at)
      on conflict (function_id) do update
        set seq = excluded.seq, next_due_at = null, done_until = greatest(s.done_until, excluded.done_until);
  elsif new.seq > 0 then
    delete from ledger.schedule where function_id = new.id;
  end if;
  return null;
end $$;

-- Functions that are due, or whose next due time nobody has worked out yet. Tenants take turns: however many functions
-- one of them has, the first of another is not behind them.
create function ledger.due_schedules(p_now timestamptz, p_limit integer)
returns table (function_id uuid, seq integer, done_until timestamptz)
language sql security definer set search_path = pg_catalog, pg_temp as $$
  select due.function_id, due.seq, due.done_until
    from (
      select s.*, row_number() over (partition by s.tenant_id order by s.next_due_at nulls first) as turn
        from ledger.schedule s
       where s.next_due_at is null or s.next_due_at <= p_now
    ) due
   order by due.turn, due.next_due_at nulls first
   limit p_limit
$$;

-- When the next function is due; null when none is.
create function ledger.next_schedule() returns timestamptz
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select min(next_due_at) from ledger.schedule
$$;

-- advance_schedule: the requests of one function's due times, and how far it has come, in one statement. False, and
-- nothing written, when another observer was first or the function has a new version.
--
-- p_next_due_at null takes the function off the schedule: it is never due again.
create function ledger.advance_schedule(
  p_user_id text, p_tenant_id text, p_function_id uuid, p_seq integer,
  p_done_before timestamptz, p_done_until timestamptz, p_next_due_at timestamptz, p_rows jsonb
) returns boolean
language plpgsql as $$
begin
  perform set_config('app.user_id', p_user_id, true), set_config('app.tenant_id', p_tenant_id, true);
  if not ledger.move_schedule(p_function_id, p_seq, p_done_before, p_done_until, p_next_due_at) then
    return false;
  end if;
  perform ledger.append(p_user_id, p_tenant_id, p_rows);
  return true;
end $$;

create function ledger.move_schedule(
  p_function_id uuid, p_seq integer, p_done_before timestamptz, p_done_until timestamptz, p_next_due_at timestamptz
) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  if p_next_due_at is null then
    delete from ledger.schedule
     where function_id = p_function_id and seq = p_seq and done_until = p_done_before
       and tenant_id = ledger.session_tenant_id();
  else
    update ledger.schedule set done_until = p_done_until, next_due_at = p_next_due_at
     where function_id = p_function_id and seq = p_seq and done_until = p_done_before
       and tenant_id = ledger.session_tenant_id();
  end if;
  return found;
end $$;

grant create on schema ledger to loglineos_guard;
alter function ledger.schedule_function() owner to loglineos_guard;
alter function ledger.due_schedules(timestamptz, integer) owner to loglineos_guard;
alter function ledger.next_schedule() owner to loglineos_guard;
alter function ledger.move_schedule(uuid, integer, timestamptz, timestamptz, timestamptz) owner to loglineos_guard;
alter function ledger.advance_schedule(text, text, uuid, integer, timestamptz, timestamptz, timestamptz, jsonb)
  owner to loglineos_owner;
revoke create on schema ledger from loglineos_guard;

revoke execute on function
  ledger.schedule_function(),
  ledger.due_schedules(timestamptz, integer),
  ledger.next_schedule(),
  ledger.move_schedule(uuid, integer, timestamptz, timestamptz, timestamptz),
  ledger.advance_schedule(text, text, uuid, integer, timestamptz, timestamptz, timestamptz, jsonb)
from public;
grant execute on function
  ledger.due_schedules(timestamptz, integer),
  ledger.next_schedule(),
  ledger.move_schedule(uuid, integer, timestamptz, timestamptz, timestamptz),
  ledger.advance_schedule(text, text, uuid, integer, timestamptz, timestamptz, timestamptz, jsonb)
to loglineos_app;

create trigger schedule_function after insert on ledger.universal_registry
  for each row when (new.entity_type = 'function') execute function ledger.schedule_function();
alter table ledger.universal_registry enable always trigger schedule_function;
