-- The roles. Grants to them are the public interface of the ledger: what is not granted here cannot be done.
--
--   loglineos_owner      owns schema and tables; runs migrations. Even it cannot change or remove a row.
--   loglineos_app        appends and reads for the identity its transaction declares (Stage-0, API, workers).
--   loglineos_kernel     reads for that identity; a kernel's `ctx.sql` runs as this role and can write nothing.
--   loglineos_publisher  the right to write public rows; a membership, never a login.
--   loglineos_seeder     an app that is also a publisher: seeding, the only holder of the root key.
--   loglineos_auditor    reads every row of every tenant, writes nothing; runs `verify`.
--   loglineos_guard      owns the functions that must see rows which row level security hides from the caller: triggers,
--                        and those of the runtime loop.
--
-- Roles belong to the whole cluster, so they may exist already and another database may be creating them right now.
do $$
declare
  role_name text;
  is_superuser boolean := (select rolsuper from pg_roles where rolname = current_user);
begin
  foreach role_name in array array[
    'loglineos_owner', 'loglineos_app', 'loglineos_kernel', 'loglineos_publisher',
    'loglineos_seeder', 'loglineos_auditor', 'loglineos_guard'
  ] loop
    if not exists (select from pg_roles where rolname = role_name) then
      begin
        execute format('create role %I nologin', role_name);
      exception when duplicate_object or unique_violation then
        null;
      end;
    end if;
    -- A master user that is no superuser (RDS) must be a member before it can hand objects to a role.
    if not is_superuser and role_name <> current_user and not pg_has_role(current_user, role_name, 'set') then
      execute format('grant %I to current_user', role_name);
    end if;
  end loop;

  if not pg_has_role('loglineos_app', 'loglineos_kernel', 'set') then
    grant loglineos_kernel to loglineos_app;
  end if;
  if not pg_has_role('loglineos_seeder', 'loglineos_app', 'usage') then
    grant loglineos_app to loglineos_seeder;
  end if;
  if not pg_has_role('loglineos_seeder', 'loglineos_publisher', 'usage') then
    grant loglineos_publisher to loglineos_seeder;
  end if;
end $$;

-- Bounds of a session, whoever opens it. (As role settings, because a pooler passes no start-up parameters on.)
do $$
declare
  role_name text;
begin
  foreach role_name in array array['loglineos_app', 'loglineos_seeder', 'loglineos_auditor'] loop
    execute format('alter role %I set timezone = %L', role_name, 'UTC');
    execute format('alter role %I set statement_timeout = %L', role_name, '60s');
    execute format('alter role %I set idle_in_transaction_session_timeout = %L', role_name, '60s');
  end loop;
end $$;

-- The owner gets the schema that the migrator made to hold its own record.
alter schema ledger owner to loglineos_owner;
alter table ledger.schema_migration owner to loglineos_owner;
grant usage on schema ledger
  to loglineos_app, loglineos_kernel, loglineos_seeder, loglineos_auditor, loglineos_guard, loglineos_publisher;
