/**
 * prompt_confidence_escalation: an answer of a model that is less sure than `params.min_confidence` becomes an
 * `escalation` that somebody reviews.
 * Why: what a machine doubts, a person should see. It names what to review and repeats nothing of it.
 *
 * @param {PolicySpan} span a provider_execution or a prompt_run
 * @param {PolicyContext} context
 * @returns {PolicyActions}
 */
export default function on(span, { params }) {
  const { id, entity_type, confidence, prompt_family, provider_id, model } = span;
  if (typeof confidence !== 'number' || !(confidence < params.min_confidence)) return [];
  return [
    {
      key: id,
      emit_span: {
        entity_type: 'escalation',
        did: 'asked_for_review',
        this: `${entity_type}:${id}`,
        parent_id: id,
        status: 'open',
        confidence,
        prompt_family: prompt_family ?? null,
        provider_id: provider_id ?? null,
        model: model ?? null,
        metadata: { min_confidence: params.min_confidence },
      },
    },
  ];
}
