import { type FinishReason, readModel, readTokens } from './answer.ts';
import { ANY_TEXT, type Message, type Tool, type ToolCall } from './request.ts';
import { parseArguments, type WireFormat } from './wire-format.ts';

const VERSION = '2023-06-01';
/** This API wants a limit with every request; this one when the caller sets none. */
const MAX_TOKENS = 4_096;
const BLOCKS_MAX = 10_000;

const FINISH_REASONS = new Map<unknown, FinishReason>([
  ['end_turn', 'stop'],
  ['stop_sequence', 'stop'],
  ['pause_turn', 'stop'],
  ['max_tokens', 'length'],
  ['model_context_window_exceeded', 'length'],
  ['tool_use', 'tool_calls'],
  ['refusal', 'content_filter'],
]);

/** `POST /messages` of Anthropic. It has no embeddings. */
export const anthropic: WireFormat = {
  headers: (secret) => ({ ...(secret === null ? {} : { 'x-api-key': secret }), 'anthropic-version': VERSION }),
  chat: {
    path: '/messages',
    body: ({ messages, tools, maxTokens, temperature }, model) => {
      const system = messages.filter(({ role }) => role === 'system').map(({ content }) => content);
      return {
        model,
        max_tokens: maxTokens ?? MAX_TOKENS,
        ...(system.length === 0 ? {} : { system: system.join('\n\n') }),
        messages: turns(messages),
        ...(tools.length === 0 ? {} : { tools: tools.map(tool) }),
        ...(temperature === null ? {} : { temperature }),
      };
    },
    read: (answer, model) => {
      const texts: string[] = [];
      const toolCalls: ToolCall[] = [];
      answer.list('content', BLOCKS_MAX, (items, i) => {
        const block = items.object(i);
        // Blocks of other types (thinking, say) are not part of what it says.
        switch (block.any('type')) {
          case 'text':
            texts.push(block.text('text', ANY_TEXT, 'text'));
            break;
          case 'tool_use': {
            const [id, name] = [block.text('id', ANY_TEXT, 'text'), block.text('name', ANY_TEXT, 'text')];
            toolCalls.push({ id, name, arguments: JSON.stringify(block.any('input') ?? {}) });
          }
        }
      });
      const usage = answer.object('usage');
      return {
        text: texts.join(''),
        tool_calls: toolCalls,
        finish_reason: FINISH_REASONS.get(answer.any('stop_reason')) ?? 'other',
        model: readModel(answer, model),
        tokens_in: readTokens(usage, 'input_tokens'),
        tokens_out: readTokens(usage, 'output_tokens'),
      };
    },
  },
  embed: null,
};

function tool({ name, description, parameters }: Tool): object {
  return { name, ...(description === null ? {} : { description }), input_schema: parameters };
}

/** The conversation without its system messages. The results of one turn's tools belong into one message of the user. */
function turns(messages: Message[]): object[] {
  const turns: { role: string; content: unknown }[] = [];
  let results: object[] | null = null;
  for (const [i, { role, content, tool_calls, tool_call_id }] of messages.entries()) {
    if (role === 'system') continue;
    if (role === 'tool') {
      if (results === null) {
        results = [];
        turns.push({ role: 'user', content: results });
      }
      results.push({ type: 'tool_result', tool_use_id: tool_call_id, content });
      continue;
    }
    results = null;
    const uses = tool_calls.map((call, j) => toolUse(call, `messages.${i}.tool_calls.${j}.arguments`));
    const said = content === '' ? [] : [{ type: 'text', text: content }];
    turns.push({ role, content: uses.length === 0 ? content : [...said, ...uses] });
  }
  return turns;
}

function toolUse({ id, name, arguments: text }: ToolCall, field: string): object {
  return { type: 'tool_use', id, name, input: parseArguments(text, field) };
}
