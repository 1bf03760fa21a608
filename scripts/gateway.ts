/**
 * `npm run gateway`: write what API Gateway is told about the HTTP API, from the routes that the API itself has. A test
 * holds the file equal to what this makes, so that no route is without its gateway, or the other way round.
 */
import { writeFile } from 'node:fs/promises';
import { createApi } from '../src/api/index.ts';
import type { Authenticator } from '../src/identity/index.ts';
import type { Stage0 } from '../src/stage0/index.ts';

/** A template of Terraform: `${…}` is filled in by `infra/modules/rest_api`. */
export const GATEWAY_FILE = new URL('../infra/modules/rest_api/definition.json.tftpl', import.meta.url);

/** As a JSON schema says it, as far as ours do. */
interface Schema {
  $ref?: string;
  type?: string | string[];
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  anyOf?: Schema[];
  enum?: unknown[];
  minimum?: number;
  maximum?: number;
  minLength?: number;
  maxLength?: number;
}

interface Operation {
  operationId: string;
  security: object[];
  parameters?: { name: string; in: string }[];
  requestBody?: { content: { 'application/json': { schema: Schema } } };
}

interface Document {
  info: { title: string; version: string };
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, Schema> };
}

type Json = Record<string, unknown>;

/** Served by a function of its own, see `src/lambda/api-stream.ts`. */
const STREAM_PATH = '/api/timeline/stream';

/**
 * Pages and files that are in no OpenAPI document. A browser opens them and can send no token with that; they hold
 * nothing of anybody's.
 */
const PUBLIC_PAGES = ['/openapi.json', '/docs', '/console', '/console/{name}'];

/** The definition, OpenAPI 3.0.1 with the extensions of API Gateway, which takes no 3.1. */
export async function gatewayDefinition(): Promise<Json> {
  const document = await ownDocument();
  const schemas = document.components.schemas;
  const models: Record<string, Json> = {};
  const paths: Record<string, Json> = {};

  for (const [path, methods] of Object.entries(document.paths)) {
    const item: Json = {};
    for (const [method, operation] of Object.entries(methods)) {
      const body = operation.requestBody?.content['application/json'].schema;
      const model = body && nameOf(body);
      if (model !== undefined) models[model] = modelOf({ $ref: `#/components/schemas/${model}` }, schemas);
      item[method] = {
        operationId: operation.operationId,
        ...parametersOf(path),
        ...(model === undefined
          ? {}
          : { requestBody: { required: true, content: { 'application/json': { schema: body } } } }),
        ...(method === 'post' ? { 'x-amazon-apigateway-request-validator': 'all' } : {}),
        ...(operation.security.length === 0
          ? {}
          : { security: [path === STREAM_PATH ? { bearerOrTicket: [] } : { bearer: [] }] }),
        responses: ANY_RESPONSE,
        'x-amazon-apigateway-integration': path === STREAM_PATH ? STREAM_INTEGRATION : INTEGRATION,
      };
    }
    // A browser's first question comes without a token; the API answers it, which knows whose pages may ask.
    if (Object.values(methods).some(({ security }) => security.length > 0)) item.options = publicOperation(path);
    paths[path] = item;
  }
  for (const path of PUBLIC_PAGES) paths[path] = { get: publicOperation(path) };

  return {
    openapi: '3.0.1',
    info: { title: '${name}', version: document.info.version },
    paths,
    components: { schemas: models, securitySchemes: SECURITY_SCHEMES },
    'x-amazon-apigateway-request-validators': {
      all: { validateRequestBody: true, validateRequestParameters: true },
    },
    'x-amazon-apigateway-gateway-responses': gatewayResponses(),
  };
}

/** What the API tells of itself. No route is called but this one, so there is nothing behind the others. */
async function ownDocument(): Promise<Document> {
  const app = createApi({
    stage0: { tenantMasterKey: new Uint8Array(32) } as Stage0,
    trustedKeys: { root: new Set(), runtime: new Set() } as never,
    authenticator: {} as Authenticator,
  });
  return (await app.request('/openapi.json')).json() as Promise<Document>;
}

const INTEGRATION = {
  type: 'aws_proxy',
  httpMethod: 'POST',
  uri: '${api_uri}',
  timeoutInMillis: 29_000,
};

/** https://docs.aws.amazon.com/apigateway/latest/developerguide/response-transfer-mode.html */
const STREAM_INTEGRATION = {
  ...INTEGRATION,
  uri: '${stream_uri}',
  responseTransferMode: 'STREAM',
  timeoutInMillis: 900_000,
};

/** What a proxy integration answers is the function's own; OpenAPI wants one to be named. */
const ANY_RESPONSE = { '200': { description: 'As /openapi.json says.' } };

const AUTHORIZER = { type: 'request', authorizerUri: '${authorizer_uri}' };

/** Whom the authorizer knew the API asks again, so its answer may be kept for a while; one for a ticket is not. */
const SECURITY_SCHEMES = {
  bearer: {
    type: 'apiKey',
    name: 'Authorization',
    in: 'header',
    'x-amazon-apigateway-authtype': 'custom',
    'x-amazon-apigateway-authorizer': {
      ...AUTHORIZER,
      identitySource: 'method.request.header.Authorization',
      authorizerResultTtlInSeconds: 60,
    },
  },
  bearerOrTicket: {
    type: 'apiKey',
    name: 'Unused',
    in: 'header',
    'x-amazon-apigateway-authtype': 'custom',
    'x-amazon-apigateway-authorizer': { ...AUTHORIZER, authorizerResultTtlInSeconds: 0 },
  },
};

/**
 * What API Gateway says by itself, as the API would (RFC 9457). Any page may read these: they hold nothing, and one that
 * may ask has to see that its token has ended.
 */
function gatewayResponses(): Json {
  const problem = (status: number | undefined, code: string) => ({
    ...(status === undefined ? {} : { statusCode: String(status) }),
    responseParameters: {
      'gatewayresponse.header.Content-Type': "'application/problem+json'",
      'gatewayresponse.header.Access-Control-Allow-Origin': "'*'",
      'gatewayresponse.header.Cache-Control': "'no-store'",
    },
    responseTemplates: {
      // The message comes in its quotes.
      'application/json': `{"type":"about:blank","title":"${code.toLowerCase().replaceAll('_', ' ')}",${
        status === undefined ? '' : `"status":${status},`
      }"code":"${code}","detail":$context.error.messageString}`,
    },
  });
  return {
    BAD_REQUEST_BODY: problem(400, 'FIELD_INVALID'),
    BAD_REQUEST_PARAMETERS: problem(400, 'FIELD_INVALID'),
    UNAUTHORIZED: problem(401, 'TOKEN_INVALID'),
    ACCESS_DENIED: problem(403, 'TOKEN_INVALID'),
    // What API Gateway calls a path that it does not know.
    MISSING_AUTHENTICATION_TOKEN: problem(404, 'ROUTE_NOT_FOUND'),
    REQUEST_TOO_LARGE: problem(413, 'BODY_TOO_LARGE'),
    THROTTLED: problem(429, 'RATE_LIMITED'),
    INTEGRATION_FAILURE: problem(503, 'FUNCTION_FAILED'),
    INTEGRATION_TIMEOUT: problem(504, 'TIMEOUT'),
    DEFAULT_4XX: problem(undefined, 'REQUEST_REFUSED'),
    DEFAULT_5XX: problem(undefined, 'INTERNAL'),
  };
}

function publicOperation(path: string): Json {
  return { ...parametersOf(path), responses: ANY_RESPONSE, 'x-amazon-apigateway-integration': INTEGRATION };
}

function parametersOf(path: string): Json {
  const names = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
  if (names.length === 0) return {};
  return { parameters: names.map((name) => ({ name, in: 'path', required: true, schema: { type: 'string' } })) };
}

/**
 * A schema as a model of API Gateway, which knows draft 4 and of that neither `anyOf` nor `additionalProperties`, and no
 * null. It says less than the schema and never more: whatever the API takes passes, and the rest the API refuses itself.
 *
 * https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-known-issues.html
 */
export function modelOf(schema: Schema, schemas: Record<string, Schema>): Json {
  if (schema.$ref !== undefined) return modelOf(schemas[nameOf(schema) as string] as Schema, schemas);
  if (schema.anyOf !== undefined) {
    const forms = schema.anyOf.map((form) => modelOf(form, schemas));
    return forms.every(({ type }) => type === 'object') ? { type: 'object' } : {};
  }
  const { type, properties, required, items, enum: values, minimum, maximum, minLength, maxLength } = schema;
  if (typeof type !== 'string') return {};
  const said = Object.entries(properties ?? {})
    .map(([name, property]) => [name, modelOf(property, schemas)] as const)
    .filter(([, property]) => Object.keys(property).length > 0);
  return Object.fromEntries(
    Object.entries({
      // 1.0 is a whole number to us.
      type: type === 'integer' ? 'number' : type,
      properties: said.length === 0 ? undefined : Object.fromEntries(said),
      required,
      items: type === 'array' ? modelOf(items ?? {}, schemas) : undefined,
      enum: values,
      minimum,
      maximum,
      minLength,
      maxLength,
    }).filter(([, value]) => value !== undefined),
  );
}

/** API Gateway allows letters and digits, and ours are nothing else. */
function nameOf({ $ref }: Schema): string | undefined {
  return $ref?.replace('#/components/schemas/', '');
}

export function gatewayText(definition: Json): string {
  return `${JSON.stringify(definition, null, 2)}\n`;
}

if (import.meta.main) {
  await writeFile(GATEWAY_FILE, gatewayText(await gatewayDefinition()));
  process.stdout.write(`wrote ${GATEWAY_FILE.pathname}\n`);
}
