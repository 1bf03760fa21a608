import { createHash, timingSafeEqual } from 'node:crypto';

/** Whether two tokens are equal, in a time that tells nothing about where they differ. */
export function tokensMatch(given: string, expected: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(given), digest(expected));
}
