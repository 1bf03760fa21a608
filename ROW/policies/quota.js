/**
 * quota: when a tenant's quota of the day (UTC) refuses a run, the tenant is told once a day, however often that happens.
 * Why: each refusal is told to who was refused; that the tenant is at its limit concerns all of it.
 *
 * @param {PolicySpan} span a policy_violation
 * @returns {PolicyActions}
 */
export default function on(span) {
  if (span.error?.code !== 'QUOTA_EXCEEDED') return [];
  const day = String(span.at).slice(0, 10);
  return [
    {
      key: day,
      emit_span: {
        entity_type: 'quota_exceeded',
        did: 'reported',
        this: `tenant:${span.tenant_id}`,
        visibility: 'tenant',
        status: 'refused',
        metric_name: span.metric_name ?? null,
        metric_value: span.metric_value ?? null,
        metadata: { day },
      },
    },
  ];
}
