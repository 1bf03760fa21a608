-- How many function executions a tenant has started today (UTC). Derived: rebuild_derived() recounts it from the ledger.
create table ledger.daily_usage (
  tenant_id  text not null,
  day        date not null,
  executions integer not null,
  primary key (tenant_id, day)
);
alter table ledger.daily_usage owner to loglineos_owner;
grant select on ledger.daily_usage to loglineos_auditor;

-- Take one execution of the tenant's day, or none when the limit is reached. The row lock makes it free of races: of
-- two that want the last one, the second waits until the first has committed, and then finds none.
create function ledger.reserve_execution(p_tenant_id text, p_day date, p_limit integer)
returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  if p_tenant_id is distinct from ledger.session_tenant_id() then
    raise exception 'the day of tenant % is not yours to count', p_tenant_id using errcode = '42501';
  end if;
  if p_limit < 1 then
    return false;
  end if;
  insert into ledger.daily_usage as usage (tenant_id, day, executions) values (p_tenant_id, p_day, 1)
    on conflict (tenant_id, day) do update set executions = usage.executions + 1 where usage.executions < p_limit;
  return found;
end $$;

-- Give a reservation back: the boot ended before any function ran.
create function ledger.release_execution(p_tenant_id text, p_day date)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  if p_tenant_id is distinct from ledger.session_tenant_id() then
    raise exception 'the day of tenant % is not yours to count', p_tenant_id using errcode = '42501';
  end if;
  update ledger.daily_usage set executions = executions - 1
   where tenant_id = p_tenant_id and day = p_day and executions > 0;
end $$;

alter function ledger.reserve_execution(text, date, integer) owner to loglineos_owner;
alter function ledger.release_execution(text, date) owner to loglineos_owner;
revoke execute on function ledger.reserve_execution(text, date, integer) from public;
revoke execute on function ledger.release_execution(text, date) from public;
grant execute on function ledger.reserve_execution(text, date, integer) to loglineos_app;
grant execute on function ledger.release_execution(text, date) to loglineos_app;
