import { type OpenAPIHono, z } from '@hono/zod-openapi';
import type { Context } from 'hono';
import { InputError } from '../errors.ts';
import { TEXT_EXPECTED } from '../fields.ts';
import { readJson, type Variables } from './input.ts';
import { Problem } from './schemas.ts';

type Api = OpenAPIHono<Variables>;
type ObjectSchema = z.ZodObject;

/** A route, as `/openapi.json` tells it and as its input is checked. */
export interface Route<P extends ObjectSchema, Q extends ObjectSchema, B extends z.ZodType, A extends z.ZodType> {
  method: 'get' | 'post';
  /** As OpenAPI writes it: `/spans/{id}`. */
  path: string;
  operationId: string;
  summary: string;
  description?: string;
  tag: string;
  /** Asks for no token. */
  isPublic?: boolean;
  params?: P;
  query?: Q;
  body?: {
    schema: B;
    /** Bodies that the route takes, by name; the first is the one that is shown. */
    examples: Record<string, z.input<B>>;
    /** Where a body is checked by more than its schema: by what, instead. */
    read?: (body: unknown) => z.output<B>;
  };
  /** May come with the header `Idempotency-Key`. */
  isIdempotent?: boolean;
  status: 200 | 201 | 202;
  /** Where it is not JSON. */
  mediaType?: string;
  answer: A;
  example: z.input<A>;
  /** Statuses of its problems, beside those that every route may answer. */
  problems?: number[];
}

interface Said<P extends ObjectSchema, Q extends ObjectSchema, B extends z.ZodType> {
  params: z.output<P>;
  query: z.output<Q>;
  body: z.output<B>;
}

/**
 * A route with its description: what is described is what parameters, query and body are checked by, and what the handler
 * must answer.
 *
 * The checks that come with `app.openapi` are not used: they read a body under a content type that `curl -d` does not
 * send, by a parser that lets broken UTF-8 through, and know none of our errors.
 */
export function addRoute<P extends ObjectSchema, Q extends ObjectSchema, B extends z.ZodType, A extends z.ZodType>(
  app: Api,
  route: Route<P, Q, B, A>,
  handle: (said: Said<P, Q, B>, c: Context<Variables>) => Promise<z.input<A>>,
): void {
  describeRoute(app, route);
  const { method, params, query, body, status } = route;
  app.on(method, route.path.replaceAll(/\{(\w+)\}/g, ':$1'), async (c) => {
    const said: Record<string, unknown> = {};
    if (params !== undefined) said.params = parse(params, c.req.param());
    if (query !== undefined) said.query = parse(query, queryOf(c));
    if (body !== undefined) {
      const value = await readJson(c);
      said.body = body.read === undefined ? parse(body.schema, value) : body.read(value);
    }
    return c.json((await handle(said as unknown as Said<P, Q, B>, c)) as object, status);
  });
}

/** Only the description, of a route that has its own way to read and answer. */
export function describeRoute<P extends ObjectSchema, Q extends ObjectSchema, B extends z.ZodType, A extends z.ZodType>(
  app: Api,
  route: Route<P, Q, B, A>,
): void {
  const { method, path, operationId, summary, description, params, query, body, isIdempotent, isPublic } = route;
  const problems = new Set([...(isPublic ? [] : [401, 403]), ...(route.problems ?? []), 500, 503]);
  if (params !== undefined || query !== undefined || body !== undefined) problems.add(400);
  if (body !== undefined) problems.add(413);
  const examples = Object.entries(body?.examples ?? {}).map(([name, value]) => [name, { value }]);
  app.openAPIRegistry.registerPath({
    method,
    path,
    operationId,
    summary,
    ...(description === undefined ? {} : { description }),
    tags: [route.tag],
    security: isPublic ? [] : [{ bearer: [] }],
    request: {
      ...(params === undefined ? {} : { params }),
      ...(query === undefined ? {} : { query }),
      ...(isIdempotent ? { headers: IDEMPOTENCY_HEADER } : {}),
      ...(body === undefined
        ? {}
        : {
            body: {
              required: true,
              content: { 'application/json': { schema: body.schema, examples: Object.fromEntries(examples) } },
            },
          }),
    },
    responses: {
      [route.status]: {
        description: MEANINGS[route.status],
        content: { [route.mediaType ?? 'application/json']: { schema: route.answer, example: route.example } },
      },
      ...Object.fromEntries([...problems].sort().map((status) => [status, problemResponse(status)])),
    },
  });
}

const IDEMPOTENCY_HEADER = z.object({
  'Idempotency-Key': z
    .string()
    .optional()
    .openapi({ description: `Makes one of many calls with the same body: ${TEXT_EXPECTED}.`, maxLength: 200 }),
});

const MEANINGS: Record<number, string> = {
  200: 'Done.',
  201: 'Appended.',
  202: 'Accepted: it will be done.',
  400: 'What was sent is wrong; `field` says where. Nothing was written.',
  401: 'The token is missing, or is not known, or holds no more.',
  403: 'The caller may not do this.',
  404: 'There is no such thing, or the caller may not see it.',
  409: 'Somebody else was first, or what is stored does not prove itself.',
  413: 'The body is too large.',
  422: 'The code failed.',
  429: 'A limit is reached.',
  500: 'A fault of ours; the log says which.',
  503: 'Something that the system needs is away. The same may be sent again.',
};

function problemResponse(status: number) {
  return { description: MEANINGS[status], content: { 'application/problem+json': { schema: Problem } } };
}

/** The whole document. It does not change while the process lives. */
export function openApiDocument(app: Api) {
  app.openAPIRegistry.registerComponent('securitySchemes', 'bearer', {
    type: 'http',
    scheme: 'bearer',
    description: 'An API token (`POST /api/tokens`, or `npx loglineos token`), or a JWT of the configured issuer.',
  });
  return app.getOpenAPI31Document({
    openapi: '3.1.0',
    info: {
      title: 'LogLineOS',
      version: '0.1.0',
      description:
        'A ledger-only backend: every fact is a signed span that is appended and never changed. A refusal is a problem ' +
        '(RFC 9457) with a stable `code`, and writes nothing.',
      license: { name: 'MIT' },
    },
    servers: [{ url: '/' }],
    tags: [
      { name: 'Spans', description: 'Append, find, read and prove what is in the ledger.' },
      {
        name: 'Timeline',
        description:
          'All that is appended, in one order, from any position on. A WebSocket at `/ws` tells the same to who sends it ' +
          '`{"action":"subscribe","filter":{},"after":"end"}`.',
      },
      { name: 'Running', description: 'Functions and kernels.' },
      { name: 'System', description: 'Who one is, how it goes, what is in force.' },
      { name: 'Tokens', description: 'Credentials for programs.' },
    ],
  });
}

/** @throws {InputError} naming the first field that is wrong. */
export function parse<S extends z.ZodType>(schema: S, value: unknown): z.output<S> {
  const result = schema.safeParse(value, { reportInput: true });
  if (result.success) return result.data;
  throw inputErrorOf(result.error.issues[0] as z.core.$ZodIssue, []);
}

function inputErrorOf(issue: z.core.$ZodIssue, above: PropertyKey[]): InputError {
  const path = [...above, ...issue.path];
  switch (issue.code) {
    case 'invalid_union':
      return inputErrorOf(issueOfUnion(issue), path);
    case 'unrecognized_keys':
      return fieldError('FIELD_UNKNOWN', [...path, issue.keys[0] as string], issue.message);
    case 'custom':
      if (issue.input !== undefined) return fieldError(issue.params?.code ?? 'FIELD_INVALID', path, issue.message);
  }
  return path.length > 0 && issue.input === undefined
    ? fieldError('FIELD_MISSING', path, 'is missing')
    : fieldError('FIELD_INVALID', path, issue.message);
}

/** What is wrong with the form that was meant: the first that nothing is missing of, or else the last. */
function issueOfUnion({ errors }: z.core.$ZodIssueInvalidUnion): z.core.$ZodIssue {
  const meant = errors.find((issues) => issues.every(({ input }) => input !== undefined)) ?? errors.at(-1);
  return meant?.[0] as z.core.$ZodIssue;
}

function fieldError(code: string, path: PropertyKey[], message: string): InputError {
  const field = path.join('.');
  return field === '' ? new InputError(code, message) : new InputError(code, `${field}: ${message}`, { field });
}

/** The parameters behind the `?`. One that is said twice is a list, which none of them may be. */
export function queryOf(c: Context): Record<string, string | string[]> {
  const { searchParams } = new URL(c.req.url);
  const query = new Map<string, string | string[]>();
  for (const [name, value] of searchParams) {
    const said = query.get(name);
    if (Array.isArray(said)) said.push(value);
    else query.set(name, said === undefined ? value : [said, value]);
  }
  return Object.fromEntries(query);
}
