import { readFile } from 'node:fs/promises';
import { z } from '@hono/zod-openapi';
import { Validator } from '@seriousme/openapi-schema-validator';
import { beforeAll, describe, expect, it } from 'vitest';
import { GATEWAY_FILE, gatewayDefinition, gatewayText, modelOf } from '../../scripts/gateway.ts';
import { createApi } from '../../src/api/index.ts';
import { operationsOf } from '../api/operations.ts';
import type { Hcl } from './infrastructure.ts';

/** The API with nothing behind it, to be asked what it is. */
const app = createApi({
  stage0: { tenantMasterKey: new Uint8Array(32) } as never,
  trustedKeys: {} as never,
  authenticator: {} as never,
  consoleFiles: async () => new Map(),
});

let document: Hcl;
let gateway: Hcl;
beforeAll(async () => {
  document = await (await app.request('/openapi.json')).json();
  gateway = await gatewayDefinition();
});

describe('what API Gateway is told', () => {
  it('is what the routes of today make it; if not, npm run gateway', async () => {
    expect(await readFile(GATEWAY_FILE, 'utf8')).toBe(gatewayText(gateway));
  });

  it('is OpenAPI 3.0, by a validator of others', async () => {
    const validator = new Validator();
    expect(await validator.validate(structuredClone(gateway))).toEqual({ valid: true });
    expect(validator.version).toBe('3.0');
  });

  it('has every route that the program has, and no other', () => {
    const own = app.routes
      .filter(({ method }) => method !== 'ALL')
      .flatMap(({ method, path }) =>
        (path === '/console/:name?' ? ['/console', '/console/:name'] : [path]).map(
          (each) => `${method.toLowerCase()} ${each.replaceAll(/:(\w+)/g, '{$1}')}`,
        ),
      );
    const told = operationsOf(gateway).map(({ path, method }) => `${method} ${path}`);
    // The stream is served by another function, so it is not in this app; it is in its document.
    expect(told.filter((route) => !route.startsWith('options ')).sort()).toEqual(
      [...new Set([...own, 'get /api/timeline/stream'])].sort(),
    );
    const asked = operationsOf(document).filter(({ operation }) => operation.security.length > 0);
    for (const { path } of asked) expect(told, path).toContain(`options ${path}`);
    expect(told.filter((route) => /\{proxy|\+\}/.test(route))).toEqual([]);
  });

  it('has no place to fill in but those that Terraform fills', async () => {
    const terraform = await readFile(new URL('main.tf', GATEWAY_FILE), 'utf8');
    const places = new Set([...gatewayText(gateway).matchAll(/[$%]\{(\w*)\}?/g)].map(([, name]) => name));
    expect([...places].sort()).toEqual(['api_uri', 'authorizer_uri', 'name', 'stream_uri']);
    for (const name of places) expect(terraform).toMatch(new RegExp(`^ {4}${name} += `, 'm'));
  });

  it('leaves room in the 20 KB of permissions that a function may have', () => {
    const statement = 450; // bytes of one, with the longest names
    const ofApi = operationsOf(gateway).filter(({ method }) => method !== 'options').length + 1;
    expect(ofApi * statement).toBeLessThan(20_480);
  });

  it('answers by itself as the program would, RFC 9457', () => {
    const problem = z.fromJSONSchema(document.components.schemas.Problem);
    const responses = Object.entries<Hcl>(gateway['x-amazon-apigateway-gateway-responses']);
    expect(responses.length).toBeGreaterThan(8);
    for (const [type, { statusCode, responseParameters, responseTemplates }] of responses) {
      const text = responseTemplates['application/json'].replace('$context.error.messageString', '"a message"');
      const said = JSON.parse(text);
      expect(text, type).not.toContain('$');
      expect(problem.safeParse({ status: 400, ...said }).error, type).toBeUndefined();
      expect(said.status === undefined ? undefined : String(said.status), type).toBe(statusCode);
      expect(responseParameters['gatewayresponse.header.Content-Type'], type).toBe("'application/problem+json'");
    }
  });
});

describe('the models of bodies', () => {
  const withBody = () => operationsOf(document).filter(({ operation }) => operation.requestBody !== undefined);
  const checkOf = (path: string) => {
    const { $ref } = gateway.paths[path].post.requestBody.content['application/json'].schema;
    return z.fromJSONSchema(gateway.components.schemas[$ref.replace('#/components/schemas/', '')], {
      defaultTarget: 'draft-4',
    });
  };

  it('let pass every body that the routes are described with', () => {
    expect(withBody().length).toBeGreaterThan(6);
    for (const { path, operation } of withBody()) {
      for (const [name, { value }] of Object.entries<Hcl>(operation.requestBody.content['application/json'].examples)) {
        expect(checkOf(path).safeParse(value).error?.issues, `${path} ${name}`).toBeUndefined();
      }
    }
  });

  it('refuse what is no object, lacks what must be there, or has the wrong type', () => {
    for (const { path } of withBody()) expect(checkOf(path).safeParse('text').success, path).toBe(false);
    expect(checkOf('/boot').safeParse({}).success).toBe(false);
    expect(checkOf('/api/execute').safeParse({ span_id: 7 }).success).toBe(false);
    expect(checkOf('/api/tokens').safeParse({ name: 'x', scopes: 'spans:read' }).success).toBe(false);
  });

  it('use no word that API Gateway does not know, and let pass null where the schema does', () => {
    const text = JSON.stringify(gateway.components.schemas);
    expect(text).not.toMatch(
      /anyOf|oneOf|allOf|additionalProperties|nullable|exclusive|minItems|maxItems|pattern|format|\$ref/,
    );
    for (const name of Object.keys(gateway.components.schemas)) expect(name).toMatch(/^[A-Za-z0-9]+$/);
    expect(modelOf({ type: ['integer', 'null'], minimum: 1 }, {})).toEqual({});
    expect(modelOf({ anyOf: [{ type: 'object' }, { type: 'string' }] }, {})).toEqual({});
    expect(modelOf({ type: 'integer', minimum: 1 }, {})).toEqual({ type: 'number', minimum: 1 });
  });
});
