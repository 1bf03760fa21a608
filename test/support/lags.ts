/** What nine of ten do not exceed: a machine that was busy for a moment is not what a test of many is after. */
export function mostOf(lags: number[]): number {
  return lags.toSorted((a, b) => b - a)[Math.floor(lags.length / 10)] ?? 0;
}
