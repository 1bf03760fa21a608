/** Members of an object or items of a list as they are parsed; `context.source` is a number as it was written. */
export type Reviver = (key: string, value: unknown, context: { source?: string }) => unknown;

const parse = JSON.parse as (text: string, reviver?: Reviver) => unknown;

/**
 * JSON.parse that reads keys with an escape right. V8 may return `\` for the key `"`, once it has parsed another key that
 * ends in a backslash (https://github.com/nodejs/node/issues/63785, Node 24 to 26). So such a key is parsed by itself,
 * as a string, while a key without escapes stands in its place.
 *
 * @throws {SyntaxError} as JSON.parse does.
 */
export function parseJson(text: string, reviver?: Reviver): unknown {
  const value = parse(text, reviver); // also the proof that the text is JSON, on which the look at its strings relies
  if (!text.includes('\\')) return value;
  let marker = '\ue000';
  while (text.includes(marker)) marker += '\ue000';
  const keys: string[] = [];
  const marked = markEscapedKeys(text, (key) => `"${marker}${keys.push(JSON.parse(key)) - 1}"`);
  if (keys.length === 0) return value;
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

/** The text with every key that holds an escape replaced. One pass, in time that grows with the text and no faster. */
function markEscapedKeys(text: string, mark: (key: string) => string): string {
  let marked = '';
  let copied = 0;
  for (let start = text.indexOf('"'); start !== -1; ) {
    let end = start + 1;
    let isEscaped = false;
    for (let code = text.charCodeAt(end); code !== QUOTE; code = text.charCodeAt(++end)) {
      if (code !== BACKSLASH) continue;
      isEscaped = true;
      end++;
    }
    let next = end + 1;
    while (WHITE_SPACE.includes(text.charAt(next)) && next < text.length) next++;
    if (isEscaped && text.charAt(next) === ':') {
      marked += text.slice(copied, start) + mark(text.slice(start, end + 1));
      copied = end + 1;
    }
    start = text.indexOf('"', end + 1);
  }
  return marked + text.slice(copied);
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const WHITE_SPACE = ' \t\r\n';
