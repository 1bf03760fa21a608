import { streamHandle } from 'hono/aws-lambda';
import { createApi } from '../api/index.ts';
import { Denials } from '../identity/index.ts';
import { listenForTimeline } from '../ledger/index.ts';
import { TimelineHub } from '../timeline/index.ts';
import { buildApiParts, lambdaApp } from './build-api.ts';
import { connectionOptions, readApiConfig } from './config.ts';
import { type InvocationContext, log } from './log.ts';
import { onceUnlessItFails } from './once.ts';

/** Kept back of what Lambda gives, for a client to be told that it has to come again. */
const ENDING_MS = 5_000;
/** As many as a hub takes, and one beside. */
const CONNECTIONS_MAX = 5;

const config = readApiConfig(process.env);
const parts = onceUnlessItFails(async () => {
  const built = await buildApiParts(config, 'loglineos-api-stream', CONNECTIONS_MAX);
  return { ...built, denials: new Denials(built.stage0) };
});

/** One stream at a time, as a container has one invocation at a time. */
let hub: TimelineHub | undefined;

async function apiFor(context: InvocationContext) {
  const { stage0, authenticator, denials } = await parts();
  const { database, now } = stage0;
  await hub?.stop(); // a client that went without a word may still be with it
  const ofThisOne = new TimelineHub({
    database,
    authenticator,
    now,
    log,
    listen: (onSpans) => listenForTimeline(connectionOptions(config.database), onSpans),
  });
  hub = ofThisOne;
  setTimeout(() => void ofThisOne.stop(), context.getRemainingTimeInMillis() - ENDING_MS).unref();
  const { trustedKeys, corsOrigins } = config;
  return createApi({ stage0, authenticator, denials, trustedKeys, corsOrigins, timeline: hub });
}

/**
 * `loglineos-api-stream`: the same routes, of which `GET /api/timeline/stream` is integrated here, with response streaming.
 * A function of its own: a stream holds a container for as long as it lasts, and must not keep other requests waiting.
 */
export const handler = streamHandle(lambdaApp(apiFor));
