/** One JSON object a line on standard output, which Lambda hands to CloudWatch Logs. */
export function log(entry: Record<string, unknown>): void {
  process.stdout.write(`${JSON.stringify({ time: new Date().toISOString(), ...entry })}\n`);
}
