/**
 * prompt_circuit_breaker: a prompt family whose call to a provider failed, or whose evaluation scored below
 * `params.min_score`, gets an open `circuit` with that provider for `params.cooldown_ms` from then on.
 * Why: who is about to use the family sees that it is failing, before it costs another call. The circuit closes by time,
 * so it counts from the failure and not from when this policy came to see it; many failures in one window open it once.
 *
 * @param {PolicySpan} span a provider_execution or a prompt_eval
 * @param {PolicyContext} context
 * @returns {PolicyActions}
 */
export default function on(span, { params }) {
  const { id, at, entity_type, owner_id, prompt_family, provider_id, status, score, error } = span;
  if (typeof prompt_family !== 'string') return [];
  const hasFailed = entity_type === 'provider_execution' && status === 'error';
  const isPoor = entity_type === 'prompt_eval' && typeof score === 'number' && score < params.min_score;
  if (!hasFailed && !isPoor) return [];

  const failedAt = Date.parse(at);
  const window = Math.floor(failedAt / params.cooldown_ms);
  return [
    {
      key: JSON.stringify([prompt_family, provider_id ?? null, window, owner_id]),
      emit_span: {
        entity_type: 'circuit',
        did: 'opened',
        this: `prompt_family:${prompt_family}`,
        parent_id: id,
        status: 'open',
        prompt_family,
        provider_id: provider_id ?? null,
        score: score ?? null,
        error: error ?? null,
        expires_at: new Date(failedAt + params.cooldown_ms).toISOString(),
        metadata: { reason: hasFailed ? 'error' : 'score', cooldown_ms: params.cooldown_ms },
      },
    },
  ];
}
