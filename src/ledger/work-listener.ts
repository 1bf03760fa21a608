import pg from 'pg';
import { type ConnectionOptions, connectionConfig } from './database.ts';

const CHANNEL = 'loglineos_work';
const RECONNECT_MS = 5_000;

/**
 * Hear of new work the moment it is there: `LISTEN` on a connection of its own. A hint and nothing more: while the
 * connection is down, or where a pooler passes no notifications on, whoever works looks by itself.
 *
 * @returns how to stop listening.
 */
export function listenForWork(connection: ConnectionOptions, onWork: () => void): () => Promise<void> {
  let client: pg.Client | undefined;
  let retry: NodeJS.Timeout | undefined;
  let isOver = false;

  const connect = async () => {
    const next = new pg.Client({ ...connectionConfig(connection), application_name: 'loglineos-listen' });
    client = next;
    next.on('error', () => {});
    next.on('notification', onWork);
    next.once('end', () => {
      if (!isOver) retry = setTimeout(listen, RECONNECT_MS).unref();
    });
    await next.connect();
    await next.query(`listen ${CHANNEL}`);
    onWork(); // what came while nobody listened
  };
  const listen = () => {
    connect().catch(() => client?.end().catch(() => {}));
  };
  listen();
  return async () => {
    isOver = true;
    clearTimeout(retry);
    await client?.end().catch(() => {});
  };
}
