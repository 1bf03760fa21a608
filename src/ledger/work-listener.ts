import pg from 'pg';
import { type ConnectionOptions, connectionConfig } from './database.ts';

const RECONNECT_MS = 5_000;

/**
 * Hear of new work the moment it is there. A hint and nothing more: while the connection is down, or where a pooler
 * passes no notifications on, whoever works looks by itself.
 *
 * @returns how to stop listening.
 */
export function listenForWork(connection: ConnectionOptions, onWork: () => void): () => Promise<void> {
  return listen(connection, 'loglineos_work', onWork);
}

/** The same for spans that were appended while a reader had its bell hung up (`hangTimelineBell`). */
export function listenForTimeline(connection: ConnectionOptions, onSpans: () => void): () => Promise<void> {
  return listen(connection, 'loglineos_timeline', onSpans);
}

/** `LISTEN` on a connection of its own. */
function listen(connection: ConnectionOptions, channel: string, onNotice: () => void): () => Promise<void> {
  let client: pg.Client | undefined;
  let retry: NodeJS.Timeout | undefined;
  let isOver = false;

  const connect = async () => {
    const next = new pg.Client({ ...connectionConfig(connection), application_name: 'loglineos-listen' });
    client = next;
    next.on('error', () => {});
    next.on('notification', onNotice);
    next.once('end', () => {
      if (!isOver) retry = setTimeout(start, RECONNECT_MS).unref();
    });
    await next.connect();
    await next.query(`listen ${channel}`);
    onNotice(); // what came while nobody listened
  };
  const start = () => {
    connect().catch(() => client?.end().catch(() => {}));
  };
  start();
  return async () => {
    isOver = true;
    clearTimeout(retry);
    await client?.end().catch(() => {});
  };
}
