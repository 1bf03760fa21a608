/**
 * ttl_reaper: a span whose `expires_at` has passed gets a last version, deleted, in its owner's name.
 * Why: time passes without an event, so somebody must look. What the span said stays in the versions before; the last
 * one repeats none of it, and so also fits where the span is as large as a span may be.
 *
 * What only the system says is left alone: what runs has its own end, and code is withdrawn by people.
 *
 * @param {PolicySpan} span the newest version of an expired span
 * @returns {PolicyActions}
 */
export default function on({ id, entity_type, expires_at }) {
  if (LEFT_ALONE.has(entity_type)) return [];
  return [{ emit_span: { id, entity_type, did: 'expired', status: 'expired', expires_at, is_deleted: true } }];
}

const LEFT_ALONE = new Set([
  'access_denied',
  'boot_event',
  'execution',
  'request',
  'policy_violation',
  'policy_error',
  'schedule_error',
  'provider_execution',
  'manifest',
  'loader',
  'function',
  'policy',
  'provider',
  'api_token',
]);
