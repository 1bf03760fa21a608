import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { getRequestListener } from '@hono/node-server';
import { unzipSync } from 'fflate';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildAll, FUNCTIONS } from '../../scripts/build.ts';
import { createApiToken } from '../../src/identity/index.ts';
import { appendSpans, Database, type SpanDraft } from '../../src/ledger/index.ts';
import { createLambdaApi, type LambdaFunction } from '../../src/local/lambda-api.ts';
import { nodeEd25519 } from '../../src/span/ed25519-node.ts';
import { createSigner } from '../../src/span/index.ts';
import type { Stage0 } from '../../src/stage0/index.ts';
import { DynamoDb } from '../aws/dynamodb.ts';
import { type Client, GatewayServer } from '../aws/gateway-server.ts';
import { MetricsEndpoint } from '../aws/metrics-endpoint.ts';
import { descendantsOf, Program } from '../local/stack-process.ts';
import { startTemporaryPostgres, withClient, withDatabase } from '../support/postgres-server.ts';
import { FunctionProcess, type Invocation } from './function-process.ts';
import { SecretsManager } from './secrets-manager.ts';

const BUNDLE_BYTES_MAX = 1024 * 1024;
/** Those with the HTTP routes, and so with their schemas. */
const API_BUNDLE_BYTES_MAX = 1.25 * 1024 * 1024;
const RUN_CODE = '00000000-0000-4000-8000-000000000001';
const PLAN_PAYLOAD = { boot_function_id: RUN_CODE, user_id: 'test', tenant_id: 'system' };
const DIST = new URL('../../dist', import.meta.url).pathname;

/** Every secret has this in it, so that one that comes out anywhere is seen. */
const MARK = 'f00dfacef00dface';
const secretOf = (name: string) => Buffer.from(name).toString('hex').padEnd(48, '0').slice(0, 48) + MARK;
const publicKeyOf = (secret: string) => createSigner(nodeEd25519, Buffer.from(secret, 'hex')).publicKey;

const MIGRATE = 'loglineos-db-migration';
const SEED = 'loglineos-seed';
const STAGE0 = 'loglineos-stage0-loader';
const OBSERVER = 'loglineos-observer';
const WORKER = 'loglineos-request-worker';
const AGENT = 'loglineos-policy-agent';
const AUTHORIZER = 'loglineos-authorizer';
const API = 'loglineos-api';
const API_STREAM = 'loglineos-api-stream';
const TIMELINE = 'loglineos-timeline';
const READER = 'loglineos-timeline-reader';
const SENDER = 'loglineos-timeline-sender';
const AUDITOR = 'loglineos-auditor';
const SANDBOX = 'loglineos-sandbox';

let folder: string;
let built: Awaited<ReturnType<typeof buildAll>>;
let postgres: Awaited<ReturnType<typeof startTemporaryPostgres>>;
let manager: SecretsManager;
let metrics: MetricsEndpoint;
let dynamodb: DynamoDb;
let gateway: GatewayServer | undefined;
const lambdas: Server[] = [];
let databaseUrl: string;
const env: Record<string, Record<string, string>> = {};
const started: FunctionProcess[] = [];

beforeAll(async () => {
  built = await buildAll();
  folder = await mkdtemp(join(tmpdir(), 'loglineos-bundles-'));
  // As Lambda unpacks it: what is not in the zip is not there.
  for (const { name } of built) {
    for (const [path, bytes] of Object.entries(unzipSync(await readFile(join(DIST, `${name}.zip`))))) {
      await mkdir(dirname(join(folder, name, path)), { recursive: true });
      await writeFile(join(folder, name, path), bytes);
    }
  }
  manager = await SecretsManager.start();
  postgres = await startTemporaryPostgres();
  await withClient(postgres.url, async (client) => {
    await client.query('create database deployed');
    await client.query(`create role master superuser login password '${secretOf('master')}'`);
  });
  databaseUrl = withDatabase(postgres.url, 'deployed');

  const { port } = new URL(databaseUrl);
  const database = (user: string) => ({
    ...manager.env,
    DATABASE_HOST: '127.0.0.1',
    DATABASE_PORT: port,
    DATABASE_NAME: 'deployed',
    DATABASE_USER: user,
    DATABASE_SECRET_ARN: manager.put(user, { password: secretOf(user) }),
  });
  const keys = { root_key: secretOf('root'), runtime_key: secretOf('runtime'), tenant_master_key: secretOf('tenants') };
  env[MIGRATE] = {
    ...database('master'),
    APP_LOGIN_SECRET_ARN: manager.put('loglineos_app', { password: secretOf('loglineos_app') }),
    SEEDER_LOGIN_SECRET_ARN: manager.put('loglineos_seeder', { password: secretOf('loglineos_seeder') }),
    AUDITOR_LOGIN_SECRET_ARN: manager.put('loglineos_auditor', { password: secretOf('loglineos_auditor') }),
  };
  env[SEED] = {
    ...database('loglineos_seeder'),
    ROOT_SECRET_ARN: manager.put('root', { root_key: keys.root_key }),
    TRUSTED_ROOT_KEYS: publicKeyOf(keys.root_key),
  };
  env[STAGE0] = {
    ...database('loglineos_app'),
    RUNTIME_SECRET_ARN: manager.put('runtime', {
      runtime_key: keys.runtime_key,
      tenant_master_key: keys.tenant_master_key,
    }),
    TRUSTED_ROOT_KEYS: publicKeyOf(keys.root_key),
    TRUSTED_RUNTIME_KEYS: publicKeyOf(keys.runtime_key),
  };
  metrics = await MetricsEndpoint.start();
  const { AWS_ENDPOINT_URL_CLOUDWATCH = '' } = process.env;
  for (const name of [OBSERVER, WORKER, AGENT]) env[name] = { ...env[STAGE0], AWS_ENDPOINT_URL_CLOUDWATCH };
  for (const name of [AUTHORIZER, API, API_STREAM]) env[name] = env[STAGE0];
  const { RUNTIME_SECRET_ARN: _none, ...withoutKeys } = env[STAGE0];
  env[READER] = withoutKeys;
  dynamodb = await DynamoDb.start();
  env[AUDITOR] = {
    ...database('loglineos_auditor'),
    ...dynamodb.env,
    AWS_ENDPOINT_URL_CLOUDWATCH,
    TRUSTED_ROOT_KEYS: publicKeyOf(keys.root_key),
    TRUSTED_RUNTIME_KEYS: publicKeyOf(keys.runtime_key),
    AUDIT_TABLE: await dynamodb.createTable('id'),
    ENVIRONMENT: 'test',
  };
  env[TIMELINE] = { ...dynamodb.env, CONNECTIONS_TABLE: await dynamodb.createConnectionsTable() };
});

afterAll(async () => {
  await Promise.all(started.map((process) => process.end()));
  await manager?.stop();
  await metrics?.stop();
  await gateway?.stop();
  for (const server of lambdas) {
    server.closeAllConnections();
    server.close();
  }
  await dynamodb?.stop();
  await postgres?.stop();
  if (folder !== undefined) await rm(folder, { recursive: true, force: true });
});

function start(name: string, more: Record<string, string> = {}, remainingMs?: number): FunctionProcess {
  const container = new FunctionProcess(join(folder, name, 'index.mjs'), { ...env[name], ...more }, remainingMs);
  started.push(container);
  return container;
}

async function answered(invocation: Promise<Invocation>) {
  const { answer, error } = await invocation;
  if (error !== undefined) throw Object.assign(new Error(error.message), { name: error.name });
  return answer;
}

/** Invoke of the Lambda API for these functions. @returns its address */
async function serveLambda(functions: Record<string, LambdaFunction>): Promise<string> {
  const api = createLambdaApi(functions, () => {});
  const server = createServer(getRequestListener((request) => api.fetch(request)));
  lambdas.push(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** A token of somebody's, as the API gives them. */
async function token(scopes = ['*'], expires_in_s = 600): Promise<string> {
  const url = new URL(databaseUrl);
  [url.username, url.password] = ['loglineos_app', secretOf('loglineos_app')];
  const database = new Database({ url: url.href, applicationName: 'test' });
  const signer = createSigner(nodeEd25519, Buffer.from(secretOf('runtime'), 'hex'));
  const tenantMasterKey = Buffer.from(secretOf('tenants'), 'hex');
  const stage0 = { database, signer, tenantMasterKey, now: () => new Date() } as unknown as Stage0;
  const caller = { identity: { userId: 'una', tenantId: 'unit' }, scopes: ['*'], tokenId: null, expiresAt: null };
  const made = await createApiToken(stage0, caller, { name: 'a token', scopes, expires_in_s }).finally(() =>
    database.close(),
  );
  return made.token;
}

/** A request as a REST API's proxy integration passes it on. */
function restEvent(
  method: string,
  path: string,
  { token, body, query }: { token?: string; body?: unknown; query?: Record<string, string> } = {},
) {
  const headers: Record<string, string> = { Host: 'api.example', 'Content-Type': 'application/json' };
  if (token !== undefined) headers.Authorization = `Bearer ${token}`;
  const several = (values: Record<string, string>) =>
    Object.fromEntries(Object.entries(values).map(([name, value]) => [name, [value]]));
  return {
    resource: '/{proxy+}',
    path,
    httpMethod: method,
    headers,
    multiValueHeaders: several(headers),
    queryStringParameters: query ?? null,
    multiValueQueryStringParameters: query === undefined ? null : several(query),
    pathParameters: { proxy: path.slice(1) },
    stageVariables: null,
    requestContext: {
      accountId: '123456789012',
      apiId: 'api',
      domainName: 'api.example',
      httpMethod: method,
      identity: { sourceIp: '192.0.2.1', userAgent: 'test' },
      path: `/prod${path}`,
      protocol: 'HTTP/1.1',
      requestId: 'c6af9ac6-7b61-11e6-9a41-93e8deadbeef',
      requestTimeEpoch: Date.now(),
      resourcePath: '/{proxy+}',
      stage: 'prod',
    },
    body: body === undefined ? null : JSON.stringify(body),
    isBase64Encoded: false,
  };
}

const count = () =>
  withClient(
    databaseUrl,
    async (client) => (await client.query('select count(*)::int as n from ledger.universal_registry')).rows[0].n,
  );

describe('npm run build', () => {
  it('makes a bundle of at most 1 MB for each function, and a little more for those with the HTTP routes', () => {
    const withRoutes = [API, API_STREAM];
    const names = [
      MIGRATE,
      SEED,
      STAGE0,
      OBSERVER,
      WORKER,
      AGENT,
      AUTHORIZER,
      TIMELINE,
      READER,
      SENDER,
      AUDITOR,
      SANDBOX,
    ];
    expect(built.map(({ name }) => name).sort()).toEqual([...names, ...withRoutes].sort());
    expect(FUNCTIONS.map(({ name }) => name)).toEqual(built.map(({ name }) => name));
    for (const { name, bundle_bytes, zip_bytes } of built) {
      const max = withRoutes.includes(name) ? API_BUNDLE_BYTES_MAX : BUNDLE_BYTES_MAX;
      expect(bundle_bytes, name).toBeLessThanOrEqual(max);
      expect(zip_bytes, name).toBeLessThan(bundle_bytes);
    }
  });

  it('makes the same zips again, byte for byte', async () => {
    expect(await buildAll()).toEqual(built);
  });

  it('packs no source map, no test and no secret', async () => {
    for (const { name } of built) {
      const files = Object.keys(unzipSync(await readFile(join(DIST, `${name}.zip`))));
      expect(files).toContain('index.mjs');
      for (const file of files)
        expect(file).toMatch(
          /^[\w-]+\.(mjs|cjs)$|^sql\/\d{4}_\w+\.sql$|^ROW\/\w+\/[\w-]+\.(ndjson|js|yaml)$|^console\/[a-z]+\.(html|css|js|svg)$/,
        );
    }
  });
});

describe('the deployed functions, one after the other', () => {
  it('migrate an empty database, and find nothing to do the second time', async () => {
    const migrate = start(MIGRATE);
    const first = await migrate.invoke({});
    expect(first.answer?.applied?.[0]).toBe('0001_roles.sql');
    const { version } = first.answer;
    expect(version).toBe(first.answer.applied.length);
    expect((await migrate.invoke({})).answer).toEqual({ version, applied: [] });
  });

  it('seed it, and append nothing the second time, warm or cold', async () => {
    const seed = start(SEED);
    const first = await seed.invoke({});
    expect(first.answer).toMatchObject({ unchanged: 0 });
    expect(first.answer.appended.map(({ name }: { name: string }) => name)).toEqual(
      expect.arrayContaining(['run_code_kernel', 'kernel_manifest', 'stage0_loader']),
    );
    const unchanged = { appended: [], unchanged: first.answer.appended.length };
    expect((await seed.invoke({})).answer).toEqual(unchanged);
    expect((await start(SEED).invoke({})).answer).toEqual(unchanged);
  });

  it('boot with the payload of the plan, and leave its execution in the ledger', async () => {
    const stage0 = start(STAGE0);
    for (const when of ['cold', 'warm']) {
      const { answer, error } = await stage0.invoke(PLAN_PAYLOAD);
      expect(error, when).toBeUndefined();
      expect(answer).toMatchObject({ ok: true, status: 'complete', function_id: RUN_CODE, output: { result: 42 } });
      await withClient(databaseUrl, async (client) => {
        const { rows } = await client.query('select caused_by, status from ledger.universal_registry where id = $1', [
          answer.execution_id,
        ]);
        expect(rows).toEqual([{ caused_by: answer.boot_event_id, status: 'complete' }]);
      });
    }
  });

  it('fail as a function error of ours, with its code, without a stack', async () => {
    const before = await count();
    const stage0 = start(STAGE0);
    for (const [event, code] of [
      [{}, 'FIELD_MISSING'],
      [{ ...PLAN_PAYLOAD, boot_function_id: 'run_code' }, 'FIELD_INVALID'],
      [{ ...PLAN_PAYLOAD, boot_function_id: '00000000-0000-4000-8000-00000000dead' }, 'KERNEL_NOT_FOUND'],
      [null, 'FIELD_INVALID'],
    ]) {
      expect((await stage0.invoke(event)).error).toEqual({
        name: code,
        message: expect.stringMatching(/./),
        stack: '',
      });
    }
    expect(await count()).toBe(before);
  });

  it('end a function that runs for ever before Lambda ends them, and record it', async () => {
    // Of these, 3 s are kept back for the ending, and a cold start on a busy machine may take one.
    const stage0 = start(STAGE0, {}, 6_000);
    const startedAt = Date.now();
    const { answer } = await stage0.invoke({ ...PLAN_PAYLOAD, input: { code: 'for (;;);' } });
    expect(Date.now() - startedAt).toBeLessThan(6_000);
    expect(answer).toMatchObject({ ok: true, output: { status: 'timeout', error: { code: 'TIMEOUT' } } });
    await withClient(databaseUrl, async (client) => {
      const { rows } = await client.query(
        'select did, status, error from ledger.universal_registry where id = any ($1) order by did',
        [[answer.execution_id, answer.output.execution_id]],
      );
      expect(rows).toMatchObject([
        { did: 'ran_function', status: 'timeout', error: { code: 'TIMEOUT' } },
        { did: 'ran_kernel', status: 'complete' },
      ]);
    });
  });

  it('work a shift each: what is due is asked for, run, seen by the policies, and counted', async () => {
    const identity = { userId: 'una', tenantId: 'unit' };
    const signer = createSigner(nodeEd25519, Buffer.from(secretOf('runtime'), 'hex'));
    const url = new URL(databaseUrl);
    url.username = 'loglineos_app';
    url.password = secretOf('loglineos_app');
    const database = new Database({ url: url.href, applicationName: 'test' });
    const fn: SpanDraft = {
      entity_type: 'function',
      name: 'due',
      status: 'scheduled',
      code: 'return input',
      input: { n: 1 },
    };
    await appendSpans(database, [fn], { identity, signer, now: () => new Date() }).finally(() => database.close());
    const rows = (where: string) =>
      withClient(databaseUrl, async (client) => {
        const text = `select status from ledger.universal_registry where tenant_id = 'unit' and ${where} order by seq`;
        return (await client.query(text)).rows.map(({ status }) => status);
      });

    // Each gets as much time as leaves it a moment to work: no work is taken that could not end.
    const [observer, worker, agent] = [
      start(OBSERVER, {}, 13_000),
      start(WORKER, {}, 72_000),
      start(AGENT, {}, 20_000),
    ];
    expect(await observer.invoke({})).toMatchObject({ answer: { worked: true, output: { requested: 1 } } });
    expect(await rows(`entity_type = 'request'`)).toEqual(['scheduled']);
    expect(await worker.invoke({})).toMatchObject({ answer: { worked: true, output: { ended: { complete: 1 } } } });
    expect(await rows(`entity_type = 'request'`)).toEqual(['scheduled', 'complete']);
    expect(await rows(`entity_type = 'execution'`)).toEqual(['complete']);
    expect(await agent.invoke({})).toMatchObject({ answer: { worked: true } });
    expect(await rows(`entity_type = 'metric'`)).toHaveLength(1);

    const heartbeats = metrics.puts.flatMap(({ MetricData }) =>
      MetricData.filter(({ MetricName }) => MetricName === 'TickHeartbeat'),
    );
    const roles = heartbeats.map(({ Dimensions }) => Dimensions.find(({ Name }) => Name === 'Role')?.Value);
    expect([...new Set(roles)].sort()).toEqual(['observer', 'policy-agent', 'request-worker']);
    expect(metrics.faults).toEqual([]);
  });

  it('answer over HTTP whoever has a token, behind a REST API', async () => {
    const api = start(API);
    expect(await api.invoke(restEvent('GET', '/health'))).toMatchObject({ answer: { statusCode: 200 } });
    const draft = { entity_type: 'note', did: 'wrote', this: 'ü', content: { tenant_id: 'other' } };
    const posted = await api.invoke(restEvent('POST', '/api/spans', { token: await token(), body: draft }));
    expect(posted).toMatchObject({ answer: { statusCode: 201, isBase64Encoded: false } });
    const [{ id }] = JSON.parse(posted.answer.body).spans ?? [JSON.parse(posted.answer.body)];
    const found = await api.invoke(restEvent('GET', `/api/spans/${id}`, { token: await token() }));
    expect(JSON.parse(found.answer.body)).toMatchObject({ id, this: 'ü', owner_id: 'una', tenant_id: 'unit' });
    const booted = await api.invoke(
      restEvent('POST', '/api/boot', { token: await token(), body: { boot_function_id: RUN_CODE } }),
    );
    expect(JSON.parse(booted.answer.body)).toMatchObject({ ok: true, output: { result: 42 } });

    for (const [event, status, code] of [
      [restEvent('GET', '/api/me'), 401, 'TOKEN_MISSING'],
      [restEvent('GET', '/api/me', { token: `llo_${'x'.repeat(43)}` }), 401, 'TOKEN_INVALID'],
      [restEvent('GET', '/api/spans', { token: await token(), query: { colour: 'red' } }), 400, 'FIELD_UNKNOWN'],
      [restEvent('GET', '/api/tokens', { token: await token(['spans:read']) }), 403, 'SCOPE_MISSING'],
      [restEvent('GET', '/nothing', { token: await token() }), 404, 'ROUTE_NOT_FOUND'],
    ] as const) {
      const { answer } = await api.invoke(event);
      expect([answer.statusCode, JSON.parse(answer.body).code], code).toEqual([status, code]);
    }
    expect(api.output).toMatch(/"path":"\/api\/me","status":401,"FunctionName":"the-function",.*"RequestsRefused":1/);
  });

  it('answer 503 while a secret cannot be read, and not what it is', async () => {
    const api = start(API, { RUNTIME_SECRET_ARN: 'arn:aws:secretsmanager:eu-central-1:123456789012:secret:nowhere' });
    const { answer } = await api.invoke(restEvent('GET', '/health'));
    expect([answer.statusCode, JSON.parse(answer.body).code]).toEqual([503, 'SECRET_UNAVAILABLE']);
  });

  it('stream the timeline until the time is up, and say how to go on', async () => {
    const stream = start(API_STREAM, {}, 8_000);
    const event = restEvent('GET', '/api/timeline/stream', { token: await token(), query: { entity_type: 'note' } });
    for (const when of ['cold', 'warm']) {
      const { answer } = await stream.invoke(event);
      expect(answer, when).toMatchObject({
        statusCode: 200,
        headers: { 'content-type': expect.stringMatching(/^text\/event-stream/) },
      });
      const events = [...answer.body.matchAll(/^event: (\w+)$/gm)].map(([, name]) => name);
      expect(events).toEqual(['span', 'caught_up', 'end']);
      expect(answer.body).toContain('data: {"code":"STOPPING"}');
    }
    const refused = await stream.invoke(restEvent('GET', '/api/timeline/stream'));
    expect(refused.answer).toMatchObject({ statusCode: 401 });
  });

  it('send the timeline over a WebSocket, from the ledger to outside of its network', async () => {
    const [authorizer, timeline, reader] = [start(AUTHORIZER), start(TIMELINE), start(READER)];
    const route = (event: unknown) => answered(timeline.invoke(event));
    const routes = { $connect: route, $disconnect: route, $default: route, subscribe: route, ping: route };
    gateway = await GatewayServer.start({ authorize: (event) => answered(authorizer.invoke(event)), routes });
    const sender = start(
      SENDER,
      {
        ...env[TIMELINE],
        AWS_ENDPOINT_URL_LAMBDA: await serveLambda({ [READER]: (event) => answered(reader.invoke(event)) }),
        READER_FUNCTION: READER,
        SOCKETS_ENDPOINT: gateway.endpoint,
      },
      24_000,
    );

    expect(await gateway.connect()).toBe(401);
    expect(await gateway.connect('', { Authorization: 'Bearer llo_unknown' })).toBe(401);
    expect(await gateway.connect('', { Authorization: `Bearer ${await token(['boot'])}` })).toBe(403);
    const asked = await start(API).invoke(restEvent('POST', '/api/tickets', { token: await token() }));
    const { ticket } = JSON.parse(asked.answer.body);
    // Its time is short: by now the others have started.
    const sent = sender.invoke({});
    const client = (await gateway.connect(`?ticket=${ticket}`)) as Client;
    client.send({ action: 'subscribe', filter: { entity_type: 'note' } });
    await client.type('caught_up');
    expect(client.ofType('span').map(({ span }) => span.this)).toEqual(['ü']);

    const short = (await gateway.connect('', { Authorization: `Bearer ${await token(['*'], 3)}` })) as Client;
    expect(await short.type('end')).toEqual({ type: 'end', code: 'TOKEN_EXPIRED' });
    expect(await sent).toMatchObject({ answer: { ended: { TOKEN_EXPIRED: 1 }, connections: 2 } });
    for (const { output } of [authorizer, timeline, reader, sender]) expect(output).not.toContain(ticket);
    expect(sender.output).toContain('"SocketFrames"');
  });

  it('audit the ledger, cold and warm, and publish what was found', async () => {
    const auditor = start(AUDITOR);
    const rows = await count();
    // The event of a schedule that was given none.
    const scheduled = { version: '0', 'detail-type': 'Scheduled Event', source: 'aws.scheduler', detail: '{}' };
    const first = await auditor.invoke(scheduled);
    expect(first.answer).toMatchObject({ worked: true, ok: true, new_rows: rows, anchored_rows: rows, is_whole: true });
    expect((await auditor.invoke({})).answer).toMatchObject({ ok: true, new_rows: 0, history_rows: rows });
    const change = (to: string) =>
      withClient(databaseUrl, (client) =>
        client.query(`alter table ledger.universal_registry disable trigger all;
                      update ledger.universal_registry set name = '${to}' where id = '${RUN_CODE}';
                      alter table ledger.universal_registry enable trigger all`),
      );
    await change('evil');
    const { answer, error } = await start(AUDITOR).invoke({ all: true });
    expect(error).toBeUndefined();
    expect(answer).toMatchObject({ ok: false, problem_count: 1, problems: [{ id: RUN_CODE, class: 'hash' }] });
    await change('run_code_kernel');
    expect((await auditor.invoke({})).answer).toMatchObject({ ok: false, problem_count: 1 });
    expect((await auditor.invoke({ acknowledge: true })).answer).toMatchObject({ ok: true, problem_count: 0 });
    expect((await auditor.invoke({ restart: 'yes' })).error).toMatchObject({ name: 'FIELD_INVALID' });

    const dimensions = [{ Name: 'Environment', Value: 'test' }];
    const published = metrics.puts.filter(({ MetricData }) =>
      MetricData.some(({ MetricName }) => MetricName === 'AuditRuns'),
    );
    const value = (name: string) =>
      published.map(({ MetricData }) => MetricData.find(({ MetricName }) => MetricName === name)?.Value);
    expect(published[0]?.MetricData.map(({ Dimensions }) => Dimensions)).toEqual(Array(4).fill(dimensions));
    expect(value('AuditRuns')).toEqual([1, 1, 1, 1, 1]);
    expect(value('AuditProblems')).toEqual([0, 0, 1, 1, 0]);
    expect(value('AuditedSpans')).toEqual([2 * rows, rows, rows, rows, rows]);
    expect(value('AuditLagSpans')).toEqual([0, 0, 0, 0, 0]);
    expect(metrics.faults).toEqual([]);
    expect(auditor.output).toMatch(
      /"level":"error","function":"[\w-]+".*"message":"the ledger was audited".*"class":"hash"/,
    );
  });

  it('audit it though the metrics are not taken, and fail where the anchors cannot be reached', async () => {
    const silent = start(AUDITOR, { AWS_ENDPOINT_URL_CLOUDWATCH: 'http://127.0.0.1:9' });
    expect((await silent.invoke({})).answer).toMatchObject({ worked: true, ok: true });
    expect(silent.output).toContain('metrics were not published');
    const lost = start(AUDITOR, { AUDIT_TABLE: 'no-such-table' });
    expect((await lost.invoke({})).error).toMatchObject({ name: 'TABLE_UNAVAILABLE', stack: '' });
  });

  it('send untrusted code to a function that has nothing, and run kernels themselves', async () => {
    const credentials = { AWS_ACCESS_KEY_ID: 'AKID', AWS_SECRET_ACCESS_KEY: MARK, AWS_SESSION_TOKEN: MARK };
    const sandbox = start(SANDBOX, credentials);
    const endpoint = await serveLambda({ [SANDBOX]: (event) => answered(sandbox.invoke(event)) });
    const stage0 = start(STAGE0, { AWS_ENDPOINT_URL_LAMBDA: endpoint, SANDBOX_FUNCTION: SANDBOX });
    const run = (code: string) => stage0.invoke({ ...PLAN_PAYLOAD, input: { code, input: 20, timeout_ms: 300 } });
    expect((await run('return input + 1')).answer).toMatchObject({ ok: true, output: { result: 21 } });
    expect((await run('for (;;);')).answer).toMatchObject({
      output: { status: 'timeout', error: { code: 'TIMEOUT' } },
    });
    expect((await run('return 7')).answer).toMatchObject({ ok: true, output: { result: 7 } });

    const children = (parent: number) =>
      descendantsOf(parent).filter((pid) => readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes('child.cjs'));
    const kinds = (parent: number) =>
      children(parent).map((pid) => readFileSync(`/proc/${pid}/cmdline`, 'latin1').split('\0').at(-2));
    expect(new Set(kinds(stage0.pid))).toEqual(new Set(['kernel']));
    expect(kinds(sandbox.pid)).toEqual(['untrusted']);
    // The credentials of a role that allows nothing; and not even those.
    expect(readFileSync(`/proc/${sandbox.pid}/environ`, 'latin1')).toContain(MARK);
    for (const pid of children(sandbox.pid)) {
      expect(readFileSync(`/proc/${pid}/environ`, 'latin1')).not.toMatch(/AWS|AKID/);
    }
  });

  it('let nobody boot a kernel, or choose a limit that is none, in the function of untrusted code', async () => {
    const sandbox = start(SANDBOX);
    const job = {
      compartment: 'tenant:a',
      code: 'return input',
      file_name: 'f.js',
      entry: 'function',
      each: false,
      input: '{"a":1}',
      timeout_ms: 500,
      memory_mb: 64,
      output_bytes: 1_000,
    };
    expect((await sandbox.invoke(job)).answer).toMatchObject({ ok: true, output: { a: 1 } });
    for (const [change, code] of [
      [{ entry: 'main' }, 'FIELD_INVALID'],
      [{ trust: 'kernel' }, 'FIELD_UNKNOWN'],
      [{ timeout_ms: undefined }, 'FIELD_MISSING'],
      [{ memory_mb: -1 }, 'FIELD_INVALID'],
      [{ input: '{' }, 'FIELD_INVALID'],
      [{ compartment: 7 }, 'FIELD_INVALID'],
    ] as const) {
      expect((await sandbox.invoke({ ...job, ...change })).error, JSON.stringify(change)).toMatchObject({ name: code });
    }
  });

  it('end untrusted code before Lambda ends the function that runs it', async () => {
    const sandbox = start(SANDBOX, {}, 2_000);
    const { answer } = await sandbox.invoke({
      compartment: 'tenant:a',
      code: 'for (;;);',
      file_name: 'f.js',
      entry: 'function',
      each: false,
      input: 'null',
      timeout_ms: 60_000,
      memory_mb: 64,
      output_bytes: 1_000,
    });
    expect(answer).toMatchObject({ ok: false, error: { code: 'TIMEOUT' } });
  });

  it('leave a ledger in which every row proves itself', async () => {
    const { TRUSTED_ROOT_KEYS, TRUSTED_RUNTIME_KEYS } = env[STAGE0] as Record<string, string>;
    const { code, stdout } = await new Program('scripts/verify.ts', ['--json'], {
      DATABASE_URL: databaseUrl,
      TRUSTED_ROOT_KEYS,
      TRUSTED_RUNTIME_KEYS,
    }).ended;
    expect([code, JSON.parse(stdout)]).toMatchObject([0, { ok: true, problems: [] }]);
  });
});

describe('the configuration', () => {
  const optional = ['AWS_', 'DATABASE_PORT', 'ENVIRONMENT'];

  it.each([MIGRATE, SEED, STAGE0, READER, AUDITOR])(
    'names the variable that is missing, or malformed, and does not start: %s',
    async (name) => {
      const names = Object.keys(env[name] as object).filter(
        (variable) => !optional.some((prefix) => variable.startsWith(prefix)),
      );
      expect(names.length).toBeGreaterThanOrEqual(5);
      const attempts = names.flatMap((variable) => [
        { variable, code: 'FIELD_MISSING', change: (all: Record<string, string>) => delete all[variable] },
        { variable, code: 'FIELD_INVALID', change: (all: Record<string, string>) => (all[variable] = '') },
      ]);
      for (const { variable, code, change } of attempts) {
        const environment = { ...(env[name] as Record<string, string>) };
        change(environment);
        const process = new FunctionProcess(join(folder, name, 'index.mjs'), environment);
        started.push(process);
        expect(await process.end(), variable).not.toBe(0);
        expect(process.output).toContain(variable);
        expect(process.output).toContain(code);
      }
    },
  );
});

describe('a secret', () => {
  const asked = (name: string) => manager.asked.filter((arn) => arn.endsWith(`:${name}`)).length;
  const appSecret = 'loglineos_app';

  /** A new password for the app's login, whose sessions end. The secret is told it or not. */
  async function rotate(password: string, tellSecret: boolean): Promise<void> {
    await withClient(postgres.url, async (client) => {
      await client.query(`alter role loglineos_app password '${password}'`);
      await client.query(`select pg_terminate_backend(pid) from pg_stat_activity where usename = 'loglineos_app'`);
    });
    if (tellSecret) manager.put(appSecret, { password });
    await new Promise((resolve) => setTimeout(resolve, 200));
  }

  it('is asked for once, however many boots there are', async () => {
    const stage0 = start(STAGE0);
    const before = [asked(appSecret), asked('runtime')];
    for (let i = 0; i < 3; i++) expect((await stage0.invoke(PLAN_PAYLOAD)).answer).toMatchObject({ ok: true });
    expect([asked(appSecret), asked('runtime')]).toEqual(before.map((n) => n + 1));
  });

  it('that was rotated while the function is warm is asked for again, once, and the boot works', async () => {
    const stage0 = start(STAGE0);
    expect((await stage0.invoke(PLAN_PAYLOAD)).answer).toMatchObject({ ok: true });
    const before = asked(appSecret);
    await rotate(secretOf('rotated'), true);
    expect((await stage0.invoke(PLAN_PAYLOAD)).answer).toMatchObject({ ok: true });
    expect((await stage0.invoke(PLAN_PAYLOAD)).answer).toMatchObject({ ok: true });
    expect(asked(appSecret)).toBe(before + 1);
  });

  it('that does not open the database any more fails the boot, is asked for again once, and works when it is right again', async () => {
    const stage0 = start(STAGE0);
    expect((await stage0.invoke(PLAN_PAYLOAD)).answer).toMatchObject({ ok: true });
    const [before, rows] = [asked(appSecret), await count()];
    await rotate(secretOf('unknown'), false);
    expect((await stage0.invoke(PLAN_PAYLOAD)).error).toMatchObject({ name: 'DATABASE_UNAVAILABLE', stack: '' });
    expect(asked(appSecret)).toBe(before + 1);
    expect(await count()).toBe(rows);
    await rotate(secretOf('known'), true);
    expect((await stage0.invoke(PLAN_PAYLOAD)).answer).toMatchObject({ ok: true });
  });

  it.each<[string, string, string]>([
    ['is not there', 'nowhere', 'SECRET_UNAVAILABLE'],
    ['is no JSON', `no json ${MARK}`, 'SECRET_MALFORMED'],
    ['has no such field', JSON.stringify({ runtime: MARK }), 'SECRET_MALFORMED'],
  ])('that %s fails the boot, and works when it is put right', async (what, content, code) => {
    const name = `broken-${what.replaceAll(' ', '-')}`;
    const arn = manager.put(name, content);
    if (content === 'nowhere') manager.secrets.delete(arn);
    const stage0 = start(STAGE0, { RUNTIME_SECRET_ARN: arn });
    expect((await stage0.invoke(PLAN_PAYLOAD)).error).toMatchObject({
      name: code,
      message: expect.stringContaining(arn),
      stack: '',
    });
    manager.put(name, { runtime_key: secretOf('runtime'), tenant_master_key: secretOf('tenants') });
    expect((await stage0.invoke(PLAN_PAYLOAD)).answer).toMatchObject({ ok: true });
  });

  it('was asked for as Secrets Manager is to be asked, each time', () => {
    expect(manager.faults).toEqual([]);
    expect(manager.asked.length).toBeGreaterThan(10);
  });

  it('never came out: not in an answer, not in an error, not in a log', () => {
    expect(started.length).toBeGreaterThan(10);
    expect(started.map(({ output }) => output).join('\n')).toContain('execution_id');
    for (const { output } of started) expect(output).not.toContain(MARK);
  });
});
