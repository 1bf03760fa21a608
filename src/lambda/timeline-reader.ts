import { createAuthenticator } from '../identity/index.ts';
import { Database } from '../ledger/index.ts';
import { nodeEd25519 } from '../span/ed25519-node.ts';
import { connectionOptions, readTimelineReaderConfig } from './config.ts';
import { loggedFunctionError } from './function-error.ts';
import { beginInvocation, type InvocationContext } from './log.ts';
import { readPages, type TimelineAnswer, type TimelineQuestion } from './timeline-pages.ts';

const config = readTimelineReaderConfig(process.env);
const database = new Database({
  ...connectionOptions(config.database),
  applicationName: 'loglineos-timeline-reader',
});
const authenticator = createAuthenticator({
  database,
  trustedKeys: config.trustedKeys,
  scheme: nodeEd25519,
  tenantMasterKey: new Uint8Array(), // it reads no token; whether one has ended takes no secret
  now: () => new Date(),
});

/**
 * `loglineos-timeline-reader`: what is new for those whom the sender names. Only the sender may invoke it, since it
 * believes whom it is told they are; and it answers nobody else, so that the ledger stays within its network.
 */
export async function handler(question: TimelineQuestion, context: InvocationContext): Promise<TimelineAnswer> {
  beginInvocation(context);
  try {
    return await readPages({ database, authenticator }, question);
  } catch (error) {
    throw loggedFunctionError(error);
  }
}
