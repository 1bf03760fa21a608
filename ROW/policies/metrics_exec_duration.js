/**
 * metrics_exec_duration: each run of a function that ended, however it ended, leaves its duration as a `metric`.
 * Why: durations over time are read from one kind of small span, which holds nothing of what the function was given.
 *
 * @param {PolicySpan} span an execution
 * @returns {PolicyActions}
 */
export default function on(span) {
  const { id, parent_id, duration_ms, status } = span;
  if (typeof duration_ms !== 'number') return [];
  return [
    {
      emit_span: {
        entity_type: 'metric',
        did: 'measured',
        this: `execution:${id}`,
        parent_id: parent_id ?? null,
        metric_name: 'exec.duration',
        metric_value: duration_ms,
        metric_unit: 'ms',
        metadata: { status: status ?? null },
      },
    },
  ];
}
