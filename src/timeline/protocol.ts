import { GovernanceError, InputError, LogLineError } from '../errors.ts';
import { Fields } from '../fields.ts';
import type { Cursor, SpanFilter } from '../ledger/index.ts';
import { parseJson } from '../span/index.ts';
import { parseStart, readFilter, type Start } from './filter.ts';
import type { Connection, EndCode } from './hub.ts';
import type { SpanBatch } from './reader.ts';

/** Bytes of a message from a client. */
const MESSAGE_BYTES_MAX = 32 * 1024;

/** How a subscription is called that its client did not name. */
const DEFAULT_ID = 'default';
const ID = /^[^\0\p{Cs}]{1,64}$/u;

/** What a client asks for. */
export type Message =
  | { action: 'subscribe'; id: string; filter: SpanFilter; after: Start }
  | { action: 'unsubscribe'; id: string }
  | { action: 'ping' };

/**
 * @param text empty for a message of bytes: it is none.
 * @throws {InputError} `MESSAGE_TOO_LARGE`, `JSON_INVALID`, or one that names the field
 */
export function parseMessage(text: string): Message {
  if (Buffer.byteLength(text) > MESSAGE_BYTES_MAX) {
    throw new InputError('MESSAGE_TOO_LARGE', `a message may have ${MESSAGE_BYTES_MAX} bytes`);
  }
  let json: unknown;
  try {
    json = parseJson(text);
  } catch {
    throw new InputError('JSON_INVALID', 'a message is text, and JSON');
  }
  const fields = new Fields(json, '');
  const action = fields.text('action', /^(subscribe|unsubscribe|ping)$/, 'subscribe, unsubscribe or ping');
  const message = readMessage(action as Message['action'], fields);
  fields.end();
  return message;
}

function readMessage(action: Message['action'], fields: Fields): Message {
  if (action === 'ping') return { action };
  const id = fields.optionalText('id', ID, 'text of 1 to 64 characters') ?? DEFAULT_ID;
  if (action === 'unsubscribe') return { action, id };
  const filterFields = new Fields(fields.any('filter') ?? {}, 'filter');
  const filter = readFilter(filterFields);
  filterFields.end();
  return { action, id, filter, after: parseStart(fields.any('after'), 'after') };
}

/** To begin it again, its client ends it first, so that both know which spans are whose. */
export function subscriptionExists(id: string): InputError {
  return new InputError('SUBSCRIPTION_EXISTS', `there is a subscription ${id} already`, { field: 'id' });
}

export function subscriptionNotFound(id: string): InputError {
  return new InputError('SUBSCRIPTION_NOT_FOUND', `there is no subscription ${id}`, { field: 'id' });
}

/** Of one connection. */
export const SUBSCRIPTIONS_MAX = 20;

export function subscriptionsExceeded(max = SUBSCRIPTIONS_MAX): GovernanceError {
  return new GovernanceError('SUBSCRIPTIONS_EXCEEDED', `a connection may have ${max} subscriptions`);
}

/** The messages that a client gets, as text. */
export const frames = {
  subscribed: (id: string) => JSON.stringify({ type: 'subscribed', id }),
  unsubscribed: (id: string) => JSON.stringify({ type: 'unsubscribed', id }),
  span: (id: string, position: Cursor, json: string) =>
    `{"type":"span","id":${JSON.stringify(id)},"position":"${position}","span":${json}}`,
  caughtUp: (id: string, position: Cursor) => JSON.stringify({ type: 'caught_up', id, position }),
  pong: () => JSON.stringify({ type: 'pong' }),
  error: (error: unknown) =>
    error instanceof LogLineError
      ? JSON.stringify({ type: 'error', code: error.code, message: error.message, field: error.field })
      : JSON.stringify({ type: 'error', code: 'INTERNAL', message: 'something failed on our side' }),
  end: (code: EndCode) => JSON.stringify({ type: 'end', code }),
};

/** The close code of a WebSocket (RFC 6455, 7.4.1) for each way to be sent away. */
export const CLOSE_CODES: Record<EndCode, number> = {
  TOKEN_REVOKED: 1008,
  TOKEN_EXPIRED: 1008,
  SLOW_CLIENT: 1013,
  STOPPING: 1001,
};

/** How a session reaches its client. */
export interface Channel {
  send(frame: string): void;
  /** Spans for a subscription. */
  sendSpans(id: string, batch: SpanBatch): void;
}

/** What one client says over its connection, and what it is answered. */
export class Session {
  readonly #connection: Connection;
  readonly #channel: Channel;
  readonly #subscriptions = new Map<string, () => void>();

  constructor(connection: Connection, channel: Channel) {
    this.#connection = connection;
    this.#channel = channel;
  }

  /** A message that is wrong is answered so, and changes nothing. */
  receive(text: string): void {
    try {
      this.#obey(parseMessage(text));
    } catch (error) {
      this.#channel.send(frames.error(error));
    }
    this.#connection.checkBacklog();
  }

  #obey(message: Message): void {
    switch (message.action) {
      case 'ping':
        this.#channel.send(frames.pong());
        break;
      case 'subscribe':
        this.#subscribe(message.id, message.filter, message.after);
        break;
      case 'unsubscribe':
        if (!this.#end(message.id)) {
          throw subscriptionNotFound(message.id);
        }
        this.#channel.send(frames.unsubscribed(message.id));
    }
  }

  #subscribe(id: string, filter: SpanFilter, after: Start): void {
    if (this.#subscriptions.has(id)) throw subscriptionExists(id);
    const end = this.#connection.subscribe(filter, after, {
      spans: (batch) => this.#channel.sendSpans(id, batch),
      caughtUp: (position) => this.#channel.send(frames.caughtUp(id, position)),
    });
    this.#subscriptions.set(id, end);
    this.#channel.send(frames.subscribed(id));
  }

  /** Whether there was one. */
  #end(id: string): boolean {
    this.#subscriptions.get(id)?.();
    return this.#subscriptions.delete(id);
  }
}
