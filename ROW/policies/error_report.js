/**
 * error_report: a run that failed, timed out or was lost is reported: once for each function, error code and day (UTC).
 * Why: a function that fails a thousand times in the same way is one thing to look at. The report names the first run.
 * Each owner has reports of their own, because a private one is seen by nobody else.
 *
 * @param {PolicySpan} span an execution
 * @returns {PolicyActions}
 */
export default function on(span) {
  const { id, at, owner_id, parent_id, name, status, error } = span;
  const code = typeof error?.code === 'string' ? error.code : 'UNKNOWN';
  const message = typeof error?.message === 'string' ? error.message : null;
  const day = String(at).slice(0, 10);
  return [
    {
      key: `${day} ${parent_id ?? 'code'} ${code} ${owner_id}`,
      emit_span: {
        entity_type: 'error_report',
        did: 'reported',
        this: `execution:${id}`,
        parent_id: parent_id ?? null,
        related_to: [id],
        name: name ?? null,
        status: status ?? null,
        error: { code, message },
        metadata: { day },
      },
    },
  ];
}
