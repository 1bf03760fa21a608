import { randomUUID } from 'node:crypto';
import { type Item, Table } from '../aws/dynamodb.ts';
import { InputError } from '../errors.ts';
import {
  SUBSCRIPTIONS_MAX,
  subscriptionExists,
  subscriptionNotFound,
  subscriptionsExceeded,
} from '../timeline/index.ts';
import type { CallerFields } from './caller-fields.ts';

/** What a connection asked to be sent. */
export interface Subscription {
  /** By which its client knows it. */
  id: string;
  /** Which of the subscriptions that had this id one after the other. */
  key: string;
  /** The filter's JSON. */
  filter: string;
  /** After which span it goes on; `end` until somebody looked where that is. */
  position: string;
  caughtUp: boolean;
}

export interface Connection {
  id: string;
  caller: CallerFields;
  subscriptions: Subscription[];
}

/** API Gateway ends a connection after two hours. */
const CONNECTION_MS_MAX = 2 * 60 * 60 * 1000;
/** DynamoDB may delete an item from its end on: later than we would know of it anyway. */
const ENDED_MARGIN_MS = 60 * 1000;

/** The item that says who is sending; no connection is called so. */
const SENDER = '#sender';

/**
 * The open connections of the WebSocket API: one item for each, which also holds its subscriptions and how far they
 * came, so that whoever sends next goes on from there. An item that lost its connection ends by its TTL `ends_at`.
 */
export class Connections {
  readonly #table: Table;

  constructor(tableName: string) {
    this.#table = new Table(tableName);
  }

  async open(id: string, caller: CallerFields, now: Date): Promise<void> {
    const endsAt = Math.min(now.getTime() + CONNECTION_MS_MAX, Date.parse(caller.expires_at) || Infinity);
    await this.#table.put({
      connection_id: id,
      ...caller,
      subscriptions: {},
      ends_at: Math.ceil((endsAt + ENDED_MARGIN_MS) / 1000),
    });
  }

  async remove(id: string): Promise<void> {
    await this.#table.delete({ connection_id: id });
  }

  /** @throws {InputError | GovernanceError} as a hub does */
  async subscribe(id: string, subscriptionId: string, filter: string, after: string): Promise<void> {
    const subscription = { key: randomUUID(), filter, position: after, caught_up: false };
    const isDone = await this.#table.update(
      { connection_id: id },
      {
        set: 'SET subscriptions.#id = :subscription',
        onlyIf: 'attribute_not_exists(subscriptions.#id) AND size(subscriptions) < :max',
        names: { '#id': subscriptionId },
        values: { ':subscription': subscription, ':max': SUBSCRIPTIONS_MAX },
      },
    );
    if (isDone) return;
    const item = await this.#table.get<ConnectionItem>({ connection_id: id });
    if (item === null) throw new InputError('CONNECTION_GONE', 'this connection has ended');
    if (Object.hasOwn(item.subscriptions, subscriptionId)) throw subscriptionExists(subscriptionId);
    throw subscriptionsExceeded();
  }

  /** @throws {InputError} `SUBSCRIPTION_NOT_FOUND` */
  async unsubscribe(id: string, subscriptionId: string): Promise<void> {
    const isDone = await this.#table.update(
      { connection_id: id },
      {
        set: 'REMOVE subscriptions.#id',
        onlyIf: 'attribute_exists(subscriptions.#id)',
        names: { '#id': subscriptionId },
      },
    );
    if (!isDone) throw subscriptionNotFound(subscriptionId);
  }

  /** Note how far a subscription came. @returns false, when it is gone or began again since it was read. */
  async move(id: string, subscription: Subscription, position: string, caughtUp: boolean): Promise<boolean> {
    return this.#table.update(
      { connection_id: id },
      {
        set: 'SET subscriptions.#id.#position = :position, subscriptions.#id.caught_up = :caught_up',
        onlyIf: 'subscriptions.#id.#key = :key AND subscriptions.#id.#position = :from',
        names: { '#id': subscription.id, '#key': 'key', '#position': 'position' },
        values: {
          ':key': subscription.key,
          ':from': subscription.position,
          ':position': position,
          ':caught_up': caughtUp,
        },
      },
    );
  }

  /** Those that did not end, each as of some moment after the call. */
  async list(now: Date): Promise<Connection[]> {
    const items = await this.#table.scan<ConnectionItem>();
    return items
      .filter(({ connection_id, ends_at }) => connection_id !== SENDER && ends_at * 1000 > now.getTime())
      .map(connectionOf);
  }

  /** Be the one who sends, or stay it, until then; false while somebody else is. */
  async holdSending(holder: string, now: Date, until: Date): Promise<boolean> {
    return this.#table.update(
      { connection_id: SENDER },
      {
        set: 'SET holder = :holder, held_until = :until',
        onlyIf: 'attribute_not_exists(holder) OR holder = :holder OR held_until < :now',
        values: { ':holder': holder, ':now': now.getTime(), ':until': until.getTime() },
      },
    );
  }

  async endSending(holder: string): Promise<void> {
    await this.#table.update(
      { connection_id: SENDER },
      { set: 'SET held_until = :ended', onlyIf: 'holder = :holder', values: { ':holder': holder, ':ended': 0 } },
    );
  }
}

type ConnectionItem = Item &
  CallerFields & {
    connection_id: string;
    ends_at: number;
    subscriptions: Record<string, { key: string; filter: string; position: string; caught_up: boolean }>;
  };

function connectionOf(item: ConnectionItem): Connection {
  const { connection_id, user_id, tenant_id, scopes, token_id, expires_at, subscriptions } = item;
  return {
    id: connection_id,
    caller: { user_id, tenant_id, scopes, token_id, expires_at },
    subscriptions: Object.entries(subscriptions).map(([id, { key, filter, position, caught_up }]) => ({
      id,
      key,
      filter,
      position,
      caughtUp: caught_up,
    })),
  };
}
