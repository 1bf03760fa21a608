import { handle } from 'hono/aws-lambda';
import { createApi, readConsole } from '../api/index.ts';
import { buildApiParts, lambdaApp } from './build-api.ts';
import { readApiConfig } from './config.ts';
import { onceUnlessItFails } from './once.ts';

const config = readApiConfig(process.env);
const consoleFiles = () => readConsole(new URL('./console/', import.meta.url));

// One connection for a lock's transaction, one for what happens beside it.
const api = onceUnlessItFails(async () => {
  const { trustedKeys, corsOrigins } = config;
  return createApi({ ...(await buildApiParts(config, 'loglineos-api', 2)), trustedKeys, corsOrigins, consoleFiles });
});

/** `loglineos-api`: the HTTP routes, behind a REST API's proxy integration. */
export const handler = handle(lambdaApp(api));
