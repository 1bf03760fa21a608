/**
 * The container of `loglineos-sandbox` on this machine: its handler behind Invoke of the Lambda API, in a process without
 * an environment. Started by `sandbox-function.ts`, which is told the port; ends when its parent does.
 */
import { randomUUID } from 'node:crypto';
import { serve } from '@hono/node-server';
import { handler } from '../lambda/sandbox.ts';
import { createLambdaApi } from './lambda-api.ts';

const NAME = 'loglineos-sandbox';
/** The longest that Lambda lets a function run. */
const TIMEOUT_MS = 15 * 60 * 1000;

const invoke = (event: unknown, endOfTime: Date) =>
  handler(event, {
    getRemainingTimeInMillis: () => endOfTime.getTime() - Date.now(),
    functionName: NAME,
    awsRequestId: randomUUID(),
  });
const { fetch } = createLambdaApi({ [NAME]: invoke }, () => {}, TIMEOUT_MS);

// The lifeline of the sandbox ends what still runs.
process.once('disconnect', () => process.exit());
serve({ fetch, port: 0, hostname: '127.0.0.1' }, ({ port }) => process.send?.({ port }));
