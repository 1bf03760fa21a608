/**
 * Whether the ledger is still what it was. An audit verifies the rows that are new, and again and again those that are
 * old, and keeps *anchors* of them outside the database: digests of the ledger up to every thousandth row.
 *
 * Authoritative for what an anchor is, and for which problems are open. Must never write to the ledger, never replace an
 * anchor, and never take a store that cannot be read for an empty one.
 */
export { type AuditOptions, type AuditOrder, type AuditReport, audit, parseOrder } from './audit.ts';
export type { AnchorStore, AuditProblem } from './state.ts';
