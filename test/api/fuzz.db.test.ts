import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { EXAMPLE_FUNCTION_ID, EXAMPLE_REQUEST_ID, EXAMPLE_TOKEN_ID } from '../../src/api/schemas.ts';
import { MANIFEST_ID } from '../../src/stage0/index.ts';
import { type AnyJson, Installation, PROBE, RUN_CODE } from '../stage0/installation.ts';
import { asAlice, asBob, openApi, openTimeline } from './http.ts';
import { type Operation, operationsOf, prepareExamples } from './operations.ts';

/** How many requests are sent in all. */
const REQUESTS = Number(process.env.LOGLINEOS_FUZZ_REQUESTS ?? 2_000);

let installation: Installation;
let timeline: ReturnType<typeof openTimeline>;
let app: ReturnType<typeof openApi>;
let document: AnyJson;
beforeAll(async () => {
  installation = await Installation.create();
  await installation.seed((content) => {
    content.throttle.per_tenant_daily_exec_limit = 1_000_000;
  });
  timeline = openTimeline(installation);
  app = openApi(installation, timeline);
  document = await (await app.request('/openapi.json')).json();
  await prepareExamples(installation);
});
afterAll(async () => {
  await timeline?.stop();
  await installation?.close();
});

const KNOWN_IDS = [RUN_CODE, PROBE, MANIFEST_ID, EXAMPLE_FUNCTION_ID, EXAMPLE_REQUEST_ID, EXAMPLE_TOKEN_ID];
const NASTY_TEXTS = [
  '',
  ' ',
  '\0',
  'a\0b',
  '\ud800',
  '\udfff\ud800',
  'é'.repeat(201),
  '__proto__',
  'constructor',
  "'; drop table ledger.universal_registry; --",
  '%',
  '../../etc/passwd',
  'function',
  'request',
  'stage0',
  '1e400',
  'NaN',
  'f'.repeat(32),
  '0'.repeat(32),
  '9999-12-31T23:59:59.999-23:59',
  '0000-01-01T00:00:00Z',
  '\u202e\ufeff\uffff',
];
const NASTY_NUMBERS = [0, -0, -1, 0.5, 1e21, 1e308, 5e-324, 2 ** 31, -(2 ** 31) - 1, 2 ** 53, -(2 ** 53), 8.64e15];
const NASTY_KEYS = ['__proto__', 'constructor', 'toString', '', 'a.b', '\0', '\ud800', 'signature', 'tx_id'];

const nastyText = fc.oneof(fc.constantFrom(...NASTY_TEXTS), fc.string({ unit: 'binary' }), fc.uuid());
const anything: fc.Arbitrary<unknown> = fc.oneof(
  nastyText,
  fc.constantFrom(...NASTY_NUMBERS),
  fc.jsonValue(),
  fc.constantFrom(null, true, [], {}, [[]], [null], nested(70), { toJSON: 1 }, { toString: '' }),
  fc.dictionary(fc.constantFrom(...NASTY_KEYS), fc.jsonValue(), { noNullPrototype: true }),
);

function nested(depth: number): unknown {
  return depth === 0 ? 1 : [nested(depth - 1)];
}

/** Values of a schema, as the document writes it; now and then one that is not of it. */
function anyOf(schema: AnyJson): fc.Arbitrary<unknown> {
  return fc.oneof({ weight: 12, arbitrary: rightOf(schema) }, { weight: 1, arbitrary: anything });
}

function rightOf(schema: AnyJson): fc.Arbitrary<unknown> {
  if (schema.$ref !== undefined) return rightOf(document.components.schemas[schema.$ref.split('/').at(-1)]);
  if (schema.anyOf !== undefined) return fc.oneof(...schema.anyOf.map(anyOf));
  if (schema.enum !== undefined) return fc.constantFrom(...schema.enum);
  const [type] = [schema.type].flat();
  switch (type) {
    case 'object':
      return objectOf(schema);
    case 'array':
      return fc.array(anyOf(schema.items), { maxLength: 4 });
    case 'string':
      return textOf(schema);
    case 'integer':
      return fc.oneof(
        fc.integer({ min: Math.max(schema.minimum ?? 0, -(2 ** 31)), max: Math.min(schema.maximum ?? 9, 2 ** 31) }),
        fc.constantFrom(...NASTY_NUMBERS),
      );
    case 'number':
      return fc.oneof(fc.double({ noNaN: true, noDefaultInfinity: true }), fc.constantFrom(...NASTY_NUMBERS));
    case 'boolean':
      return fc.boolean();
    default:
      return fc.oneof(fc.jsonValue(), anything);
  }
}

function textOf({ format, pattern, example }: AnyJson): fc.Arbitrary<string> {
  const right =
    format === 'uuid'
      ? fc.oneof(fc.constantFrom(...KNOWN_IDS), fc.uuid())
      : format === 'date-time'
        ? fc.date({ noInvalidDate: true }).map((date) => date.toISOString())
        : pattern !== undefined
          ? fc.stringMatching(new RegExp(pattern))
          : fc.oneof(fc.string({ minLength: 1 }), fc.constantFrom('order', 'note', 'return input;', 'active'));
  const known = example === undefined ? [] : [{ weight: 3, arbitrary: fc.constant(String(example)) }];
  return fc.oneof(...known, { weight: 6, arbitrary: right }, { weight: 1, arbitrary: nastyText });
}

function objectOf({ properties = {}, required = [] }: AnyJson): fc.Arbitrary<unknown> {
  const names = Object.keys(properties);
  const optional = names.filter((name) => !required.includes(name));
  // Few of the optional ones: a span with seventy columns is nearly always wrong in one of them.
  const chosen = fc.subarray(optional, { maxLength: Math.min(optional.length, 4) });
  const object = chosen.chain((more) =>
    fc.record(Object.fromEntries([...required, ...more].map((name: string) => [name, anyOf(properties[name])])), {
      noNullPrototype: true,
    }),
  );
  const extra = fc.option(fc.tuple(fc.constantFrom(...NASTY_KEYS, 'other'), anything), { freq: 8, nil: undefined });
  const missing = fc.option(fc.constantFrom(...required, ...optional.slice(0, 1)), { freq: 12, nil: undefined });
  return fc.tuple(object, extra, missing).map(([made, more, gone]) => {
    const members = Object.entries(made as object).filter(([name]) => name !== gone);
    return Object.fromEntries(more === undefined ? members : [...members, more]);
  });
}

/** What may stand behind the `?`. */
function queryOf(parameters: AnyJson[]): fc.Arbitrary<string> {
  const known = parameters.filter((parameter) => parameter.in === 'query');
  const said = known.map(({ name, schema }) => fc.tuple(fc.constant(name), textInQueryOf(schema)));
  const other = fc.tuple(fc.oneof(fc.constantFrom(...NASTY_KEYS), fc.string()), nastyText);
  const pairs = said.length === 0 ? fc.constant([]) : fc.array(fc.oneof(...said), { maxLength: 4 });
  const raw = fc.constantFrom('%', '%00', '%ff%fe', '&&=', 'limit=%zz', 'limit', '[]=1', '?', 'a=b=c');
  return fc.oneof(
    { weight: 8, arbitrary: pairs.map((list) => searchOf(new Map(list as [string, string][]))) },
    { weight: 1, arbitrary: pairs.map(searchOf) },
    { weight: 1, arbitrary: fc.tuple(pairs, other).map(([list, more]) => searchOf([...list, more])) },
    { weight: 1, arbitrary: raw },
  );
}

function searchOf(pairs: Iterable<readonly [string, string]>): string {
  return new URLSearchParams([...pairs].map(([name, value]): [string, string] => [name, value])).toString();
}

function textInQueryOf(schema: AnyJson): fc.Arbitrary<string> {
  return fc.oneof({ weight: 6, arbitrary: rightOf(schema).map(String) }, { weight: 1, arbitrary: nastyText });
}

type Bytes = string | Uint8Array<ArrayBuffer>;

interface Sent {
  url: string;
  init: { method: string; headers: Record<string, string>; body?: Bytes };
}

/** Text to bytes as a client might send them: whole, or not. */
const spoilt = (text: string): fc.Arbitrary<Bytes> =>
  fc.oneof(
    { weight: 14, arbitrary: fc.constant(text) },
    { weight: 1, arbitrary: fc.nat(text.length).map((length) => text.slice(0, length)) },
    { weight: 1, arbitrary: fc.uint8Array({ maxLength: 40 }).map((bytes) => new Uint8Array(bytes)) },
    { weight: 1, arbitrary: fc.constantFrom('', '\ufeff{}', 'null', '1e999', '"', '{"a":1,"a":2}', '{"\\u0000":1}') },
  );

/** Of the schema, or an example, now and then changed in one place. */
function bodyOf({ schema, examples }: AnyJson): fc.Arbitrary<unknown> {
  const values = Object.values<AnyJson>(examples).map(({ value }) => value);
  const changed = fc
    .tuple(fc.constantFrom(...values), fc.nat(), fc.option(anything, { freq: 2, nil: undefined }))
    .map(([value, place, other]) => {
      const name = Object.keys(value)[place % Object.keys(value).length] as string;
      return other === undefined ? value : { ...value, [name]: other };
    });
  return fc.oneof({ weight: 2, arbitrary: anyOf(schema) }, { weight: 1, arbitrary: changed });
}

function requestsOf({ path, method, operation }: Operation): fc.Arbitrary<Sent> {
  const { parameters = [], requestBody } = operation;
  const named = parameters.find((parameter: AnyJson) => parameter.name === 'id')?.schema.example ?? '';
  const ids = fc.oneof(
    { weight: 4, arbitrary: fc.constant(named) },
    { weight: 4, arbitrary: fc.constantFrom(...KNOWN_IDS) },
    { weight: 1, arbitrary: fc.uuid() },
    { weight: 1, arbitrary: nastyText.map((text) => encodeURIComponent(text.toWellFormed())) },
    { weight: 1, arbitrary: fc.constantFrom('%', '%00', '%zz', '..', '%2f', 'a%2Fb', ';') },
  );
  const bodies =
    requestBody === undefined
      ? fc.constant(undefined)
      : bodyOf(requestBody.content['application/json']).chain((value) => spoilt(JSON.stringify(value) ?? ''));
  const key = fc.option(fc.constantFrom('k', 'again', ' ', 'k'.repeat(201)), { freq: 4, nil: undefined });
  const who = fc.constantFrom(asAlice, asAlice, asBob);
  return fc.tuple(ids, queryOf(parameters), bodies, key, who).map(([id, query, body, idempotencyKey, headers]) => ({
    url: `${path.replace('{id}', id)}${query === '' ? '' : `?${query}`}`,
    init: {
      method: method.toUpperCase(),
      headers: { ...headers, ...(idempotencyKey === undefined ? {} : { 'Idempotency-Key': idempotencyKey }) },
      ...(body === undefined ? {} : { body }),
    },
  }));
}

/** Rows but those that tell, later and in one for many, that somebody was refused. */
async function count(): Promise<number> {
  const text = `select count(*)::int as n from ledger.universal_registry where entity_type <> 'access_denied'`;
  return (await installation.admin.query(text)).rows[0].n;
}

describe('whatever is sent to a route of the document', () => {
  it(`is answered without a fault or a secret, and written only if it is accepted: ${REQUESTS} requests`, {
    timeout: 60_000 + REQUESTS * 60,
  }, async () => {
    const operations = operationsOf(document);
    let rows = await count();
    for (const each of operations) {
      const seen = new Set<number>();
      await fc.assert(
        fc.asyncProperty(requestsOf(each), async ({ url, init }) => {
          const response = await app.request(url, init);
          const { status } = response;
          if (response.headers.get('Content-Type')?.startsWith('text/event-stream')) return response.body?.cancel();
          const text = await response.text();
          const [before, where] = [rows, `${init.method} ${url} ${init.body}: ${status} ${text}`];
          rows = await count();
          seen.add(status);
          expect(status, where).toBeLessThan(500);
          if (status < 400) return;
          expect(rows, where).toBe(before);
          expect(response.headers.get('Content-Type'), where).toBe('application/problem+json');
          const { code, detail, field, ...problem } = JSON.parse(text);
          expect(code, where).toMatch(/^[A-Z][A-Z_]+$/);
          expect(problem, where).toEqual({ type: 'about:blank', title: expect.any(String), status });
          expect(`${detail}`, where).not.toMatch(/node:|\.ts\b|\bat .*:\d+:\d+|universal_registry\b(?! *; *--)/);
          expect(['string', 'undefined'], where).toContain(typeof field);
        }),
        { numRuns: Math.ceil(REQUESTS / operations.length) },
      );
      // Or else nothing was tried: each was taken, and each that takes something was refused.
      const { responses, operationId } = each.operation;
      if (responses['200']?.content['text/event-stream'] !== undefined) continue;
      const [done] = Object.keys(responses).map(Number);
      expect([...seen], operationId).toEqual(expect.arrayContaining('400' in responses ? [done, 400] : [done]));
    }
  });
});
