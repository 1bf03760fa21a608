// As much of Lambda's own runtime as a test needs: loads the bundle that is named, calls its handler with each event
// (one JSON a line on standard input), and answers one line each on descriptor 3.
import { writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import { pathToFileURL } from 'node:url';

const [, , bundle, remainingMs] = process.argv;

// What Lambda has for handlers that answer with a stream: a head, eight zero bytes, then the body as it comes.
Object.assign(globalThis, {
  awslambda: {
    /** @param {object} run */
    streamifyResponse: (run) => Object.assign(run, { streams: true }),
    HttpResponseStream: {
      /** @param {PassThrough} stream @param {object} head */
      from(stream, head) {
        stream.write(`${JSON.stringify(head)}${'\0'.repeat(8)}`);
        return stream;
      },
    },
  },
});

const { handler } = await import(pathToFileURL(String(bundle)).href);
const context = {
  getRemainingTimeInMillis: () => Number(remainingMs),
  functionName: 'the-function',
  awsRequestId: '8476a536-e9f4-11e8-9739-2dfe598c3fcd',
};
for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    answer = { answer: await (handler.streams ? streamed(JSON.parse(line)) : handler(JSON.parse(line), context)) };
  } catch (error) {
    const { name, message, stack } = /** @type {Error} */ (error);
    answer = { error: { name, message, stack } };
  }
  writeSync(3, `${JSON.stringify(answer)}\n`);
}
process.exit(0);

/** All that a stream held when it ended. @param {unknown} event */
async function streamed(event) {
  const stream = new PassThrough();
  const whole = text(stream);
  await handler(event, stream, context);
  const [head, body] = (await whole).split('\0'.repeat(8));
  return { ...JSON.parse(String(head)), body };
}
