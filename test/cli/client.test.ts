import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { build } from 'esbuild';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Client } from '../../src/client/index.ts';

const TOKEN = 'llt_a-secret-of-tests';

interface Heard {
  method: string;
  url: string;
  authorization: string;
  key: string | undefined;
  body: string;
}

/** A server that answers what it is told, in turn; the last answer again and again. */
let server: Server;
let client: Client;
let heard: Heard[];
let answers: (readonly [number, unknown])[];
beforeEach(async () => {
  heard = [];
  server = createServer(async (request, response) => {
    heard.push(await read(request));
    const [status, body] = answers[Math.min(heard.length, answers.length) - 1] as [number, unknown];
    response.writeHead(status).end(typeof body === 'string' ? body : JSON.stringify(body));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  client = new Client({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, token: TOKEN });
});
afterEach(() => {
  server.closeAllConnections();
  server.close();
});

async function read(request: IncomingMessage): Promise<Heard> {
  const body = (await request.toArray()).join('');
  const { method = '', url = '', headers } = request;
  return { method, url, authorization: headers.authorization ?? '', key: headers['idempotency-key'] as string, body };
}

const AWAY = [503, { code: 'DATABASE_UNAVAILABLE', detail: 'no connection to the database' }] as const;
const PAGE = [200, { spans: [], before: null }] as const;

describe('Client', () => {
  it('says the token, and only what was asked for', async () => {
    answers = [PAGE];
    await client.spans({ entity_type: 'a&b', status: undefined, limit: 3 });
    expect(heard).toEqual([
      {
        method: 'GET',
        url: '/api/spans?entity_type=a%26b&limit=3',
        authorization: `Bearer ${TOKEN}`,
        key: undefined,
        body: '',
      },
    ]);
  });

  it('asks again while the system is not well, and then answers', async () => {
    answers = [AWAY, AWAY, PAGE];
    expect(await client.spans({})).toEqual(PAGE[1]);
    expect(heard).toHaveLength(3);
  });

  it('sends an execution again under one key, so that it may arrive twice', async () => {
    answers = [AWAY, [202, { request_id: 'r', status: 'scheduled' }]];
    expect(await client.execute({ span_id: 'f' })).toEqual({ request_id: 'r', status: 'scheduled' });
    const keys = heard.map(({ body }) => JSON.parse(body).idempotency_key);
    expect(keys).toEqual([expect.stringMatching(/^[0-9a-f-]{36}$/), keys[0]]);
  });

  it('sends a new span again under one key of its own', async () => {
    answers = [AWAY, AWAY, [201, { id: 's', seq: 0, curr_hash: 'h' }]];
    expect(await client.append({ entity_type: 'note' })).toEqual({ id: 's', seq: 0, curr_hash: 'h' });
    await client.append({ entity_type: 'note' });
    const [first, ...others] = heard.map(({ key }) => key);
    expect(first).toMatch(/^[0-9a-f-]{36}$/);
    expect(others).toEqual([first, first, expect.not.stringMatching(first as string)]);
  });

  it.each<[string, () => Promise<unknown>]>([
    ['a version of a span', () => client.append({ id: 's', entity_type: 'note' })],
    ['a boot', () => client.boot('k', null)],
    ['a cancel', () => client.cancel({ ids: ['r'] })],
  ])('never sends %s twice', async (_what, call) => {
    answers = [AWAY, PAGE];
    await expect(call()).rejects.toMatchObject({ code: 'DATABASE_UNAVAILABLE', kind: 'upstream' });
    expect(heard.map(({ key }) => key)).toEqual([undefined]);
  });

  it('does not ask again for what was refused', async () => {
    answers = [[400, { code: 'FIELD_INVALID', detail: 'limit: expected a number', field: 'limit' }]];
    await expect(client.spans({})).rejects.toMatchObject({ code: 'FIELD_INVALID', field: 'limit', kind: 'input' });
    expect(heard).toHaveLength(1);
  });

  it.each([
    [401, 'access'],
    [403, 'access'],
    [404, 'input'],
    [409, 'conflict'],
    [422, 'kernel'],
    [429, 'governance'],
  ])('makes an error of the right kind of a problem with status %s', async (status, kind) => {
    answers = [[status, { code: 'SOME_CODE', detail: 'why' }]];
    await expect(client.append({})).rejects.toMatchObject({ kind, code: 'SOME_CODE', message: 'why' });
  });

  it.each<[string, number, unknown]>([
    ['a page of something else', 200, '<html>'],
    ['an error of something else', 502, 'Bad Gateway'],
    ['JSON of something else', 404, { error: 'not found' }],
  ])('knows %s for what it is', async (_what, status, body) => {
    answers = [[status, body]];
    await expect(client.append({})).rejects.toMatchObject({ code: 'NOT_LOGLINEOS', kind: 'upstream' });
  });

  it('says where nothing answers, and not with which token', async () => {
    const none = new Client({ url: 'http://127.0.0.1:1', token: TOKEN });
    const error = await none.append({}).catch((reason: Error) => reason);
    expect(error).toMatchObject({ code: 'UNREACHABLE', message: 'nothing answers at http://127.0.0.1:1' });
    expect(JSON.stringify(error) + String(error)).not.toContain(TOKEN);
  });

  it.each(['127.0.0.1:8787', 'ftp://127.0.0.1', ''])('refuses a URL of another form: %j', (url) => {
    expect(() => new Client({ url, token: TOKEN })).toThrow(expect.objectContaining({ code: 'URL_INVALID' }));
  });

  it('is small in a browser, and brings nothing but itself: no schema library, no module of Node', async () => {
    const entry = new URL('../../src/client/index.ts', import.meta.url).pathname;
    const options = {
      bundle: true,
      minify: true,
      write: false,
      metafile: true,
      platform: 'browser',
      format: 'esm',
    } as const;
    const { metafile, outputFiles } = await build({ ...options, entryPoints: [entry] });
    expect(Object.keys(metafile.inputs).filter((path) => !/^src\/(client\/|errors\.ts$)/.test(path))).toEqual([]);
    expect(outputFiles[0]?.contents.length).toBeLessThan(8_000);
  });
});
