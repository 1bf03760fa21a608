import { IntegrityError } from '../errors.ts';
import { blake3Hex, isUuid, parseJson, type StoredSpan } from '../span/index.ts';
import { type Cursor, cursorOf } from './timeline.ts';

/**
 * What an export looks like: lines of JSON (NDJSON) in UTF-8, in one or more parts.
 *
 *   {"begin":{"format":"loglineos-export-1","after":null,"part_before":null}}
 *   {"id":"…","seq":0,"position":1,"tx_id":"811", … }       a row: its columns that are not null
 *   {"end":{"rows":1,"cursor":"…","digest":"…"}}
 *
 * A part begins behind the row that it names in `after`, or at the start, and goes on in the order of the timeline. Its
 * digest is a chain: that of the begin line is its BLAKE3, that of each row the BLAKE3 of the digest before and the line.
 * A part that goes on in the same file says in `part_before` the digest of the one before it: so the last digest of a file
 * stands for all of the file.
 */
const FORMAT = 'loglineos-export-1';
/** A span of 1 Mi code units, each written as an escape of six bytes, and what is around it. */
const LINE_BYTES_MAX = 8 * 1024 * 1024;
/** First position that no row may have: far beyond any ledger, and a number that JavaScript counts on from. */
const POSITION_END = 2 ** 52;

/** A row by what it keeps in whatever ledger it stands. */
export interface RowName {
  id: string;
  seq: number;
  position: number;
  curr_hash: string;
}

export interface ExportSummary {
  rows: number;
  /** Of the last row, in the ledger that was exported; null when there is none. */
  cursor: Cursor | null;
  digest: string;
}

export function nameOf({ id, seq, position, curr_hash }: StoredSpan): RowName {
  return { id, seq, position, curr_hash };
}

export function isSameRow(a: RowName, b: RowName): boolean {
  return a.id === b.id && a.seq === b.seq && a.position === b.position && a.curr_hash === b.curr_hash;
}

/** A part of an export, line by line: as it is written, and as it is read again. */
export class ExportPart {
  readonly after: RowName | null;
  /** Digest of the part before it in the same file. */
  readonly partBefore: string | null;
  readonly beginLine: string;
  #rows = 0;
  #digest: string;
  #lastRow: string | null = null;

  constructor(after: RowName | null, partBefore: string | null = null) {
    this.after = after;
    this.partBefore = partBefore;
    this.beginLine = JSON.stringify({ begin: { format: FORMAT, after, part_before: partBefore } });
    this.#digest = blake3Hex(this.beginLine);
  }

  /** @throws {IntegrityError} `EXPORT_INVALID`: the line is no begin line. */
  static read(line: string): ExportPart {
    const { begin } = parseLine(line) as { begin?: { after?: unknown; part_before?: unknown } };
    const before = begin?.part_before;
    if ((begin?.after === null || isRowName(begin?.after)) && (before === null || typeof before === 'string')) {
      const part = new ExportPart(begin.after, before);
      if (part.beginLine === line) return part;
    }
    throw new IntegrityError('EXPORT_INVALID', `expected a line that begins an export of the format ${FORMAT}`);
  }

  addRow(line: string): void {
    this.#rows += 1;
    this.#digest = blake3Hex(this.#digest + line);
    this.#lastRow = line;
  }

  get digest(): string {
    return this.#digest;
  }

  /** Of all lines so far. */
  get summary(): ExportSummary {
    const last = this.#lastRow === null ? null : parseRow(this.#lastRow);
    return { rows: this.#rows, cursor: last === null ? null : cursorOf(last), digest: this.#digest };
  }

  /** The row that the next part goes on behind. */
  get last(): RowName | null {
    return this.#lastRow === null ? this.after : nameOf(parseRow(this.#lastRow));
  }

  get endLine(): string {
    return JSON.stringify({ end: this.summary });
  }
}

/** Reads the lines of an export in order, and says whether they are whole, and those that were meant. */
export class ExportReader {
  /** The part that has not ended yet. */
  open: ExportPart | null = null;
  /** The part before it. */
  #ended: ExportPart | null = null;
  lines = 0;
  /** As far as the last part goes that has ended. */
  #wholeLines = 0;
  readonly #positions = new Positions();
  readonly #digests: readonly string[] | null;
  readonly #digestsToCome: Set<string>;

  /** @param digests of the last part of each file, and of others as one likes; null when they are not known. */
  constructor(digests: readonly string[] | null = null) {
    this.#digests = digests;
    this.#digestsToCome = new Set(digests);
  }

  /** Of the last part that has ended. */
  get digest(): string | null {
    return this.#ended?.digest ?? null;
  }

  /** The row that the lines so far end with. */
  get last(): RowName | null {
    return (this.open ?? this.#ended)?.last ?? null;
  }

  /**
   * The next line, and what it is.
   *
   * @throws {IntegrityError} `EXPORT_INVALID`: it does not follow from the lines before, or is a row at the position of
   *   another; `DIGEST_DIFFERS`: what was read is not what was meant. The message has its number.
   */
  take(line: string): 'begin' | 'row' | 'end' {
    this.lines += 1;
    try {
      if (this.open === null) return this.#begin(line);
      if (!line.startsWith('{"end":')) {
        const { position } = parseRow(line);
        if (!this.#positions.add(position)) {
          throw new IntegrityError('EXPORT_INVALID', `a row before it has its position ${position} already`);
        }
        this.open.addRow(line);
        return 'row';
      }
      if (line !== this.open.endLine) {
        throw new IntegrityError('EXPORT_INVALID', `the lines before give ${this.open.endLine}, this says ${line}`);
      }
      this.#ended = this.open;
      this.open = null;
      this.#wholeLines = this.lines;
      this.#digestsToCome.delete(this.#ended.digest);
      return 'end';
    } catch (error) {
      throw error instanceof IntegrityError ? atLine(this.lines, error) : error;
    }
  }

  #begin(line: string): 'begin' {
    const part = ExportPart.read(line);
    const isNext =
      this.#ended === null ||
      ((part.after === null
        ? this.#ended.last === null
        : this.#ended.last !== null && isSameRow(part.after, this.#ended.last)) &&
        (part.partBefore === null || part.partBefore === this.#ended.digest));
    if (!isNext) throw new IntegrityError('EXPORT_INVALID', 'this part does not go on where the one before it ends');
    if (part.partBefore === null) this.#requireNamed();
    this.open = part;
    return 'begin';
  }

  /** What no later part stands for must be named itself. */
  #requireNamed(): void {
    if (this.#digests === null || this.#ended === null || this.#digests.includes(this.#ended.digest)) return;
    throw new IntegrityError(
      'DIGEST_DIFFERS',
      `the part that ends at line ${this.#wholeLines} has the digest ${this.#ended.digest}, which is none of those expected`,
    );
  }

  /**
   * @throws {IntegrityError} `EXPORT_TRUNCATED`: there must be more than was read; `DIGEST_DIFFERS`: a part that was meant
   *   is not there, or one that was not.
   */
  end(): void {
    if (this.lines > 0 && this.open === null) {
      this.#requireNamed();
      const [missing] = this.#digestsToCome;
      if (missing === undefined) return;
      throw new IntegrityError('DIGEST_DIFFERS', `expected a part with the digest ${missing}, found none`);
    }
    const whole = this.#wholeLines === 0 ? 'it has no end line' : `only the first ${this.#wholeLines} lines are whole`;
    throw new IntegrityError('EXPORT_TRUNCATED', `the export breaks off after line ${this.lines}: ${whole}`);
  }
}

/** Positions that were seen: a bit for each, since a ledger has them nearly without gaps. */
class Positions {
  readonly #pages = new Map<number, Uint8Array>();

  /** @returns whether it is new. */
  add(position: number): boolean {
    const number = Math.floor(position / PAGE_BITS);
    const page = this.#pages.get(number) ?? new Uint8Array(PAGE_BITS / 8);
    this.#pages.set(number, page);
    const byte = Math.floor((position % PAGE_BITS) / 8);
    const before = page[byte] as number;
    page[byte] = before | (1 << (position % 8));
    return page[byte] !== before;
  }
}

const PAGE_BITS = 1024;

/** The same error, saying which line it is about. */
function atLine(number: number, { code, message, cause }: IntegrityError): IntegrityError {
  return new IntegrityError(code, `line ${number}: ${message}`, { cause });
}

/** @throws {IntegrityError} `EXPORT_INVALID` */
export function parseRow(line: string): StoredSpan {
  const row = parseLine(line);
  if (isRowName(row) && /^\d{1,19}$/.test(String((row as { tx_id?: unknown }).tx_id))) return row as StoredSpan;
  throw new IntegrityError(
    'EXPORT_INVALID',
    'expected a row with id, seq, position (1 to 2^52 - 1), tx_id and curr_hash',
  );
}

function parseLine(line: string): object {
  try {
    const value = parseJson(line);
    if (typeof value === 'object' && value !== null) return value;
  } catch {
    // not JSON
  }
  throw new IntegrityError('EXPORT_INVALID', 'expected a JSON object');
}

function isRowName(value: unknown): value is RowName {
  const { id, seq, position, curr_hash } = (value ?? {}) as Record<string, unknown>;
  const isPlace = Number.isInteger(position) && (position as number) >= 1 && (position as number) < POSITION_END;
  return isUuid(id) && Number.isInteger(seq) && isPlace && typeof curr_hash === 'string';
}

/** A line, and where it ends; the last of a file that breaks off in the middle of it is not whole. */
export interface Line {
  text: string;
  bytesUntil: number;
  isWhole: boolean;
}

/**
 * Lines as they come. Only a line feed ends one: Node's `readline` ends them at U+2028 too, which stands in JSON as it is.
 *
 * @throws {IntegrityError} `EXPORT_INVALID`: a line of more than 8 MiB, or not UTF-8.
 */
export async function* linesOf(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Line> {
  const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  let pieces: Uint8Array[] = [];
  let length = 0;
  let bytes = 0;
  const take = (isWhole: boolean): Line => {
    bytes += length + (isWhole ? 1 : 0);
    const line = pieces.length === 1 ? (pieces[0] as Uint8Array) : Buffer.concat(pieces);
    [pieces, length] = [[], 0];
    try {
      return { text: isWhole ? utf8.decode(line) : '', bytesUntil: bytes, isWhole };
    } catch {
      throw new IntegrityError('EXPORT_INVALID', `the line that ends at byte ${bytes} is not UTF-8`);
    }
  };
  const add = (piece: Uint8Array) => {
    pieces.push(piece);
    length += piece.length;
    if (length > LINE_BYTES_MAX) {
      throw new IntegrityError(
        'EXPORT_INVALID',
        `the line from byte ${bytes} on has more than ${LINE_BYTES_MAX} bytes`,
      );
    }
  };
  for await (const chunk of chunks) {
    let start = 0;
    for (let end = chunk.indexOf(LINE_FEED); end !== -1; end = chunk.indexOf(LINE_FEED, start)) {
      add(chunk.subarray(start, end));
      yield take(true);
      start = end + 1;
    }
    if (start < chunk.length) add(chunk.subarray(start));
  }
  if (length > 0) yield take(false);
}

const LINE_FEED = 0x0a;
