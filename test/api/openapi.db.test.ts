import { createHash } from 'node:crypto';
import { z } from '@hono/zod-openapi';
import { Validator } from '@seriousme/openapi-schema-validator';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { appendSpans } from '../../src/ledger/index.ts';
import { type AnyJson, Installation } from '../stage0/installation.ts';
import { ALICE, contextOf, FULL_DRAFT } from '../support/spans.ts';
import { asAlice, openApi, openTimeline } from './http.ts';
import { examplesOf, type Operation, operationsOf, prepareExamples } from './operations.ts';

let installation: Installation;
let timeline: ReturnType<typeof openTimeline>;
let app: ReturnType<typeof openApi>;
let document: AnyJson;
let operations: Operation[];
beforeAll(async () => {
  installation = await Installation.create();
  await installation.seed();
  timeline = openTimeline(installation);
  app = openApi(installation, timeline);
  document = await (await app.request('/openapi.json')).json();
  operations = operationsOf(document);
  await prepareExamples(installation);
});
afterAll(async () => {
  await timeline?.stop();
  await installation?.close();
});

/** A schema of the document, as a check. */
function checkOf(schema: object) {
  const text = JSON.stringify({ ...schema, $defs: document.components.schemas });
  return z.fromJSONSchema(JSON.parse(text.replaceAll('#/components/schemas/', '#/$defs/')));
}

describe('/openapi.json', () => {
  it('is OpenAPI 3.1, by a validator of others, and asks for no token', async () => {
    const validator = new Validator();
    expect(await validator.validate(document)).toEqual({ valid: true });
    expect(validator.version).toBe('3.1');
    expect(await new Validator().validate({ ...document, paths: { '/x': { get: { parameters: 7 } } } })).toMatchObject({
      valid: false,
    });
  });

  it('describes every route of the app, and no other', () => {
    const own = ['/openapi.json', '/docs', '/ws'];
    const routes = app.routes
      .filter(({ method, path }) => method !== 'ALL' && !own.includes(path) && !path.startsWith('/console'))
      .map(({ method, path }) => `${method} ${path.replaceAll(/:(\w+)/g, '{$1}')}`);
    const described = operations.map(({ method, path }) => `${method.toUpperCase()} ${path}`);
    expect(described.toSorted()).toEqual([...new Set(routes)].toSorted());
    expect(described.length).toBeGreaterThan(14);
  });

  it('is the same where another process serves the streams', async () => {
    expect(await (await openApi(installation).request('/openapi.json')).json()).toEqual(document);
  });

  it('says of each its name, a summary, an example of both sides, and its problems', () => {
    const ids = operations.map(({ operation }) => operation.operationId);
    expect(new Set(ids).size).toBe(ids.length);
    for (const { path, method, operation } of operations) {
      const where = `${method} ${path}`;
      expect(operation.summary, where).toMatch(/^[A-Z].{10,}/);
      const [status, ...problems] = Object.keys(operation.responses);
      expect(status, where).toMatch(/^20[012]$/);
      const [answer] = Object.values<AnyJson>(operation.responses[status as string].content);
      expect(answer.example, where).toBeDefined();
      const check = checkOf(answer.schema).safeParse(answer.example);
      expect(check.error?.issues, where).toBeUndefined();
      for (const problem of problems) {
        expect(operation.responses[problem].content, where).toEqual({
          'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } },
        });
      }
      if (path === '/health') continue;
      expect(operation.security, where).toEqual([{ bearer: [] }]);
      expect(problems, where).toEqual(expect.arrayContaining(['401', '403', '500', '503']));
      const hasInput = operation.requestBody !== undefined || (operation.parameters ?? []).length > 0;
      expect(problems.includes('400'), where).toBe(hasInput);
      if (operation.requestBody === undefined) continue;
      const body = operation.requestBody.content['application/json'];
      const examples = Object.values<AnyJson>(body.examples);
      expect(examples.length, where).toBeGreaterThan(0);
      for (const { value } of examples) {
        expect(checkOf(body.schema).safeParse(value).error?.issues, where).toBeUndefined();
      }
    }
  });

  it('has all columns of a span, and only those in a draft that a client may say', () => {
    const { Span, SpanDraft } = document.components.schemas;
    expect(Object.keys(Span.properties)).toHaveLength(70);
    expect(Object.keys(Span.properties).filter((column) => !(column in SpanDraft.properties))).toEqual([
      'position',
      'tx_id',
    ]);
    expect(SpanDraft).toMatchObject({ required: ['entity_type'], additionalProperties: false });
  });

  it('gives examples that the system answers as it says', async () => {
    let sent = 0;
    for (const { path, method, operation } of operations) {
      for (const [name, request] of examplesOf(path, method, operation)) {
        const where = `${method} ${path} ${name}`;
        const response = await app.request(request.url, { ...request.init, headers: { ...asAlice } });
        const [status, { content }] = Object.entries<AnyJson>(operation.responses)[0] as [string, AnyJson];
        if (content['text/event-stream'] !== undefined) {
          expect([response.status, response.headers.get('Content-Type')], where).toEqual([
            Number(status),
            expect.stringMatching(/^text\/event-stream/),
          ]);
          await response.body?.cancel();
        } else {
          const text = await response.text();
          expect(response.status, `${where}: ${text}`).toBe(Number(status));
          const { error } = checkOf(content['application/json'].schema).safeParse(JSON.parse(text));
          expect(error?.issues, `${where}: ${text}`).toBeUndefined();
        }
        sent++;
      }
    }
    expect(sent).toBeGreaterThan(operations.length);
  });

  it('describes what a span looks like that has every column', async () => {
    const [appended] = await appendSpans(installation.stage0.database, [FULL_DRAFT], contextOf(ALICE));
    const span: AnyJson = await (await app.request(`/api/spans/${appended?.id}`, { headers: asAlice })).json();
    expect(Object.keys(span).length).toBeGreaterThan(65);
    expect(checkOf({ $ref: '#/components/schemas/Span' }).safeParse(span).error?.issues).toBeUndefined();
  });
});

describe('/docs', () => {
  it('is one page that tells every route, its example and every schema, with no script and nothing from elsewhere', async () => {
    const response = await app.request('/docs');
    const page = await response.text();
    expect([response.status, response.headers.get('Content-Type')]).toEqual([200, 'text/html; charset=UTF-8']);
    for (const { path, method, operation } of operations) {
      expect(page).toContain(`<h3 id="${operation.operationId}">`);
      for (const [, request] of examplesOf(path, method, operation)) {
        if (request.isFirst) expect(page).toContain(`$URL${request.url}`.replaceAll('&', '&amp;'));
      }
    }
    for (const name of Object.keys(document.components.schemas)) expect(page).toContain(`<h3 id="schema-${name}">`);
    expect(page).not.toMatch(/<script|<link|<img|style="| on\w+=|undefined|\[object/);
    for (const [, place] of page.matchAll(/(?:href|src)="([^"]*)"/g)) {
      expect(place).toMatch(/^(#|\/openapi\.json$)/);
      if (place?.startsWith('#')) expect(page).toContain(`id="${place.slice(1)}"`);
    }
  });

  it('allows its own style alone', async () => {
    const response = await app.request('/docs');
    const style = /<style>([\s\S]*)<\/style>/.exec(await response.text())?.[1] as string;
    const hash = createHash('sha256').update(style).digest('base64');
    expect(response.headers.get('Content-Security-Policy')).toBe(
      `default-src 'none'; style-src 'sha256-${hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
    );
  });
});
