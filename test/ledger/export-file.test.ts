import { describe, expect, it } from 'vitest';
import { ExportPart, ExportReader, type Line, linesOf } from '../../src/ledger/export-file.ts';
import { type StoredSpan, sealSpan } from '../../src/span/index.ts';
import { runtimeSigner } from '../support/keys.ts';
import { hashable } from '../support/spans.ts';

function row(position: number): string {
  return JSON.stringify({
    ...sealSpan(hashable(), runtimeSigner),
    position,
    tx_id: String(700 + position),
  } as StoredSpan);
}

/** A whole export of rows, behind the last of another. */
function exportOf(rows: string[], behind: string[] = [], isSameFile = false): string[] {
  const before = readAll(behind);
  const part = new ExportPart(before.last, isSameFile ? before.digest : null);
  for (const line of rows) part.addRow(line);
  return [part.beginLine, ...rows, part.endLine];
}

function readAll(lines: string[], digests: string[] | null = null): ExportReader {
  const reader = new ExportReader(digests);
  for (const line of lines) reader.take(line);
  return reader;
}

async function split(chunks: (string | Uint8Array)[]): Promise<Line[]> {
  const lines: Line[] = [];
  async function* bytes() {
    for (const chunk of chunks) yield Buffer.from(chunk);
  }
  for await (const line of linesOf(bytes())) lines.push(line);
  return lines;
}

describe('an export', () => {
  const whole = exportOf([row(1), row(2), row(3)]);

  it('is whole with its end line, and not without it', () => {
    expect(() => readAll(whole).end()).not.toThrow();
    for (let length = 0; length < whole.length; length++) {
      expect(() => readAll(whole.slice(0, length)).end()).toThrow(
        expect.objectContaining({ code: 'EXPORT_TRUNCATED', message: expect.stringContaining(`after line ${length}`) }),
      );
    }
  });

  it('says of an end that all rows before it were there, as they were, in their order', () => {
    const [begin, one, two, three, end] = whole as [string, string, string, string, string];
    for (const changed of [
      [begin, one, three, end],
      [begin, one, three, two, end],
      [begin, one, two, three, row(4), end],
      [begin, one, two, three.replace('"who":"alice"', '"who":"malice"'), end],
      [begin, one, two, three, end.replace('"rows":3', '"rows":2')],
    ]) {
      expect(() => readAll(changed)).toThrow(
        expect.objectContaining({
          code: 'EXPORT_INVALID',
          message: expect.stringMatching(`^line ${changed.length}: `),
        }),
      );
    }
  });

  it('may have another behind it that goes on where it ends, and no other', () => {
    const more = exportOf([row(4)], whole);
    expect(() => readAll([...whole, ...more]).end()).not.toThrow();
    expect(readAll([...whole, ...more]).last).toMatchObject({ position: 4 });
    const empty = exportOf([], [...whole, ...more]);
    expect(() => readAll([...whole, ...more, ...empty]).end()).not.toThrow();
    for (const wrong of [exportOf([row(4)]), exportOf([row(5)], [...whole, ...more])]) {
      expect(() => readAll([...whole, ...wrong])).toThrow(
        expect.objectContaining({ code: 'EXPORT_INVALID', message: expect.stringMatching('^line 6: ') }),
      );
    }
  });

  it('that was begun behind a whole one says how far it is whole', () => {
    const more = exportOf([row(4)], whole);
    expect(() => readAll([...whole, ...more.slice(0, 2)]).end()).toThrow(/only the first 5 lines are whole/);
  });

  it('has no two rows at one position, in whatever parts, and none from 2^52 on', () => {
    const places = [1, 1023, 1024, 1025, 8192, 2 ** 31, 2 ** 31 + 7, 2 ** 32, 2 ** 32 + 1, 2 ** 52 - 1];
    expect(() => readAll(exportOf(places.map(row))).end()).not.toThrow();
    const refusal = (line: number, what: RegExp) =>
      expect.objectContaining({
        code: 'EXPORT_INVALID',
        message: expect.stringMatching(`^line ${line}: .*${what.source}`),
      });
    for (const place of places) {
      const lines = exportOf([...places, place].map(row));
      expect(() => readAll(lines)).toThrow(refusal(places.length + 2, new RegExp(`position ${place} already`)));
    }
    expect(() => readAll([...whole, ...exportOf([row(2)], whole)])).toThrow(refusal(7, /position 2 already/));
    const part = new ExportPart(null);
    expect(() => readAll([part.beginLine, row(2 ** 52)])).toThrow(refusal(2, /2\^52/));
  });

  it('is the one that is meant when the last digest of each file is named, and no other', () => {
    const digestOf = (lines: string[]) => JSON.parse(lines.at(-1) as string).end.digest as string;
    const more = exportOf([row(4)], whole, true);
    const file = [...whole, ...more];
    const elsewhere = exportOf([row(5)], file);
    const both = [...file, ...elsewhere];
    const read = (lines: string[], digests: string[]) => () => readAll(lines, digests).end();
    expect(read(file, [digestOf(file)])).not.toThrow();
    expect(read(file, [digestOf(whole), digestOf(file)])).not.toThrow();
    expect(read(both, [digestOf(file), digestOf(both)])).not.toThrow();
    const forged = exportOf([row(1), row(2), row(3), row(6)]);
    for (const [lines, digests] of [
      [forged, [digestOf(whole)]],
      [whole, []],
      [whole, [digestOf(file)]], // the newest part was taken off
      [whole, [digestOf(whole), digestOf(file)]],
      [file, [digestOf(whole)]],
      [both, [digestOf(both)]], // no digest stands for the first file
    ] as const) {
      expect(read([...lines], [...digests])).toThrow(expect.objectContaining({ code: 'DIGEST_DIFFERS' }));
    }
    // A part is put in front of one that was not made behind it.
    const other = exportOf([row(1), row(2), whole[3] as string]);
    expect(read([...other, ...more], [digestOf(file)])).toThrow(
      expect.objectContaining({ code: 'EXPORT_INVALID', message: expect.stringMatching(/^line 6: /) }),
    );
  });

  it.each(['', '{', '[]', 'null', '7', '{"begin":{"format":"loglineos-export-2","after":null}}', '{"id":"","seq":0}'])(
    'does not begin with %j',
    (line) => {
      expect(() => readAll([line])).toThrow(expect.objectContaining({ code: 'EXPORT_INVALID' }));
    },
  );
});

describe('linesOf', () => {
  it('ends a line at a line feed alone, wherever chunks end', async () => {
    const lines = ['{"a":"\u2028\u2029\r é 😀"}', '', '{"b":1}'];
    const bytes = Buffer.from(`${lines.join('\n')}\n`);
    for (const size of [1, 2, 3, 7, 100]) {
      const chunks = Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) =>
        bytes.subarray(i * size, (i + 1) * size),
      );
      const found = await split(chunks);
      expect(found.map(({ text, isWhole }) => [text, isWhole])).toEqual(lines.map((text) => [text, true]));
      expect(found.at(-1)?.bytesUntil).toBe(bytes.length);
    }
  });

  it('says of a last line without its end that it is not whole', async () => {
    expect((await split(['one\ntw'])).map(({ isWhole, bytesUntil }) => [isWhole, bytesUntil])).toEqual([
      [true, 4],
      [false, 6],
    ]);
    // Even in the middle of a character.
    expect((await split(['one\n', Uint8Array.of(0xe2)])).at(-1)?.isWhole).toBe(false);
  });

  it('refuses what is not UTF-8, and a line that no span can have', async () => {
    await expect(split([Uint8Array.of(0x7b, 0xff, 0x0a)])).rejects.toMatchObject({ code: 'EXPORT_INVALID' });
    const much = Buffer.alloc(5 * 1024 * 1024, 'x');
    await expect(split([much, much])).rejects.toMatchObject({ code: 'EXPORT_INVALID' });
  });
});
