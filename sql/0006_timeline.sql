-- The ordered view, and the current version of each span. security_invoker: neither shows more than the table would.
--
-- Order of the timeline is (tx_id, position). A reader takes only rows whose tx_id is below the oldest transaction
-- still running (pg_snapshot_xmin): no transaction that could still insert in front of them is left, so a reader that
-- resumes after the last pair it saw misses nothing and sees nothing twice, in whatever order transactions drew their
-- numbers or committed. The price: one long writing transaction holds the timeline's end back while it lasts.
create view ledger.visible_timeline with (security_invoker = true) as
  select r.*, r.at as "when"
    from ledger.universal_registry r
   where r.is_deleted is not true;

create view ledger.settled_timeline with (security_invoker = true) as
  select t.*
    from ledger.visible_timeline t
   where t.tx_id < pg_snapshot_xmin(pg_current_snapshot());

create view ledger.current_span with (security_invoker = true) as
  select r.*
    from ledger.universal_registry r
   where not exists (
     select from ledger.universal_registry later where later.id = r.id and later.seq > r.seq
   );

-- Those of these versions that the caller may see, in this order, until they have p_bytes with the last of them. They are
-- counted as text, as the reader gets them: what is compressed here is not there. What does not fit is not looked at.
create function ledger.rows_within(p_ids uuid[], p_seqs integer[], p_bytes bigint)
returns setof ledger.universal_registry
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  span ledger.universal_registry;
  bytes bigint := 0;
begin
  for span in
    select r.*
      from unnest(p_ids, p_seqs) with ordinality wanted (id, seq, turn)
      join ledger.universal_registry r on r.id = wanted.id and r.seq = wanted.seq
     order by wanted.turn
  loop
    return next span;
    bytes := bytes + octet_length(span::text);
    exit when bytes >= p_bytes;
  end loop;
end $$;

alter view ledger.visible_timeline owner to loglineos_owner;
alter view ledger.settled_timeline owner to loglineos_owner;
alter view ledger.current_span owner to loglineos_owner;
alter function ledger.rows_within(uuid[], integer[], bigint) owner to loglineos_owner;
grant select on ledger.visible_timeline, ledger.settled_timeline, ledger.current_span
  to loglineos_app, loglineos_kernel, loglineos_auditor;
revoke execute on function ledger.rows_within(uuid[], integer[], bigint) from public;
grant execute on function ledger.rows_within(uuid[], integer[], bigint)
  to loglineos_app, loglineos_kernel, loglineos_auditor;
