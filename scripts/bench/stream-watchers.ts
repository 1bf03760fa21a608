/**
 * Clients that watch the timeline, on a thread of their own: half of them over WebSockets, half over server-sent events.
 * They note when each span arrived, by its number, and look no further into it.
 */
import { get } from 'node:http';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { WebSocket } from 'ws';

export interface Watch {
  socketUrl: string;
  sockets: number;
  streamUrl: string;
  streams: number;
  token: string;
}

/** When each client saw the span of each number, in ms since the epoch; a span that came twice counts twice. */
export type Arrivals = [number: number, at: number][];

/** @returns, once all clients wait for what is new, how to end them and learn what they saw. */
export async function startWatchers(watch: Watch): Promise<() => Promise<Arrivals>> {
  const worker = new Worker(new URL(import.meta.url), { workerData: watch });
  const next = () => new Promise<unknown>((resolve, reject) => worker.once('message', resolve).once('error', reject));
  await next();
  return async () => {
    worker.postMessage('end');
    const arrivals = (await next()) as Arrivals;
    await worker.terminate();
    return arrivals;
  };
}

const NUMBER = /"name":"watched-(\d+)"/;

async function watchAll({ socketUrl, sockets, streamUrl, streams, token }: Watch): Promise<void> {
  const arrivals: Arrivals = [];
  const note = (text: string) => {
    const number = NUMBER.exec(text)?.[1];
    if (number !== undefined) arrivals.push([Number(number), performance.timeOrigin + performance.now()]);
  };
  const headers = { Authorization: `Bearer ${token}` };
  const overSocket = () =>
    new Promise<void>((resolve, reject) => {
      const socket = new WebSocket(socketUrl, { headers });
      socket.on('error', reject);
      socket.on('open', () => socket.send('{"action":"subscribe","after":"end"}'));
      socket.on('message', (data) => {
        const text = String(data);
        if (text.includes('"caught_up"')) resolve();
        else note(text);
      });
    });
  const overStream = () =>
    new Promise<void>((resolve, reject) => {
      const sent = get(streamUrl, { headers, agent: false }, (answer) => {
        let rest = '';
        answer.setEncoding('utf8').on('data', (text: string) => {
          const events = (rest + text).split('\n\n');
          rest = events.pop() as string;
          for (const event of events) {
            if (event.includes('event: caught_up')) resolve();
            else note(event);
          }
        });
      });
      sent.on('error', reject);
    });
  await Promise.all([...Array.from({ length: sockets }, overSocket), ...Array.from({ length: streams }, overStream)]);
  parentPort?.on('message', () => parentPort?.postMessage(arrivals));
  parentPort?.postMessage('ready');
}

if (!isMainThread) await watchAll(workerData as Watch);
