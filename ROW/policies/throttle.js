/**
 * throttle: a tenant that has used `params.warn_ratio` of its function executions of the day (UTC) is told, once a day,
 * by an advisory that all of the tenant see.
 * Why: the first sign of the limit should not be a refusal. Nothing is refused here.
 *
 * @param {PolicySpan} span an execution of a request; its `metadata.quota` says how much is used
 * @param {PolicyContext} context
 * @returns {PolicyActions}
 */
export default function on(span, { params }) {
  const { used, limit } = span.metadata?.quota ?? {};
  if (!Number.isFinite(used) || !(limit > 0) || !(used / limit >= params.warn_ratio)) return [];
  const day = String(span.started_at ?? span.at).slice(0, 10);
  return [
    {
      key: day,
      emit_span: {
        entity_type: 'throttle',
        did: 'advised',
        this: `tenant:${span.tenant_id}`,
        visibility: 'tenant',
        status: 'near_limit',
        metric_name: 'per_tenant_daily_exec_limit',
        metric_value: used,
        metadata: { day, used, limit, warn_ratio: params.warn_ratio },
      },
    },
  ];
}
