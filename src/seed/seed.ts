import { ConflictError, GovernanceError } from '../errors.ts';
import { appendSpans, type Database, type Identity, readLatestVersions, type SpanDraft } from '../ledger/index.ts';
import { canonicalJson, type KeyEnds, type Signer, type Span, type StoredSpan, SYSTEM_ID } from '../span/index.ts';

/** Seeding's identity. Row level security lets only it write rows of the system. */
const SEED_IDENTITY: Identity = { userId: SYSTEM_ID, tenantId: SYSTEM_ID };
const RETRIES_MAX = 3;

export interface SeedResult {
  /** Names of the rows that were appended, with the version they became. */
  appended: { name: string; id: string; seq: number }[];
  unchanged: number;
}

/**
 * Append what differs: a new row as version 0, a changed row as the next version, all or none. Run again, it appends
 * nothing. A row that left the files stays in history; the manifest decides whether it may boot.
 *
 * A row that another of our root keys signed differs too: so what governs is signed by the key in use after a rotation,
 * and what was signed with a former key behind its end is superseded.
 *
 * @param database a connection as `loglineos_seeder`, which may publish.
 * @param rootSigner holds the root key; nothing else in the house does.
 * @param rootKeys whose rows may be followed by ours, beside our own.
 * @throws {GovernanceError} `ROOT_KEY_DIFFERS`
 */
export async function seed(
  database: Database,
  rows: SpanDraft[],
  rootSigner: Signer,
  now: () => Date,
  rootKeys: KeyEnds = new Map(),
): Promise<SeedResult> {
  for (let attempt = 0; ; attempt++) {
    const latest = await readLatestVersions(
      database,
      SEED_IDENTITY,
      rows.map((row) => row.id as string),
    );
    requireOwnKey([...latest.values()], rootSigner, rootKeys);
    const changed = rows
      .map((row) => ({ row, seq: (latest.get(row.id as string)?.seq ?? -1) + 1 }))
      .filter(({ row }) => !isSame(row, latest.get(row.id as string), rootSigner));
    const appended = changed.map(({ row, seq }) => ({ name: row.name as string, id: row.id as string, seq }));
    const result = { appended, unchanged: rows.length - changed.length };
    if (changed.length === 0) return result;
    try {
      const drafts = changed.map(({ row, seq }) => ({ ...row, seq }));
      await appendSpans(database, drafts, { identity: SEED_IDENTITY, signer: rootSigner, now });
      return result;
    } catch (error) {
      // Another seeder was first: look again what still differs.
      if (!(error instanceof ConflictError) || attempt === RETRIES_MAX) throw error;
    }
  }
}

/**
 * A ledger that another root key governs is not ours to seed: what we append, its own Stage-0 would refuse, and nobody
 * could take it back.
 *
 * @throws {GovernanceError} `ROOT_KEY_DIFFERS`
 */
function requireOwnKey(stored: StoredSpan[], rootSigner: Signer, rootKeys: KeyEnds): void {
  const foreign = stored.find(({ public_key: key }) => key !== rootSigner.publicKey && !rootKeys.has(key));
  if (foreign === undefined) return;
  throw new GovernanceError(
    'ROOT_KEY_DIFFERS',
    `${foreign.name} was signed by root key ${foreign.public_key}; this installation's is ${rootSigner.publicKey}`,
  );
}

/** Whether the ledger already says this, by the key in use. */
function isSame(row: SpanDraft, stored: StoredSpan | undefined, rootSigner: Signer): boolean {
  if (stored === undefined || stored.public_key !== rootSigner.publicKey) return false;
  const { seq, position, tx_id, at, prev_hash, curr_hash, signature, public_key, ...said } = stored;
  return canonicalJson(withoutNulls(said)) === canonicalJson(withoutNulls(row));
}

function withoutNulls(span: Span): Span {
  return Object.fromEntries(Object.entries(span).filter(([, value]) => value !== null && value !== undefined));
}
