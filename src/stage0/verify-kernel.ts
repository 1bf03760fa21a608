import { IntegrityError } from '../errors.ts';
import { type Database, type Identity, readVersions } from '../ledger/index.ts';
import {
  checkChain,
  checkHash,
  checkKey,
  checkSignature,
  type Ed25519,
  type Problem,
  type SealedSpan,
  type StoredSpan,
  type TrustedKeys,
} from '../span/index.ts';

const CODES = {
  hash: 'HASH_MISMATCH',
  signature: 'SIGNATURE_INVALID',
  key: 'KEY_NOT_TRUSTED',
  chain: 'CHAIN_BROKEN',
  missing: 'CHAIN_BROKEN',
} as const;

/**
 * Proves rows that govern: hash, signature, root key, chain. The hash is computed anew for every row that is handed in,
 * so a row altered a moment ago is refused by a warm container too; signature and chain are remembered by that hash,
 * which commits to both.
 */
export class GovernanceVerifier {
  readonly #trusted: TrustedKeys;
  readonly #keys: TrustedKeys;
  readonly #formerKeys: TrustedKeys;
  readonly #scheme: Ed25519;
  readonly #proved = new Set<string>();

  constructor(keys: TrustedKeys, scheme: Ed25519) {
    this.#trusted = keys;
    this.#keys = { root: keys.root, runtime: new Map() };
    const withoutEnds = [...keys.root.keys()].map((key) => [key, Infinity] as const);
    this.#formerKeys = { root: new Map(withoutEnds), runtime: new Map() };
    this.#scheme = scheme;
  }

  /** @throws {IntegrityError} `HASH_MISMATCH`, `SIGNATURE_INVALID`, `KEY_NOT_TRUSTED`, `CHAIN_BROKEN` */
  async prove(span: StoredSpan, database: Database, identity: Identity): Promise<void> {
    refuse(span, checkHash(span));
    const proof = `${span.curr_hash}${span.signature}${span.position}`; // where a key has an end, the place counts
    if (this.#proved.has(proof)) return;
    refuse(span, checkSignature(span, this.#scheme));
    refuse(span, checkKey(span, this.#keys));
    if (span.seq > 0) await this.#proveChain(span, database, identity);
    this.#proved.add(proof);
  }

  /**
   * A span that its author has signed, before it is appended: by a trusted key, that has no end.
   *
   * @throws {IntegrityError} `HASH_MISMATCH`, `SIGNATURE_INVALID`, `KEY_NOT_TRUSTED`
   */
  proveSealed(span: SealedSpan): void {
    refuse(span, checkKey(span, this.#trusted), { field: 'public_key' }); // first: it costs the least
    refuse(span, checkHash(span), { field: 'curr_hash' });
    refuse(span, checkSignature(span, this.#scheme), { field: 'signature' });
  }

  /** What is wrong with the key of a row that governs nothing: nobody trusts it, or not at this place. */
  checkSigner(span: StoredSpan): Problem | null {
    return checkKey(span, this.#trusted);
  }

  /**
   * The newest version governs; those before it are history. So each must be a root key's, but it may lie behind that
   * key's end: what a leaked key signed stays in the chain for ever, and must not keep a new version from counting.
   */
  async #proveChain(span: StoredSpan, database: Database, identity: Identity): Promise<void> {
    const versions = (await readVersions(database, identity, span.id)).filter(({ seq }) => seq <= span.seq);
    if (versions.length !== span.seq + 1) {
      throw new IntegrityError(
        'CHAIN_BROKEN',
        `span ${span.id} has ${versions.length} of its ${span.seq + 1} versions`,
      );
    }
    let before: StoredSpan | undefined;
    for (const version of versions) {
      refuse(version, checkHash(version));
      refuse(version, checkSignature(version, this.#scheme));
      refuse(version, checkKey(version, this.#formerKeys));
      refuse(version, checkChain(version, before));
      before = version;
    }
  }
}

function refuse(span: SealedSpan, problem: Problem | null, detail: { field?: string } = {}): void {
  if (problem === null) return;
  throw new IntegrityError(
    CODES[problem.class],
    `${span.entity_type} ${problem.id} version ${problem.seq}: ${problem.detail}`,
    detail,
  );
}
