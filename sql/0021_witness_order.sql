-- The witness in the order of the timeline. 0003 left it without an index, because `verify` alone read it, and all of it.
-- The auditor compares a stretch of the ledger with the same stretch of the witness, many times a day. Places grow, so
-- an append adds at the index's right end.
create index registry_witness_timeline on ledger.registry_witness (tx_id, position);
