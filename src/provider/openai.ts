import type { Fields } from '../fields.ts';
import { checkEmbeddings, type FinishReason, readModel, readTokens } from './answer.ts';
import { ANY_TEXT, type Message, type Tool, type ToolCall } from './request.ts';
import { bearer, type WireFormat } from './wire-format.ts';

const FINISH_REASONS = new Map<unknown, FinishReason>([
  ['stop', 'stop'],
  ['length', 'length'],
  ['tool_calls', 'tool_calls'],
  ['content_filter', 'content_filter'],
]);
const ITEMS_MAX = 10_000;

/** `POST /chat/completions` and `/embeddings` of OpenAI, and of the many servers that speak as it does. */
export const openai: WireFormat = {
  headers: bearer,
  chat: {
    path: '/chat/completions',
    body: ({ messages, tools, maxTokens, temperature }, model, { maxTokensField }) => ({
      model,
      messages: messages.map(message),
      ...(tools.length === 0 ? {} : { tools: tools.map(functionTool) }),
      ...(maxTokens === null ? {} : { [maxTokensField]: maxTokens }),
      ...(temperature === null ? {} : { temperature }),
    }),
    read: (answer, model) => {
      const [choice] = answer.list('choices', ITEMS_MAX, (items, i) => items.object(i));
      // Missing as a field is, so that it is named as one.
      const said = (choice ?? answer.object('choices')).object('message');
      return {
        text: said.any('content') === null ? '' : said.text('content', ANY_TEXT, 'text'),
        tool_calls: said.any('tool_calls') === null ? [] : said.list('tool_calls', ITEMS_MAX, readToolCall),
        finish_reason: FINISH_REASONS.get(choice?.any('finish_reason')) ?? 'other',
        model: readModel(answer, model),
        ...usage(answer, 'completion_tokens'),
      };
    },
  },
  embed: {
    path: '/embeddings',
    body: ({ texts }, model) => ({ model, input: texts, encoding_format: 'float' }),
    read: (answer, model, count) => {
      const vectors: unknown[] = new Array(count).fill(null);
      answer.list('data', count, (items, i) => {
        const item = items.object(i);
        vectors[item.wholeNumber('index', 0)] = item.any('embedding');
      });
      return {
        embeddings: checkEmbeddings(vectors, count),
        model: readModel(answer, model),
        ...usage(answer, null),
      };
    },
  },
};

/** Also how Ollama describes a tool. */
export function functionTool({ name, description, parameters }: Tool): object {
  return { type: 'function', function: { name, ...(description === null ? {} : { description }), parameters } };
}

function message({ role, content, tool_calls, tool_call_id }: Message): object {
  if (role === 'tool') return { role, tool_call_id, content };
  if (tool_calls.length === 0) return { role, content };
  const calls = tool_calls.map(({ id, name, arguments: text }) => ({
    id,
    type: 'function',
    function: { name, arguments: text },
  }));
  return { role, content: content === '' ? null : content, tool_calls: calls };
}

function readToolCall(items: Fields, index: string): ToolCall {
  const call = items.object(index);
  const called = call.object('function');
  return {
    id: call.text('id', ANY_TEXT, 'text'),
    name: called.text('name', ANY_TEXT, 'text'),
    arguments: called.text('arguments', ANY_TEXT, 'text'),
  };
}

/** Embeddings count only what was read. */
function usage(answer: Fields, outField: string | null) {
  if (answer.any('usage') === null) return { tokens_in: null, tokens_out: outField === null ? 0 : null };
  const counts = answer.object('usage');
  return {
    tokens_in: readTokens(counts, 'prompt_tokens'),
    tokens_out: outField === null ? 0 : readTokens(counts, outField),
  };
}
