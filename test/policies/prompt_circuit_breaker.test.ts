import { describePolicy, PROVIDER_ID, SPAN_ID } from './policies.ts';

const COOLDOWN_MS = 300_000;
const AT = Date.parse('2026-11-23T10:01:00.000Z');
const FAILED = {
  entity_type: 'provider_execution',
  at: new Date(AT).toISOString(),
  status: 'error',
  prompt_family: 'greeting',
  provider_id: PROVIDER_ID,
  error: { code: 'PROVIDER_TIMEOUT', message: 'no answer' },
};
const CIRCUIT = {
  entity_type: 'circuit',
  did: 'opened',
  this: 'prompt_family:greeting',
  parent_id: SPAN_ID,
  status: 'open',
  prompt_family: 'greeting',
  provider_id: PROVIDER_ID,
  score: null,
  error: FAILED.error,
  expires_at: '2026-11-23T10:06:00.000Z',
  metadata: { reason: 'error', cooldown_ms: COOLDOWN_MS },
};
const WINDOW = Math.floor(AT / COOLDOWN_MS);
const key = (window = WINDOW, provider: string | null = PROVIDER_ID) =>
  JSON.stringify(['greeting', provider, window, 'alice']);
const POOR = { entity_type: 'prompt_eval', at: FAILED.at, prompt_family: 'greeting', score: 0.49 };

describePolicy('prompt_circuit_breaker', [
  ['opens for a call that failed', FAILED, [{ key: key(), emit: CIRCUIT }]],
  [
    'opens under the same key again within the window',
    { ...FAILED, at: '2026-11-23T10:04:59.999Z' },
    [{ key: key(), emit: { ...CIRCUIT, expires_at: '2026-11-23T10:09:59.999Z' } }],
  ],
  [
    'opens anew in the next window',
    { ...FAILED, at: '2026-11-23T10:05:00.000Z' },
    [{ key: key(WINDOW + 1), emit: { ...CIRCUIT, expires_at: '2026-11-23T10:10:00.000Z' } }],
  ],
  [
    'opens for an evaluation below min_score',
    POOR,
    [
      {
        key: key(WINDOW, null),
        emit: {
          ...CIRCUIT,
          provider_id: null,
          score: 0.49,
          error: null,
          metadata: { reason: 'score', cooldown_ms: COOLDOWN_MS },
        },
      },
    ],
  ],
  ['does nothing at min_score', { ...POOR, score: 0.5 }, []],
  ['does nothing at an evaluation without a score', { ...POOR, score: null }, []],
  ['does nothing at a call that went well', { ...FAILED, status: 'complete', score: 0.1 }, []],
  ['does nothing at a call of no family', { ...FAILED, prompt_family: null }, []],
  ['is not asked about its own circuits', { ...CIRCUIT, status: 'error' }, 'is not asked'],
]);
