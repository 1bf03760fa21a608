import { describePolicy, execution, FUNCTION_ID, SPAN_ID } from './policies.ts';

const METRIC = {
  entity_type: 'metric',
  did: 'measured',
  this: `execution:${SPAN_ID}`,
  parent_id: FUNCTION_ID,
  metric_name: 'exec.duration',
  metric_value: 12,
  metric_unit: 'ms',
  metadata: { status: 'complete' },
};

describePolicy('metrics_exec_duration', [
  ['measures a run', execution(), [{ emit: METRIC }]],
  [
    'measures a run that failed, of code without a row, by run_code',
    execution({ who: 'kernel:run_code', status: 'timeout', parent_id: null, duration_ms: 0 }),
    [{ emit: { ...METRIC, parent_id: null, metric_value: 0, metadata: { status: 'timeout' } } }],
  ],
  ['does nothing where nothing was measured', execution({ duration_ms: null }), []],
  ['is not asked about boots of kernels', execution({ who: 'stage0', did: 'ran_kernel' }), 'is not asked'],
  ['is not asked about its own metrics', { ...METRIC, who: 'policy:metrics_exec_duration' }, 'is not asked'],
]);
