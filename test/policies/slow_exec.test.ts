import { describePolicy, execution, SPAN_ID } from './policies.ts';

describePolicy('slow_exec', [
  [
    'marks a run that took longer than slow_ms',
    execution({ duration_ms: 5001 }),
    [
      {
        key: SPAN_ID,
        emit: {
          entity_type: 'status_patch',
          did: 'marked_slow',
          this: `execution:${SPAN_ID}`,
          parent_id: SPAN_ID,
          status: 'slow',
          metric_name: 'duration',
          metric_value: 5001,
          metric_unit: 'ms',
          metadata: { slow_ms: 5000 },
        },
      },
    ],
  ],
  ['does nothing at exactly slow_ms', execution({ duration_ms: 5000 }), []],
  ['does nothing at a run without a duration', execution({ duration_ms: null }), []],
  ['is not asked about runs that run_code marks itself', execution({ who: 'kernel:run_code' }), 'is not asked'],
  ['is not asked about boots of kernels', execution({ who: 'stage0', did: 'ran_kernel' }), 'is not asked'],
]);
