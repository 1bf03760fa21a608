import { describePolicy, execution } from './policies.ts';

const quota = (used: unknown, limit: unknown) => execution({ metadata: { quota: { used, limit } as never } });
const said = (used: number, limit: number, day = '2026-11-23') => [
  {
    key: day,
    emit: {
      entity_type: 'throttle',
      did: 'advised',
      this: 'tenant:acme',
      visibility: 'tenant',
      status: 'near_limit',
      metric_name: 'per_tenant_daily_exec_limit',
      metric_value: used,
      metadata: { day, used, limit, warn_ratio: 0.8 },
    },
  },
];

describePolicy('throttle', [
  ['advises from the ratio on', quota(80, 100), said(80, 100)],
  ['advises beyond the limit, under the same key', quota(130, 100), said(130, 100)],
  [
    'counts the day on which the run began',
    { ...quota(80, 100), started_at: '2026-11-22T23:59:59.000Z' },
    said(80, 100, '2026-11-22'),
  ],
  ['takes the time of the span where no start is known', { ...quota(9, 10), started_at: null }, said(9, 10)],
  ['does nothing below the ratio', quota(79, 100), []],
  ['does nothing where nothing is allowed', quota(0, 0), []],
  ['does nothing at quotas that are no numbers', quota('80', 100), []],
  ['does nothing where no quota is told', execution({ metadata: {} }), []],
  ['is not asked about runs that tell no quota', execution({ who: 'kernel:run_code' }), 'is not asked'],
]);
