-- The queue of requests. A request is a span: `scheduled` waits, `error` waits for its next attempt, `complete`, `dead` and
-- `cancelled` are its end; `dead` may be made `scheduled` again (a redrive). 0004_versions.sql holds every request to that.
-- This table says which of them wait, and who works on one. Derived: the trigger below keeps it true in the transaction of
-- the append, rebuild_derived() makes it anew.
--
--   ready    due, waits for a worker            leased  a worker has it until leased_until
--   delayed  waits for its time                 dead    gave up; kept to be listed and redriven
create table ledger.request_queue (
  request_id   uuid primary key,
  tenant_id    text not null,
  owner_id     text not null,
  function_id  uuid not null,
  position     bigint not null, -- of the version that scheduled it: first come, first served
  priority     integer not null,
  state        text not null,
  due_at       timestamptz not null,
  fence        bigint,          -- drawn at each claim: a result with an older one is refused
  leased_until timestamptz,
  takeovers    integer not null default 0, -- workers that had this attempt and were not heard of again
  quota_day    date,            -- the day that this attempt has already taken its execution of
  is_forced    boolean not null, -- asks to pass the quota; only the host can tell whether it may
  bytes        integer not null -- about as many as its newest version has: whoever claims it reads all of them
);
alter table ledger.request_queue owner to loglineos_owner;
-- Every row changes twice and goes: without an early vacuum the front of the queue fills with dead entries.
alter table ledger.request_queue set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

create sequence ledger.request_fence;
alter sequence ledger.request_fence owner to loglineos_owner;

create index request_queue_ready on ledger.request_queue (tenant_id, priority desc, position) where state = 'ready';
create index request_queue_delayed on ledger.request_queue (due_at) where state = 'delayed';
create index request_queue_delayed_tenant on ledger.request_queue (tenant_id, due_at) where state = 'delayed';
create index request_queue_leased on ledger.request_queue (leased_until) where state = 'leased';
create index request_queue_dead on ledger.request_queue (tenant_id, position) where state = 'dead';

grant select on ledger.request_queue to loglineos_auditor;
grant select, insert, update, delete on ledger.request_queue to loglineos_guard;
grant usage on sequence ledger.request_fence to loglineos_guard;
grant select, insert, update on ledger.daily_usage to loglineos_guard;

create function ledger.queue_request() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  due timestamptz := coalesce(new.scheduled_at, new.at);
  place text := 'ready';
  unused_day date; -- an attempt that waits has run nothing: what ends it gives back what it took of this day
begin
  if new.status is null or new.status not in ('scheduled', 'error', 'complete', 'dead', 'cancelled') then
    raise exception 'status of a request must be scheduled, error, complete, dead or cancelled'
      using errcode = 'LL008', column = 'status';
  elsif new.parent_id is null then
    raise exception 'parent_id of a request must name its function' using errcode = 'LL008', column = 'parent_id';
  elsif new.seq = 0 and new.status <> 'scheduled' then
    raise exception 'a request begins as scheduled' using errcode = 'LL008', column = 'status';
  end if;

  if new.is_deleted or new.status in ('complete', 'cancelled') then
    delete from ledger.request_queue q
     where q.request_id = new.id and (q.tenant_id, q.owner_id) = (new.tenant_id, new.owner_id)
      returning case when q.state <> 'leased' then q.quota_day end into unused_day;
  elsif new.seq > 0 then
    select case when q.state <> 'leased' then q.quota_day end into unused_day
      from ledger.request_queue q
     where q.request_id = new.id and (q.tenant_id, q.owner_id) = (new.tenant_id, new.owner_id)
       for update;
    if not found and exists (select from ledger.request_queue q where q.request_id = new.id) then
      return null; -- somebody else's: 0004_versions.sql refuses it, and nobody waits for anybody until then
    end if;
  end if;
  if unused_day is not null then
    update ledger.daily_usage u set executions = u.executions - 1
     where u.tenant_id = new.tenant_id and u.day = unused_day and u.executions > 0;
  end if;

  if new.is_deleted or new.status in ('complete', 'cancelled') then
    return null;
  elsif new.status = 'dead' then
    place := 'dead';
  elsif new.scheduled_at > clock_timestamp() then
    place := 'delayed';
  end if;
  insert into ledger.request_queue as queue (
    request_id, tenant_id, owner_id, function_id, position, priority, state, due_at, is_forced, bytes
  ) values (
    new.id, new.tenant_id, new.owner_id, new.parent_id, new.position, coalesce(new.priority, 0), place, due,
    coalesce(new.metadata ? 'force', false), octet_length(new::text)
  ) on conflict (request_id) do update
    set state = place, due_at = due, leased_until = null, takeovers = 0, quota_day = null,
        priority = excluded.priority, is_forced = excluded.is_forced, bytes = excluded.bytes,
        position = case when new.status = 'scheduled' then excluded.position else queue.position end;
  if place = 'ready' then
    perform pg_notify('loglineos_work', 'request'); -- a hint; workers look by themselves too
  end if;
  return null;
end $$;

-- claim_requests: lease what is due. Fair between tenants: those of whom least is worked on are asked first, and each may
-- take its share of what is left to give; the last p_reserve of p_limit are for tenants of whom nothing is worked on yet.
-- Within a tenant by priority, then first come, first served. One claim at a time in the whole ledger (it takes
-- milliseconds), so that a tenant's concurrency is a bound and not a guess; rows that somebody is cancelling are passed
-- over.
--
-- What is delayed becomes ready about a thousand at a time, of each tenant its share, so that nobody's few wait behind
-- another's many. All that is claimed at once has about 8 MB, or is one request: whoever claims reads it whole.
--
-- Due times are by the caller's clock, leases by the database's alone: those of all workers run out by the same clock.
--
-- Each claimed attempt takes one execution of its tenant's day; where none is left it is claimed all the same, with
-- is_granted false, to be closed. An attempt that was claimed before, by a worker that died, has taken its own already.
-- A request that asks to pass the quota takes one whatever the limit. What ran nothing gives it back when it is closed.
--
-- p_limits: {"daily": n, "concurrency": n, "tenants": {"<tenant>": {"daily": n, "concurrency": n}}}
create function ledger.claim_requests(
  p_now timestamptz, p_limit integer, p_reserve integer, p_lease_ms integer, p_day date, p_limits jsonb
)
returns table (
  request_id uuid, fence bigint, takeovers integer, is_granted boolean, quota_used integer, quota_limit integer,
  bytes integer
)
-- Rows are found by their keys: what the planner thinks a short queue costs it would pay for a long one.
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
#variable_conflict use_column
declare
  remaining integer := p_limit;
  bytes_remaining bigint := 8 * 1024 * 1024;
  tenant record;
  daily_limit integer;
  room integer;
  ids uuid[];
  forced boolean[];
  metered boolean[];
  wanted integer;
  taken integer;
  size bigint;
  used integer;
  granted integer;
begin
  perform pg_advisory_xact_lock(hashtextextended('loglineos claim_requests', 0));

  if exists (select from ledger.request_queue q where q.state = 'delayed' and q.due_at <= p_now) then
    with recursive delayed (id) as (
      (select q.tenant_id from ledger.request_queue q where q.state = 'delayed' order by q.tenant_id limit 1)
      union all
      select (select q.tenant_id from ledger.request_queue q
               where q.state = 'delayed' and q.tenant_id > d.id order by q.tenant_id limit 1)
        from delayed d where d.id is not null
    ), late as (
      select d.id, count(*) over () as tenants
        from delayed d
       where exists (select from ledger.request_queue q
                      where q.state = 'delayed' and q.tenant_id = d.id and q.due_at <= p_now)
    )
    update ledger.request_queue q set state = 'ready'
     where q.request_id = any (array(
       select due.request_id
         from late
        cross join lateral (
          select d.request_id from ledger.request_queue d
           where d.state = 'delayed' and d.tenant_id = late.id and d.due_at <= p_now
           order by d.due_at limit greatest(1, 1000 / late.tenants) for update skip locked
        ) due
     ));
  end if;
  update ledger.request_queue q set state = 'ready', leased_until = null, takeovers = q.takeovers + 1
   where q.request_id = any (array(
     select l.request_id from ledger.request_queue l
      where l.state = 'leased' and l.leased_until <= clock_timestamp() for update skip locked
   ));

  for tenant in
    with recursive waiting (id) as (
      (select q.tenant_id from ledger.request_queue q where q.state = 'ready' order by q.tenant_id limit 1)
      union all
      select (select q.tenant_id from ledger.request_queue q
               where q.state = 'ready' and q.tenant_id > w.id order by q.tenant_id limit 1)
        from waiting w where w.id is not null
    )
    select w.id, w.leased, row_number() over () as place, count(*) over () as tenants
      from (
        select waiting.id, coalesce(l.leased, 0) as leased
          from waiting
          left join (select q.tenant_id, count(*) as leased from ledger.request_queue q where q.state = 'leased' group by 1) l
            on l.tenant_id = waiting.id
         where waiting.id is not null
         order by 2, random()
      ) w
  loop
    exit when remaining <= 0 or bytes_remaining <= 0;
    room := coalesce((p_limits #>> array['tenants', tenant.id, 'concurrency'])::integer, (p_limits ->> 'concurrency')::integer)
      - tenant.leased;
    room := least(
      room,
      case when tenant.leased = 0 then remaining else remaining - p_reserve end,
      greatest(1, remaining / (tenant.tenants - tenant.place + 1))
    );
    continue when room <= 0;

    select array_agg(p.request_id), array_agg(p.is_forced), array_agg(p.is_metered),
           count(*) filter (where p.is_metered and not p.is_forced), count(*) filter (where p.is_metered and p.is_forced),
           sum(p.bytes)
      into ids, forced, metered, wanted, taken, size
      from (select f.*, sum(f.bytes) over (order by f.priority desc, f.position) - f.bytes as bytes_before
              from (select q.*, q.quota_day is distinct from p_day as is_metered
                      from ledger.request_queue q
                     where q.state = 'ready' and q.tenant_id = tenant.id
                     order by q.priority desc, q.position
                     limit room for update skip locked) f) p
     where p.bytes_before < bytes_remaining / (tenant.tenants - tenant.place + 1);
    continue when ids is null;
    remaining := remaining - cardinality(ids);
    bytes_remaining := bytes_remaining - size;

    daily_limit := coalesce((p_limits #>> array['tenants', tenant.id, 'daily'])::integer, (p_limits ->> 'daily')::integer);
    insert into ledger.daily_usage (tenant_id, day, executions) values (tenant.id, p_day, 0) on conflict do nothing;
    select u.executions into used from ledger.daily_usage u where u.tenant_id = tenant.id and u.day = p_day for update;
    granted := greatest(0, least(wanted, daily_limit - used));
    if granted + taken > 0 then
      update ledger.daily_usage set executions = executions + granted + taken
       where tenant_id = tenant.id and day = p_day;
    end if;

    return query
      with numbered as (
        select t.id, t.is_forced, t.is_metered, t.place,
               (sum((t.is_metered and not t.is_forced)::integer) over (order by t.place))::integer as turn
          from unnest(ids, forced, metered) with ordinality t (id, is_forced, is_metered, place)
      ), fenced as materialized ( -- in their order, which is that of the fences
        select n.*, nextval('ledger.request_fence') as fence from (select * from numbered order by place) n
      )
      update ledger.request_queue q
         set state = 'leased', fence = n.fence,
             leased_until = clock_timestamp() + make_interval(secs => p_lease_ms / 1000.0),
             quota_day = case when n.is_metered and (n.is_forced or n.turn <= granted) then p_day else q.quota_day end
        from fenced n
       where q.request_id = any (ids) and q.request_id = n.id
      returning q.request_id, q.fence, q.takeovers, n.is_forced or not n.is_metered or n.turn <= granted,
                used + least(n.turn, granted), daily_limit, q.bytes;
  end loop;
end $$;

-- The newest versions of what the runtime loop works on, whoever owns it.
create function ledger.newest_rows(p_ids uuid[]) returns setof ledger.universal_registry
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform set_config('app.user_id', 'worker', true), set_config('app.tenant_id', 'system', true);
  return query
    select latest.*
      from unnest(p_ids) wanted (id)
     cross join lateral (
       select r.* from ledger.universal_registry r where r.id = wanted.id order by r.seq desc limit 1
     ) latest;
end $$;

-- The heartbeat of a worker: what it still works on stays its own.
create function ledger.extend_leases(p_ids uuid[], p_fences bigint[], p_lease_ms integer) returns void
language sql security definer set search_path = pg_catalog, pg_temp as $$
  update ledger.request_queue q
     set leased_until = clock_timestamp() + make_interval(secs => p_lease_ms / 1000.0)
    from unnest(p_ids, p_fences) mine (id, fence)
   where q.request_id = mine.id and q.fence = mine.fence and q.state = 'leased'
$$;

-- Back into the queue, as if never claimed: nothing ran. The attempt keeps the execution of the day that it has taken.
create function ledger.release_requests(p_ids uuid[], p_fences bigint[]) returns void
language sql security definer set search_path = pg_catalog, pg_temp as $$
  update ledger.request_queue q set state = 'ready', leased_until = null
    from unnest(p_ids, p_fences) mine (id, fence)
   where q.request_id = mine.id and q.fence = mine.fence and q.state = 'leased'
$$;

-- Lock those claims that still hold, in the order of ids, so that no two wait for each other.
create function ledger.hold_requests(p_ids uuid[], p_fences bigint[]) returns table (request_id uuid, quota_day date)
language sql security definer set search_path = pg_catalog, pg_temp as $$
  select q.request_id, q.quota_day
    from unnest(p_ids, p_fences) mine (id, fence)
    join ledger.request_queue q on q.request_id = mine.id and q.fence = mine.fence and q.state = 'leased'
   order by q.request_id
     for update of q
$$;

-- Whoever else appends a version to an open request (to cancel or redrive it) locks its place first: the trigger would
-- lock it after the registry's key, a worker locks it before.
create function ledger.lock_requests(p_ids uuid[]) returns setof uuid
language sql security definer set search_path = pg_catalog, pg_temp as $$
  select q.request_id
    from ledger.request_queue q
   where q.request_id = any (p_ids) and q.tenant_id = ledger.session_tenant_id()
   order by q.request_id
     for update
$$;

-- close_requests: what became of claimed requests of one owner, executions and versions in one statement. If somebody
-- else holds one of them by now, nothing is written and the answer names it; the caller closes the others. Those of
-- p_unused ran nothing, and give back the execution of the day that their claim took.
create function ledger.close_requests(
  p_user_id text, p_tenant_id text, p_ids uuid[], p_fences bigint[], p_unused uuid[], p_rows jsonb
) returns uuid[]
language plpgsql as $$
declare
  lost uuid[];
  unused date[];
begin
  perform set_config('app.user_id', p_user_id, true), set_config('app.tenant_id', p_tenant_id, true);
  select array_agg(id) filter (where h.request_id is null),
         array_agg(h.quota_day) filter (where id = any (p_unused) and h.quota_day is not null)
    into lost, unused
    from unnest(p_ids) id
    left join ledger.hold_requests(p_ids, p_fences) h on h.request_id = id;
  if lost is null then
    perform ledger.append(p_user_id, p_tenant_id, p_rows);
    perform ledger.release_execution(p_tenant_id, day) from unnest(unused) day;
  end if;
  return coalesce(lost, '{}');
end $$;

grant create on schema ledger to loglineos_guard;
alter function ledger.queue_request() owner to loglineos_guard;
alter function ledger.claim_requests(timestamptz, integer, integer, integer, date, jsonb) owner to loglineos_guard;
alter function ledger.newest_rows(uuid[]) owner to loglineos_guard;
alter function ledger.extend_leases(uuid[], bigint[], integer) owner to loglineos_guard;
alter function ledger.release_requests(uuid[], bigint[]) owner to loglineos_guard;
alter function ledger.hold_requests(uuid[], bigint[]) owner to loglineos_guard;
alter function ledger.lock_requests(uuid[]) owner to loglineos_guard;
alter function ledger.close_requests(text, text, uuid[], bigint[], uuid[], jsonb) owner to loglineos_owner;
revoke create on schema ledger from loglineos_guard;

revoke execute on function
  ledger.queue_request(),
  ledger.claim_requests(timestamptz, integer, integer, integer, date, jsonb),
  ledger.newest_rows(uuid[]),
  ledger.extend_leases(uuid[], bigint[], integer),
  ledger.release_requests(uuid[], bigint[]),
  ledger.hold_requests(uuid[], bigint[]),
  ledger.lock_requests(uuid[]),
  ledger.close_requests(text, text, uuid[], bigint[], uuid[], jsonb)
from public;
grant execute on function
  ledger.claim_requests(timestamptz, integer, integer, integer, date, jsonb),
  ledger.newest_rows(uuid[]),
  ledger.extend_leases(uuid[], bigint[], integer),
  ledger.release_requests(uuid[], bigint[]),
  ledger.hold_requests(uuid[], bigint[]),
  ledger.lock_requests(uuid[]),
  ledger.close_requests(text, text, uuid[], bigint[], uuid[], jsonb)
to loglineos_app;

create trigger queue_request after insert on ledger.universal_registry
  for each row when (new.entity_type = 'request') execute function ledger.queue_request();
alter table ledger.universal_registry enable always trigger queue_request;
