import { IntegrityError, LogLineError } from '../errors.ts';
import { Fields, UUID } from '../fields.ts';
import type { PlacedRow } from '../ledger/index.ts';
import { blake3Hex, type StoredSpan } from '../span/index.ts';

/**
 * The ledger up to one of its rows, in the order of the timeline. The digest of a row goes over the digest before it, so
 * that the last one stands for all rows, for what each says and for their order. It knows no `tx_id`: an import gives new
 * ones and keeps the order.
 */
export interface Anchor {
  /** How many rows there are up to here. */
  rows: number;
  /** BLAKE3-256 of the digest before and of the row's id, seq, curr_hash and position: 64 hex digits. */
  digest: string;
  /** Sum of their positions, in decimal digits. */
  positions: string;
  /** The row itself; null before the first. */
  last: PlacedRow | null;
}

/** Before the first row. */
export const FIRST_ANCHOR: Anchor = { rows: 0, digest: '0'.repeat(64), positions: '0', last: null };

/** With the next row. */
export function extend({ rows, digest, positions }: Anchor, span: StoredSpan): Anchor {
  const { id, seq, curr_hash, tx_id } = span;
  const position = String(span.position);
  return {
    rows: rows + 1,
    digest: blake3Hex(`${digest} ${id} ${seq} ${curr_hash} ${position}`),
    positions: String(BigInt(positions) + BigInt(position)),
    last: { id, seq, position, tx_id },
  };
}

/** @throws {IntegrityError} `ANCHOR_UNREADABLE` */
export function parseAnchor(text: string | null, name: string): Anchor {
  return parsed(name, () => readAnchor(new Fields(JSON.parse(text ?? 'null'), '')));
}

export function readAnchor(fields: Fields): Anchor {
  const last = fields.any('last') === null ? null : fields.object('last');
  return {
    rows: fields.wholeNumber('rows', 0),
    digest: fields.text('digest', HEX_32, '64 hex digits'),
    positions: fields.text('positions', DIGITS, 'digits'),
    last: last && {
      id: last.text('id', UUID, 'a UUID'),
      seq: last.wholeNumber('seq', 0),
      position: last.text('position', DIGITS, 'digits'),
      tx_id: last.text('tx_id', DIGITS, 'digits'),
    },
  };
}

/** What an item of the store says; what cannot be read is no anchor, and never the beginning of a new one. */
export function parsed<T>(name: string, read: () => T): T {
  try {
    return read();
  } catch (cause) {
    if (!(cause instanceof LogLineError) && !(cause instanceof SyntaxError)) throw cause;
    throw new IntegrityError('ANCHOR_UNREADABLE', `${name} of the anchors cannot be read: ${cause.message}`, { cause });
  }
}

const HEX_32 = /^[0-9a-f]{64}$/;
const DIGITS = /^-?\d{1,40}$/;
