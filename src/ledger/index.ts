/**
 * The only room with SQL. `sql/` defines what the database guarantees; here it is asked.
 *
 * Authoritative for how rows are written (one statement, signed before it is sent), read (always under an identity) and
 * ordered. Must never hold a rule that the database could hold, and never send a statement twice after it was sent once.
 */
export {
  APPEND_BATCH_MAX,
  type AppendContext,
  type Appended,
  appendOnce,
  appendSpans,
  hashDraft,
  type SpanDraft,
  sealDraft,
} from './append.ts';
export { appendBootEvent, type BootConditions, type BootEventOutcome } from './boot-event.ts';
export {
  type ConnectionOptions,
  Database,
  type DatabaseOptions,
  type Identity,
  isLoopback,
  type Row,
  type Statement,
  type TransactionQuery,
} from './database.ts';
export { exportLedger, rowAt } from './export.ts';
export { ExportReader, type ExportSummary, type Line, linesOf } from './export-file.ts';
export {
  findQueuedRequests,
  listRequests,
  QUEUE_STATES,
  type QueueState,
  type RequestFilter,
  type RequestRecord,
  readRequests,
} from './find-requests.ts';
export { type ImportOptions, type ImportReport, importLedger } from './import.ts';
export { listSpans } from './list-spans.ts';
export { grantLogins, type LoginRole } from './logins.ts';
export { readLostBoots } from './lost-boots.ts';
export { readMetrics } from './metrics.ts';
export { loadMigrations, type Migration, type MigrationResult, migrate } from './migrate.ts';
export {
  advancePolicy,
  numberExpiredSpans,
  type PolicyCursor,
  type PolicyPlace,
  passPolicies,
  type QueueSnapshot,
  readAnySeqs,
  readAnyVersions,
  readDaySummaries,
  readExpiredSpans,
  readPolicyCursors,
  readPolicyWindow,
  readQueueSnapshot,
} from './policies.ts';
export {
  latestVersionsStatement,
  readFirstVersions,
  readLatestVersions,
  readPlacedVersions,
  readVersion,
  readVersions,
  readVersionsFrom,
} from './read.ts';
export { rebuildDerived } from './rebuild.ts';
export {
  type ClaimedRequest,
  claimRequests,
  closeRequests,
  extendLeases,
  lockRequests,
  type QueueLimits,
  type RequestClaim,
  releaseRequests,
} from './request-queue.ts';
export { spanTypes, toSpan } from './rows.ts';
export { advanceSchedule, type DueSchedule, readDueSchedules, readNextDue } from './schedules.ts';
export { endShift, holdShift } from './shift-lease.ts';
export { readFirstPositionSince, readLastPosition, readRowsSignedBehind, type SignedRow } from './signed-rows.ts';
export { PAGE_MAX, type SpanFilter } from './span-filter.ts';
export {
  countRows,
  FIRST_PLACE,
  findRow,
  isSame,
  type PlacedRow,
  type RowPlace,
  readStretch,
  type WitnessedRow,
} from './stretch.ts';
export { CURSOR, type Cursor, cursorOf, readTimeline, readTimelineEnd, TIMELINE_START } from './timeline.ts';
export { hangTimelineBell, readTimelineNews } from './timeline-news.ts';
export { releaseExecution, reserveExecution } from './usage.ts';
export { type VerifyReport, verifyLedger } from './verify-ledger.ts';
export { listenForTimeline, listenForWork } from './work-listener.ts';
