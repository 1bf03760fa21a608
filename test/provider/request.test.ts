import { describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.ts';
import { readProviderRequest } from '../../src/provider/index.ts';

const USER = { role: 'user', content: 'Hello' };
const CALL = { id: 'a', name: 'weather', arguments: '{}' };
const TOOL = { name: 'weather', parameters: {} };

describe('a request to a provider', () => {
  it('may leave out what has a default, or say null', () => {
    const expected = {
      kind: 'chat',
      model: null,
      timeoutMs: null,
      messages: [{ ...USER, tool_calls: [], tool_call_id: '' }],
      tools: [],
      maxTokens: null,
      temperature: null,
    };
    expect(readProviderRequest({ messages: [USER] })).toEqual(expected);
    const nothing = { model: null, timeout_ms: null, tools: null, max_tokens: null, temperature: null };
    expect(readProviderRequest({ messages: [USER], ...nothing })).toEqual(expected);
    expect(readProviderRequest({ embed: ['a'] })).toEqual({
      kind: 'embed',
      model: null,
      timeoutMs: null,
      texts: ['a'],
    });
  });

  it.each<[request: unknown, code: string, field: string | undefined]>([
    [null, 'FIELD_INVALID', undefined],
    ['Hello', 'FIELD_INVALID', undefined],
    [undefined, 'FIELD_INVALID', undefined],
    [{}, 'FIELD_MISSING', 'messages'],
    [{ messages: [] }, 'FIELD_INVALID', 'messages'],
    [{ messages: USER }, 'FIELD_INVALID', 'messages'],
    [{ messages: new Array(1_001).fill(USER) }, 'FIELD_INVALID', 'messages'],
    [{ messages: [USER], embed: ['a'] }, 'FIELD_INVALID', 'embed'],
    [{ messages: [USER], prompt: 'Hello' }, 'FIELD_UNKNOWN', 'prompt'],
    [{ messages: [USER, { role: 'robot', content: '' }] }, 'FIELD_INVALID', 'messages.1.role'],
    [{ messages: [{ role: 'user', content: ['Hello'] }] }, 'FIELD_INVALID', 'messages.0.content'],
    [{ messages: [{ role: 'user' }] }, 'FIELD_MISSING', 'messages.0.content'],
    [{ messages: [{ ...USER, name: 'Alice' }] }, 'FIELD_UNKNOWN', 'messages.0.name'],
    [{ messages: [{ ...USER, tool_calls: [CALL] }] }, 'FIELD_UNKNOWN', 'messages.0.tool_calls'],
    [{ messages: [{ role: 'tool', content: 'x' }] }, 'FIELD_MISSING', 'messages.0.tool_call_id'],
    [
      { messages: [{ role: 'assistant', content: '', tool_calls: [{ ...CALL, arguments: {} }] }] },
      'FIELD_INVALID',
      'messages.0.tool_calls.0.arguments',
    ],
    [{ messages: [USER], tools: [{ ...TOOL, name: 'no name' }] }, 'FIELD_INVALID', 'tools.0.name'],
    [{ messages: [USER], tools: [{ ...TOOL, parameters: [] }] }, 'FIELD_INVALID', 'tools.0.parameters'],
    [{ messages: [USER], tools: [{ name: 'weather' }] }, 'FIELD_MISSING', 'tools.0.parameters'],
    [{ messages: [USER], model: 'a model' }, 'FIELD_INVALID', 'model'],
    [{ messages: [USER], model: 7 }, 'FIELD_INVALID', 'model'],
    [{ messages: [USER], max_tokens: 0 }, 'FIELD_INVALID', 'max_tokens'],
    [{ messages: [USER], max_tokens: 1.5 }, 'FIELD_INVALID', 'max_tokens'],
    [{ messages: [USER], temperature: 2.1 }, 'FIELD_INVALID', 'temperature'],
    [{ messages: [USER], temperature: '1' }, 'FIELD_INVALID', 'temperature'],
    [{ messages: [USER], timeout_ms: 0 }, 'FIELD_INVALID', 'timeout_ms'],
    [{ embed: [] }, 'FIELD_INVALID', 'embed'],
    [{ embed: 'Hello' }, 'FIELD_INVALID', 'embed'],
    [{ embed: ['a', ''] }, 'FIELD_INVALID', 'embed.1'],
    [{ embed: new Array(257).fill('a') }, 'FIELD_INVALID', 'embed'],
    [{ embed: ['a'], max_tokens: 5 }, 'FIELD_UNKNOWN', 'max_tokens'],
    [{ embed: ['x'.repeat(1024 * 1024)] }, 'FIELD_TOO_LARGE', undefined],
  ])('is refused as %j with %s of %s', (request, code, field) => {
    let error: unknown;
    try {
      readProviderRequest(request);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(InputError);
    expect(error).toMatchObject({ code, field });
  });
});
