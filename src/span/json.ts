/** Members of an object or items of a list as they are parsed; `context.source` is a number as it was written. */
export type Reviver = (key: string, value: unknown, context: { source?: string }) => unknown;

const parse = JSON.parse as (text: string, reviver?: Reviver) => unknown;
/** Each string of a JSON text, with the colon that makes it a key. */
const STRING = /("(?:[^"\\]|\\.)*")(\s*:)?/gs;

/**
 * JSON.parse that reads keys with an escape right. V8 may return `\` for the key `"`, once it has parsed another key that
 * ends in a backslash (https://github.com/nodejs/node/issues/63785, Node 24 to 26). So such a key is parsed by itself,
 * as a string, while a key without escapes stands in its place.
 *
 * @throws {SyntaxError} as JSON.parse does.
 */
export function parseJson(text: string, reviver?: Reviver): unknown {
  if (!text.includes('\\')) return parse(text, reviver);
  let marker = '\ue000';
  while (text.includes(marker)) marker += '\ue000';
  const keys: string[] = [];
  const marked = text.replace(STRING, (whole: string, string: string, colon: string | undefined) => {
    if (colon === undefined || !string.includes('\\')) return whole;
    return `"${marker}${keys.push(JSON.parse(string)) - 1}"${colon}`;
  });
  if (keys.length === 0) return parse(text, reviver);
  const unmark = (key: string) => (key.startsWith(marker) ? (keys[Number(key.slice(marker.length))] as string) : key);
  return parse(marked, (key, value, context) => {
    const revived = reviver === undefined ? value : reviver(unmark(key), value, context);
    const isObject =
      typeof revived === 'object' && revived !== null && Object.getPrototypeOf(revived) === Object.prototype;
    if (!isObject || !Object.keys(revived).some((name) => name.startsWith(marker))) return revived;
    // Not an assignment: that would set the prototype for the key __proto__.
    return Object.fromEntries(Object.entries(revived).map(([name, item]) => [unmark(name), item]));
  });
}
