-- What a caller may ask of the queue: only of its own requests. By position of the version that put them there, newest
-- first, so that a caller goes on where a page ended.
create function ledger.find_requests(
  p_states text[], p_status text, p_function_id uuid, p_before bigint, p_limit integer
) returns table (request_id uuid, "position" bigint)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select q.request_id, q.position
    from ledger.request_queue q
   where q.tenant_id = (select ledger.session_tenant_id())
     and q.owner_id = (select ledger.session_user_id())
     and q.state = any (p_states)
     and (p_function_id is null or q.function_id = p_function_id)
     and (p_before is null or q.position < p_before)
     -- Last: it costs a look into the registry for each request that is left.
     and (p_status is null or p_status = (
       select r.status from ledger.universal_registry r where r.id = q.request_id order by r.seq desc limit 1
     ))
   order by q.position desc
   limit p_limit
$$;

-- Where those of these requests wait that are the caller's and wait at all.
create function ledger.request_places(p_ids uuid[]) returns table (request_id uuid, state text)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select q.request_id, q.state
    from ledger.request_queue q
   where q.request_id = any (p_ids)
     and q.tenant_id = (select ledger.session_tenant_id())
     and q.owner_id = (select ledger.session_user_id())
$$;

grant create on schema ledger to loglineos_guard;
alter function ledger.find_requests(text[], text, uuid, bigint, integer) owner to loglineos_guard;
alter function ledger.request_places(uuid[]) owner to loglineos_guard;
revoke create on schema ledger from loglineos_guard;

revoke execute on function
  ledger.find_requests(text[], text, uuid, bigint, integer),
  ledger.request_places(uuid[])
from public;
grant execute on function
  ledger.find_requests(text[], text, uuid, bigint, integer),
  ledger.request_places(uuid[])
to loglineos_app;

-- People call functions and policies by their names. Nothing else is in this index, so it costs other appends nothing.
create index universal_registry_name on ledger.universal_registry (name)
  where entity_type in ('function', 'policy') and name is not null;

-- Who looks, or reads the timeline, sees his own tenant and what is public: both in the order of the timeline, without
-- the rows of all other tenants between.
create index universal_registry_tenant on ledger.universal_registry (tenant_id, tx_id, position);
create index universal_registry_public on ledger.universal_registry (tx_id, position) where visibility = 'public';
