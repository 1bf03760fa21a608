/**
 * slow_exec: a run of a request that took longer than `params.slow_ms` is marked, once, by a `status_patch` beside it.
 * Why: who waits for slow functions looks for the marks, and not through all runs. (`run_code` marks its own runs.)
 *
 * @param {PolicySpan} span an execution
 * @param {PolicyContext} context
 * @returns {PolicyActions}
 */
export default function on(span, { params }) {
  const { id, duration_ms } = span;
  if (typeof duration_ms !== 'number' || !(duration_ms > params.slow_ms)) return [];
  return [
    {
      key: id,
      emit_span: {
        entity_type: 'status_patch',
        did: 'marked_slow',
        this: `execution:${id}`,
        parent_id: id,
        status: 'slow',
        metric_name: 'duration',
        metric_value: duration_ms,
        metric_unit: 'ms',
        metadata: { slow_ms: params.slow_ms },
      },
    },
  ];
}
