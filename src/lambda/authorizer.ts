import { readSecretField } from '../aws/index.ts';
import { AccessError } from '../errors.ts';
import { Fields, TEXT, TEXT_EXPECTED } from '../fields.ts';
import {
  API_TOKEN_LIFE_MAX_S,
  createApiToken,
  createAuthenticator,
  createTickets,
  Denials,
  readCaller,
} from '../identity/index.ts';
import { Database } from '../ledger/index.ts';
import { nodeEd25519 } from '../span/ed25519-node.ts';
import { createSignerFromHex, requireKeyInUse } from '../span/index.ts';
import { type CallerFields, callerFields } from './caller-fields.ts';
import { connectionOptions, readApiConfig } from './config.ts';
import { loggedFunctionError } from './function-error.ts';
import { beginInvocation, type InvocationContext, log } from './log.ts';
import { onceUnlessItFails } from './once.ts';

/** What API Gateway asks, as far as it is used: a REQUEST or TOKEN authorizer of a REST API, or of a socket's `$connect`. */
export interface AuthorizerEvent {
  /** `arn:aws:execute-api:region:account:api/stage/…` */
  methodArn: string;
  authorizationToken?: string | undefined;
  headers?: Record<string, string | undefined> | null;
  queryStringParameters?: Record<string, string | undefined> | null;
  path?: string | undefined;
  requestContext?: { routeKey?: string; identity?: { sourceIp?: string } };
}

/**
 * What an operator asks by Invoke, which only IAM lets him: a token for somebody, while nobody has one yet who could make it
 * by the API. API Gateway cannot ask that: all its events have a `methodArn`.
 */
export interface TokenEvent {
  /** `user_id`, `tenant_id`, `name`, `scopes` separated by spaces, and `expires_in_s`: 90 days unless said, ten years at most. */
  api_token: unknown;
}

export interface AuthorizerAnswer {
  principalId: string;
  policyDocument: {
    Version: '2012-10-17';
    Statement: { Action: 'execute-api:Invoke'; Effect: 'Allow'; Resource: string }[];
  };
  context: CallerFields;
}

const config = readApiConfig(process.env);

const room = onceUnlessItFails(async () => {
  const { trustedKeys, jwt, runtimeSecretArn } = config;
  const database = new Database({ ...connectionOptions(config.database), applicationName: 'loglineos-authorizer' });
  const now = () => new Date();
  const tenantMasterKey = Buffer.from(await readSecretField(runtimeSecretArn, 'tenant_master_key'), 'hex');
  const signer = createSignerFromHex(nodeEd25519, await readSecretField(runtimeSecretArn, 'runtime_key'));
  requireKeyInUse(trustedKeys.runtime, signer);
  const authenticator = createAuthenticator({ database, trustedKeys, scheme: nodeEd25519, tenantMasterKey, now, jwt });
  return {
    database,
    signer,
    tenantMasterKey,
    now,
    authenticator,
    tickets: createTickets(tenantMasterKey, authenticator, now),
    denials: new Denials({ database, signer, now, log }),
  };
});

/**
 * `loglineos-authorizer`: lets nobody pass whom the API would not know. What he may do the API decides, which checks again:
 * so an answer that API Gateway keeps for a while lets nobody in, and it may be for all routes. And it makes the first token.
 *
 * @throws an error `Unauthorized`, which API Gateway makes a 401 of; any other is a 500.
 */
export async function handler(
  event: AuthorizerEvent | TokenEvent,
  context: InvocationContext,
): Promise<AuthorizerAnswer | NewToken> {
  beginInvocation(context);
  try {
    if (!('methodArn' in event)) return await createToken(event);
    const { authenticator, tickets, denials } = await room();
    try {
      const caller = await readCaller(authenticator, tickets, authorizationOf(event), ticketOf(event));
      const fields = callerFields(caller);
      return {
        principalId: `${fields.tenant_id}/${fields.user_id}`,
        policyDocument: { Version: '2012-10-17', Statement: [allowing(event.methodArn)] },
        context: fields,
      };
    } catch (error) {
      if (!(error instanceof AccessError)) throw error;
      await denials.record(error.code, event.requestContext?.identity?.sourceIp ?? 'unknown', undefined);
      throw new Unauthorized();
    }
  } catch (error) {
    throw error instanceof Unauthorized ? error : loggedFunctionError(error);
  }
}

type NewToken = Awaited<ReturnType<typeof createApiToken>>;

async function createToken(event: TokenEvent): Promise<NewToken> {
  const wish = new Fields(event, '').object('api_token');
  const text = (name: string) => wish.text(name, TEXT, TEXT_EXPECTED);
  const identity = { userId: text('user_id'), tenantId: text('tenant_id') };
  const draft = {
    name: text('name'),
    scopes: text('scopes').split(' '),
    expires_in_s: wish.has('expires_in_s') ? wish.wholeNumber('expires_in_s', 1, API_TOKEN_LIFE_MAX_S) : undefined,
  };
  wish.end();
  return createApiToken(await room(), { identity, scopes: ['*'], tokenId: null, expiresAt: null }, draft);
}

/** The message is what API Gateway looks at. */
class Unauthorized extends Error {
  constructor() {
    super('Unauthorized');
    this.stack = '';
  }
}

function authorizationOf({ authorizationToken, headers }: AuthorizerEvent): string | undefined {
  const header = Object.entries(headers ?? {}).find(([name]) => name.toLowerCase() === 'authorization')?.[1];
  return authorizationToken ?? header;
}

function ticketOf({ queryStringParameters, path, requestContext }: AuthorizerEvent): string | undefined {
  const takesTicket = requestContext?.routeKey === '$connect' || path === '/api/timeline/stream';
  return takesTicket ? queryStringParameters?.ticket : undefined;
}

/** Every route of the stage: API Gateway keeps the answer by the credential alone. */
function allowing(methodArn: string): AuthorizerAnswer['policyDocument']['Statement'][number] {
  const stage = methodArn.split('/').slice(0, 2).join('/');
  return { Action: 'execute-api:Invoke', Effect: 'Allow', Resource: `${stage}/*` };
}
