-- Who sees and writes what. The identity is transaction-scoped: set_config('app.user_id', …, true) and
-- set_config('app.tenant_id', …, true). Without both, null matches nothing: no row is seen and none is written.
alter table ledger.universal_registry enable row level security;
alter table ledger.universal_registry force row level security;

create function ledger.session_user_id() returns text
language sql stable parallel safe as $$ select nullif(current_setting('app.user_id', true), '') $$;
create function ledger.session_tenant_id() returns text
language sql stable parallel safe as $$ select nullif(current_setting('app.tenant_id', true), '') $$;
alter function ledger.session_user_id() owner to loglineos_owner;
alter function ledger.session_tenant_id() owner to loglineos_owner;

-- The scalar subqueries are evaluated once a statement, not once a row: a read may pass over many rows.
create policy read_visible on ledger.universal_registry for select using (
  (select ledger.session_user_id() is not null)
  and case visibility
    when 'public' then (select ledger.session_tenant_id() is not null)
    when 'tenant' then tenant_id = (select ledger.session_tenant_id())
    when 'private' then tenant_id = (select ledger.session_tenant_id()) and owner_id = (select ledger.session_user_id())
  end
);

-- Without subqueries: an append is mostly one row, and each subquery would be set up for it.
create policy append_own on ledger.universal_registry for insert with check (
  owner_id = ledger.session_user_id()
  and tenant_id = ledger.session_tenant_id()
  and (visibility <> 'public' or pg_has_role(current_user, 'loglineos_publisher', 'usage'))
  and tx_id = pg_current_xact_id() -- the owner could name another one, and forge the timeline's order
);

-- An auditor reads everything, in the name of a declared identity. The guard's functions do too; inside a trigger they
-- also check rows that came without an identity (a superuser's, whom row level security does not bind).
create policy audit_all on ledger.universal_registry for select to loglineos_auditor, loglineos_guard using (
  (select (ledger.session_user_id() is not null and ledger.session_tenant_id() is not null) or pg_trigger_depth() > 0)
);
