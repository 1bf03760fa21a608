import { readFile } from 'node:fs/promises';
import { inspect } from 'node:util';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { appendSpans, type Database, type Identity, type SpanDraft } from '../../src/ledger/index.ts';
import { blake3Hex, canonicalJson, type Signer, SYSTEM_ID, sealSpan } from '../../src/span/index.ts';
import { type BootOptions, boot, type Stage0 } from '../../src/stage0/index.ts';
import { completion, json, ModelServer, type Reply, text } from '../provider/model-server.ts';
import { rootSigner, runtimeSigner } from '../support/keys.ts';
import { ALICE, hashable, nextVersion } from '../support/spans.ts';
import { type AnyJson, Installation } from './installation.ts';

const PROVIDER_EXEC = '00000000-0000-4000-8000-00000000f005';
const WHISPER = '00000000-0000-4000-8000-00000000f006';
const OFFLINE = '00000000-0000-4000-8000-000000000100';
const ANTHROPIC = '00000000-0000-4000-8000-000000000103';
/** Has this in it, so that one that comes out anywhere is seen, also in part. */
const MARK = 'f00dfacef00dface';
const SECRETS: Record<string, string> = {
  REMOTE_API_KEY: `sk-remote-${MARK}`,
  BROKEN_API_KEY: `sk-broken\n${MARK}`,
};
const SYSTEM: Identity = { userId: SYSTEM_ID, tenantId: SYSTEM_ID };
const WHISPERED = 'not for every ear';

let installation: Installation;
let server: ModelServer;
let seeder: Database;
let stage0: Stage0;
/** Names of the secrets that were asked for. */
const secretsRead: string[] = [];
/** What anybody was answered. */
const answers: unknown[] = [];

beforeAll(async () => {
  server = await ModelServer.start();
  installation = await Installation.create();
  seeder = installation.ledger.open('loglineos_seeder', { connectionsMax: 1 });
  const code = await readFile(new URL('../../ROW/kernels/provider_exec.js', import.meta.url), 'utf8');
  const whisper = `export default (ctx) => ctx.invoke('${PROVIDER_EXEC}', {
    provider_id: '${OFFLINE}', prompt: ['not', 'for', 'every', 'ear'].join(' '), record: 'hash',
  }).then(({ execution_id, text }) => ({ execution_id, length: text.length }));`;
  await installation.seed(() => {}, [
    { id: PROVIDER_EXEC, name: 'provider_exec', code },
    { id: WHISPER, name: 'whisper', code: whisper },
  ]);
  stage0 = installation.container({
    providerSecrets: async (name) => {
      secretsRead.push(name);
      if (name === 'GUARDED_API_KEY') throw new Error(`access to ${MARK} denied`);
      return SECRETS[name] ?? null;
    },
  });
});
afterAll(async () => {
  await installation?.close();
  await server?.stop();
});
beforeEach(() => {
  secretsRead.length = 0;
  server.replies(json(completion('Hi there')));
});

const content = (more: object = {}) => ({
  api: 'openai',
  base_url: server.url,
  secret_name: 'REMOTE_API_KEY',
  default_model: 'chat-1',
  prices: { 'chat-1': { in: 400_000, out: 1_600_000 } },
  timeout_ms: 20_000,
  ...more,
});

function draftOf(more: Partial<SpanDraft> = {}): SpanDraft {
  return {
    entity_type: 'provider',
    name: 'remote',
    status: 'active',
    visibility: 'public',
    content: content(),
    ...more,
  } as SpanDraft;
}

/** A provider row as seeding writes it, or with the one thing that is wrong. */
async function appendProvider(
  more: Partial<SpanDraft> = {},
  identity: Identity = SYSTEM,
  signer: Signer = rootSigner,
): Promise<string> {
  const [appended] = await appendSpans(seeder, [draftOf(more)], { identity, signer, now: () => new Date() });
  return appended?.id as string;
}

async function exec(input: object, identity: Identity = ALICE, options: BootOptions = {}): Promise<AnyJson> {
  const answer = await boot(stage0, { boot_function_id: PROVIDER_EXEC, identity, input }, options);
  answers.push(answer);
  return answer;
}

/** The answer of a boot that went well, and the provider_execution that it names. */
async function executed(input: object, identity: Identity = ALICE, options: BootOptions = {}) {
  const answer = await exec(input, identity, options);
  expect(answer).toMatchObject({ ok: true, status: 'complete', error: null });
  const span = await installation.span(answer.output.execution_id);
  expect(span).toMatchObject({
    entity_type: 'provider_execution',
    who: 'kernel:provider_exec',
    owner_id: identity.userId,
    tenant_id: identity.tenantId,
    visibility: 'private',
    caused_by: answer.boot_event_id,
    trace_id: answer.trace_id,
    status: answer.output.status,
    provider_id: (input as { provider_id: string }).provider_id,
  });
  return { output: answer.output, span };
}

const failed = async (input: object, identity?: Identity, options?: BootOptions) => {
  const { output, span } = await executed(input, identity, options);
  expect(output).toEqual({ execution_id: span.id, status: 'error', error: span.error });
  expect(span).toMatchObject({ status: 'error', output: null, tokens_in: null, cost_micros: null });
  return { code: output.error.code, message: output.error.message, span };
};

describe('provider_exec', () => {
  it('asks the offline provider and records what was asked, answered and paid', async () => {
    const { output, span } = await executed({ provider_id: OFFLINE, prompt: 'Hello', prompt_family: 'greeting' });
    expect(output).toEqual({
      execution_id: span.id,
      status: 'complete',
      text: 'offline: Hello',
      tool_calls: [],
      finish_reason: 'stop',
      model: 'offline-echo',
      tokens_in: 2,
      tokens_out: 4,
      cost_micros: 0,
      duration_ms: span.duration_ms,
      attempts: 1,
    });
    const request = { messages: [{ role: 'user', content: 'Hello' }] };
    expect(span).toMatchObject({
      did: 'called_provider',
      this: `provider:${OFFLINE}`,
      model: 'offline-echo',
      prompt_family: 'greeting',
      compiled_hash: blake3Hex(canonicalJson(request)),
      input: request,
      output: { text: 'offline: Hello', tool_calls: [], finish_reason: 'stop' },
      error: null,
      tokens_in: 2,
      tokens_out: 4,
      tool_use_count: 0,
      cost_micros: '0',
      metadata: { kernel_id: PROVIDER_EXEC, attempts: 1 },
    });
    expect(span.finished_at - span.started_at).toBe(span.duration_ms);
    expect(secretsRead).toEqual([]);
  });

  it('asks for embeddings', async () => {
    const { output, span } = await executed({ provider_id: OFFLINE, embed: ['one', 'two'] });
    expect(output.embeddings.map((vector: number[]) => vector.length)).toEqual([256, 256]);
    expect(span.output).toEqual({ embeddings: output.embeddings });
  });

  it('asks a provider over the network with the host’s secret, for its price', async () => {
    const tool_calls = [{ id: 'call_1', type: 'function', function: { name: 'weather', arguments: '{}' } }];
    const choices = [
      { index: 0, message: { role: 'assistant', content: null, tool_calls }, finish_reason: 'tool_calls' },
    ];
    server.replies(json({}, 503, { 'retry-after-ms': '1' }), json(completion('', { choices })));
    const request = {
      messages: [{ role: 'user', content: 'Weather?' }],
      tools: [{ name: 'weather', parameters: { type: 'object' } }],
      max_tokens: 5,
    };
    const provider_id = await appendProvider();
    const { output, span } = await executed({ provider_id, ...request });
    expect(secretsRead).toEqual(['REMOTE_API_KEY']);
    expect(server.asked.map(({ headers }) => headers.authorization)).toEqual(
      new Array(2).fill(`Bearer ${SECRETS.REMOTE_API_KEY}`),
    );
    expect(output).toMatchObject({ cost_micros: 24, attempts: 2, tool_calls: [{ id: 'call_1', name: 'weather' }] });
    expect(span).toMatchObject({
      input: request,
      tool_use_count: 1,
      cost_micros: '24',
      model: 'chat-1-2026-01-01',
      metadata: { attempts: 2 },
    });
  });

  it('keeps only hashes where that is wanted', async () => {
    const provider_id = await appendProvider();
    const request = { messages: [{ role: 'user', content: 'Weather?' }] };
    const { output, span } = await executed({ provider_id, ...request, record: 'hash' });
    expect(output.text).toBe('Hi there');
    const said = { text: 'Hi there', tool_calls: [], finish_reason: 'stop' };
    expect(span).toMatchObject({
      compiled_hash: blake3Hex(canonicalJson(request)),
      input: { blake3: blake3Hex(canonicalJson(request)) },
      output: { blake3: blake3Hex(canonicalJson(said)) },
      tokens_out: 10,
    });
    server.replies(json({ error: { message: 'Weather? is not allowed' } }, 400));
    const answer = await exec({ provider_id, ...request, record: 'hash' });
    expect(answer.output.error.message).toContain('Weather?');
    expect((await installation.span(answer.output.execution_id)).error).toEqual({ code: 'PROVIDER_REFUSED' });
  });

  it('leaves no word in the ledger when another kernel invokes it so', async () => {
    const answer = await boot(stage0, { boot_function_id: WHISPER, identity: ALICE, input: null });
    expect(answer).toMatchObject({ ok: true, output: { length: `offline: ${WHISPERED}`.length } });
    const rows = await installation.spans('to_jsonb(universal_registry)::text like $1', [`%${WHISPERED}%`]);
    expect(rows).toEqual([]);
  });

  it('keeps the hashes of what is larger than a span may be: the call was paid', async () => {
    const { output, span } = await executed({ provider_id: OFFLINE, prompt: 'x'.repeat(600_000) });
    expect(output.text).toHaveLength(600_009);
    expect(span).toMatchObject({ status: 'complete', input: { blake3: expect.any(String) }, tokens_in: 150_000 });
    expect(Object.keys(span.input)).toEqual(['blake3']);
  });

  it.each<[input: object | null, code: string, what: RegExp]>([
    [null, 'INPUT_INVALID', /^input: expected an object/],
    [{ prompt: 'Hello' }, 'INPUT_INVALID', /^input\.provider_id: /],
    [{ provider_id: 'offline', prompt: 'Hello' }, 'INPUT_INVALID', /^input\.provider_id: /],
    [{ provider_id: OFFLINE }, 'INPUT_INVALID', /^input: expected one of prompt, messages, embed/],
    [{ provider_id: OFFLINE, prompt: 'Hello', embed: ['a'] }, 'INPUT_INVALID', /^input: expected one of/],
    [{ provider_id: OFFLINE, prompt: '' }, 'INPUT_INVALID', /^input\.prompt: /],
    [{ provider_id: OFFLINE, prompt: 'Hello', base_url: 'http://x' }, 'INPUT_INVALID', /^input\.base_url: /],
    [{ provider_id: OFFLINE, prompt: 'Hello', record: 'none' }, 'INPUT_INVALID', /^input\.record: /],
    [{ provider_id: OFFLINE, prompt: 'Hello', prompt_family: 7 }, 'INPUT_INVALID', /^input\.prompt_family: /],
    [{ provider_id: OFFLINE, messages: [{ role: 'user' }] }, 'FIELD_MISSING', /^messages\.0\.content /],
    [{ provider_id: OFFLINE, prompt: 'Hello', max_tokens: -1 }, 'FIELD_INVALID', /^max_tokens: /],
    [{ provider_id: ANTHROPIC, prompt: 'Hello', tools: [{}] }, 'FIELD_MISSING', /^tools\.0\.name /],
  ])('refuses %j: the boot fails, and nobody is asked', async (input, code, what) => {
    const answer = await exec(input as object);
    const error = { code, message: expect.stringMatching(what) };
    expect(answer).toMatchObject({ ok: false, status: 'error', output: null, error });
    expect(
      await installation.spans('caused_by = $1 and id <> $2', [answer.boot_event_id, answer.execution_id]),
    ).toEqual([]);
    expect(secretsRead).toEqual([]);
  });
});

describe('a provider that fails is an execution with an error, and the boot is a good one', () => {
  it.each<[what: string, reply: Reply, code: string]>([
    ['refuses', json({ error: { message: 'context too long' } }, 400), 'PROVIDER_REFUSED'],
    ['is out of order', json({}, 503, { 'retry-after-ms': '1' }), 'PROVIDER_UNAVAILABLE'],
    ['wants us to wait longer than we can', json({}, 429, { 'retry-after': '3600' }), 'PROVIDER_RATE_LIMITED'],
    ['answers half', text('{"choices":[{"mess'), 'PROVIDER_ANSWER_INVALID'],
    ['answers something else', json({ ok: true }), 'PROVIDER_ANSWER_INVALID'],
    ['sends us elsewhere', text('', 307, { location: 'http://127.0.0.1:1/' }), 'PROVIDER_REDIRECTED'],
  ])('when it %s', async (_what, reply, code) => {
    server.replies(reply);
    const { span, ...error } = await failed({ provider_id: await appendProvider(), prompt: 'Hello' });
    expect(error).toEqual({ code, message: expect.stringMatching(/^provider remote\b/) });
    expect(span.input).toEqual({ messages: [{ role: 'user', content: 'Hello' }] });
  });

  it('when it does not answer in the time that the caller gives it', async () => {
    server.replies(() => {});
    const { code, span } = await failed({ provider_id: await appendProvider(), prompt: 'Hello', timeout_ms: 200 });
    expect(code).toBe('PROVIDER_TIMEOUT');
    expect(span.duration_ms).toBeGreaterThanOrEqual(190);
    expect(span.duration_ms).toBeLessThan(3_000);
  });

  it('when it does not answer before the boot must end, and there is time left to say so', async () => {
    server.replies(() => {});
    const input = { provider_id: await appendProvider(), prompt: 'Hello' };
    const { code } = await failed(input, ALICE, { endOfTime: new Date(Date.now() + 2_000) });
    expect(code).toBe('PROVIDER_TIMEOUT');
  });

  it.each([
    ['UNSET_API_KEY', 'SECRET_UNAVAILABLE', 'secret UNSET_API_KEY of provider remote is not set'],
    ['GUARDED_API_KEY', 'SECRET_UNAVAILABLE', 'secret GUARDED_API_KEY of provider remote cannot be read'],
    [
      'BROKEN_API_KEY',
      'SECRET_MALFORMED',
      'secret BROKEN_API_KEY of provider remote is not one word of visible ASCII characters',
    ],
  ])('when its secret is not as it should be: %s', async (secret_name, code, message) => {
    const provider_id = await appendProvider({ content: content({ secret_name }) });
    const { span: _span, ...error } = await failed({ provider_id, prompt: 'Hello' });
    expect(error).toEqual({ code, message });
    expect(server.asked).toEqual([]);
  });
});

describe('a row that is not the system’s own provider gets nothing', () => {
  const TEST_OF_SYSTEM: Identity = { userId: 'test', tenantId: SYSTEM_ID };

  /** No secret was looked up, and nobody was asked. */
  async function expectNothing(provider_id: string, code: string, identity: Identity = ALICE) {
    const { code: actual } = await failed({ provider_id, prompt: 'Hello' }, identity);
    expect([actual, secretsRead, server.asked]).toEqual([code, [], []]);
  }

  it('not one of a tenant, who would have the host send its secret anywhere', async () => {
    const drafts = { visibility: 'private' } as const;
    await expectNothing(await appendProvider(drafts, ALICE, runtimeSigner), 'PROVIDER_NOT_ACTIVE');
    await expectNothing(await appendProvider(drafts, ALICE, rootSigner), 'PROVIDER_NOT_ACTIVE');
  });

  it('not one of a user of the system’s tenant', async () => {
    const id = await appendProvider({ visibility: 'tenant' }, TEST_OF_SYSTEM, runtimeSigner);
    await expectNothing(id, 'PROVIDER_NOT_ACTIVE', TEST_OF_SYSTEM);
  });

  it('not one that says it is the system’s, and no root key signed', async () => {
    const owner = { owner_id: SYSTEM_ID, tenant_id: SYSTEM_ID };
    const forged = sealSpan(hashable({ ...draftOf(), ...owner }), runtimeSigner);
    await installation.insert(forged);
    await expectNothing(forged.id, 'KEY_NOT_TRUSTED');
  });

  it('not one whose newest version no root key signed', async () => {
    const id = await appendProvider();
    await installation.insert(nextVersion(await installation.sealed(id), { content: content() }, runtimeSigner));
    await expectNothing(id, 'KEY_NOT_TRUSTED');
  });

  it('not one that was altered, also when it was called a moment ago', async () => {
    const id = await appendProvider();
    await executed({ provider_id: id, prompt: 'Hello' });
    server.replies(json(completion('Hi')));
    secretsRead.length = 0;
    const elsewhere = JSON.stringify(content({ base_url: 'https://models.example' }));
    await installation.tamper('update ledger.universal_registry set content = $2 where id = $1', [id, elsewhere]);
    await expectNothing(id, 'HASH_MISMATCH');
  });

  it.each<[what: string, more: Partial<SpanDraft>]>([
    ['retired', { status: 'retired' }],
    ['deleted', { is_deleted: true }],
    ['a function', { entity_type: 'function' }],
  ])('not one that is %s', async (_what, more) => {
    await expectNothing(await appendProvider(more), 'PROVIDER_NOT_ACTIVE');
  });

  it('not one that says where to go in a way that is not safe', async () => {
    const id = await appendProvider({ content: content({ base_url: 'http://models.example' }) });
    await expectNothing(id, 'PROVIDER_INVALID');
  });

  it('not one that is not there, or that the caller may not see', async () => {
    await expectNothing('00000000-0000-4000-8000-00000000ffff', 'PROVIDER_NOT_FOUND');
    const hidden = await appendProvider({ visibility: 'private' });
    await expectNothing(hidden, 'PROVIDER_NOT_FOUND');
  });
});

describe('a secret', () => {
  it('is in no row, log or answer, whatever the provider does with it', async () => {
    const provider_id = await appendProvider();
    const echo =
      (status: number): Reply =>
      (response, asked) => {
        const said = `you sent ${JSON.stringify(asked.headers)}`;
        const body = status === 200 ? completion(said) : { error: { message: said } };
        json(body, status)(response, asked);
      };
    for (const status of [200, 401, 500]) {
      server.replies(echo(status));
      const { output } = await executed({ provider_id, prompt: 'Hello', timeout_ms: 3_000 });
      expect(JSON.stringify(output)).toContain('[secret]');
    }
    server.replies((response, { headers }) => text(`<p>${headers.authorization}</p>`)(response, {} as never));
    await failed({ provider_id, prompt: 'Hello' });
    await failed({
      provider_id: await appendProvider({ content: content({ secret_name: 'BROKEN_API_KEY' }) }),
      prompt: 'x',
    });

    expect(secretsRead).toContain('REMOTE_API_KEY');
    const rows = await installation.spans('true');
    expect(rows.length).toBeGreaterThan(20);
    expect(JSON.stringify(rows)).not.toContain(MARK);
    expect(inspect([answers, installation.logged], { depth: Infinity })).not.toContain(MARK);
  });
});
