import { describePolicy, PROVIDER_ID, SPAN_ID } from './policies.ts';

const UNSURE = {
  entity_type: 'provider_execution',
  confidence: 0.59,
  prompt_family: 'greeting',
  provider_id: PROVIDER_ID,
  model: 'small',
  output: { text: 'what is in it stays in it' },
};
const ESCALATION = {
  entity_type: 'escalation',
  did: 'asked_for_review',
  this: `provider_execution:${SPAN_ID}`,
  parent_id: SPAN_ID,
  status: 'open',
  confidence: 0.59,
  prompt_family: 'greeting',
  provider_id: PROVIDER_ID,
  model: 'small',
  metadata: { min_confidence: 0.6 },
};

describePolicy('prompt_confidence_escalation', [
  ['escalates what a model was not sure of', UNSURE, [{ key: SPAN_ID, emit: ESCALATION }]],
  [
    'escalates a run of a prompt',
    { entity_type: 'prompt_run', confidence: 0 },
    [
      {
        key: SPAN_ID,
        emit: {
          ...ESCALATION,
          this: `prompt_run:${SPAN_ID}`,
          confidence: 0,
          prompt_family: null,
          provider_id: null,
          model: null,
        },
      },
    ],
  ],
  ['does nothing at min_confidence', { ...UNSURE, confidence: 0.6 }, []],
  ['does nothing where no confidence is told', { ...UNSURE, confidence: null }, []],
  ['is not asked about its own escalations', { ...ESCALATION, confidence: 0.1 }, 'is not asked'],
]);
