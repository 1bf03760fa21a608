import { InputError } from '../errors.ts';
import { Fields } from '../fields.ts';

/** A tool that the model wants called. `arguments` is JSON as the model wrote it: it may be invalid. */
export interface ToolCall {
  id: string;
  name: string;
  arguments: string;
}

export interface Message {
  role: 'system' | 'user' | 'assistant' | 'tool';
  content: string;
  /** What an assistant asked for. */
  tool_calls: ToolCall[];
  /** Which call a tool answers; empty for the other roles. */
  tool_call_id: string;
}

export interface Tool {
  name: string;
  description: string | null;
  /** JSON Schema of its arguments. */
  parameters: Record<string, unknown>;
}

interface Options {
  /** Null: the provider's default. */
  model: string | null;
  timeoutMs: number | null;
}

export interface ChatRequest extends Options {
  kind: 'chat';
  messages: Message[];
  tools: Tool[];
  maxTokens: number | null;
  temperature: number | null;
}

export interface EmbedRequest extends Options {
  kind: 'embed';
  texts: string[];
}

export type ProviderRequest = ChatRequest | EmbedRequest;

const MESSAGES_MAX = 1_000;
const TOOLS_MAX = 128;
const TEXTS_MAX = 256;
/** As much as a span may hold, in UTF-16 code units of its JSON. */
const REQUEST_CHARS_MAX = 1024 * 1024;
const TEMPERATURE_MAX = 2;

/** Matches any text, for `Fields.text`. */
export const ANY_TEXT = /^/;
const SOME_TEXT = /./s;
const NAME = /^[\w-]{1,64}$/;
export const MODEL_NAME = /^[\x21-\x7e]{1,200}$/;

/**
 * `{ messages | embed, model?, timeout_ms?, max_tokens?, temperature?, tools? }`; the last three only with `messages`.
 *
 * @throws {InputError} `FIELD_MISSING`, `FIELD_INVALID`, `FIELD_UNKNOWN`, `FIELD_TOO_LARGE`, naming the field.
 */
export function readProviderRequest(value: unknown): ProviderRequest {
  const fields = new Fields(value, '');
  const length = JSON.stringify(value).length;
  if (length > REQUEST_CHARS_MAX) {
    throw new InputError(
      'FIELD_TOO_LARGE',
      `a request may have ${REQUEST_CHARS_MAX} characters, this one has ${length}`,
    );
  }
  if (fields.has('messages') && fields.has('embed')) {
    throw new InputError('FIELD_INVALID', 'embed: expected messages or embed, not both', { field: 'embed' });
  }
  const options: Options = {
    model: optional(fields, 'model', (name) => fields.text(name, MODEL_NAME, 'the name of a model')),
    timeoutMs: optional(fields, 'timeout_ms', (name) => fields.wholeNumber(name, 1)),
  };
  const request = fields.has('embed') ? readEmbed(fields, options) : readChat(fields, options);
  fields.end();
  return request;
}

function readEmbed(fields: Fields, options: Options): EmbedRequest {
  const texts = fields.list('embed', TEXTS_MAX, (items, i) => items.text(i, SOME_TEXT, 'text that is not empty'));
  if (texts.length === 0)
    throw new InputError('FIELD_INVALID', 'embed: expected at least one text', { field: 'embed' });
  return { kind: 'embed', ...options, texts };
}

function readChat(fields: Fields, options: Options): ChatRequest {
  const messages = fields.list('messages', MESSAGES_MAX, (items, i) => readMessage(items.object(i)));
  if (messages.length === 0) {
    throw new InputError('FIELD_INVALID', 'messages: expected at least one', { field: 'messages' });
  }
  return {
    kind: 'chat',
    ...options,
    messages,
    tools:
      optional(fields, 'tools', (name) => fields.list(name, TOOLS_MAX, (items, i) => readTool(items.object(i)))) ?? [],
    maxTokens: optional(fields, 'max_tokens', (name) => fields.wholeNumber(name, 1)),
    temperature: readTemperature(fields.any('temperature')),
  };
}

function readMessage(fields: Fields): Message {
  const role = fields.text(
    'role',
    /^(system|user|assistant|tool)$/,
    'system, user, assistant or tool',
  ) as Message['role'];
  const message: Message = {
    role,
    content: fields.text('content', ANY_TEXT, 'text'),
    tool_calls:
      role === 'assistant' ? (optional(fields, 'tool_calls', (name) => readToolCalls(fields, name)) ?? []) : [],
    tool_call_id: role === 'tool' ? fields.text('tool_call_id', SOME_TEXT, 'the id of a tool call') : '',
  };
  fields.end();
  return message;
}

function readToolCalls(fields: Fields, name: string): ToolCall[] {
  return fields.list(name, TOOLS_MAX, (items, i) => readToolCall(items.object(i)));
}

function readToolCall(fields: Fields): ToolCall {
  const call = {
    id: fields.text('id', SOME_TEXT, 'text that is not empty'),
    name: fields.text('name', NAME, 'the name of a tool'),
    arguments: fields.text('arguments', ANY_TEXT, 'JSON as text'),
  };
  fields.end();
  return call;
}

function readTool(fields: Fields): Tool {
  const tool = {
    name: fields.text('name', NAME, 'a name of letters, digits, _ and -'),
    description: optional(fields, 'description', (name) => fields.text(name, ANY_TEXT, 'text')),
    parameters: fields.any('parameters') as Record<string, unknown>,
  };
  fields.object('parameters');
  fields.end();
  return tool;
}

function readTemperature(value: unknown): number | null {
  if (value === null) return null;
  if (typeof value === 'number' && value >= 0 && value <= TEMPERATURE_MAX) return value;
  throw new InputError('FIELD_INVALID', `temperature: expected a number from 0 to ${TEMPERATURE_MAX}`, {
    field: 'temperature',
  });
}

/** What may be left out, and may be null instead. */
function optional<T>(fields: Fields, name: string, read: (name: string) => T): T | null {
  return fields.any(name) === null ? null : read(name);
}
