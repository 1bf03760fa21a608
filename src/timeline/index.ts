/**
 * The timeline live: subscriptions, whatever carries them to a client (`src/api/stream.ts`, `src/local/sockets.ts`).
 *
 * Authoritative for what a subscriber gets and in which order, for who is sent away and when, and for the messages of the
 * WebSocket. Must never show a span that the ledger did not read under the subscriber's own identity.
 */
export { parseStart, readFilter } from './filter.ts';
export { type Client, Connection, type EndCode, type HubOptions, TimelineHub } from './hub.ts';
export {
  CLOSE_CODES,
  frames,
  parseMessage,
  Session,
  SUBSCRIPTIONS_MAX,
  subscriptionExists,
  subscriptionNotFound,
  subscriptionsExceeded,
} from './protocol.ts';
export type { SpanBatch } from './reader.ts';
