import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createApiToken, revokeApiToken } from '../../src/identity/index.ts';
import type { AuthorizerAnswer, AuthorizerEvent } from '../../src/lambda/authorizer.ts';
import { SecretsManager } from '../lambda/secrets-manager.ts';
import { type AnyJson, Installation } from '../stage0/installation.ts';
import { rootSigner, runtimeSigner, SECRET_KEYS } from '../support/keys.ts';
import { ALICE } from '../support/spans.ts';
import { AUDIENCE, Issuer } from './issuer.ts';
import { callerOf, openApi } from './support.ts';

const ARN = 'arn:aws:execute-api:eu-central-1:123456789012:api7/prod/GET/api/spans/5a0e';
const CONTEXT = { functionName: 'loglineos-authorizer', awsRequestId: '1', getRemainingTimeInMillis: () => 5_000 };

let installation: Installation;
let manager: SecretsManager;
let issuer: Issuer;
let handler: typeof import('../../src/lambda/authorizer.ts').handler;
const before = { ...process.env };
beforeAll(async () => {
  installation = await Installation.create();
  manager = await SecretsManager.start();
  issuer = await Issuer.start();
  const { hostname, port, pathname, username, password } = new URL(installation.ledger.urls.loglineos_app);
  const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
  Object.assign(process.env, manager.env, {
    DATABASE_HOST: hostname,
    DATABASE_PORT: port,
    DATABASE_NAME: pathname.slice(1),
    DATABASE_USER: username,
    DATABASE_SECRET_ARN: manager.put('app', { password }),
    RUNTIME_SECRET_ARN: manager.put('runtime', {
      runtime_key: hex(SECRET_KEYS.runtime),
      tenant_master_key: hex(installation.stage0.tenantMasterKey),
    }),
    TRUSTED_ROOT_KEYS: rootSigner.publicKey,
    TRUSTED_RUNTIME_KEYS: runtimeSigner.publicKey,
    LOGLINEOS_JWT_ISSUER: issuer.url,
    LOGLINEOS_JWT_AUDIENCE: AUDIENCE,
  });
  ({ handler } = await import('../../src/lambda/authorizer.ts'));
});
afterAll(async () => {
  process.env = before;
  await issuer?.stop();
  await manager?.stop();
  await installation?.close();
});

const ask = async (event: Partial<AuthorizerEvent>) =>
  (await handler({ methodArn: ARN, ...event }, CONTEXT)) as AuthorizerAnswer;
const bearer = (token: string) => ({ headers: { authorization: `Bearer ${token}` } });
const tokenOf = (scopes = ['spans:read', 'execute']) =>
  createApiToken(installation.stage0, callerOf(ALICE), { name: 'x', scopes });

describe('loglineos-authorizer', () => {
  it('calls no token wrong while it cannot look at it, and goes on when it can', async () => {
    const { token } = await tokenOf();
    const secrets = new Map(manager.secrets);
    manager.secrets.clear();
    const error = await ask(bearer(token)).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(Error);
    expect((error as Error).message).not.toMatch(/Unauthorized|llo_/);
    for (const [arn, secret] of secrets) manager.secrets.set(arn, secret);
    expect(await ask(bearer(token))).toMatchObject({ principalId: 'acme/alice' });
  });

  it('lets an API token pass, for every route of the stage, and says whose it is', async () => {
    const { token, id, expires_at } = await tokenOf();
    expect(await ask(bearer(token))).toEqual({
      principalId: 'acme/alice',
      policyDocument: {
        Version: '2012-10-17',
        Statement: [
          {
            Action: 'execute-api:Invoke',
            Effect: 'Allow',
            Resource: 'arn:aws:execute-api:eu-central-1:123456789012:api7/prod/*',
          },
        ],
      },
      context: { user_id: 'alice', tenant_id: 'acme', scopes: 'spans:read execute', token_id: id, expires_at },
    });
    expect(await ask({ authorizationToken: `Bearer ${token}` })).toMatchObject({ principalId: 'acme/alice' });
  });

  it('lets a JWT pass', async () => {
    const { context } = await ask(bearer(await issuer.sign({ sub: 'bob', tenant_id: 'bolt' })));
    expect(context).toMatchObject({ user_id: 'bob', tenant_id: 'bolt', scopes: 'spans:read', token_id: '' });
  });

  it('lets a ticket pass at a socket and a stream, and nowhere else', async () => {
    const { as } = openApi(installation.stage0);
    const { ticket } = await as((await tokenOf()).token).post('/api/tickets', {}, 201);
    const event = { headers: null, queryStringParameters: { ticket } };
    for (const place of [{ requestContext: { routeKey: '$connect' } }, { path: '/api/timeline/stream' }]) {
      expect(await ask({ ...event, ...place })).toMatchObject({ principalId: 'acme/alice' });
    }
    await expect(ask({ ...event, path: '/api/spans' })).rejects.toThrow(/^Unauthorized$/);
  });

  it('refuses everybody else by the one word that API Gateway knows, and the ledger says so', async () => {
    const revoked = await tokenOf();
    expect(await ask(bearer(revoked.token))).toMatchObject({ principalId: 'acme/alice' });
    await revokeApiToken(installation.stage0, callerOf(ALICE), revoked.id);
    const requestContext = { identity: { sourceIp: '203.0.113.9' } };
    for (const shown of [
      {},
      bearer('llo_guess'),
      bearer('a.b.c'),
      bearer(revoked.token),
      { authorizationToken: 'x' },
    ]) {
      const error = await ask({ ...shown, requestContext }).catch((reason: unknown) => reason);
      expect(error).toMatchObject({ message: 'Unauthorized', stack: '' });
    }
    const spans: AnyJson[] = await installation.spans("entity_type = 'access_denied' and tenant_id = 'system'");
    expect(new Set(spans.map(({ name }) => name))).toEqual(
      new Set(['TOKEN_MISSING', 'TOKEN_INVALID', 'TOKEN_REVOKED']),
    );
    expect(spans.find(({ name }) => name === 'TOKEN_REVOKED').content.sources).toEqual({ '203.0.113.9': 1 });
    expect(JSON.stringify(spans)).not.toContain('guess');
  });

  it('makes a token for whom an operator names, and that one may make others', async () => {
    const wish = { user_id: 'carol', tenant_id: 'cern', name: 'first', scopes: 'tokens:manage spans:read' };
    const made = await handler({ api_token: wish }, CONTEXT);
    const { token } = made as { token: string };
    expect((await ask(bearer(token))).context).toMatchObject({ user_id: 'carol', tenant_id: 'cern' });
    const { as } = openApi(installation.stage0);
    await as(token).post('/api/tokens', { name: 'second', scopes: ['spans:read'] }, 201);

    const count = await installation.count();
    for (const [change, field] of [
      [{ tenant_id: undefined }, 'api_token.tenant_id'],
      [{ user_id: '' }, 'api_token.user_id'],
      [{ expires_in_s: 0 }, 'api_token.expires_in_s'],
      [{ expires_in_s: 315_360_001 }, 'api_token.expires_in_s: expected a whole number from 1 to 315360000'],
      [{ scope: '*' }, 'api_token.scope'],
    ] as const) {
      const error = await handler({ api_token: { ...wish, ...change } }, CONTEXT).catch((reason: unknown) => reason);
      expect((error as Error).message).toContain(field);
    }
    // What API Gateway sends is never taken for an operator's wish.
    const forged = { methodArn: ARN, api_token: wish };
    await expect(handler(forged, CONTEXT)).rejects.toThrow(/^Unauthorized$/);
    expect(await installation.count()).toBe(count);
  });
});
