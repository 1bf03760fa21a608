import type { Session } from './session.ts';

const CELL_MAX = 48;

/** One answer: JSON for programs, otherwise text for people. */
export function show({ isJson }: Pick<Session, 'isJson'>, value: unknown, text: () => string): void {
  process.stdout.write(isJson ? `${JSON.stringify(value)}\n` : text());
}

/** Rows under their headings, aligned; `none` when there are none. */
export function table(headings: string[], rows: unknown[][]): string {
  if (rows.length === 0) return 'none\n';
  const cells = [headings, ...rows.map((row) => row.map((value, i) => cell(value, i < row.length - 1)))];
  const widths = headings.map((_heading, i) => Math.max(...cells.map((row) => row[i]?.length ?? 0)));
  const line = (row: string[]) => row.map((text, i) => text.padEnd(widths[i] as number)).join('  ');
  return cells.map((row) => `${line(row).trimEnd()}\n`).join('');
}

/** How a list goes on behind this page; nothing where it does not. */
export function moreOf({ before }: { before: string | null }): string {
  return before === null ? '' : `more with --before ${before}\n`;
}

/** Names and values, one a line; what has no value is left out. */
export function listing(values: Record<string, unknown>): string {
  const said = Object.entries(values).filter(([, value]) => value !== null && value !== undefined);
  const width = Math.max(...said.map(([name]) => name.length));
  const indent = `\n${' '.repeat(width + 2)}`;
  return said.map(([name, value]) => `${name.padEnd(width)}  ${plain(value).replaceAll('\n', indent)}\n`).join('');
}

/** A value in one line; the last of a line need not be cut. */
export function cell(value: unknown, isCut = true): string {
  const text = plain(value ?? '').replace(/\s+/g, ' ');
  return isCut && text.length > CELL_MAX ? `${text.slice(0, CELL_MAX - 1)}…` : text;
}

/** What a span says may come from anybody: nothing in it is obeyed by the terminal. */
export function plain(value: unknown): string {
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  return text.replace(/\p{Cf}|(?!\n)\p{Cc}/gu, '·');
}

export function count(n: number, noun: string): string {
  return `${n} ${n === 1 ? noun : `${noun}s`}`;
}
