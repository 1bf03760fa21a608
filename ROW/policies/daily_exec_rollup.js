/**
 * daily_exec_rollup: when a day (UTC) has ended, each tenant that ran functions gets one `rollup` of it: how many runs
 * by status, durations, cost, tokens.
 * Why: what a month cost is thirty spans, and not a count over all runs.
 *
 * @param {PolicySpan} span the day of a tenant
 * @returns {PolicyActions}
 */
export default function on(span) {
  const { content, started_at, finished_at } = span;
  if (typeof content?.day !== 'string') return [];
  return [
    {
      key: content.day,
      emit_span: {
        entity_type: 'rollup',
        did: 'summed_up',
        this: `day:${content.day}`,
        name: 'daily_exec',
        started_at: started_at ?? null,
        finished_at: finished_at ?? null,
        content,
      },
    },
  ];
}
