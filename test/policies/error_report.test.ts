import { describePolicy, execution, FUNCTION_ID, SPAN_ID } from './policies.ts';

const FAILED = execution({ status: 'error', name: 'f', error: { code: 'THREW', message: 'no such order', line: 3 } });
const REPORT = {
  entity_type: 'error_report',
  did: 'reported',
  this: `execution:${SPAN_ID}`,
  parent_id: FUNCTION_ID,
  related_to: [SPAN_ID],
  name: 'f',
  status: 'error',
  error: { code: 'THREW', message: 'no such order' },
  metadata: { day: '2026-11-23' },
};
const KEY = `2026-11-23 ${FUNCTION_ID} THREW alice`;

describePolicy('error_report', [
  ['reports a run that failed, by function, code and day', FAILED, [{ key: KEY, emit: REPORT }]],
  [
    'reports the same failure under the same key, whatever its message',
    { ...FAILED, error: { code: 'THREW', message: 'no such client' } },
    [{ key: KEY, emit: { ...REPORT, error: { code: 'THREW', message: 'no such client' } } }],
  ],
  [
    'reports another day under another key',
    { ...FAILED, at: '2026-11-24T00:00:00.000Z' },
    [{ key: KEY.replace('23', '24'), emit: { ...REPORT, metadata: { day: '2026-11-24' } } }],
  ],
  ['reports to each owner', { ...FAILED, owner_id: 'alan' }, [{ key: KEY.replace('alice', 'alan'), emit: REPORT }]],
  [
    'reports a boot that was lost',
    execution({ who: 'reaper', did: 'ran_kernel', status: 'lost', error: { code: 'LOST', message: 'gone' } }),
    [
      {
        key: KEY.replace('THREW', 'LOST'),
        emit: { ...REPORT, name: null, status: 'lost', error: { code: 'LOST', message: 'gone' } },
      },
    ],
  ],
  [
    'reports code without a row and an error without a code',
    execution({ status: 'timeout', parent_id: null, error: null }),
    [
      {
        key: '2026-11-23 code UNKNOWN alice',
        emit: {
          ...REPORT,
          parent_id: null,
          name: null,
          status: 'timeout',
          error: { code: 'UNKNOWN', message: null },
        },
      },
    ],
  ],
  ['is not asked about a run that went well', execution(), 'is not asked'],
  ['is not asked about a request that failed', { ...FAILED, entity_type: 'request' }, 'is not asked'],
]);
