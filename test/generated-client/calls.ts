// Made of the `/openapi.json` of a running stack; the test says where it lies.
import type { paths } from 'openapi';
import createClient from 'openapi-fetch';

/** What somebody would write who knows the document alone. Checked by tsc against the types that were made of it. */
export async function callAll(baseUrl: string, token: string) {
  const api = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${token}` } });

  const code = 'return { total: input.price * input.count };';
  const appended = await api.POST('/api/spans', {
    params: { header: { 'Idempotency-Key': 'generated' } },
    body: { entity_type: 'function', name: 'generated', status: 'active', visibility: 'private', code },
  });
  if (appended.data === undefined || 'spans' in appended.data) throw new Error(JSON.stringify(appended.error));
  const { id } = appended.data;

  const executing = await api.POST('/api/execute', { body: { span_id: id, input: { price: 20, count: 3 } } });
  if (executing.data === undefined) throw new Error(executing.error.detail);
  const path = { id: executing.data.request_id };
  let request = await api.GET('/api/requests/{id}', { params: { path } });
  for (let i = 0; i < 100 && request.data?.status !== 'complete'; i++) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    request = await api.GET('/api/requests/{id}', { params: { path } });
  }

  const timeline = await api.GET('/api/timeline', { params: { query: { name: 'generated', limit: 5 } } });
  const versions = await api.GET('/api/spans/{id}/versions', { params: { path: { id }, query: { limit: 1 } } });
  const metrics = await api.GET('/api/metrics');
  const refused = await api.GET('/api/spans/{id}', { params: { path: { id: 'no-uuid' } } });

  // @ts-expect-error: there is no such route
  await api.GET('/api/nothing');
  // @ts-expect-error: the body is another
  const unknown = await api.POST('/api/execute', { body: { function: id } });

  return {
    output: request.data?.output,
    attempts: request.data?.attempt,
    onTimeline: timeline.data?.spans.map(({ entity_type }) => entity_type),
    next: versions.data?.next,
    waiting: metrics.data?.queue.ready,
    refused: [refused.response.status, refused.error?.code, refused.error?.field],
    unknown: [unknown.response.status, unknown.error?.code, unknown.error?.field],
  };
}
