import { type Context, Hono } from 'hono';
import { InputError } from '../errors.ts';
import { Fields } from '../fields.ts';
import {
  cursorOf,
  listRequests,
  QUEUE_STATES,
  type QueueState,
  type RequestFilter,
  type RequestRecord,
  readRequests,
} from '../ledger/index.ts';
import { appendContext, type Stage0 } from '../stage0/index.ts';
import {
  CANCEL,
  changeRequests,
  REDRIVE,
  REQUESTS_CHANGED_MAX,
  type RequestChange,
  type RequestSelection,
} from '../work/request-admin.ts';
import { execute } from './execute.ts';
import {
  optionalNumber,
  optionalUuid,
  queryFields,
  readBefore,
  readJson,
  readLimit,
  requireId,
  type Variables,
} from './input.ts';

/** Requests to run a function: ask for one, see how it goes, cancel it, or let it begin again. */
export function requestRoutes(stage0: Stage0): Hono<Variables> {
  const app = new Hono<Variables>();

  app.post('/execute', async (c) => {
    const body = await readJson(c);
    return c.json(await execute(stage0, c.get('identity'), body, c.req.header('Idempotency-Key')), 202);
  });

  app.get('/requests', async (c) => {
    const fields = queryFields(c);
    const filter = readFilter(fields);
    const [before, limit] = [readBefore(fields), readLimit(fields)];
    fields.end();
    const page = await listRequests(stage0.database, c.get('identity'), filter, before, limit);
    return c.json({ requests: page.requests.map(described), before: page.before });
  });

  app.get('/requests/:id', async (c) => {
    const id = requireId(c.req.param('id'));
    const options = { readOnly: true } as const;
    const read = stage0.database.transaction(c.get('identity'), (query) => readRequests(query, [id]), options);
    const [record] = await read;
    if (record !== undefined) return c.json(described(record));
    throw new InputError('REQUEST_NOT_FOUND', `no request ${id} is visible to you`, { field: 'id' });
  });

  const change = (how: RequestChange) => async (c: Context<Variables>) => {
    const selection = readSelection(await readJson(c));
    return c.json(await changeRequests(stage0.database, appendContext(stage0, c.get('identity')), how, selection));
  };
  app.post('/requests/cancel', change(CANCEL));
  app.post('/requests/redrive', change(REDRIVE));

  return app;
}

function readSelection(body: unknown): RequestSelection {
  const fields = new Fields(body, '');
  const selection: RequestSelection = fields.has('ids')
    ? { ids: fields.uuids('ids') }
    : { filter: readFilterObject(fields), limit: optionalNumber(fields, 'limit', 1) ?? REQUESTS_CHANGED_MAX };
  fields.end();
  const count = 'ids' in selection ? selection.ids.length : selection.limit;
  if (count >= 1 && count <= REQUESTS_CHANGED_MAX) return selection;
  const field = 'ids' in selection ? 'ids' : 'limit';
  throw new InputError('BATCH_SIZE', `${field}: a call takes 1 to ${REQUESTS_CHANGED_MAX} requests, not ${count}`, {
    field,
  });
}

/** Asked for, even if it is empty: nobody cancels everything by leaving something out. */
function readFilterObject(fields: Fields): RequestFilter {
  const filter = fields.object('filter');
  const read = readFilter(filter);
  filter.end();
  return read;
}

function readFilter(fields: Fields): RequestFilter {
  const state = fields.optionalText('state', new RegExp(`^(${QUEUE_STATES.join('|')})$`), QUEUE_STATES.join(', '));
  return {
    states: state === undefined ? undefined : [state as QueueState],
    status: fields.optionalText('status', STATUS, STATUS_EXPECTED),
    functionId: optionalUuid(fields, 'function_id'),
  };
}

const STATUS = /^(scheduled|error|complete|dead|cancelled)$/;
const STATUS_EXPECTED = 'scheduled, error, complete, dead or cancelled';

function described({ request, createdAt, state }: RequestRecord): Record<string, unknown> {
  return {
    id: request.id,
    function_id: request.parent_id,
    name: request.name ?? null,
    status: request.status,
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
    error: request.error ?? null,
    execution_ids: request.related_to ?? [],
    idempotency_key: request.idempotency_key ?? null,
    trace_id: request.trace_id ?? null,
    position: cursorOf(request),
  };
}
