import { Sockets } from '../aws/gateway.ts';
import { RemoteFunction } from '../aws/lambda.ts';
import { readTimelineSenderConfig } from './config.ts';
import { Connections } from './connections.ts';
import { logMetrics } from './emf.ts';
import { type FanOutCounts, fanOut } from './fan-out.ts';
import { loggedFunctionError } from './function-error.ts';
import { beginInvocation, type InvocationContext, log } from './log.ts';
import type { TimelineAnswer } from './timeline-pages.ts';

/** Kept back of what Lambda gives: a round that began may still read, and send what it read. */
const ENDING_MS = 8_000;
/** A question waits a second for news, and reads some. */
const READ_MS_MAX = 5_000;

const config = readTimelineSenderConfig(process.env);
const connections = new Connections(config.connectionsTable);
const sockets = new Sockets(config.socketsEndpoint);
const reader = new RemoteFunction(config.readerFunction);

/**
 * `loglineos-timeline-sender`: send what is new to the clients of the WebSocket, until the time is up. A function without
 * the VPC, which `@connections` is not reachable from; what is in the ledger it hears from `loglineos-timeline-reader`.
 */
export async function handler(_event: unknown, context: InvocationContext): Promise<FanOutCounts> {
  const endOfTime = new Date(Date.now() + context.getRemainingTimeInMillis() - ENDING_MS);
  beginInvocation(context);
  try {
    const counts = await fanOut({
      connections,
      sockets,
      read: async (question) => (await reader.invoke(question, READ_MS_MAX)) as TimelineAnswer,
      endOfTime,
      log,
    });
    logMetrics(
      [
        { name: 'SocketConnections', unit: 'Count', value: counts.connections },
        { name: 'SocketFrames', unit: 'Count', value: counts.frames },
      ],
      [{ FunctionName: context.functionName }],
      { message: 'sent', ...counts },
    );
    return counts;
  } catch (error) {
    throw loggedFunctionError(error);
  }
}
