import type { AttributeValue, DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { UpstreamError } from '../errors.ts';

/** A call, with what the SDK repeats of it, ends after this. */
const CALL_MS_MAX = 3_000;
const ATTEMPTS_MAX = 3;

export type ItemValue = string | number | boolean | { [name: string]: ItemValue };
export type Item = Record<string, ItemValue>;

/** Expressions as DynamoDB takes them; names as `#name`, values as `:name`. */
export interface Change {
  set: string;
  onlyIf: string;
  names?: Record<string, string>;
  values?: Record<string, ItemValue>;
}

/**
 * A DynamoDB table. The SDK is loaded at the first call (see `secrets.ts`).
 *
 * @throws {UpstreamError} `TABLE_UNAVAILABLE`, by each of the calls; names the cause without a word of the service's.
 */
export class Table {
  readonly #name: string;

  constructor(name: string) {
    this.#name = name;
  }

  async put(item: Item): Promise<void> {
    const { PutItemCommand } = await import('@aws-sdk/client-dynamodb');
    await this.#call((client, options) =>
      client.send(new PutItemCommand({ TableName: this.#name, Item: attributesOf(item) }), options),
    );
  }

  async get<T extends Item = Item>(key: Item): Promise<T | null> {
    const { GetItemCommand } = await import('@aws-sdk/client-dynamodb');
    const command = new GetItemCommand({ TableName: this.#name, Key: attributesOf(key), ConsistentRead: true });
    const { Item: found } = await this.#call((client, options) => client.send(command, options));
    return found === undefined ? null : (itemOf(found) as T);
  }

  /** @returns false when the condition does not hold: nothing was changed. */
  async update(key: Item, { set, onlyIf, names, values }: Change): Promise<boolean> {
    const { UpdateItemCommand } = await import('@aws-sdk/client-dynamodb');
    const command = new UpdateItemCommand({
      TableName: this.#name,
      Key: attributesOf(key),
      UpdateExpression: set,
      ConditionExpression: onlyIf,
      ExpressionAttributeNames: names,
      ExpressionAttributeValues: values && attributesOf(values),
    });
    return this.#call((client, options) =>
      client.send(command, options).then(
        () => true,
        (error: Error) => {
          if (error.name === 'ConditionalCheckFailedException') return false;
          throw error;
        },
      ),
    );
  }

  /** Gone or never there is the same. */
  async delete(key: Item): Promise<void> {
    const { DeleteItemCommand } = await import('@aws-sdk/client-dynamodb');
    await this.#call((client, options) =>
      client.send(new DeleteItemCommand({ TableName: this.#name, Key: attributesOf(key) }), options),
    );
  }

  /** All items, each as of some moment after the call: what was written before it is seen. */
  async scan<T extends Item = Item>(): Promise<T[]> {
    const { ScanCommand } = await import('@aws-sdk/client-dynamodb');
    const items: Item[] = [];
    let next: Record<string, AttributeValue> | undefined;
    do {
      const command = new ScanCommand({ TableName: this.#name, ConsistentRead: true, ExclusiveStartKey: next });
      const page = await this.#call((client, options) => client.send(command, options));
      for (const item of page.Items ?? []) items.push(itemOf(item));
      next = page.LastEvaluatedKey;
    } while (next !== undefined);
    return items as T[];
  }

  async #call<T>(send: (client: DynamoDBClient, options: { abortSignal: AbortSignal }) => Promise<T>): Promise<T> {
    try {
      const sdk = await import('@aws-sdk/client-dynamodb');
      client ??= new sdk.DynamoDBClient({ maxAttempts: ATTEMPTS_MAX });
      return await send(client, { abortSignal: AbortSignal.timeout(CALL_MS_MAX) });
    } catch (error) {
      throw new UpstreamError('TABLE_UNAVAILABLE', `table ${this.#name} gave no answer: ${(error as Error).name}`);
    }
  }
}

let client: DynamoDBClient | undefined;

function attributesOf(item: Item): Record<string, AttributeValue> {
  return Object.fromEntries(Object.entries(item).map(([name, value]) => [name, attributeOf(value)]));
}

function attributeOf(value: ItemValue): AttributeValue {
  if (typeof value === 'string') return { S: value };
  if (typeof value === 'number') return { N: String(value) };
  if (typeof value === 'boolean') return { BOOL: value };
  return { M: attributesOf(value) };
}

function itemOf(attributes: Record<string, AttributeValue>): Item {
  return Object.fromEntries(Object.entries(attributes).map(([name, value]) => [name, plainOf(value)]));
}

function plainOf({ S, N, BOOL, M }: AttributeValue): ItemValue {
  return S ?? BOOL ?? (N === undefined ? itemOf(M ?? {}) : Number(N));
}
