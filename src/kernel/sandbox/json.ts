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

/** UTF-8 bytes of a value as JSON. The text it came as may be shorter: `1e20`, which `JSON.rawJSON` lets code write, is 21. */
export function jsonBytes(value: unknown): number {
  return Buffer.byteLength(JSON.stringify(value));
}

/** Whether lists and objects lie in each other at most so deep. */
export function isNestedAtMost(levels: number, value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return true;
  return levels > 0 && Object.values(value).every((item) => isNestedAtMost(levels - 1, item));
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
