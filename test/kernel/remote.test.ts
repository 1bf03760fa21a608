import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { RemoteFunction } from '../../src/aws/lambda.ts';
import { Sandbox, type SandboxJob, type SandboxOptions, type SandboxResult } from '../../src/kernel/index.ts';
import { RemoteChild } from '../../src/kernel/sandbox/remote-child.ts';
import { kernel, untrusted } from './support.ts';

type Answer = (request: IncomingMessage, response: ServerResponse, job: Record<string, unknown>) => void;

/** An endpoint of the Lambda API that answers an invocation as it is told to, and the function behind it. */
let answer: Answer;
const events: Record<string, unknown>[] = [];
const server = createServer(async (request, response) => {
  let body = '';
  for await (const chunk of request) body += chunk;
  expect(request.url).toBe('/2015-03-31/functions/loglineos-sandbox/invocations');
  const event = JSON.parse(body);
  events.push(event);
  answer(request, response, event);
});
let remote: RemoteFunction;
beforeAll(async () => {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  remote = new RemoteFunction('loglineos-sandbox', {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    region: 'local',
    credentials: { accessKeyId: 'local', secretAccessKey: 'local' },
  });
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});

const open: Sandbox[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((sandbox) => sandbox.close()));
  events.length = 0;
});

function run(job: SandboxJob, options: Partial<SandboxOptions> = {}): Promise<SandboxResult> {
  const sandbox = new Sandbox({ untrusted: remote, ...options });
  open.push(sandbox);
  return sandbox.run(job);
}

/** Answers with status 200, as the service does when the function answered this. */
const text =
  (body: string, headers: Record<string, string> = {}): Answer =>
  (_request, response) =>
    response.writeHead(200, headers).end(body);
const json = (value: unknown): Answer => text(JSON.stringify(value));
const MEASURES = { duration_ms: 0, memory_bytes: 0 };
const result = (output: unknown): Answer => json({ ok: true, output, ...MEASURES });
const JOB = untrusted('return 1');
const EACH = untrusted('return 1', { entry: 'on', each: true, input: { items: [1, 2] } });
const unavailable = (message: RegExp) => ({
  name: 'UpstreamError',
  code: 'SANDBOX_UNAVAILABLE',
  message: expect.stringMatching(message),
});

describe('the function of untrusted code', () => {
  it('is sent the job and nothing else', async () => {
    answer = result('done');
    expect(await run(untrusted('return 1', { input: { '"\\': '__proto__' } }))).toMatchObject({
      ok: true,
      output: 'done',
    });
    expect(events).toEqual([
      {
        compartment: 'tenant:acme',
        code: 'return 1',
        file_name: 'function.js',
        entry: 'function',
        each: false,
        input: '{"\\"\\\\":"__proto__"}',
        timeout_ms: 2000,
        memory_mb: 64,
        output_bytes: 100_000,
      },
    ]);
  });

  it('is not asked about kernels, refused code, limits that are none, and what is no JSON or too large', async () => {
    expect(await run(kernel('return 7'))).toMatchObject({ ok: true, output: 7 });
    expect(await run(untrusted('import "x"'))).toMatchObject({ error: { code: 'CODE_REFUSED' } });
    const bad = [
      [untrusted('', { limits: { timeoutMs: Number.NaN } }), 'LIMIT_INVALID'],
      [untrusted('', { input: 1n }), 'INPUT_INVALID'],
      [untrusted('', { input: {}, each: true }), 'INPUT_INVALID'],
      [untrusted('', { input: 'é'.repeat(3_200_000) }), 'INPUT_INVALID'],
    ] as const;
    for (const [job, code] of bad) await expect(run(job)).rejects.toMatchObject({ name: 'InputError', code });
    expect(events).toEqual([]);
  });
});

describe('an answer that cannot be a result', () => {
  const [ok, each] = [JOB, EACH];
  const error = (value: unknown): Answer => json({ ok: false, error: value, ...MEASURES });
  const ODDITIES: [string, SandboxJob, Answer, RegExp][] = [
    ['is empty', ok, text(''), /no measures/],
    ['is no JSON', ok, text('{"ok":true'), /not JSON/],
    ['is no UTF-8', ok, (_request, response) => response.end(Buffer.from([0x22, 0xff])), /not JSON/],
    ['is null', ok, json(null), /no measures/],
    ['is a list', ok, json([]), /no measures/],
    ['has no measures', ok, json({ ok: true, output: 1 }), /no measures/],
    ['has a negative time', ok, json({ ok: true, output: 1, ...MEASURES, duration_ms: -1 }), /no measures/],
    ['has a time that is text', ok, json({ ok: true, output: 1, ...MEASURES, duration_ms: '1' }), /no measures/],
    ['has memory beyond numbers', ok, text('{"ok":true,"duration_ms":0,"memory_bytes":1e999}'), /no measures/],
    ['neither failed nor not', ok, json({ output: 1, ...MEASURES }), /no result/],
    ['has an ok that is no boolean', ok, json({ ok: 'true', output: 1, ...MEASURES }), /no result/],
    ['failed for no reason', ok, error(undefined), /an error of no kind/],
    ['failed by an unknown code', ok, error({ code: 'QUOTA_EXCEEDED', message: 'x' }), /an error of no kind/],
    ['failed by an inherited code', ok, error({ code: 'constructor', message: 'x' }), /an error of no kind/],
    ['failed by a code of kernels', ok, error({ code: 'TOO_MANY_CALLS', message: 'x' }), /an error of no kind/],
    ['has a message that is no text', ok, error({ code: 'THREW', message: { toString: 1 } }), /an error of no kind/],
    ['has too long a message', ok, error({ code: 'THREW', message: 'x'.repeat(70_000) }), /an error of no kind/],
    ['has no answer for each item', each, result([{ value: 1 }]), /no answer for each/],
    ['has an answer of neither kind', each, result([{ value: 1 }, {}]), /no answer for each/],
    ['has an error that is no text', each, result([{ value: 1 }, { error: 5 }]), /no answer for each/],
    [
      'is an error of the function',
      ok,
      text('{"errorType":"INTERNAL"}', { 'X-Amz-Function-Error': 'Unhandled' }),
      /failed: INTERNAL$/,
    ],
    [
      'is an error with a story',
      ok,
      text('{"errorType":"a b\\n"}', { 'X-Amz-Function-Error': 'Unhandled' }),
      /failed: Unhandled$/,
    ],
    ['is an error and no JSON', ok, text('<', { 'X-Amz-Function-Error': 'Unhandled' }), /failed: Unhandled$/],
    ['is a 500', ok, (_request, response) => response.writeHead(500).end('{}'), /gave no answer/],
    ['is a 403', ok, (_request, response) => response.writeHead(403).end('{"Message":"no"}'), /gave no answer/],
    ['is a page', ok, (_request, response) => response.writeHead(502).end('<html>'), /gave no answer/],
  ];
  it.each(ODDITIES)('is not the fault of the code: one that %s', async (_what, job, told, message) => {
    answer = told;
    await expect(run(job)).rejects.toMatchObject(unavailable(message));
    expect(events).toHaveLength(1);
  });

  const numbers = (value: string) => text(`{"ok":true,"output":${value},"duration_ms":0,"memory_bytes":0}`);
  const LARGE: [string, SandboxJob, Answer][] = [
    ['is too large', ok, result('x'.repeat(200_000))],
    ['is much too large', ok, text('['.repeat(9_000_000))],
    ['is too large an error', ok, error({ code: 'THREW', message: 'x'.repeat(200_000) })],
    ['has a result a little above its limit', ok, result('x'.repeat(99_999))],
    ['has a result that is above it when it is written again', ok, numbers(`[${Array(5_000).fill('1e20')}]`)],
    ['has such answers for items', each, numbers(`[{"value":[${Array(5_000).fill('1e20')}]},{"value":1}]`)],
  ];
  it.each(LARGE)('is what the code did, so that it is not run for ever: one that %s', async (_what, job, told) => {
    answer = told;
    const error = { code: 'OUTPUT_TOO_LARGE', message: 'output: at most 100000 bytes of JSON' };
    expect(await run(job)).toEqual({ ok: false, error, durationMs: expect.any(Number), memoryBytes: 0 });
    expect(events).toHaveLength(1);
  });

  it('cannot bring a prototype, another field, another line, or more time than has passed', async () => {
    answer = text(
      '{"ok":true,"output":{"a":[{"__proto__":{"x":1},"b":2}],"\\u005f_proto__":3},"duration_ms":1e300,"memory_bytes":-5,"thrownCode":"X"}',
    );
    const good = await run(JOB);
    expect(good).toEqual({ ok: true, output: { a: [{ b: 2 }] }, durationMs: expect.any(Number), memoryBytes: 0 });
    expect(good.durationMs).toBeLessThan(5_000);
    expect(JSON.stringify(good)).not.toContain('__proto__');

    answer = json({
      ok: false,
      error: { code: 'THREW', message: 'm', line: 1e9, stack: 'at x', thrownCode: 'X' },
      ...MEASURES,
    });
    expect(await run(JOB)).toMatchObject({ ok: false, error: { code: 'THREW', message: 'm', line: 1 } });
    expect(Object.keys(((await run(JOB)) as { error: object }).error).sort()).toEqual(['code', 'line', 'message']);
  });
});

describe('a function that is busy or not there', () => {
  const busy: Answer = (_request, response) =>
    response
      .writeHead(429, { 'x-amzn-ErrorType': 'TooManyRequestsException' })
      .end('{"Reason":"ReservedFunctionConcurrentInvocationLimitExceeded"}');

  it('is asked again after a while', async () => {
    answer = (...all) => (events.length < 3 ? busy : result('there'))(...all);
    expect(await run(JOB)).toMatchObject({ ok: true, output: 'there' });
    expect(events).toHaveLength(3);
  });

  it('has no room, in the end, for which nobody is to blame', async () => {
    answer = busy;
    await expect(run(JOB)).rejects.toMatchObject({ name: 'UpstreamError', code: 'SANDBOX_BUSY' });
    expect(events).toHaveLength(4);
  });

  it('is asked again where the connection was a dead one', async () => {
    answer = (request, ...rest) => (events.length < 2 ? request.socket.destroy() : result('there')(request, ...rest));
    expect(await run(JOB)).toMatchObject({ ok: true, output: 'there' });
  });

  it('is not asked again where the connection broke later: it may have run all that time', async () => {
    answer = (request) => setTimeout(() => request.socket.destroy(), 1_100);
    await expect(run(JOB)).rejects.toMatchObject(unavailable(/gave no answer/));
    expect(events).toHaveLength(1);
  });

  it('is not there', async () => {
    const nowhere = new RemoteFunction('loglineos-sandbox', {
      endpoint: 'http://127.0.0.1:1',
      region: 'local',
      credentials: { accessKeyId: 'local', secretAccessKey: 'local' },
    });
    await expect(run(JOB, { untrusted: nowhere })).rejects.toMatchObject(unavailable(/ECONNREFUSED|gave no answer/));
  });

  it('is given up when the time of the job is up in any case, and later answers nothing', async () => {
    answer = (...all) => void setTimeout(() => result('late')(...all), 600);
    const deadlineAt = performance.now() + 300;
    expect(await run(untrusted('return 1', { deadlineAt }))).toMatchObject({ ok: false, error: { code: 'TIMEOUT' } });
    expect(performance.now() - deadlineAt).toBeLessThan(250);
    expect(events[0]?.timeout_ms).toBeLessThanOrEqual(300);
    await sleep(500);
    expect(events).toHaveLength(1);
  });

  it('is given up when it is silent long after the time of the run', async () => {
    answer = () => {};
    const child = new RemoteChild(remote);
    const silent = child.run(untrusted('return 1', { limits: { timeoutMs: 2_000 } }));
    child.check(performance.now() + 11_900);
    expect(child.state).toBe('running');
    child.check(performance.now() + 12_000);
    await expect(silent).rejects.toMatchObject(unavailable(/silent/));
    expect(child.state).toBe('idle');
  });

  it('is not waited for when the sandbox is closed', async () => {
    answer = () => {};
    const sandbox = new Sandbox({ untrusted: remote, maxInvocations: 1 });
    const runs = Promise.allSettled([sandbox.run(JOB), sandbox.run(untrusted('', { compartment: 'tenant:b' }))]);
    await expect.poll(() => events.length).toBe(1);
    await sandbox.close();
    for (const ended of await runs)
      expect(ended).toMatchObject({ status: 'rejected', reason: { code: 'SANDBOX_UNAVAILABLE' } });
  });
});

describe('the gate before it', () => {
  /** Answers when told to; what is open is by tenant. */
  const waiting: { tenant: unknown; go: () => void }[] = [];
  const hold: Answer = (request, response, job) =>
    waiting.push({ tenant: job.compartment, go: () => result(null)(request, response, job) });
  const of = (tenant: string, more: Partial<SandboxJob> = {}) => ({
    ...untrusted('', { compartment: tenant }),
    ...more,
  });
  afterEach(() => {
    waiting.length = 0;
  });

  it('lets one tenant have half of it, and another come before its many', async () => {
    answer = hold;
    const sandbox = new Sandbox({ untrusted: remote, maxInvocations: 4 });
    open.push(sandbox);
    const runs = [1, 2, 3, 4, 5].map(() => sandbox.run(of('many')));
    await expect.poll(() => waiting.length).toBe(2);
    runs.push(sandbox.run(of('other')));
    await expect.poll(() => waiting.length).toBe(3);
    expect(waiting.map(({ tenant }) => tenant)).toEqual(['many', 'many', 'other']);
    runs.push(sandbox.run(of('third')));
    await expect.poll(() => waiting.length).toBe(4);
    runs.push(sandbox.run(of('fourth')));
    await sleep(100);
    expect(waiting).toHaveLength(4);
    answer = result(null);
    for (const { go } of waiting) go();
    expect((await Promise.all(runs)).map(({ ok }) => ok)).toEqual(runs.map(() => true));
  });

  it('refuses what may no longer begin, what is too late, and a flood; none of it is sent', async () => {
    answer = hold;
    const sandbox = new Sandbox({ untrusted: remote, maxInvocations: 1, maxWaiting: 2 });
    open.push(sandbox);
    const first = sandbox.run(of('a'));
    await expect.poll(() => waiting.length).toBe(1);
    const begin = sandbox.run(of('a', { mayBegin: () => false }));
    const late = sandbox.run(of('a', { deadlineAt: performance.now() + 50 }));
    await expect(sandbox.run(of('a'))).rejects.toMatchObject({ code: 'SANDBOX_BUSY' });
    await sleep(60);
    waiting[0]?.go();
    expect(await first).toMatchObject({ ok: true });
    await expect(begin).rejects.toMatchObject({ code: 'SANDBOX_BUSY' });
    expect(await late).toMatchObject({ ok: false, error: { code: 'TIMEOUT' } });
    expect(events).toHaveLength(1);
  });
});
