// As much of Lambda's own runtime as a test needs: loads the bundle that is named, calls its handler with each event
// (one JSON a line on standard input), and answers one line each on descriptor 3.
import { writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const [, , bundle, remainingMs] = process.argv;
const { handler } = await import(pathToFileURL(String(bundle)).href);
const context = {
  getRemainingTimeInMillis: () => Number(remainingMs),
  functionName: 'the-function',
  awsRequestId: '8476a536-e9f4-11e8-9739-2dfe598c3fcd',
};
for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    answer = { answer: await handler(JSON.parse(line), context) };
  } catch (error) {
    const { name, message, stack } = /** @type {Error} */ (error);
    answer = { error: { name, message, stack } };
  }
  writeSync(3, `${JSON.stringify(answer)}\n`);
}
process.exit(0);
