import { OpenAPIHono, type z } from '@hono/zod-openapi';
import { readMetrics } from '../ledger/index.ts';
import { boot, MANIFEST_ID, parseBootRequest, readManifest, type Stage0 } from '../stage0/index.ts';
import { requireKernelScope } from './access.ts';
import type { Variables } from './input.ts';
import { addRoute } from './openapi.ts';
import {
  BootAnswerSchema,
  BootBody,
  EXAMPLE_HASH,
  EXAMPLE_SPAN,
  HealthSchema,
  ManifestSchema,
  MeSchema,
  MetricsQuerySchema,
  MetricsSchema,
} from './schemas.ts';

/** Whether the system lives; asks for no token. */
export function healthRoutes({ database }: Stage0): OpenAPIHono<Variables> {
  const app = new OpenAPIHono<Variables>();
  addRoute(
    app,
    {
      method: 'get',
      path: '/health',
      operationId: 'health',
      summary: 'Whether the system lives and reaches its database',
      tag: 'System',
      isPublic: true,
      status: 200,
      answer: HealthSchema,
      example: { status: 'ok', database: 'reachable' },
    },
    async () => {
      await database.query({ text: 'select 1' });
      return { status: 'ok', database: 'reachable' } as const;
    },
  );
  return app;
}

/** Who the caller is, Stage-0 for him, how it goes, and what is in force. */
export function systemRoutes(stage0: Stage0): OpenAPIHono<Variables> {
  const app = new OpenAPIHono<Variables>();

  for (const [path, operationId] of [
    ['/boot', 'boot'],
    ['/api/boot', 'bootUnderApi'],
  ] as const) {
    addRoute(
      app,
      {
        method: 'post',
        path,
        operationId,
        summary: 'Run a kernel for the caller, and wait for what it answers',
        description:
          'The boot and how it ended are in the ledger before this answers. A kernel that ran and failed is `ok: false` ' +
          'with status 200. Under an `idempotency_key` one boot runs, and all others answer what it answered.',
        tag: 'Running',
        body: { schema: BootBody, examples: BOOT_EXAMPLES },
        status: 200,
        answer: BootAnswerSchema,
        example: {
          ok: true,
          status: 'complete',
          boot_event_id: '1c6d2b8e-0c55-4f0a-a8f7-5f6f0d6c1a10',
          execution_id: '57c9b0f4-7a34-4d92-9be3-1d2c3b4a5f20',
          function_id: EXAMPLE_SPAN.id,
          function_seq: 0,
          output: { execution_id: 'd0a1…', status: 'complete', result: 42, error: null },
          error: null,
          duration_ms: 12,
          trace_id: '9f86d081884c7d659a2feaa0c55ad015',
        },
        problems: [404, 409, 429],
      },
      async ({ body }, c) => {
        const request = parseBootRequest(body, c.get('identity'));
        await requireKernelScope(stage0, c.get('caller'), request.boot_function_id);
        return boot(stage0, request);
      },
    );
  }

  addRoute(
    app,
    {
      method: 'get',
      path: '/api/me',
      operationId: 'whoAmI',
      summary: 'Whom the token speaks for',
      tag: 'System',
      status: 200,
      answer: MeSchema,
      example: { user_id: 'local', tenant_id: 'local' },
    },
    async (_said, c) => {
      const { userId, tenantId } = c.get('identity');
      return { user_id: userId, tenant_id: tenantId };
    },
  );

  addRoute(
    app,
    {
      method: 'get',
      path: '/api/metrics',
      operationId: 'readMetrics',
      summary: 'Function executions by day and status, and the queue of the tenant',
      description: 'Executions that the caller may see, first to last day. Of the queue only numbers, over all owners.',
      tag: 'System',
      query: MetricsQuerySchema,
      status: 200,
      answer: MetricsSchema,
      example: {
        from: '2026-11-19T00:00:00.000Z',
        total: { count: 3, avg_duration_ms: 12.7, p95_duration_ms: 21 },
        executions: [{ day: '2026-11-25', status: 'complete', count: 3, avg_duration_ms: 12.7, p95_duration_ms: 21 }],
        queue: { ready: 1, delayed: 0, leased: 0, dead: 0, oldest_due_ms: 180 },
      },
    },
    ({ query: { days } }, c) => readMetrics(stage0.database, c.get('identity'), daysBefore(stage0.now(), days - 1)),
  );

  addRoute(
    app,
    {
      method: 'get',
      path: '/api/manifest',
      operationId: 'readManifest',
      summary: 'The manifest in force: which kernels may boot, and everybody’s limits',
      tag: 'System',
      status: 200,
      answer: ManifestSchema,
      example: {
        id: MANIFEST_ID,
        seq: 0,
        hash: EXAMPLE_HASH,
        public_key: EXAMPLE_HASH,
        content: { kernels: { run_code_kernel: EXAMPLE_SPAN.id }, allowed_boot_ids: [EXAMPLE_SPAN.id] },
      },
      problems: [409],
    },
    async (_said, c) => {
      const { id, seq, curr_hash, public_key, content } = await readManifest(stage0, c.get('identity'));
      return { id, seq, hash: curr_hash, public_key, content: content as z.infer<typeof ManifestSchema>['content'] };
    },
  );

  return app;
}

const BOOT_EXAMPLES = {
  code: { boot_function_id: EXAMPLE_SPAN.id, input: { code: 'return input * 2;', input: 21 } },
  sample: { boot_function_id: EXAMPLE_SPAN.id },
};

/** The beginning of a day (UTC), so many days before. */
function daysBefore(now: Date, days: number): Date {
  return new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth(), now.getUTCDate() - days));
}
