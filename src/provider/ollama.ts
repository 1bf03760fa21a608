import type { Fields } from '../fields.ts';
import { checkEmbeddings, type FinishReason, readModel, readTokens } from './answer.ts';
import { functionTool } from './openai.ts';
import { ANY_TEXT, type Message, type ToolCall } from './request.ts';
import { bearer, parseArguments, type WireFormat } from './wire-format.ts';

const FINISH_REASONS = new Map<unknown, FinishReason>([
  ['stop', 'stop'],
  ['length', 'length'],
]);
const ITEMS_MAX = 10_000;

/** `POST /api/chat` and `/api/embed` of Ollama, in one piece instead of a stream. */
export const ollama: WireFormat = {
  headers: bearer,
  chat: {
    path: '/api/chat',
    body: ({ messages, tools, maxTokens, temperature }, model) => ({
      model,
      messages: messages.map(message),
      stream: false,
      ...(tools.length === 0 ? {} : { tools: tools.map(functionTool) }),
      options: {
        ...(maxTokens === null ? {} : { num_predict: maxTokens }),
        ...(temperature === null ? {} : { temperature }),
      },
    }),
    read: (answer, model) => {
      const said = answer.object('message');
      const toolCalls = said.any('tool_calls') === null ? [] : said.list('tool_calls', ITEMS_MAX, readToolCall);
      const reason = FINISH_REASONS.get(answer.any('done_reason')) ?? 'other';
      return {
        text: said.text('content', ANY_TEXT, 'text'),
        tool_calls: toolCalls,
        // It stops in the same way for a tool as for an answer.
        finish_reason: reason === 'stop' && toolCalls.length > 0 ? 'tool_calls' : reason,
        model: readModel(answer, model),
        tokens_in: readTokens(answer, 'prompt_eval_count'),
        tokens_out: readTokens(answer, 'eval_count'),
      };
    },
  },
  embed: {
    path: '/api/embed',
    body: ({ texts }, model) => ({ model, input: texts }),
    read: (answer, model, count) => ({
      embeddings: checkEmbeddings(
        answer.list('embeddings', count, (items, i) => items.any(i)),
        count,
      ),
      model: readModel(answer, model),
      tokens_in: readTokens(answer, 'prompt_eval_count'),
      tokens_out: 0,
    }),
  },
};

/** Ollama knows a tool's result by the name of the tool; the call that has the id says it. */
function message({ role, content, tool_calls, tool_call_id }: Message, index: number, all: Message[]): object {
  if (role === 'tool') {
    const call = all.flatMap((other) => other.tool_calls).find(({ id }) => id === tool_call_id);
    return { role, content, ...(call === undefined ? {} : { tool_name: call.name }) };
  }
  if (tool_calls.length === 0) return { role, content };
  const calls = tool_calls.map(({ name, arguments: text }, i) => ({
    function: { name, arguments: parseArguments(text, `messages.${index}.tool_calls.${i}.arguments`) },
  }));
  return { role, content, tool_calls: calls };
}

/** It gives its calls no ids: their place is one. */
function readToolCall(items: Fields, index: string): ToolCall {
  const called = items.object(index).object('function');
  return {
    id: `call_${index}`,
    name: called.text('name', ANY_TEXT, 'text'),
    arguments: JSON.stringify(called.any('arguments') ?? {}),
  };
}
