/**
 * Requests over HTTP from a thread of their own, so that what asks takes no turn from what answers. Of every answer the
 * whole body is read, and anything but the expected status ends the measurement.
 */
import { Agent, request } from 'node:http';
import { isMainThread, parentPort, Worker } from 'node:worker_threads';
import { repeat } from './figures.ts';

export interface Load {
  url: string;
  method: 'GET' | 'POST';
  headers: Record<string, string>;
  body?: string;
  status: number;
  /** Connections, each with one request under way. */
  parallel: number;
  ms: number;
}

export interface LoadResult {
  perSecond: number;
  /** Of each request, ascending. */
  latenciesMs: number[];
}

/** A thread that makes load; `run` does one measurement after the other. */
export function startLoader(): { run: (load: Load) => Promise<LoadResult>; stop: () => Promise<unknown> } {
  const worker = new Worker(new URL(import.meta.url));
  const run = (load: Load) =>
    new Promise<LoadResult>((resolve, reject) => {
      worker.once('message', (answer: LoadResult | { failure: string }) =>
        'failure' in answer ? reject(new Error(answer.failure)) : resolve(answer),
      );
      worker.postMessage(load);
    });
  return { run, stop: () => worker.terminate() };
}

async function makeLoad(load: Load): Promise<LoadResult> {
  const agent = new Agent({ keepAlive: true, maxSockets: load.parallel });
  const latenciesMs: number[] = [];
  const ask = async () => {
    const started = performance.now();
    await send(load, agent);
    latenciesMs.push(performance.now() - started);
  };
  const perSecond = await repeat(ask, load.parallel, load.ms);
  agent.destroy();
  return { perSecond, latenciesMs: latenciesMs.sort((a, b) => a - b) };
}

function send({ url, method, headers, body, status }: Load, agent: Agent): Promise<void> {
  return new Promise((resolve, reject) => {
    const sent = request(url, { method, headers, agent }, (answer) => {
      answer.resume();
      answer.on('error', reject);
      answer.on('end', () =>
        answer.statusCode === status ? resolve() : reject(new Error(`${method} ${url}: ${answer.statusCode}`)),
      );
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

if (!isMainThread) {
  parentPort?.on('message', (load: Load) => {
    makeLoad(load).then(
      (result) => parentPort?.postMessage(result),
      (error) => parentPort?.postMessage({ failure: error.message }),
    );
  });
}
