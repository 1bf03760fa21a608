import { z } from '@hono/zod-openapi';
import { INSTANT_EXPECTED, TEXT, TEXT_EXPECTED, toInstant, UUID } from '../fields.ts';
import { API_TOKEN_LIFE_MAX_S } from '../identity/api-tokens.ts';
import { isScope, SCOPE_EXPECTED } from '../identity/scopes.ts';
import { PAGE_MAX, QUEUE_STATES } from '../ledger/index.ts';
import { COLUMN_TYPES, type ColumnName, isUuid, type Json, type Span, type StoredSpan } from '../span/index.ts';
import { REQUESTS_CHANGED_MAX } from '../work/request-admin.ts';
import { SIGNED_MAX } from './append.ts';

/**
 * What every route takes and answers. The routes validate by these, `/openapi.json` is made of them, and the client has
 * their types; so there is nothing that could say something else.
 */

/** The rows that every installation has, for examples that work everywhere. */
const RUN_CODE_ID = '00000000-0000-4000-8000-000000000001';
/** Ids that stand for one of the reader's own. */
export const EXAMPLE_FUNCTION_ID = '7d9f3c52-5a0e-4b6d-9a53-0c1f6f0a2b11';
export const EXAMPLE_REQUEST_ID = 'b2c1a9e4-6f1d-4a57-8a60-2f6f5d1c9e22';
export const EXAMPLE_TOKEN_ID = 'e5a8d7c3-3b2f-4c9e-b1d4-9a7c5e6f8d33';
export const EXAMPLE_POSITION = '00000000000003f10000000000000a2c';
export const EXAMPLE_HASH = '6f1d0b5f9a3b0c7e4d2a8f6e1c9b7a5d3f0e8c6b4a291807f6e5d4c3b2a19081';

/** A row that every installation has, shortened. */
export const EXAMPLE_SPAN: StoredSpan = {
  id: RUN_CODE_ID,
  seq: 0,
  entity_type: 'function',
  who: 'seed',
  at: '2026-11-25T03:04:09.120Z',
  owner_id: 'system',
  tenant_id: 'system',
  visibility: 'public',
  status: 'active',
  name: 'run_code_kernel',
  position: 2604,
  tx_id: '1009',
  curr_hash: EXAMPLE_HASH,
  signature: EXAMPLE_HASH.repeat(2),
  public_key: EXAMPLE_HASH,
};

const INTEGER_MIN = -0x80000000;
const INTEGER_MAX = 0x7fffffff;
/** A request is not put off further than this, in ms: ten years. */
const DELAY_MS_MAX = 315_576_000_000;

/** Fields that must be known: a typing error is refused, not ignored. */
function object<S extends z.ZodRawShape>(shape: S): z.ZodObject<S, z.core.$strict> {
  const known = Object.keys(shape).join(', ');
  return z.strictObject(shape, {
    error: ({ code }) => (code === 'unrecognized_keys' ? `unknown; known are ${known}` : 'expected an object'),
  });
}

/** Text by a rule that is described in words and not as a pattern, because not every language's patterns can say it. */
function text(isRight: (value: string) => boolean, expected: string) {
  return z.string({ error: `expected ${expected}` }).refine(isRight, { error: `expected ${expected}` });
}

const name = () => text((value) => TEXT.test(value), TEXT_EXPECTED).openapi({ minLength: 1, maxLength: 200 });
const matching = (pattern: RegExp, expected: string) =>
  z.string({ error: `expected ${expected}` }).regex(pattern, { error: `expected ${expected}` });

const uuid = () =>
  text((value) => UUID.test(value), 'a UUID')
    .transform((value) => value.toLowerCase())
    .openapi({ type: 'string', format: 'uuid' });

/** An instant with its offset, as UTC. */
const instant = () =>
  text((value) => toInstant(value) !== undefined, INSTANT_EXPECTED)
    .transform((value) => toInstant(value) as string)
    .openapi({ type: 'string', format: 'date-time' });

const wholeNumber = (min: number, max = Number.MAX_SAFE_INTEGER) => {
  const range = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`;
  const error = `expected a whole number ${range}`;
  return z.int({ error }).min(min, { error }).max(max, { error });
};

/** A whole number behind the `?`, where everything is text. */
const numberText = (max: number, initial: number) =>
  text((value) => /^[1-9]\d{0,8}$/.test(value) && Number(value) <= max, `a number from 1 to ${max}`)
    .transform(Number)
    .default(initial)
    .openapi({ type: 'integer', minimum: 1, maximum: max, default: initial });

const json = (description: string) =>
  (z.unknown() as z.ZodType<Json>).openapi({ description: `${description} Any JSON that a span can hold.`.trim() });

/** A cursor of an earlier page; opaque. */
const cursor = () => z.string().openapi({ description: 'Opaque; ordered as text.', example: EXAMPLE_POSITION });

// ---------------------------------------------------------------------------------------------------------- problems

export const Problem = z
  .object({
    type: z.literal('about:blank'),
    title: z.string(),
    status: z.int(),
    code: z.string().openapi({ description: 'Stable: for programs.' }),
    detail: z.string().openapi({ description: 'For people.' }),
    field: z.string().optional().openapi({ description: 'Path of the field that is wrong.', example: 'spans[3].name' }),
  })
  .openapi('Problem', { description: 'RFC 9457.' });

// ------------------------------------------------------------------------------------------------------------- spans

type ColumnType = (typeof COLUMN_TYPES)[ColumnName];
const COLUMN_SCHEMAS: Record<ColumnType, () => z.ZodType> = {
  uuid: () => text(isUuid, 'a UUID in lower case').openapi({ format: 'uuid' }),
  integer: () => wholeNumber(INTEGER_MIN, INTEGER_MAX),
  bigint: () => z.int(),
  xid8: () => z.string(),
  text: () => z.string(),
  timestamptz: () => z.string().openapi({ format: 'date-time', description: 'UTC, with milliseconds.' }),
  boolean: () => z.boolean(),
  jsonb: () => json(''),
  'double precision': () => z.number(),
  'uuid[]': () => z.array(z.string().openapi({ format: 'uuid' })),
  'text[]': () => z.array(z.string()),
};

const VISIBILITIES = ['private', 'tenant', 'public'] as const;
const visibility = () => z.enum(VISIBILITIES, { error: `expected one of ${VISIBILITIES.join(', ')}` });

/** What no stored span is without. */
const ALWAYS_THERE: ReadonlySet<ColumnName> = new Set([
  'id',
  'seq',
  'position',
  'tx_id',
  'entity_type',
  'who',
  'at',
  'owner_id',
  'tenant_id',
  'visibility',
  'curr_hash',
  'signature',
  'public_key',
] as const);

/** A schema for each column that `of` wants, from the table of columns. */
function columns(of: (column: ColumnName, schema: z.ZodType) => z.ZodType | null): Record<string, z.ZodType> {
  const shape: Record<string, z.ZodType> = {};
  for (const [column, type] of Object.entries(COLUMN_TYPES) as [ColumnName, ColumnType][]) {
    const schema = of(column, column === 'visibility' ? visibility() : COLUMN_SCHEMAS[type]());
    if (schema !== null) shape[column] = schema;
  }
  return shape;
}

export const SpanSchema = z
  .object(columns((column, schema) => (ALWAYS_THERE.has(column) ? schema : schema.optional())))
  .openapi('Span', {
    description: 'A version of a span: a signed row of the ledger. Columns that are null are left out.',
  }) as unknown as z.ZodType<StoredSpan>;

const SpanDraftSchema = z
  .strictObject(
    columns((column, schema) => {
      if (column === 'position' || column === 'tx_id') return null;
      return column === 'entity_type' ? name() : schema.nullish();
    }),
  )
  .openapi('SpanDraft', {
    description:
      'What is appended. With the `id` of a span it becomes its next version, without one it is a new span. `who`, ' +
      '`at`, `owner_id` and `tenant_id` are the caller’s and may be left out; `visibility` is private unless said. ' +
      'A span that you sign yourself comes whole, with `public_key` and `signature`, and is stored as it is; the key must ' +
      `be one that this system trusts. One request takes at most ${SIGNED_MAX} of these.`,
  }) as unknown as z.ZodType<Span & { entity_type: string }>;

export const AppendBody = z
  .union([SpanDraftSchema, z.strictObject({ spans: z.array(SpanDraftSchema).min(1).max(1_000) }).openapi('SpanBatch')])
  .openapi('Append');

const Appended = z.object({ id: z.string(), seq: z.int(), curr_hash: z.string() }).openapi('Appended', {
  description: 'Where an appended version stands.',
});
export const AppendAnswer = z.union([Appended, z.object({ spans: z.array(Appended) }).openapi('AppendedBatch')]);

export const SpanParams = object({
  id: text(isUuid, 'a UUID in lower case').openapi({ format: 'uuid', example: RUN_CODE_ID }),
});

const filterShape = {
  entity_type: name().optional().openapi({ example: 'function' }),
  status: name().optional().openapi({ example: 'active' }),
  name: name().optional(),
  parent_id: uuid().optional().openapi({ description: 'Executions of a function have its id here.' }),
  caused_by: uuid().optional().openapi({ description: 'What a request, a boot or another span brought about.' }),
  trace_id: name().optional(),
  owner: name().optional().openapi({ description: 'The `owner_id`.' }),
  visibility: visibility().optional(),
  from: instant().optional().openapi({ description: '`at` is then or later.', example: '2020-01-01T00:00:00Z' }),
  to: instant().optional().openapi({ description: '`at` is before.' }),
};
const limit = () => numberText(PAGE_MAX, 100).openapi({ description: 'Items a page may hold.', example: 20 });
const before = () =>
  matching(/^[0-9a-f]{32}$/, 'the `before` of an earlier page')
    .optional()
    .openapi({ description: 'Goes on where a page ended.' });

export const SpanQuerySchema = object({ ...filterShape, before: before(), limit: limit() });
export const SpanPageSchema = z
  .object({
    spans: z.array(SpanSchema),
    before: cursor().nullable().openapi({ description: 'Continues the list; null at its end.' }),
  })
  .openapi('SpanPage');

const after = () =>
  matching(/^([0-9a-f]{32}|end)$/, 'the `position` of an earlier page, or `end`')
    .optional()
    .openapi({ description: 'A position, or `end` for where the timeline ends now; without it, its start.' });
export const TimelineQuerySchema = object({ ...filterShape, after: after(), limit: limit() });
export const TimelinePageSchema = z
  .object({
    spans: z.array(SpanSchema),
    position: cursor().openapi({ description: 'Where the next page goes on.', example: EXAMPLE_POSITION }),
  })
  .openapi('TimelinePage');
export const StreamQuerySchema = object({
  ...filterShape,
  after: after(),
  ticket: z
    .string()
    .optional()
    .openapi({ description: 'Of `POST /api/tickets`, for clients that can send no header.' }),
});

/** Versions of one span go by their `seq`. */
export const VersionsQuerySchema = object({
  after: text(
    (value) => /^(0|[1-9]\d{0,9})$/.test(value) && Number(value) <= INTEGER_MAX,
    'the `next` of an earlier page',
  )
    .transform(Number)
    .optional()
    .openapi({
      type: 'integer',
      minimum: 0,
      maximum: INTEGER_MAX,
      description: 'A `seq`: goes on with the version behind it.',
    }),
  limit: numberText(PAGE_MAX, PAGE_MAX).openapi({ description: 'Versions a page may hold.', example: 20 }),
});
const next = () =>
  z.int().nullable().openapi({ description: 'As `after` it gives the next page; null where this is the last.' });
export const VersionsSchema = z
  .object({ id: z.string(), versions: z.array(SpanSchema), next: next() })
  .openapi('SpanVersions');
export const ProofSchema = z
  .object({
    id: z.string(),
    ok: z.boolean().openapi({ description: 'All versions of this page prove themselves.' }),
    versions: z.array(
      z.object({
        seq: z.int(),
        curr_hash: z.string(),
        signature: z.string(),
        public_key: z.string(),
        ok: z.boolean(),
      }),
    ),
    problems: z.array(z.object({ id: z.string(), seq: z.int(), class: z.string(), detail: z.string() })),
    next: next(),
  })
  .openapi('SpanProof');

// ------------------------------------------------------------------------------------------------- boots and requests

export const BootBody = object({
  boot_function_id: uuid().openapi({ description: 'The kernel.' }),
  input: json('What the kernel gets.').optional(),
  trace_id: matching(/^[\w.:=;-]{1,128}$/, '1 to 128 letters, digits and .:=;_-').optional(),
  idempotency_key: name().optional(),
  user_id: z.unknown().optional().openapi({ type: 'string', description: 'Ignored: the token says who boots.' }),
  tenant_id: z.unknown().optional().openapi({ type: 'string', description: 'Ignored: the token says who boots.' }),
}).openapi('Boot');

export const BootAnswerSchema = z
  .object({
    ok: z.boolean(),
    status: z.enum(['complete', 'error', 'timeout', 'lost']),
    boot_event_id: z.string(),
    execution_id: z.string(),
    function_id: z.string(),
    function_seq: z.int(),
    output: json('What the kernel answered.'),
    error: z.object({ code: z.string(), message: z.string() }).nullable(),
    duration_ms: z.int(),
    trace_id: z.string(),
  })
  .openapi('BootAnswer');

export const ExecuteBody = object({
  span_id: uuid().openapi({ description: 'The function.' }),
  input: json('What the function gets.').optional(),
  priority: wholeNumber(INTEGER_MIN)
    .nullish()
    .openapi({ maximum: INTEGER_MAX, description: 'Higher is sooner; 0 if not said.' }),
  max_attempts: wholeNumber(1).nullish().openapi({ maximum: INTEGER_MAX }),
  delay_ms: wholeNumber(0, DELAY_MS_MAX).nullish().openapi({ description: 'Not together with `scheduled_at`.' }),
  scheduled_at: instant().optional(),
  timeout_ms: wholeNumber(1).optional().openapi({ description: 'Less than the manifest allows.' }),
  retry: object({ backoff_ms: wholeNumber(1).nullish(), max_ms: wholeNumber(1).nullish() }).optional(),
  force: object({ signature: matching(/^[0-9a-f]{128}$/, 'a signature of 128 hex digits') })
    .optional()
    .openapi({ description: 'Passes the quota: the override key’s signature of the function’s `curr_hash`.' }),
  idempotency_key: name().optional().openapi({ description: 'The same as the header `Idempotency-Key`.' }),
})
  .refine((asked) => asked.delay_ms == null || asked.scheduled_at === undefined, {
    path: ['delay_ms'],
    error: 'expected delay_ms or scheduled_at, not both',
  })
  .openapi('Execute');
export const ExecuteAnswer = z
  .object({ request_id: z.string(), status: z.string() })
  .openapi('Executing', { description: 'A request that waits for a worker, or stands as `status` says.' });

const STATUSES = ['scheduled', 'error', 'complete', 'dead', 'cancelled'] as const;
const requestFilterShape = {
  state: z
    .enum(QUEUE_STATES as [(typeof QUEUE_STATES)[number]], { error: `expected one of ${QUEUE_STATES.join(', ')}` })
    .optional(),
  status: z.enum(STATUSES, { error: `expected one of ${STATUSES.join(', ')}` }).optional(),
};
export const RequestQuerySchema = object({
  ...requestFilterShape,
  function_id: uuid().optional(),
  before: before(),
  limit: limit(),
});
export const RequestParams = object({
  id: text(isUuid, 'a UUID in lower case').openapi({ format: 'uuid', example: EXAMPLE_REQUEST_ID }),
});
export const RequestSchema = z
  .object({
    id: z.string(),
    function_id: z.string(),
    name: z.string().nullable(),
    status: z.enum(STATUSES),
    state: z
      .enum(QUEUE_STATES as [(typeof QUEUE_STATES)[number]])
      .nullable()
      .openapi({
        description: 'Where it waits; null when it does not, or is another’s.',
      }),
    priority: z.int(),
    attempt: z.int(),
    max_attempts: z.int().nullable(),
    scheduled_at: z.string().nullable(),
    created_at: z.string(),
    started_at: z.string().nullable(),
    finished_at: z.string().nullable(),
    input: json('What was asked.'),
    output: json('What came of it.'),
    error: (z.unknown() as z.ZodType<{ code: string; message: string; line?: number } | null>).openapi({
      type: ['object', 'null'],
      description: 'Why it failed: a code, a message, and the line of the code where it is known.',
    }),
    execution_ids: z.array(z.string()),
    idempotency_key: z.string().nullable(),
    trace_id: z.string().nullable(),
    position: cursor(),
  })
  .openapi('Request');
export const RequestPageSchema = z
  .object({ requests: z.array(RequestSchema), before: cursor().nullable() })
  .openapi('RequestPage');

/** A bound that has a code of its own. */
const BATCH_SIZE = {
  params: { code: 'BATCH_SIZE' },
  error: `a call takes 1 to ${REQUESTS_CHANGED_MAX} requests`,
};
export const SelectionFilter = object({ ...requestFilterShape, function_id: uuid().nullish() }).openapi({
  description: 'Asked for, even if it is empty: nobody cancels everything by leaving something out.',
});
export const SelectionBody = z
  .union([
    object({
      ids: z
        .array(uuid(), { error: 'expected a list of UUIDs' })
        .refine((ids) => ids.length >= 1 && ids.length <= REQUESTS_CHANGED_MAX, BATCH_SIZE)
        .openapi({ minItems: 1, maxItems: REQUESTS_CHANGED_MAX }),
    }).openapi('RequestsByIds'),
    object({
      filter: SelectionFilter,
      before: before().nullish(),
      limit: wholeNumber(1)
        .refine((count) => count <= REQUESTS_CHANGED_MAX, BATCH_SIZE)
        .nullish()
        .openapi({ maximum: REQUESTS_CHANGED_MAX }),
    }).openapi('RequestsByFilter'),
  ])
  .openapi('RequestSelection');
export const ChangesSchema = z
  .object({
    changed: z.array(z.string()),
    unchanged: z.array(z.object({ id: z.string(), reason: z.string().openapi({ description: 'A code.' }) })),
    before: cursor().nullable().openapi({ description: 'Goes on with the next that match; null when there are none.' }),
  })
  .openapi('RequestChanges');

// ----------------------------------------------------------------------------------------------- system and identity

export const HealthSchema = z.object({ status: z.literal('ok'), database: z.literal('reachable') }).openapi('Health');
export const MeSchema = z.object({ user_id: z.string(), tenant_id: z.string() }).openapi('Me');

const METRIC_DAYS_MAX = 31;
export const MetricsQuerySchema = object({
  days: numberText(METRIC_DAYS_MAX, 7).openapi({ description: 'Days (UTC), today the last of them.', example: 7 }),
});
const durations = {
  count: z.int(),
  avg_duration_ms: z.number().nullable(),
  p95_duration_ms: z.number().nullable(),
};
export const MetricsSchema = z
  .object({
    from: z.string().openapi({ format: 'date-time' }),
    total: z.object(durations),
    executions: z.array(z.object({ day: z.string().openapi({ format: 'date' }), status: z.string(), ...durations })),
    queue: z.object({
      ready: z.int(),
      delayed: z.int(),
      leased: z.int(),
      dead: z.int(),
      oldest_due_ms: z.int().nullable().openapi({ description: 'How long the first that is due has waited.' }),
    }),
  })
  .openapi('Metrics', { description: 'Function executions that the caller may see, and the queue of the tenant.' });

export const ManifestSchema = z
  .object({
    id: z.string(),
    seq: z.int(),
    hash: z.string(),
    public_key: z.string().openapi({ description: 'The root key that signed it.' }),
    content: z.record(z.string(), z.unknown() as z.ZodType<Json>),
  })
  .openapi('Manifest', { description: 'The manifest in force, as Stage-0 has verified it.' });

export const TokenBody = object({
  name: name(),
  scopes: z
    .array(text(isScope, SCOPE_EXPECTED))
    .min(1)
    .max(50)
    .openapi({ description: 'Not more than the caller has.' }),
  expires_in_s: wholeNumber(1, API_TOKEN_LIFE_MAX_S).optional().openapi({ description: '90 days if not said.' }),
}).openapi('TokenDraft');
export const TokenSchema = z
  .object({
    id: z.string(),
    name: z.string().nullable(),
    scopes: z.array(z.string()),
    status: z.string(),
    expires_at: z.string().nullable(),
  })
  .openapi('Token');
export const NewTokenSchema = TokenSchema.extend({
  token: z.string().openapi({ description: 'Shown once; the ledger has its hash alone.' }),
}).openapi('NewToken');
export const TokenQuerySchema = object({ before: before(), limit: limit() });
export const TokenPageSchema = z
  .object({ tokens: z.array(TokenSchema), before: cursor().nullable() })
  .openapi('TokenPage');
export const TokenParams = object({
  id: text(isUuid, 'a UUID in lower case').openapi({ format: 'uuid', example: EXAMPLE_TOKEN_ID }),
});
export const TicketSchema = z
  .object({ ticket: z.string(), expires_at: z.string().openapi({ format: 'date-time' }) })
  .openapi('Ticket', { description: 'For `?ticket=` of a stream or socket, for half a minute.' });

// --------------------------------------------------------------------------------------------- types, for the client

export type BootAnswer = z.infer<typeof BootAnswerSchema>;
export type AppendedSpan = z.infer<typeof Appended>;
/** As somebody types it: what is wrong with it, the server says. */
type Typed<Name extends PropertyKey> = { [name in Name]?: string | undefined };
export type SpanFilterQuery = Typed<keyof typeof filterShape>;
export type SpanQuery = SpanFilterQuery & { limit?: number | undefined };
export type SpanPage = z.infer<typeof SpanPageSchema>;
export type TimelinePage = z.infer<typeof TimelinePageSchema>;
export type SpanProof = z.infer<typeof ProofSchema>;
export type SpanVersions = z.infer<typeof VersionsSchema>;
export type VersionsQuery = { after?: number | undefined; limit?: number | undefined };
export type ExecuteOptions = z.input<typeof ExecuteBody>;
export type Executing = z.infer<typeof ExecuteAnswer>;
export type RequestView = z.infer<typeof RequestSchema>;
export type RequestPage = z.infer<typeof RequestPageSchema>;
export type RequestFilter = Typed<keyof z.input<typeof SelectionFilter>>;
export type RequestSelection =
  | { ids: string[] }
  | { filter: RequestFilter; before?: string | undefined; limit?: number | undefined };
export type RequestChanges = z.infer<typeof ChangesSchema>;
export type Metrics = z.infer<typeof MetricsSchema>;
export type ManifestView = z.infer<typeof ManifestSchema>;
export type Me = z.infer<typeof MeSchema>;
export type TokenDraft = z.input<typeof TokenBody>;
export type TokenView = z.infer<typeof TokenSchema>;
export type NewToken = z.infer<typeof NewTokenSchema>;
export type TokenPage = z.infer<typeof TokenPageSchema>;
export type Ticket = z.infer<typeof TicketSchema>;
