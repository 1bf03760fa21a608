-- rebuild_derived, now with the tables of the runtime loop. Whoever works on something meanwhile loses its claim: a
-- fence drawn before is held by no row any more.
create or replace function ledger.rebuild_derived() returns void
language plpgsql as $$
begin
  perform set_config('app.user_id', 'rebuild', true), set_config('app.tenant_id', 'system', true),
          set_config('app.rebuild', 'on', true);

  -- Appends keep these tables by triggers: none may come between reading the ledger and writing them. Others take these
  -- tables in orders of their own, so what we hold is let go again before anybody could wait for us in a circle.
  perform set_config('lock_timeout', '100ms', true);
  loop
    begin
      lock table ledger.request_queue, ledger.daily_usage, ledger.schedule, ledger.policy_cursor, ledger.expiry
        in exclusive mode;
      exit;
    exception when lock_not_available then
      perform pg_sleep(random() / 10);
    end;
  end loop;
  perform set_config('lock_timeout', '0', true);

  delete from ledger.daily_usage;
  insert into ledger.daily_usage (tenant_id, day, executions)
    select tenant_id, (coalesce(started_at, at) at time zone 'UTC')::date, count(*)
      from ledger.universal_registry
     where entity_type = 'execution' and did = 'ran_function' and seq = 0
     group by 1, 2;

  delete from ledger.request_queue;
  insert into ledger.request_queue (
    request_id, tenant_id, owner_id, function_id, position, priority, state, due_at, is_forced, bytes
  )
    select r.id, r.tenant_id, r.owner_id, r.parent_id,
           (select max(s.position) from ledger.universal_registry s where s.id = r.id and s.status = 'scheduled'),
           coalesce(r.priority, 0),
           case when r.status = 'dead' then 'dead' when r.scheduled_at > clock_timestamp() then 'delayed' else 'ready' end,
           coalesce(r.scheduled_at, r.at), coalesce(r.metadata ? 'force', false),
           octet_length(r::text)
      from ledger.current_span r
     where r.entity_type = 'request' and r.status in ('scheduled', 'error', 'dead') and r.is_deleted is not true;

  delete from ledger.schedule;
  insert into ledger.schedule (function_id, seq, tenant_id, owner_id, done_until)
    select f.id, f.seq, f.tenant_id, f.owner_id,
           greatest(f.at, (select max(r.scheduled_at) from ledger.universal_registry r
                            where r.parent_id = f.id and r.entity_type = 'request' and r.seq = 0
                              and r.who = 'kernel:observer_bot'))
      from ledger.current_span f
     where f.entity_type = 'function' and f.status = 'scheduled' and f.is_deleted is not true;

  -- A policy has read at least as far as the last thing it acted on, and its newest version acts on nothing from before
  -- it: what it reads again it does not do again, as the ids of its actions follow from what they answer, but what an
  -- older version let be it might. What still waited for the older one is passed over.
  delete from ledger.policy_cursor;
  insert into ledger.policy_cursor (policy_id, seq, tenant_id, owner_id, trigger, tx_id, position, day)
    select p.id, p.seq, p.tenant_id, p.owner_id, coalesce(p.content ->> 'trigger', 'span'),
           reached.place[1]::text::xid8, reached.place[2]::bigint,
           coalesce(acted.day, ledger.day_before_policy(p.at))
      from ledger.current_span p
      left join (
        select a.metadata #>> '{policy,id}' as policy_id, a.metadata #>> '{policy,seq}' as seq,
               max(array[reached.tx_id::text, reached.position::text]::numeric[]) as place,
               max((a.metadata #>> '{policy,day}')::date) as day
          from ledger.universal_registry a
          -- By its position, which it keeps: an imported row has another tx_id than the one that was noted.
          left join ledger.universal_registry reached
            on reached.position = (a.metadata #>> '{policy,position}')::bigint
         where a.metadata ? 'policy'
         group by 1, 2
      ) acted on acted.policy_id = p.id::text and acted.seq = p.seq::text
     cross join lateral (
       select case when p.content ->> 'trigger' = 'expiry' then '{0,0}'
                   else greatest(acted.place, array[p.tx_id::text, p.position::text]::numeric[]) end as place
     ) reached
     where p.entity_type = 'policy' and p.status = 'active' and p.is_deleted is not true and p.code is not null;

  delete from ledger.expiry;
  insert into ledger.expiry (span_id, expires_at)
    select id, expires_at from ledger.current_span
     where expires_at is not null and entity_type not in ('boot_event', 'request') and is_deleted is not true;

  -- The witness is only ever added to: what it remembers of a vanished row is the evidence.
  insert into ledger.registry_witness (id, seq, position, tx_id, curr_hash)
    select r.id, r.seq, r.position, r.tx_id, r.curr_hash
      from ledger.universal_registry r
     where not exists (select from ledger.registry_witness w where w.id = r.id and w.seq = r.seq);
end $$;

-- A ledger that is older than these tables fills them now.
set local role loglineos_owner;
select ledger.rebuild_derived();
reset role;
