import { OpenAPIHono, type z } from '@hono/zod-openapi';
import { InputError } from '../errors.ts';
import { cursorOf, listRequests, type RequestFilter, type RequestRecord, readRequests } from '../ledger/index.ts';
import { appendContext, type Stage0 } from '../stage0/index.ts';
import { CANCEL, changeRequests, REDRIVE, REQUESTS_CHANGED_MAX, type RequestSelection } from '../work/request-admin.ts';
import { execute } from './execute.ts';
import type { Variables } from './input.ts';
import { addRoute } from './openapi.ts';
import {
  ChangesSchema,
  EXAMPLE_FUNCTION_ID,
  EXAMPLE_POSITION,
  EXAMPLE_REQUEST_ID,
  ExecuteAnswer,
  ExecuteBody,
  RequestPageSchema,
  RequestParams,
  RequestQuerySchema,
  RequestSchema,
  type RequestView,
  SelectionBody,
  type SelectionFilter,
} from './schemas.ts';

/** Requests to run a function: ask for one, see how it goes, cancel it, or let it begin again. */
export function requestRoutes(stage0: Stage0): OpenAPIHono<Variables> {
  const app = new OpenAPIHono<Variables>();

  addRoute(
    app,
    {
      method: 'post',
      path: '/execute',
      operationId: 'execute',
      summary: 'Ask for a run of a function',
      description: 'A request is appended, and a worker takes it from there.',
      tag: 'Running',
      body: { schema: ExecuteBody, examples: EXECUTE_EXAMPLES },
      isIdempotent: true,
      status: 202,
      answer: ExecuteAnswer,
      example: { request_id: EXAMPLE_REQUEST_ID, status: 'scheduled' },
      problems: [404, 409, 429],
    },
    ({ body }, c) => execute(stage0, c.get('identity'), body, c.req.header('Idempotency-Key')),
  );

  addRoute(
    app,
    {
      method: 'get',
      path: '/requests',
      operationId: 'listRequests',
      summary: 'Requests, newest first',
      description:
        'Who asks for a state, or for a status that waits, sees his own; all others are found in the ledger.',
      tag: 'Running',
      query: RequestQuerySchema,
      status: 200,
      answer: RequestPageSchema,
      example: { requests: [EXAMPLE_REQUEST], before: null },
    },
    async ({ query: { before, limit, ...query } }, c) => {
      const page = await listRequests(stage0.database, c.get('identity'), filterOf(query), before ?? null, limit);
      return { requests: page.requests.map(described), before: page.before };
    },
  );

  addRoute(
    app,
    {
      method: 'get',
      path: '/requests/{id}',
      operationId: 'readRequest',
      summary: 'How a request stands',
      tag: 'Running',
      params: RequestParams,
      status: 200,
      answer: RequestSchema,
      example: EXAMPLE_REQUEST,
      problems: [404],
    },
    async ({ params: { id } }, c) => {
      const options = { readOnly: true } as const;
      const read = stage0.database.transaction(c.get('identity'), (query) => readRequests(query, [id]), options);
      const [record] = await read;
      if (record !== undefined) return described(record);
      throw new InputError('REQUEST_NOT_FOUND', `no request ${id} is visible to you`, { field: 'id' });
    },
  );

  for (const { how, change, summary } of [
    { how: 'cancel', change: CANCEL, summary: 'Take requests out of the queue' },
    { how: 'redrive', change: REDRIVE, summary: 'Let dead requests begin again' },
  ]) {
    addRoute(
      app,
      {
        method: 'post',
        path: `/requests/${how}`,
        operationId: `${how}Requests`,
        summary,
        description: `Those that are named, or the newest that match; at most ${REQUESTS_CHANGED_MAX}, and \`before\` goes on with the next.`,
        tag: 'Running',
        body: { schema: SelectionBody, examples: SELECTION_EXAMPLES },
        status: 200,
        answer: ChangesSchema,
        example: { changed: [EXAMPLE_REQUEST_ID], unchanged: [], before: null },
        problems: [409],
      },
      ({ body }, c) =>
        changeRequests(stage0.database, appendContext(stage0, c.get('identity')), change, selectionOf(body)),
    );
  }

  return app;
}

function selectionOf(body: z.output<typeof SelectionBody>): RequestSelection {
  if ('ids' in body) return body;
  return { filter: filterOf(body.filter), before: body.before ?? null, limit: body.limit ?? REQUESTS_CHANGED_MAX };
}

function filterOf({ state, status, function_id }: z.output<typeof SelectionFilter>): RequestFilter {
  return { states: state === undefined ? undefined : [state], status, functionId: function_id ?? undefined };
}

function described({ request, createdAt, state }: RequestRecord): RequestView {
  return {
    id: request.id,
    function_id: request.parent_id as string,
    name: request.name ?? null,
    status: request.status as RequestView['status'],
    state,
    priority: request.priority ?? 0,
    attempt: request.attempt ?? 0,
    max_attempts: request.max_attempts ?? null,
    scheduled_at: request.scheduled_at ?? null,
    created_at: createdAt,
    started_at: request.started_at ?? null,
    finished_at: request.finished_at ?? null,
    input: request.input ?? null,
    output: request.output ?? null,
    error: (request.error ?? null) as RequestView['error'],
    execution_ids: request.related_to ?? [],
    idempotency_key: request.idempotency_key ?? null,
    trace_id: request.trace_id ?? null,
    position: cursorOf(request),
  };
}

const EXAMPLE_REQUEST: RequestView = {
  id: EXAMPLE_REQUEST_ID,
  function_id: EXAMPLE_FUNCTION_ID,
  name: 'order',
  status: 'complete',
  state: null,
  priority: 0,
  attempt: 1,
  max_attempts: 3,
  scheduled_at: null,
  created_at: '2026-11-25T03:04:14.125Z',
  started_at: '2026-11-25T03:04:14.140Z',
  finished_at: '2026-11-25T03:04:14.151Z',
  input: { price: 20, count: 3 },
  output: { total: 60 },
  error: null,
  execution_ids: ['f61a3b0e-93c0-4f7b-8b0f-8f4f1e2d3c40'],
  idempotency_key: null,
  trace_id: '9f86d081884c7d659a2feaa0c55ad015',
  position: EXAMPLE_POSITION,
};

const EXECUTE_EXAMPLES = {
  now: { span_id: EXAMPLE_FUNCTION_ID, input: { price: 20, count: 3 } },
  later: {
    span_id: EXAMPLE_FUNCTION_ID,
    input: { price: 20, count: 3 },
    delay_ms: 60_000,
    idempotency_key: 'order 17',
  },
};

const SELECTION_EXAMPLES = {
  named: { ids: [EXAMPLE_REQUEST_ID] },
  matching: { filter: { function_id: EXAMPLE_FUNCTION_ID, status: 'dead' as const }, limit: 100 },
};
