import { parseJson } from '../../span/json.ts';

/** JSON from where untrusted code ran. An own `__proto__` key would become a prototype at the first careless copy, so none is kept. */
export function parsedFrame(text: string): unknown {
  const value = parseJson(text);
  return /__proto__|\\u005f/i.test(text) ? withoutProto(value) : value;
}

function withoutProto(value: unknown): unknown {
  if (typeof value === 'object' && value !== null) {
    Reflect.deleteProperty(value, '__proto__');
    for (const item of Object.values(value)) withoutProto(item);
  }
  return value;
}

/** The items of a job with `each`. @throws {TypeError} */
export function itemsOf(input: unknown): unknown[] {
  const { items } = input as { items: unknown };
  if (!Array.isArray(items)) throw new TypeError('items: expected a list');
  return items;
}

/** Whether it is the output of a job with `each`. */
export function answersEach(output: unknown, count: number): boolean {
  if (!Array.isArray(output) || output.length !== count) return false;
  return output.every((answer) => Object.hasOwn(answer ?? {}, 'value') || typeof answer?.error === 'string');
}
