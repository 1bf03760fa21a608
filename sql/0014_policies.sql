-- How far each active policy has read, and what may have expired. Derived, kept by triggers.

-- One row for each active policy. A new policy starts at its own place in the timeline: history is for `policy simulate`.
create table ledger.policy_cursor (
  policy_id    uuid primary key,
  seq          integer not null,
  tenant_id    text not null,
  owner_id     text not null,
  trigger      text not null,  -- span, expiry or day
  tx_id        xid8 not null,  -- read up to here: the timeline's order, see 0006_timeline.sql
  position     bigint not null, -- of an expiry policy: the number of the last expiry it was shown
  day          date not null,  -- days up to this one are done
  failures     integer not null default 0,
  paused_until timestamptz
);
alter table ledger.policy_cursor owner to loglineos_owner;
create index policy_cursor_tenant on ledger.policy_cursor (tenant_id);
grant select on ledger.policy_cursor to loglineos_auditor;
grant select, insert, update, delete on ledger.policy_cursor to loglineos_guard;

-- The day before the first that a policy is to be asked about: yesterday's, unless it says that it begins later. What
-- it says of the past is its client's to say, and would be years of days; and no day has more than four digits of year.
create function ledger.day_before_policy(p_at timestamptz) returns date
language sql stable set search_path = pg_catalog, pg_temp as $$
  select (greatest(statement_timestamp(), least(p_at, '9999-12-31Z')) at time zone 'UTC')::date - 1
$$;

create function ledger.track_policy() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  active_max constant integer := 100; -- for each tenant but the system
  wanted text := coalesce(new.content ->> 'trigger', 'span');
  from_start boolean := wanted = 'expiry';
begin
  if exists (
    select from ledger.policy_cursor c
     where c.policy_id = new.id and (c.tenant_id, c.owner_id) <> (new.tenant_id, new.owner_id)
  ) then
    return null; -- somebody else's: 0004_versions.sql refuses it, and nobody waits for anybody until then
  end if;
  if new.status = 'active' and new.is_deleted is not true and new.code is not null then
    if new.tenant_id <> 'system' then
      -- One after the other, or many at once would each count the others out.
      perform pg_advisory_xact_lock(hashtextextended('loglineos limits of ' || new.tenant_id, 0));
      if (select count(*) from ledger.policy_cursor c where c.tenant_id = new.tenant_id and c.policy_id <> new.id)
         >= active_max then
        raise exception 'a tenant may have % active policies', active_max using errcode = 'LL008', column = 'status';
      end if;
    end if;
    insert into ledger.policy_cursor as c (policy_id, seq, tenant_id, owner_id, trigger, tx_id, position, day)
      values (new.id, new.seq, new.tenant_id, new.owner_id, wanted, case when from_start then '0' else new.tx_id end,
              case when from_start then 0 else new.position end, ledger.day_before_policy(new.at))
      on conflict (policy_id) do update
        set seq = excluded.seq, trigger = excluded.trigger, failures = 0, paused_until = null,
            -- with another trigger it stands where a new policy would
            tx_id = case when c.trigger = excluded.trigger then c.tx_id else excluded.tx_id end,
            position = case when c.trigger = excluded.trigger then c.position else excluded.position end,
            day = case when c.trigger = excluded.trigger then c.day else excluded.day end;
  else
    delete from ledger.policy_cursor where policy_id = new.id;
  end if;
  return null;
end $$;

-- Spans whose newest version says when it expires. boot_events say it too, to their own reaper; requests end by themselves.
-- One that has expired draws a number: in this order policies are shown it, each once, whatever they do about it.
create table ledger.expiry (
  span_id    uuid primary key,
  expires_at timestamptz not null,
  number     bigint
);
alter table ledger.expiry owner to loglineos_owner;
create sequence ledger.expiry_number;
alter sequence ledger.expiry_number owner to loglineos_owner;
create index expiry_due on ledger.expiry (expires_at) where number is null;
create index expiry_order on ledger.expiry (number) where number is not null;
grant select on ledger.expiry to loglineos_auditor;
grant select, insert, update, delete on ledger.expiry to loglineos_guard;
grant usage on sequence ledger.expiry_number to loglineos_guard;

create function ledger.watch_expiry() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  if new.expires_at is not null and new.is_deleted is not true then
    insert into ledger.expiry (span_id, expires_at) values (new.id, new.expires_at)
      on conflict (span_id) do update set expires_at = excluded.expires_at, number = null;
  else
    delete from ledger.expiry where span_id = new.id;
  end if;
  return null;
end $$;

-- A day's executions are found by their time. Times come almost in order, so that a few bytes for many pages suffice.
create index universal_registry_at on ledger.universal_registry using brin (at) with (pages_per_range = 32, autosummarize = on);

-- Active policies that are not paused.
create function ledger.active_policies(p_now timestamptz) returns setof ledger.policy_cursor
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select c.* from ledger.policy_cursor c where c.paused_until is null or c.paused_until <= p_now
$$;

-- Settled spans of all tenants after a place, in order: p_limit of them, and p_bytes with the last of them. They are
-- counted as text, as the reader gets them: what is compressed here is not there.
create function ledger.policy_window(p_tx_id xid8, p_position bigint, p_limit integer, p_bytes bigint)
returns setof ledger.universal_registry
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  span ledger.universal_registry;
  bytes bigint := 0;
begin
  perform set_config('app.user_id', 'policy_agent', true), set_config('app.tenant_id', 'system', true);
  for span in
    select t.* from ledger.universal_registry t
     where t.tx_id < pg_snapshot_xmin(pg_current_snapshot())
       and (t.tx_id, t.position) > (p_tx_id, p_position)
       and t.is_deleted is not true
     order by t.tx_id, t.position
     limit p_limit
  loop
    return next span;
    bytes := bytes + octet_length(span::text);
    exit when bytes >= p_bytes;
  end loop;
end $$;

-- Give numbers to what has expired. Drawn one transaction after the other, so that whoever sees a number sees all lower ones.
create function ledger.number_expired(p_now timestamptz, p_limit integer) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform pg_advisory_xact_lock(hashtextextended('loglineos number_expired', 0));
  update ledger.expiry e set number = nextval('ledger.expiry_number')
    from (select span_id from ledger.expiry
           where number is null and expires_at <= p_now
           order by expires_at limit p_limit for update skip locked) due
   where e.span_id = due.span_id;
end $$;

-- Newest versions of spans that have expired, after a number, in order: bounded as policy_window is.
create function ledger.expired_spans(p_after bigint, p_limit integer, p_bytes bigint)
returns table (number bigint, span ledger.universal_registry)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  expired record;
  bytes bigint := 0;
begin
  perform set_config('app.user_id', 'policy_agent', true), set_config('app.tenant_id', 'system', true);
  for expired in
    select due.number, latest.span
      from (select e.span_id, e.number from ledger.expiry e where e.number > p_after order by e.number limit p_limit) due
     cross join lateral (
       select r as span from ledger.universal_registry r where r.id = due.span_id order by r.seq desc limit 1
     ) latest
     order by due.number
  loop
    number := expired.number;
    span := expired.span;
    return next;
    bytes := bytes + octet_length(span::text);
    exit when bytes >= p_bytes;
  end loop;
end $$;

-- What functions did on a day (UTC), for each tenant that ran any.
create function ledger.day_summary(p_day date)
returns table (tenant_id text, content jsonb)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform set_config('app.user_id', 'policy_agent', true), set_config('app.tenant_id', 'system', true);
  return query
    with run as (
      select r.tenant_id, r.status, r.duration_ms, r.cost_micros, r.tokens_in, r.tokens_out
        from ledger.universal_registry r
       where r.at >= p_day::timestamp at time zone 'UTC' and r.at < (p_day + 1)::timestamp at time zone 'UTC'
         and r.entity_type = 'execution' and r.did = 'ran_function' and r.seq = 0
    ), by_status as (
      select s.tenant_id, jsonb_object_agg(s.status, s.executions) as counts
        from (select run.tenant_id, coalesce(run.status, 'unknown') as status, count(*) as executions
                from run group by 1, 2) s
       group by 1
    )
    select run.tenant_id, jsonb_build_object(
             'day', to_char(p_day, 'YYYY-MM-DD'),
             'executions', count(*),
             'by_status', (select b.counts from by_status b where b.tenant_id = run.tenant_id),
             'duration_ms', jsonb_build_object(
               'sum', coalesce(sum(run.duration_ms), 0),
               'avg', coalesce(round(avg(run.duration_ms)), 0),
               'p95', coalesce(percentile_disc(0.95) within group (order by run.duration_ms), 0),
               'max', coalesce(max(run.duration_ms), 0)),
             'cost_micros', coalesce(sum(run.cost_micros), 0),
             'tokens_in', coalesce(sum(run.tokens_in), 0),
             'tokens_out', coalesce(sum(run.tokens_out), 0))
      from run
     group by run.tenant_id;
end $$;

-- Move a policy on from the place that the caller read it at; false when somebody else moved it first.
create function ledger.advance_policy(
  p_policy_id uuid, p_seq integer, p_from_tx_id xid8, p_from_position bigint, p_from_day date,
  p_to_tx_id xid8, p_to_position bigint, p_to_day date, p_failures integer, p_paused_until timestamptz
) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  update ledger.policy_cursor
     set tx_id = p_to_tx_id, position = p_to_position, day = p_to_day, failures = p_failures,
         paused_until = p_paused_until
   where policy_id = p_policy_id and seq = p_seq
     and (tx_id, position, day) = (p_from_tx_id, p_from_position, p_from_day);
  return found;
end $$;

-- The same for all that had nothing to do between two places.
create function ledger.pass_policies(
  p_policy_ids uuid[], p_from_tx_id xid8, p_from_position bigint, p_to_tx_id xid8, p_to_position bigint
) returns void
language sql security definer set search_path = pg_catalog, pg_temp as $$
  update ledger.policy_cursor set tx_id = p_to_tx_id, position = p_to_position
   where policy_id = any (p_policy_ids) and (tx_id, position) = (p_from_tx_id, p_from_position)
$$;

-- What an operator wants to know of all this: how much waits, how long, and how far policies are behind. What is due, or
-- was lost with its worker, waits, whether or not somebody came to claim it since. A paused policy is not behind but paused.
create function ledger.work_snapshot(p_now timestamptz) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  behind record;
  lag_spans bigint := 0;
  lag_since timestamptz;
begin
  perform set_config('app.user_id', 'metrics', true), set_config('app.tenant_id', 'system', true);
  select c.tx_id, c.position into behind from ledger.policy_cursor c
   where c.trigger = 'span' and (c.paused_until is null or c.paused_until <= p_now)
   order by c.tx_id, c.position limit 1;
  if found then
    select count(*), min(t.at) into lag_spans, lag_since
      from (select r.at from ledger.universal_registry r
             where (r.tx_id, r.position) > (behind.tx_id, behind.position)
               and r.tx_id < pg_snapshot_xmin(pg_current_snapshot()) and r.is_deleted is not true
             order by r.tx_id, r.position limit 10000) t;
  end if;
  return (
    select jsonb_build_object(
      'queue', jsonb_build_object(
        'ready', count(*) filter (where w.waits),
        'delayed', count(*) filter (where w.state = 'delayed' and not w.waits),
        'leased', count(*) filter (where w.state = 'leased' and not w.waits),
        'dead', count(*) filter (where w.state = 'dead'),
        'oldest_ready_ms', round(extract(epoch from p_now - min(w.due_at) filter (where w.waits)) * 1000)),
      'policies', jsonb_build_object(
        'lag_spans', lag_spans,
        'lag_ms', greatest(0, coalesce(round(extract(epoch from p_now - lag_since) * 1000), 0)),
        'paused', (select count(*) from ledger.policy_cursor where paused_until > p_now)))
      from (
        select q.state, q.due_at, q.state = 'ready' or (q.state = 'delayed' and q.due_at <= p_now)
               or (q.state = 'leased' and q.leased_until <= clock_timestamp()) as waits
          from ledger.request_queue q
      ) w
  );
end $$;

grant create on schema ledger to loglineos_guard;
alter function ledger.day_before_policy(timestamptz) owner to loglineos_guard;
alter function ledger.track_policy() owner to loglineos_guard;
alter function ledger.watch_expiry() owner to loglineos_guard;
alter function ledger.active_policies(timestamptz) owner to loglineos_guard;
alter function ledger.policy_window(xid8, bigint, integer, bigint) owner to loglineos_guard;
alter function ledger.number_expired(timestamptz, integer) owner to loglineos_guard;
alter function ledger.expired_spans(bigint, integer, bigint) owner to loglineos_guard;
alter function ledger.day_summary(date) owner to loglineos_guard;
alter function ledger.advance_policy(uuid, integer, xid8, bigint, date, xid8, bigint, date, integer, timestamptz)
  owner to loglineos_guard;
alter function ledger.pass_policies(uuid[], xid8, bigint, xid8, bigint) owner to loglineos_guard;
alter function ledger.work_snapshot(timestamptz) owner to loglineos_guard;
revoke create on schema ledger from loglineos_guard;

revoke execute on function
  ledger.day_before_policy(timestamptz),
  ledger.track_policy(),
  ledger.watch_expiry(),
  ledger.active_policies(timestamptz),
  ledger.policy_window(xid8, bigint, integer, bigint),
  ledger.number_expired(timestamptz, integer),
  ledger.expired_spans(bigint, integer, bigint),
  ledger.day_summary(date),
  ledger.advance_policy(uuid, integer, xid8, bigint, date, xid8, bigint, date, integer, timestamptz),
  ledger.pass_policies(uuid[], xid8, bigint, xid8, bigint),
  ledger.work_snapshot(timestamptz)
from public;
grant execute on function ledger.day_before_policy(timestamptz) to loglineos_owner;
grant execute on function
  ledger.active_policies(timestamptz),
  ledger.policy_window(xid8, bigint, integer, bigint),
  ledger.number_expired(timestamptz, integer),
  ledger.expired_spans(bigint, integer, bigint),
  ledger.day_summary(date),
  ledger.advance_policy(uuid, integer, xid8, bigint, date, xid8, bigint, date, integer, timestamptz),
  ledger.pass_policies(uuid[], xid8, bigint, xid8, bigint),
  ledger.work_snapshot(timestamptz)
to loglineos_app;

create trigger track_policy after insert on ledger.universal_registry
  for each row when (new.entity_type = 'policy') execute function ledger.track_policy();
alter table ledger.universal_registry enable always trigger track_policy;
create trigger watch_expiry after insert on ledger.universal_registry
  for each row when (new.entity_type not in ('boot_event', 'request') and (new.expires_at is not null or new.seq > 0))
  execute function ledger.watch_expiry();
alter table ledger.universal_registry enable always trigger watch_expiry;
