import { AccessError, LogLineError } from '../errors.ts';
import { requireScope } from '../identity/scopes.ts';
import { frames, parseMessage } from '../timeline/index.ts';
import { type CallerFields, callerOf } from './caller-fields.ts';
import { readTimelineConfig } from './config.ts';
import { Connections } from './connections.ts';
import { beginInvocation, type InvocationContext, log } from './log.ts';

/** What API Gateway says of a connection, as far as it is used. */
export interface SocketEvent {
  requestContext: {
    routeKey: string;
    connectionId: string;
    /** What the authorizer answered at `$connect`. */
    authorizer?: Partial<CallerFields> | undefined;
  };
  body?: string;
  isBase64Encoded: boolean;
}

/** A `body` goes to the client, as the answer of the route. */
export interface SocketAnswer {
  statusCode: number;
  body?: string;
}

const connections = new Connections(readTimelineConfig(process.env).connectionsTable);

/**
 * `loglineos-timeline`: what the clients of the WebSocket say. It only notes it: spans come from `loglineos-timeline-sender`,
 * which looks once a second what was noted. They may come before the answer to the subscription, and for that second after
 * it was ended; whoever begins another at once should give it another name.
 */
export async function handler(event: SocketEvent, context: InvocationContext): Promise<SocketAnswer> {
  const { routeKey, connectionId, authorizer } = event.requestContext;
  beginInvocation(context);
  try {
    switch (routeKey) {
      case '$connect':
        await connections.open(connectionId, requireCaller(authorizer ?? {}), new Date());
        return { statusCode: 200 };
      case '$disconnect':
        await connections.remove(connectionId);
        return { statusCode: 200 };
      default:
        return { statusCode: 200, body: await obey(connectionId, event) };
    }
  } catch (error) {
    if (error instanceof AccessError) return { statusCode: 403 };
    const isWrong = error instanceof LogLineError && error.kind !== 'upstream';
    if (!isWrong) log({ level: 'error', message: 'a message failed', route: routeKey, error: String(error) });
    // What is not the client's fault is not the client's to know.
    return { statusCode: isWrong ? 200 : 500, body: frames.error(isWrong ? error : null) };
  }
}

async function obey(connectionId: string, { body = '', isBase64Encoded }: SocketEvent): Promise<string> {
  const message = parseMessage(isBase64Encoded ? '' : body);
  switch (message.action) {
    case 'ping':
      return frames.pong();
    case 'subscribe': {
      // In one spelling and of bounded size; the reader reads it again, and believes nothing else.
      const { owner_id: owner, ...columns } = message.filter;
      const filter = JSON.stringify({ ...columns, owner });
      await connections.subscribe(connectionId, message.id, filter, message.after);
      return frames.subscribed(message.id);
    }
    case 'unsubscribe':
      await connections.unsubscribe(connectionId, message.id);
      return frames.unsubscribed(message.id);
  }
}

/** @throws {AccessError} it is nobody, or nobody who may read spans. */
function requireCaller({ user_id, tenant_id, scopes = '', token_id = '', expires_at = '' }: Partial<CallerFields>) {
  if (!user_id || !tenant_id) throw new AccessError('TOKEN_INVALID', 'no authorizer said who this is');
  const fields = { user_id, tenant_id, scopes, token_id, expires_at };
  requireScope(callerOf(fields), 'spans:read');
  return fields;
}
