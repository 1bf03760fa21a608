import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { UpstreamError } from '../../src/errors.ts';
import { callProvider, type Provider, type ProviderAnswer, readProviderRequest } from '../../src/provider/index.ts';
import { completion, json, ModelServer, provider, type Reply, TestClock, text } from './model-server.ts';

const SECRET = 'sk-test-0123456789abcdef';
const HELLO = { messages: [{ role: 'user', content: 'Hello' }] };
const GOOD = json(completion('Hi'));
const MINUTE = 60_000;

let server: ModelServer;
let elsewhere: ModelServer;
beforeAll(async () => {
  server = await ModelServer.start();
  elsewhere = await ModelServer.start();
});
afterAll(async () => {
  await server?.stop();
  await elsewhere?.stop();
});

interface Call {
  request?: object;
  row?: Partial<Provider>;
  deadlineMs?: number;
  secret?: string | null;
}

/** A call whose clock only sleeping moves, and how it slept. */
async function call(replies: Reply[], { request = {}, row = {}, deadlineMs = MINUTE, secret = SECRET }: Call = {}) {
  server.replies(...replies);
  const clock = new TestClock();
  const asked = readProviderRequest({ ...HELLO, ...request });
  const at = provider({ baseUrl: server.url, timeoutMs: MINUTE, ...row });
  const options = { secret, deadline: clock.in(deadlineMs), clock };
  const outcome = await callProvider(at, asked, options).then(
    (answer) => ({ answer, error: null }),
    (error: UpstreamError) => ({ answer: null, error }),
  );
  return { ...outcome, slept: clock.slept };
}

async function failure(replies: Reply[], options: Call = {}) {
  const { error, slept } = await call(replies, options);
  expect(error).toBeInstanceOf(UpstreamError);
  return { ...(error as UpstreamError), message: (error as UpstreamError).message, slept };
}

/** Accepts the request and never answers it. */
const silence: Reply = () => {};
const hangUp: Reply = (response) => response.destroy();
/** Says more than it sends. */
const breakOff: Reply = (response) => {
  response.writeHead(200, { 'content-type': 'application/json', 'content-length': '5000' });
  response.write('{"choices":', () => response.destroy());
};

describe('what passes', () => {
  it.each([500, 502, 503, 504, 529, 429])('is tried again after status %i, with growing pauses', async (status) => {
    const { answer, slept } = await call([json({}, status), json({}, status), json({}, status), GOOD]);
    expect(answer).toMatchObject({ text: 'Hi', attempts: 4, latency_ms: 375 + 750 + 1_500 });
    expect(slept).toEqual([375, 750, 1_500]);
    expect(server.asked).toHaveLength(4);
    expect(server.asked.every(({ body }) => JSON.stringify(body) === JSON.stringify(server.asked[0]?.body))).toBe(true);
  });

  it.each<[string, Reply]>([
    ['hung up', hangUp],
    ['broke off in the middle of an answer', breakOff],
  ])('is tried again after the other side %s', async (_what, reply) => {
    const { answer, slept } = await call([reply, reply, GOOD]);
    expect(answer).toMatchObject({ text: 'Hi', attempts: 3 });
    expect(slept).toHaveLength(2);
  });

  it('is tried four times and no more', async () => {
    const { code, message } = await failure([json({ error: { message: 'out of order' } }, 503)]);
    expect([code, message]).toEqual(['PROVIDER_UNAVAILABLE', 'provider test answered 503: out of order']);
    expect(server.asked).toHaveLength(4);
    expect((await failure([json({}, 429)])).code).toBe('PROVIDER_RATE_LIMITED');
    const broken = await failure([hangUp]);
    expect([broken.code, server.asked.length]).toEqual(['PROVIDER_UNAVAILABLE', 4]);
  });

  it('is unavailable when nobody listens', async () => {
    const gone = await ModelServer.start();
    const baseUrl = gone.url;
    await gone.stop();
    const { code, slept } = await failure([GOOD], { row: { baseUrl } });
    expect([code, slept.length]).toEqual(['PROVIDER_UNAVAILABLE', 3]);
  });
});

describe('the provider’s own hints', () => {
  it.each<[headers: Record<string, string>, waitMs: number]>([
    [{ 'retry-after': '7' }, 7_000],
    [{ 'retry-after': '0' }, 0],
    [{ 'retry-after': '0.25' }, 250],
    [{ 'retry-after': 'Mon, 23 Nov 2026 10:00:09 GMT' }, 9_000],
    [{ 'retry-after': 'Mon, 23 Nov 2026 09:00:00 GMT' }, 0],
    [{ 'retry-after': '7', 'retry-after-ms': '120' }, 120],
    [{ 'retry-after': 'soon' }, 375],
    [{ 'retry-after-ms': 'soon', 'retry-after': '7' }, 7_000],
  ])('%j waits %i ms', async (headers, waitMs) => {
    const { answer, slept } = await call([json({}, 429, headers), GOOD]);
    expect(answer).toMatchObject({ attempts: 2, latency_ms: waitMs });
    expect(slept).toEqual([waitMs]);
  });

  it('are not waited for past the deadline, nor past the shortest of all limits', async () => {
    const late = json({}, 429, { 'retry-after': '30' });
    for (const limit of [{ deadlineMs: 30_000 }, { row: { timeoutMs: 30_000 } }, { request: { timeout_ms: 30_000 } }]) {
      const { code, slept } = await failure([late, GOOD], limit);
      expect([code, slept, server.asked.length]).toEqual(['PROVIDER_RATE_LIMITED', [], 1]);
    }
    expect((await call([late, GOOD], { deadlineMs: 40_000 })).answer).toMatchObject({ attempts: 2 });
  });

  it('cannot raise the limit of the row', async () => {
    const late = json({}, 429, { 'retry-after': '30' });
    const { code } = await failure([late, GOOD], { request: { timeout_ms: 50_000 }, row: { timeoutMs: 20_000 } });
    expect(code).toBe('PROVIDER_RATE_LIMITED');
  });

  it('may say that there is no point, or that there is one', async () => {
    const never = await failure([json({}, 429, { 'x-should-retry': 'false' }), GOOD]);
    expect([never.code, server.asked.length]).toEqual(['PROVIDER_RATE_LIMITED', 1]);
    expect((await call([json({}, 409, { 'x-should-retry': 'true' }), GOOD])).answer).toMatchObject({ attempts: 2 });
  });
});

describe('time', () => {
  it.each<[string, Reply]>([
    ['never answers', silence],
    ['begins to answer and does not end', (response) => void response.writeHead(200).write('{')],
    ['refuses and does not end', (response) => void response.writeHead(400).write('{')],
  ])('is up when the other side %s', async (_what, reply) => {
    const startedAt = performance.now();
    const { code, message } = await failure([reply], { request: { timeout_ms: 150 } });
    // A refusal has its status, with or without its words.
    if (code === 'PROVIDER_REFUSED') expect(message).toBe('provider test answered 400');
    else expect([code, message]).toEqual(['PROVIDER_TIMEOUT', 'provider test did not answer in time']);
    expect(server.asked).toHaveLength(1);
    expect(performance.now() - startedAt).toBeLessThan(2_000);
  });

  it('that is up already asks nobody', async () => {
    const { code } = await failure([GOOD], { deadlineMs: 0 });
    expect([code, server.asked]).toEqual(['PROVIDER_TIMEOUT', []]);
  });
});

describe('what does not pass', () => {
  it.each<[status: number, body: unknown, said: string]>([
    [
      400,
      { error: { message: 'max_tokens is too large', type: 'invalid_request_error', code: null } },
      ': max_tokens is too large',
    ],
    [
      401,
      { type: 'error', error: { type: 'authentication_error', message: 'invalid x-api-key' } },
      ': invalid x-api-key',
    ],
    [404, { error: "model 'x' not found" }, ": model 'x' not found"],
    [422, { object: 'error', message: 'no such\r\n\u001b[31m  model' }, ': no such [31m model'],
    [400, { error: { message: 'x'.repeat(1_000) } }, `: ${'x'.repeat(300)}`],
    [400, { error: { message: 7 } }, ''],
    [400, 'no', ': no'],
    [400, null, ''],
    [413, { error: {}, pad: 'x'.repeat(70_000) }, ''],
  ])('is a refusal with status %i: its own short words are told', async (status, body, said) => {
    const { code, message } = await failure([json(body, status)]);
    expect([code, message]).toEqual(['PROVIDER_REFUSED', `provider test answered ${status}${said}`]);
    expect(server.asked).toHaveLength(1);
  });

  it('is a page instead of JSON, which nobody is told', async () => {
    const { message } = await failure([text('<h1>nginx</h1>', 403)]);
    expect(message).toBe('provider test answered 403');
  });

  it.each([301, 302, 303, 307, 308])('is redirect %i: nobody else gets the secret', async (status) => {
    elsewhere.replies(GOOD);
    const { code } = await failure([text('', status, { location: `${elsewhere.url}/chat/completions` })]);
    expect(code).toBe('PROVIDER_REDIRECTED');
    expect(server.asked).toHaveLength(1);
    expect(elsewhere.asked).toEqual([]);
  });

  it.each<[string, string | Uint8Array]>([
    ['JSON that ends too early', '{"choices": [{"message"'],
    ['text', 'Hello'],
    ['nothing', ''],
    ['a stream', 'data: {"choices":[]}\n\n'],
    ['bytes that are no UTF-8', Buffer.from([0x22, 0xff, 0x22])],
  ])('is an answer of %s, which is not tried again and not quoted', async (_what, body) => {
    const { code, message } = await failure([text(body)]);
    expect([code, message]).toEqual(['PROVIDER_ANSWER_INVALID', 'provider test did not answer JSON']);
    expect(server.asked).toHaveLength(1);
  });

  it('is an answer without end: it is left when it is too large', async () => {
    let sent = 0;
    const endless: Reply = (response) => {
      response.writeHead(200);
      const chunk = Buffer.alloc(1024 * 1024, ' ');
      const more = () => {
        if (response.destroyed) return;
        sent += chunk.length;
        response.write(chunk, more);
      };
      more();
    };
    const { code } = await failure([endless]);
    expect(code).toBe('PROVIDER_ANSWER_TOO_LARGE');
    expect(server.asked).toHaveLength(1);
    // The cap, and what the sockets between us hold.
    expect(sent).toBeLessThan(32 * 1024 * 1024);
  });
});

describe('the secret', () => {
  const echo: Reply = (response, { headers }) =>
    json({ error: { message: `${'.'.repeat(280)} bad header authorization: ${headers.authorization}` } }, 401)(
      response,
      {} as never,
    );

  it('is blotted out of an error that echoes it, before that is cut', async () => {
    const { message } = await failure([echo]);
    expect(message).not.toContain('sk-test');
    expect(message).toHaveLength('provider test answered 401: '.length + 300);
    const { message: short } = await failure([json({ error: `key ${SECRET} is wrong` }, 401)]);
    expect(short).toBe('provider test answered 401: key [secret] is wrong');
  });

  it('is blotted out of an answer that echoes it, wherever', async () => {
    const tool_calls = [{ id: SECRET, type: 'function', function: { name: SECRET, arguments: `{"${SECRET}":1}` } }];
    const choices = [{ message: { content: `it is ${SECRET}`, tool_calls }, finish_reason: SECRET }];
    const { answer } = await call([json(completion('', { choices, model: SECRET }))]);
    expect(answer).toMatchObject({ text: 'it is [secret]', model: '[secret]' });
    expect(JSON.stringify(answer)).not.toContain(SECRET);
  });

  it('is not in the cause of an error, nor in anything that it shows', async () => {
    for (const reply of [hangUp, echo, text(`{"key":"${SECRET}`)]) {
      const { error } = await call([reply]);
      const shown: unknown[] = [];
      for (let at: unknown = error; at instanceof Error; at = at.cause) shown.push(at.stack, { ...at });
      expect(shown.length).toBeGreaterThan(0);
      expect(JSON.stringify(shown)).not.toContain(SECRET);
    }
  });

  it('that is a word like any other is left in the text', async () => {
    const { answer } = await call([json(completion('none of them'))], { secret: 'none' });
    expect(answer).toMatchObject({ text: 'none of them' });
  });
});

describe('an answer', () => {
  it('can be stored: what Unicode text cannot hold is replaced', async () => {
    const { answer } = await call([text(JSON.stringify(completion('a\0b\ud800c')))]);
    expect((answer as ProviderAnswer & { text: string }).text).toBe('a\ufffdb\ufffdc');
  });

  it('is understood when it comes compressed', async () => {
    const { gzipSync } = await import('node:zlib');
    const zipped = gzipSync(JSON.stringify(completion('small')));
    expect((await call([text(zipped, 200, { 'content-encoding': 'gzip' })])).answer).toMatchObject({ text: 'small' });
  });

  it('needs a model: a provider without embeddings of its own wants it named', async () => {
    const clock = new TestClock();
    const row = provider({ baseUrl: server.url, defaultEmbeddingModel: null });
    const options = { secret: null, deadline: clock.in(1_000), clock };
    await expect(callProvider(row, readProviderRequest({ embed: ['a'] }), options)).rejects.toMatchObject({
      kind: 'input',
      code: 'FIELD_MISSING',
      field: 'model',
    });
  });
});
