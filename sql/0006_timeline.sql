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

alter view ledger.visible_timeline owner to loglineos_owner;
alter view ledger.settled_timeline owner to loglineos_owner;
alter view ledger.current_span owner to loglineos_owner;
grant select on ledger.visible_timeline, ledger.settled_timeline, ledger.current_span
  to loglineos_app, loglineos_kernel, loglineos_auditor;
