import { nobleEd25519 } from '../../span/ed25519-noble.ts';
import { canonicalText, checkChain, checkHash, checkSignature, type StoredSpan } from '../../span/index.ts';

/** What a browser found out about a version by itself; a text says what is wrong. */
export interface VersionProof {
  span: StoredSpan;
  /** What was hashed; null when the version has no canonical form. */
  text: string | null;
  hash: string | null;
  signature: string | null;
  chain: string | null;
}

/**
 * Prove versions, oldest first, with the code that the server proves them with, and nothing that the server says.
 *
 * @param first the `seq` that they must begin with; where it is not 0, what that one is linked to is not looked at.
 */
export async function* proveVersions(versions: StoredSpan[], first: number): AsyncGenerator<VersionProof> {
  for (const [i, span] of versions.entries()) {
    const hash = checkHash(span);
    yield {
      span,
      text: hash?.detail.startsWith('has no canonical form') ? null : canonicalText(span),
      hash: hash?.detail ?? null,
      signature: checkSignature(span, nobleEd25519)?.detail ?? null,
      chain:
        span.seq === first + i
          ? (checkChain(span, versions[i - 1])?.detail ?? null)
          : `version ${first + i} is missing`,
    };
    // A signature takes some milliseconds: the page stays alive between two.
    await new Promise((resolve) => setTimeout(resolve));
  }
}

export function isProved({ hash, signature, chain }: VersionProof): boolean {
  return hash === null && signature === null && chain === null;
}
