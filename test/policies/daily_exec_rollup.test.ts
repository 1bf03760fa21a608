import { describePolicy } from './policies.ts';

const CONTENT = {
  day: '2026-11-22',
  executions: 3,
  by_status: { complete: 2, error: 1 },
  duration_ms: { sum: 60, avg: 20, p95: 40, max: 40 },
  cost_micros: 5,
  tokens_in: 7,
  tokens_out: 9,
};
const DAY = {
  entity_type: 'day',
  visibility: 'tenant',
  started_at: '2026-11-22T00:00:00.000Z',
  finished_at: '2026-11-23T00:00:00.000Z',
  content: CONTENT,
} as const;

describePolicy('daily_exec_rollup', [
  [
    'sums up a day, once for each day',
    DAY,
    [
      {
        key: '2026-11-22',
        emit: {
          entity_type: 'rollup',
          did: 'summed_up',
          this: 'day:2026-11-22',
          name: 'daily_exec',
          started_at: '2026-11-22T00:00:00.000Z',
          finished_at: '2026-11-23T00:00:00.000Z',
          content: CONTENT,
        },
      },
    ],
  ],
  ['does nothing at a day without a date', { ...DAY, content: { executions: 3 } }, []],
  ['is not asked about its own rollups', { ...DAY, entity_type: 'rollup' }, 'is not asked'],
]);
