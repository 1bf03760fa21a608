import { describePolicy } from './policies.ts';

const REFUSED = {
  entity_type: 'policy_violation',
  who: 'stage0',
  status: 'refused',
  error: { code: 'QUOTA_EXCEEDED', message: 'the tenant has used its 100 function executions of the day' },
  metric_name: 'per_tenant_daily_exec_limit',
  metric_value: 100,
};

describePolicy('quota', [
  [
    'reports a refusal, once a day for all of the tenant',
    REFUSED,
    [
      {
        key: '2026-11-23',
        emit: {
          entity_type: 'quota_exceeded',
          did: 'reported',
          this: 'tenant:acme',
          visibility: 'tenant',
          status: 'refused',
          metric_name: 'per_tenant_daily_exec_limit',
          metric_value: 100,
          metadata: { day: '2026-11-23' },
        },
      },
    ],
  ],
  ['does nothing at other violations', { ...REFUSED, error: { code: 'OTHER' } }, []],
  ['does nothing at a violation without an error', { ...REFUSED, error: null }, []],
  ['is not asked about executions', { ...REFUSED, entity_type: 'execution' }, 'is not asked'],
]);
