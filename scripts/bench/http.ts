import { randomUUID } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import { type ServerType, serve } from '@hono/node-server';
import { Hono } from 'hono';
import { createApi } from '../../src/api/index.ts';
import { createAuthenticator } from '../../src/identity/index.ts';
import {
  appendSpans,
  type Database,
  readTimeline,
  type SpanDraft,
  type Statement,
  TIMELINE_START,
} from '../../src/ledger/index.ts';
import type { TrustedKeys } from '../../src/span/index.ts';
import { appendContext, type Stage0 } from '../../src/stage0/index.ts';
import { type Figure, median } from './figures.ts';
import { type Load, startLoader } from './http-load.ts';
import { IDENTITY } from './installation.ts';

const PARALLEL = 16;
const ROUND_MS = 2_000;
const ROUNDS = 3;
const SPANS = 2_000;
const PLACEHOLDER = 'ab'.repeat(32);

/** What a client posts; beside it the bare route fills in what the ledger will not take without. */
const POSTED = {
  entity_type: 'note',
  who: IDENTITY.userId,
  did: 'measured',
  this: 'http',
  name: 'bench',
  content: { text: 'A note of the size that notes have: a sentence or two, and perhaps a list.', list: [1, 2, 3] },
  tags: ['bench', 'http'],
};

/**
 * (h) Requests per second over HTTP, against a bare route of the same framework that runs the same SQL and answers its
 * rows: no token, no scopes, no schema, no hash and no signature. With how long a request took, as a client sees it.
 *
 * On a ledger of its own, because what the bare route appends is signed by nobody.
 */
export async function benchHttp(stage0: Stage0, trustedKeys: TrustedKeys): Promise<Figure[]> {
  const token = 'bench';
  const authenticator = createAuthenticator({ ...stage0, trustedKeys, local: { token, identity: IDENTITY } });
  const context = appendContext(stage0, IDENTITY);
  const notes: SpanDraft[] = Array.from({ length: SPANS }, () => ({ ...POSTED, id: randomUUID(), seq: 0 }));
  for (let i = 0; i < SPANS; i += 500) await appendSpans(stage0.database, notes.slice(i, i + 500), context);
  const api = createApi({ stage0, trustedKeys, authenticator });
  const bare = bareRoutes(stage0.database, await timelineStatement(stage0.database));
  const [ours, theirs] = [await start(api.fetch), await start(bare.fetch)];
  const loader = startLoader();
  const measure = async (name: string, load: Omit<Load, 'url' | 'parallel' | 'ms'>, path: string) => {
    const measured = { ours: [] as number[], theirs: [] as number[] };
    const latencies = { ours: [] as number[], theirs: [] as number[] };
    const round = async (who: 'ours' | 'theirs', ms: number) => {
      const url = `${who === 'ours' ? ours.url : theirs.url}${path}`;
      return loader.run({ ...load, url, parallel: PARALLEL, ms });
    };
    for (const who of ['ours', 'theirs'] as const) await round(who, ROUND_MS / 2); // warm
    for (let n = 0; n < ROUNDS; n++) {
      for (const who of ['ours', 'theirs'] as const) {
        const { perSecond, latenciesMs } = await round(who, ROUND_MS);
        measured[who].push(perSecond);
        latencies[who].push(...latenciesMs);
      }
    }
    const [value, limit] = [median(measured.ours), median(measured.theirs)];
    return [
      { name, value, unit: 'reqs/s', limit, ratio: value / limit },
      ...[50, 95, 99].map((percent) => percentile(`${name}_p${percent}`, latencies.ours, latencies.theirs, percent)),
    ];
  };
  try {
    const headers = { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' };
    return [
      ...(await measure('http_timeline', { method: 'GET', headers, status: 200 }, '/api/timeline')),
      ...(await measure(
        'http_append',
        { method: 'POST', headers, body: JSON.stringify(POSTED), status: 201 },
        '/api/spans',
      )),
    ];
  } finally {
    await loader.stop();
    await Promise.all([ours.stop(), theirs.stop()]);
  }
}

/** The statement by which a page of the timeline is read, as the ledger room makes it. */
async function timelineStatement(database: Database): Promise<Statement> {
  const statements: Statement[] = [];
  const recording = {
    transaction: ((identity, run, options) =>
      database.transaction(
        identity,
        (query) =>
          run((statement) => {
            statements.push(statement);
            return query(statement);
          }),
        options,
      )) as Database['transaction'],
  } as Database;
  await readTimeline(recording, IDENTITY, TIMELINE_START, 100);
  return statements.at(-1) as Statement;
}

function bareRoutes(database: Database, timeline: Statement): Hono {
  const app = new Hono();
  app.get('/api/timeline', async (c) => {
    const rows = await database.transaction(IDENTITY, (query) => query(timeline), { readOnly: true });
    return c.json({ spans: rows });
  });
  app.post('/api/spans', async (c) => {
    const span = { ...(await c.req.json()), ...UNPROVED, id: randomUUID(), at: new Date().toISOString() };
    const values = [IDENTITY.userId, IDENTITY.tenantId, JSON.stringify([span])];
    await database.query({ text: 'select ledger.append($1, $2, $3)', values });
    return c.json({ id: span.id }, 201);
  });
  return app;
}

const UNPROVED = {
  seq: 0,
  owner_id: IDENTITY.userId,
  tenant_id: IDENTITY.tenantId,
  visibility: 'private',
  curr_hash: PLACEHOLDER,
  signature: PLACEHOLDER + PLACEHOLDER,
  public_key: PLACEHOLDER,
};

function percentile(name: string, ours: number[], theirs: number[], percent: number): Figure {
  const [value, limit] = [ours, theirs].map((all) => at(all, percent)) as [number, number];
  return { name, value, unit: 'ms', limit, ratio: value / limit };
}

function at(latencies: number[], percent: number): number {
  const sorted = latencies.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor((sorted.length * percent) / 100))] ?? 0;
}

function start(fetch: (request: Request) => Response | Promise<Response>) {
  return new Promise<{ url: string; stop: () => Promise<void> }>((resolve) => {
    const server: ServerType = serve({ fetch, port: 0, hostname: '127.0.0.1' }, ({ port }: AddressInfo) =>
      resolve({
        url: `http://127.0.0.1:${port}`,
        stop: () => new Promise((ended) => server.close(() => ended())),
      }),
    );
  });
}
