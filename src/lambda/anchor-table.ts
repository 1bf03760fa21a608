import type { AnchorStore } from '../audit/index.ts';
import { type Change, Table } from '../aws/dynamodb.ts';

/** Anchors in DynamoDB: partition key `id`, and the text as `content`. No item is ever deleted, and no anchor changed. */
export class AnchorTable implements AnchorStore {
  readonly #table: Table;

  constructor(name: string) {
    this.#table = new Table(name);
  }

  async read(id: string): Promise<string | null> {
    return (await this.#table.get<{ id: string; content: string }>({ id }))?.content ?? null;
  }

  async add(id: string, text: string): Promise<boolean> {
    return this.#write(id, { onlyIf: 'attribute_not_exists(content)', values: { ':text': text } });
  }

  async replace(id: string, before: string, text: string): Promise<boolean> {
    return this.#write(id, { onlyIf: 'content = :before', values: { ':text': text, ':before': before } });
  }

  async #write(id: string, change: Omit<Change, 'set'>): Promise<boolean> {
    return this.#table.update({ id }, { set: 'SET content = :text', ...change });
  }
}
