import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { callProvider, type Provider, readProviderRequest } from '../../src/provider/index.ts';
import { completion, json, ModelServer, provider, type Reply, TestClock } from './model-server.ts';

const SECRET = 'sk-test-0123456789abcdef';
const PARAMETERS = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] };
/** A turn with two tools called and answered, and all options. */
const CONVERSATION = {
  messages: [
    { role: 'system', content: 'Be short.' },
    { role: 'user', content: 'Weather in Lisbon and Porto?' },
    {
      role: 'assistant',
      content: 'I look.',
      tool_calls: [
        { id: 'call_a', name: 'weather', arguments: '{"city":"Lisbon"}' },
        { id: 'call_b', name: 'forecast', arguments: '{"city":"Porto"}' },
      ],
    },
    { role: 'tool', tool_call_id: 'call_a', content: 'sunny' },
    { role: 'tool', tool_call_id: 'call_b', content: 'rain' },
    { role: 'system', content: 'In Portuguese.' },
  ],
  tools: [
    { name: 'weather', description: 'of now', parameters: PARAMETERS },
    { name: 'forecast', parameters: PARAMETERS },
  ],
  max_tokens: 50,
  temperature: 0.2,
};
const HELLO = { messages: [{ role: 'user', content: 'Hello' }] };

let server: ModelServer;
beforeAll(async () => {
  server = await ModelServer.start();
});
afterAll(() => server?.stop());

/** The answer, and the one request that led to it. */
async function ask(more: Partial<Provider>, request: unknown, reply: Reply, secret: string | null = SECRET) {
  server.replies(reply);
  const clock = new TestClock();
  const asked = readProviderRequest(request);
  const row = provider({ baseUrl: server.url, ...more });
  const answer = await callProvider(row, asked, { secret, deadline: clock.in(5_000), clock });
  expect(server.asked).toHaveLength(1);
  const [sent] = server.asked;
  expect(sent).toMatchObject({
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'application/json' },
  });
  return { answer, sent };
}

function failure(more: Partial<Provider>, request: unknown, reply: Reply) {
  return ask(more, request, reply).then(
    ({ answer }) => expect.fail(`it answered ${JSON.stringify(answer)}`),
    (error: unknown) => error,
  );
}

describe('an OpenAI-compatible API', () => {
  const openai = { api: 'openai', baseUrl: '' } as const;
  const at = () => ({ ...openai, baseUrl: `${server.url}/v1` });

  it('is asked with a bearer token, and its text, counts and price come back', async () => {
    const { answer, sent } = await ask(at(), HELLO, json(completion('Hi there')));
    expect(sent).toMatchObject({ path: '/v1/chat/completions', headers: { authorization: `Bearer ${SECRET}` } });
    expect(sent?.body).toEqual({ model: 'chat-1', messages: [{ role: 'user', content: 'Hello' }] });
    expect(answer).toEqual({
      text: 'Hi there',
      tool_calls: [],
      finish_reason: 'stop',
      model: 'chat-1-2026-01-01',
      tokens_in: 19,
      tokens_out: 10,
      // 19 × 0.4 + 10 × 1.6 = 23.6 millionths
      cost_micros: 24,
      latency_ms: 0,
      attempts: 1,
    });
  });

  it('gets a whole conversation with its tools', async () => {
    const { sent } = await ask(
      { ...at(), maxTokensField: 'max_completion_tokens' },
      CONVERSATION,
      json(completion('x')),
    );
    const call = (id: string, name: string, city: string) => ({
      id,
      type: 'function',
      function: { name, arguments: `{"city":"${city}"}` },
    });
    expect(sent?.body).toEqual({
      model: 'chat-1',
      messages: [
        { role: 'system', content: 'Be short.' },
        { role: 'user', content: 'Weather in Lisbon and Porto?' },
        {
          role: 'assistant',
          content: 'I look.',
          tool_calls: [call('call_a', 'weather', 'Lisbon'), call('call_b', 'forecast', 'Porto')],
        },
        { role: 'tool', tool_call_id: 'call_a', content: 'sunny' },
        { role: 'tool', tool_call_id: 'call_b', content: 'rain' },
        { role: 'system', content: 'In Portuguese.' },
      ],
      tools: [
        { type: 'function', function: { name: 'weather', description: 'of now', parameters: PARAMETERS } },
        { type: 'function', function: { name: 'forecast', parameters: PARAMETERS } },
      ],
      max_completion_tokens: 50,
      temperature: 0.2,
    });
  });

  it('may want a tool called, with arguments that nobody has checked', async () => {
    const message = {
      role: 'assistant',
      content: null,
      tool_calls: [{ id: 'call_1', type: 'function', function: { name: 'weather', arguments: '{"city":' } }],
    };
    const choices = [{ index: 0, message, finish_reason: 'tool_calls' }];
    const { answer, sent } = await ask(
      { ...at() },
      { ...HELLO, model: 'other', max_tokens: 9 },
      json(completion('', { choices })),
    );
    expect(sent?.body).toMatchObject({ model: 'other', max_tokens: 9 });
    expect(answer).toMatchObject({
      text: '',
      finish_reason: 'tool_calls',
      tool_calls: [{ id: 'call_1', name: 'weather', arguments: '{"city":' }],
      cost_micros: null,
    });
  });

  it('may be a server that counts nothing and needs no key', async () => {
    const choices = [{ index: 0, message: { role: 'assistant', content: 'yes' }, finish_reason: 'abort' }];
    const { answer, sent } = await ask(at(), HELLO, json({ object: 'chat.completion', choices }), null);
    expect(sent?.headers.authorization).toBeUndefined();
    expect(answer).toMatchObject({
      text: 'yes',
      finish_reason: 'other',
      model: 'chat-1',
      tokens_in: null,
      tokens_out: null,
      cost_micros: null,
    });
  });

  it('gives embeddings, in the order of the texts', async () => {
    const data = [
      { object: 'embedding', index: 1, embedding: [0, 1] },
      { object: 'embedding', index: 0, embedding: [0.6, -0.8] },
    ];
    const body = { object: 'list', data, model: 'embed-1', usage: { prompt_tokens: 8, total_tokens: 8 } };
    const prices = new Map([['*', { in: 125_000, out: 0 }]]);
    const { answer, sent } = await ask({ ...at(), prices }, { embed: ['one', 'two'] }, json(body));
    expect(sent?.path).toBe('/v1/embeddings');
    expect(sent?.body).toEqual({ model: 'embed-1', input: ['one', 'two'], encoding_format: 'float' });
    expect(answer).toEqual({
      embeddings: [
        [0.6, -0.8],
        [0, 1],
      ],
      model: 'embed-1',
      tokens_in: 8,
      tokens_out: 0,
      cost_micros: 1,
      latency_ms: 0,
      attempts: 1,
    });
  });

  it.each<[what: string, data: unknown[]]>([
    ['one is missing', [{ index: 0, embedding: [1] }]],
    [
      'one has no place',
      [
        { index: 0, embedding: [1] },
        { index: 7, embedding: [1] },
      ],
    ],
    [
      'one is longer',
      [
        { index: 0, embedding: [1] },
        { index: 1, embedding: [1, 2] },
      ],
    ],
    [
      'one is empty',
      [
        { index: 0, embedding: [] },
        { index: 1, embedding: [] },
      ],
    ],
    [
      'one is text',
      [
        { index: 0, embedding: [1] },
        { index: 1, embedding: ['1'] },
      ],
    ],
    [
      'one is base64',
      [
        { index: 0, embedding: 'AAAA' },
        { index: 1, embedding: 'AAAA' },
      ],
    ],
    ['there are more than texts', [0, 1, 2].map((index) => ({ index, embedding: [1] }))],
  ])('is refused when of two embeddings %s', async (_what, data) => {
    expect(await failure(at(), { embed: ['one', 'two'] }, json({ data }))).toMatchObject({
      kind: 'upstream',
      code: 'PROVIDER_ANSWER_INVALID',
    });
  });

  it('is refused when an embedding is there twice and another is not', async () => {
    const data = [0, 2, 2].map((index) => ({ index, embedding: [1] }));
    const error = await failure(at(), { embed: ['one', 'two', 'three'] }, json({ data }));
    expect(error).toMatchObject({ code: 'PROVIDER_ANSWER_INVALID' });
  });

  it.each<[what: string, body: unknown, where: string]>([
    ['no object', [], 'answer'],
    ['nothing', null, 'answer'],
    ['no choices', { choices: [] }, 'answer.choices'],
    ['choices of no message', { choices: [{}] }, 'answer.choices.0.message'],
    ['a text that is none', completion(7 as never), 'answer.choices.0.message.content'],
    ['a model that is none', completion('x', { model: { name: 'x' } }), 'answer.model'],
    ['counts below zero', completion('x', { usage: { prompt_tokens: -1 } }), 'answer.usage.prompt_tokens'],
    ['an error with status 200', { error: { message: 'no' } }, 'answer.choices'],
  ])('is refused when it answers %s, and the error says where', async (_what, body, where) => {
    const error = await failure(at(), HELLO, json(body));
    expect(error).toMatchObject({ kind: 'upstream', code: 'PROVIDER_ANSWER_INVALID' });
    expect((error as Error).message).toMatch(new RegExp(`^provider test: ${where.replaceAll('.', '\\.')}\\b`));
  });
});

describe('the API of Anthropic', () => {
  const at = () => ({ api: 'anthropic', baseUrl: `${server.url}/v1` }) as const;
  const said = (content: object[], more: object = {}) =>
    json({
      id: 'msg_1',
      type: 'message',
      role: 'assistant',
      model: 'claude-test',
      content,
      stop_reason: 'end_turn',
      stop_sequence: null,
      usage: { input_tokens: 12, output_tokens: 6 },
      ...more,
    });

  it('is asked with its own headers, always with a limit', async () => {
    const { answer, sent } = await ask(at(), HELLO, said([{ type: 'text', text: 'Hi' }]));
    expect(sent).toMatchObject({
      path: '/v1/messages',
      headers: { 'x-api-key': SECRET, 'anthropic-version': '2023-06-01' },
    });
    expect(sent?.headers.authorization).toBeUndefined();
    expect(sent?.body).toEqual({ model: 'chat-1', max_tokens: 4096, messages: [{ role: 'user', content: 'Hello' }] });
    expect(answer).toMatchObject({
      text: 'Hi',
      finish_reason: 'stop',
      model: 'claude-test',
      tokens_in: 12,
      tokens_out: 6,
    });
  });

  it('gets system messages apart, and the results of one turn’s tools together', async () => {
    const { sent } = await ask(at(), CONVERSATION, said([]));
    expect(sent?.body).toEqual({
      model: 'chat-1',
      max_tokens: 50,
      temperature: 0.2,
      system: 'Be short.\n\nIn Portuguese.',
      messages: [
        { role: 'user', content: 'Weather in Lisbon and Porto?' },
        {
          role: 'assistant',
          content: [
            { type: 'text', text: 'I look.' },
            { type: 'tool_use', id: 'call_a', name: 'weather', input: { city: 'Lisbon' } },
            { type: 'tool_use', id: 'call_b', name: 'forecast', input: { city: 'Porto' } },
          ],
        },
        {
          role: 'user',
          content: [
            { type: 'tool_result', tool_use_id: 'call_a', content: 'sunny' },
            { type: 'tool_result', tool_use_id: 'call_b', content: 'rain' },
          ],
        },
      ],
      tools: [
        { name: 'weather', description: 'of now', input_schema: PARAMETERS },
        { name: 'forecast', input_schema: PARAMETERS },
      ],
    });
  });

  it('may think, say something in pieces, and want a tool called', async () => {
    const content = [
      { type: 'thinking', thinking: 'hm', signature: 's' },
      { type: 'text', text: 'One, ' },
      { type: 'text', text: 'two.' },
      { type: 'tool_use', id: 'toolu_1', name: 'weather', input: { city: 'Lisbon' } },
    ];
    const { answer } = await ask(at(), HELLO, said(content, { stop_reason: 'tool_use' }));
    expect(answer).toMatchObject({
      text: 'One, two.',
      finish_reason: 'tool_calls',
      tool_calls: [{ id: 'toolu_1', name: 'weather', arguments: '{"city":"Lisbon"}' }],
    });
  });

  it.each([
    ['max_tokens', 'length'],
    ['stop_sequence', 'stop'],
    ['refusal', 'content_filter'],
    ['something_new', 'other'],
    ['constructor', 'other'],
  ])('stops because of %s, which is %s', async (stop_reason, finish_reason) => {
    expect((await ask(at(), HELLO, said([], { stop_reason }))).answer).toMatchObject({ text: '', finish_reason });
  });

  it('has no embeddings, and is not asked for any', async () => {
    const error = await failure(at(), { embed: ['one'] }, said([]));
    expect(error).toMatchObject({ kind: 'input', code: 'FIELD_INVALID', field: 'embed' });
    expect(server.asked).toEqual([]);
  });

  it.each(['{"city":', '[]', 'null', '7'])('is not sent tool arguments that are no object: %s', async (text) => {
    const tool_calls = [{ id: 'call_a', name: 'weather', arguments: text }];
    const messages = [...HELLO.messages, { role: 'assistant', content: '', tool_calls }];
    const field = 'messages.1.tool_calls.0.arguments';
    expect(await failure(at(), { messages }, said([]))).toMatchObject({ kind: 'input', code: 'FIELD_INVALID', field });
    expect(server.asked).toEqual([]);
  });

  it.each<[what: string, body: object]>([
    ['no content', { content: null }],
    ['a block that is none', { content: ['text'] }],
    ['a text block without text', { content: [{ type: 'text' }] }],
    ['no usage', { usage: null }],
  ])('is refused when it answers %s', async (_what, more) => {
    expect(await failure(at(), HELLO, said([], more))).toMatchObject({ code: 'PROVIDER_ANSWER_INVALID' });
  });
});

describe('the API of Ollama', () => {
  const at = () => ({ api: 'ollama', baseUrl: server.url }) as const;
  const said = (message: object, more: object = {}) =>
    json({
      model: 'llama-test',
      created_at: '2026-11-23T10:00:00.000000Z',
      message: { role: 'assistant', content: '', ...message },
      done: true,
      done_reason: 'stop',
      total_duration: 174560334,
      prompt_eval_count: 11,
      eval_count: 18,
      ...more,
    });

  it('is asked for one answer instead of a stream', async () => {
    const { answer, sent } = await ask(at(), HELLO, said({ content: 'Hi' }), null);
    expect(sent?.path).toBe('/api/chat');
    expect(sent?.headers.authorization).toBeUndefined();
    expect(sent?.body).toEqual({
      model: 'chat-1',
      messages: [{ role: 'user', content: 'Hello' }],
      stream: false,
      options: {},
    });
    expect(answer).toMatchObject({
      text: 'Hi',
      finish_reason: 'stop',
      model: 'llama-test',
      tokens_in: 11,
      tokens_out: 18,
    });
  });

  it('gets tool calls as objects, and results by the name of the tool', async () => {
    const { sent } = await ask(at(), CONVERSATION, said({}));
    expect(sent?.body).toEqual({
      model: 'chat-1',
      messages: [
        { role: 'system', content: 'Be short.' },
        { role: 'user', content: 'Weather in Lisbon and Porto?' },
        {
          role: 'assistant',
          content: 'I look.',
          tool_calls: [
            { function: { name: 'weather', arguments: { city: 'Lisbon' } } },
            { function: { name: 'forecast', arguments: { city: 'Porto' } } },
          ],
        },
        { role: 'tool', tool_name: 'weather', content: 'sunny' },
        { role: 'tool', tool_name: 'forecast', content: 'rain' },
        { role: 'system', content: 'In Portuguese.' },
      ],
      stream: false,
      tools: [
        { type: 'function', function: { name: 'weather', description: 'of now', parameters: PARAMETERS } },
        { type: 'function', function: { name: 'forecast', parameters: PARAMETERS } },
      ],
      options: { num_predict: 50, temperature: 0.2 },
    });
  });

  it('stops for a tool as it stops for an answer, and its calls get ids', async () => {
    const tool_calls = ['a', 'b'].map((city) => ({ function: { name: 'weather', arguments: { city } } }));
    const { answer } = await ask(at(), HELLO, said({ tool_calls }, { prompt_eval_count: undefined }));
    expect(answer).toMatchObject({
      finish_reason: 'tool_calls',
      tool_calls: [
        { id: 'call_0', name: 'weather', arguments: '{"city":"a"}' },
        { id: 'call_1', name: 'weather', arguments: '{"city":"b"}' },
      ],
      tokens_in: null,
    });
  });

  it('gives embeddings', async () => {
    const body = { model: 'embed-1', embeddings: [[0.6, 0.8]], total_duration: 14143917, prompt_eval_count: 8 };
    const { answer, sent } = await ask(at(), { embed: ['one'] }, json(body));
    expect(sent).toMatchObject({ path: '/api/embed', headers: { authorization: `Bearer ${SECRET}` } });
    expect(sent?.body).toEqual({ model: 'embed-1', input: ['one'] });
    expect(answer).toMatchObject({ embeddings: [[0.6, 0.8]], tokens_in: 8, tokens_out: 0 });
  });
});
