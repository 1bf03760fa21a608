-- How many requests of the caller's tenant wait, by state, and how long the first that is due has waited: numbers alone,
-- because most of them are other owners' and private. State by state, so that each is counted by its own index.
create function ledger.tenant_queue()
returns table (ready integer, delayed integer, leased integer, dead integer, oldest_due_ms double precision)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  with tenant as (
    select ledger.session_tenant_id() as id where ledger.session_user_id() is not null
  )
  select (select count(*) from ledger.request_queue q where q.state = 'ready' and q.tenant_id = tenant.id)::integer,
         (select count(*) from ledger.request_queue q where q.state = 'delayed' and q.tenant_id = tenant.id)::integer,
         (select count(*) from ledger.request_queue q where q.state = 'leased' and q.tenant_id = tenant.id)::integer,
         (select count(*) from ledger.request_queue q where q.state = 'dead' and q.tenant_id = tenant.id)::integer,
         (select round(extract(epoch from clock_timestamp() - min(q.due_at)) * 1000)::double precision
            from ledger.request_queue q
           where q.state in ('ready', 'delayed') and q.tenant_id = tenant.id and q.due_at <= clock_timestamp())
    from tenant
$$;

grant create on schema ledger to loglineos_guard;
alter function ledger.tenant_queue() owner to loglineos_guard;
revoke create on schema ledger from loglineos_guard;
revoke execute on function ledger.tenant_queue() from public;
grant execute on function ledger.tenant_queue() to loglineos_app;
