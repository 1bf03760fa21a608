import { Fields } from '../fields.ts';
import { blake3Hex, type Problem, type ProblemClass } from '../span/index.ts';
import { type Anchor, FIRST_ANCHOR, parsed, readAnchor } from './anchor.ts';

/** Where anchors are kept: outside the database, so that who changes the ledger does not reach them with it. */
export interface AnchorStore {
  /** The text of an item; null when there is none. */
  read(id: string): Promise<string | null>;
  /** @returns false when there is such an item: it is left as it is. */
  add(id: string, text: string): Promise<boolean>;
  /** @returns false when the item is not `before` any more: it is left as it is. */
  replace(id: string, before: string, text: string): Promise<boolean>;
}

/** `anchor`: the ledger is not what it was when it was anchored. The others are those of `verify`. */
export type AuditProblem = Omit<Problem, 'class'> & { class: ProblemClass | 'anchor' };

/** What an auditor leaves to the next. */
export interface AuditState {
  /** The run that wrote it. */
  run_id: string;
  /** Which chain of anchors holds; each restart begins the next one. */
  chain: number;
  /** How far rows were read for the first time. */
  head: Anchor;
  /** The anchor from which history is read on. */
  history: number;
  /** How far the segment behind it was read again; null at its beginning. */
  partial: Anchor | null;
  /** Problems that nobody has acknowledged, as they were found; a bounded number. */
  problems: AuditProblem[];
  /** Digests of those that somebody has. */
  known: string[];
}

export const STATE_ID = 'state';
/** Problems that are remembered by name until they are acknowledged. */
export const PROBLEMS_MAX = 100;
/** Acknowledged ones that are not reported again; of more, the oldest are. */
const KNOWN_MAX = 2_000;
/** UTF-16 units of a detail. Six bytes each at worst, in JSON: all details and digests fit in the 400 KB of a DynamoDB item. */
const DETAIL_MAX = 500;
const DIGEST_LENGTH = 32;

export function firstState(runId: string, chain: number): AuditState {
  return { run_id: runId, chain, head: FIRST_ANCHOR, history: 0, partial: null, problems: [], known: [] };
}

export function anchorId(chain: number, number: number): string {
  return `anchor#${chain}#${String(number).padStart(12, '0')}`;
}

/** The digest that stands for a problem. A row that is changed again is another one; a row is missing only once. */
export function digestOf({ id, seq, class: problemClass, detail }: AuditProblem): string {
  return blake3Hex(`${problemClass} ${id} ${seq} ${problemClass === 'missing' ? '' : detail}`).slice(0, DIGEST_LENGTH);
}

/** A long detail ends with a digest of all of it: a row that is changed again is still told from what it was. */
export function bounded(problem: AuditProblem): AuditProblem {
  const { detail } = problem;
  if (detail.length <= DETAIL_MAX) return problem;
  const end = `… ${blake3Hex(detail).slice(0, DIGEST_LENGTH)}`;
  return { ...problem, detail: detail.slice(0, DETAIL_MAX - end.length) + end };
}

export function acknowledge(state: AuditState): AuditState {
  return { ...state, problems: [], known: [...state.known, ...state.problems.map(digestOf)].slice(-KNOWN_MAX) };
}

/** @throws {IntegrityError} `ANCHOR_UNREADABLE` */
export function parseState(text: string): AuditState {
  return parsed(STATE_ID, () => {
    const fields = new Fields(JSON.parse(text), '');
    return {
      run_id: fields.uuid('run_id'),
      chain: fields.wholeNumber('chain', 1),
      head: readAnchor(fields.object('head')),
      history: fields.wholeNumber('history', 0),
      partial: fields.any('partial') === null ? null : readAnchor(fields.object('partial')),
      problems: fields.list('problems', PROBLEMS_MAX, (items, i) => {
        const problem = items.object(i);
        return {
          class: problem.text('class', CLASSES, 'a class of problems') as AuditProblem['class'],
          id: problem.uuid('id'),
          seq: problem.wholeNumber('seq', Number.MIN_SAFE_INTEGER),
          detail: problem.text('detail', /./, 'text'),
        };
      }),
      known: fields.list('known', KNOWN_MAX, (items, i) => items.text(i, /^[0-9a-f]{32}$/, '32 hex digits')),
    };
  });
}

const CLASSES = /^(hash|signature|key|chain|missing|anchor)$/;
