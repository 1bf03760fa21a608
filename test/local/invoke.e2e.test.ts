import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Ready, ROW_FOLDER } from '../../src/local/stack.ts';
import { readRowFiles } from '../../src/seed/index.ts';
import { createHome, StackProcess } from './stack-process.ts';

const STAGE0 = 'loglineos-stage0-loader';
const RUN_CODE = '00000000-0000-4000-8000-000000000001';
const PLAN_PAYLOAD = `{"boot_function_id":"${RUN_CODE}","user_id":"test","tenant_id":"system"}`;
const PAYLOAD_BYTES_MAX = 6 * 1024 * 1024;
const SEEDED = (await readRowFiles(ROW_FOLDER, { overridePublicKey: null })).length;

let home: string;
let remove: () => Promise<void>;
let stack: StackProcess;
let ready: Ready;
let admin: pg.Client;
beforeAll(async () => {
  ({ home, remove } = await createHome());
  ({ stack, ready } = await StackProcess.start(home));
  admin = new pg.Client(ready.admin_database_url);
  await admin.connect();
});
afterAll(async () => {
  await admin?.end();
  await stack?.kill('SIGTERM');
  await remove?.();
});

/** Rows, but for those that policies append to what happened, whenever they come to it. */
const count = async () =>
  (await admin.query(`select count(*)::int as n from ledger.universal_registry where who not like 'policy:%'`)).rows[0]
    .n;

function invoke(
  name: string,
  payload: string | Uint8Array<ArrayBuffer>,
  headers: Record<string, string> = {},
): Promise<Response> {
  return fetch(`${ready.lambda_endpoint}/2015-03-31/functions/${name}/invocations`, {
    method: 'POST',
    headers,
    body: payload,
  });
}

/** An answer of the service itself: the function was not run. */
async function expectServiceError(answer: Promise<Response>, status: number, type: string): Promise<void> {
  const before = await count();
  const response = await answer;
  expect([response.status, response.headers.get('x-amzn-ErrorType')]).toEqual([status, type]);
  expect(await response.json()).toMatchObject({ Type: 'User', Message: expect.stringMatching(/./) });
  expect(await count()).toBe(before);
}

describe('the Invoke operation', () => {
  it('boots with the payload of the plan, and the execution is in the ledger', async () => {
    const response = await invoke(STAGE0, PLAN_PAYLOAD);
    expect([response.status, response.headers.get('X-Amz-Executed-Version')]).toEqual([200, '$LATEST']);
    expect(response.headers.get('X-Amz-Function-Error')).toBeNull();
    const answer = (await response.json()) as Record<string, string>;
    expect(answer).toMatchObject({ ok: true, status: 'complete', output: { result: 42 } });
    const { rows } = await admin.query(
      'select caused_by, tenant_id, owner_id, status from ledger.universal_registry where id = $1',
      [answer.execution_id],
    );
    expect(rows).toEqual([
      { caused_by: answer.boot_event_id, tenant_id: 'system', owner_id: 'test', status: 'complete' },
    ]);
  });

  it.each([
    STAGE0,
    `${STAGE0}:$LATEST`,
    `arn%3Aaws%3Alambda%3Aeu-central-1%3A123456789012%3Afunction%3A${STAGE0}`,
    `123456789012:function:${STAGE0}:prod`,
  ])('knows a function by its name, with an alias, and by its ARN: %s', async (name) => {
    expect(await (await invoke(name, PLAN_PAYLOAD)).json()).toMatchObject({ ok: true });
  });

  it('migrates and seeds again, and finds nothing to do', async () => {
    const before = await count();
    expect(await (await invoke('loglineos-db-migration', '{}')).json()).toMatchObject({ applied: [] });
    expect(await (await invoke('loglineos-seed', '')).json()).toEqual({ appended: [], unchanged: SEEDED });
    expect(await count()).toBe(before);
  });

  it.each<[string, string, string, string]>([
    ['no id', '{"user_id":"test","tenant_id":"system"}', 'FIELD_MISSING', 'boot_function_id'],
    ['an id that is no UUID', PLAN_PAYLOAD.replace(RUN_CODE, 'run_code'), 'FIELD_INVALID', 'UUID'],
    [
      'an unknown id',
      PLAN_PAYLOAD.replace(RUN_CODE, '00000000-0000-4000-8000-00000000dead'),
      'KERNEL_NOT_FOUND',
      'dead',
    ],
    [
      'an id that may not boot',
      PLAN_PAYLOAD.replace(RUN_CODE, '00000000-0000-4000-8000-0000000000aa'),
      'KERNEL_NOT_ALLOWED',
      'does not allow',
    ],
    ['no user', `{"boot_function_id":"${RUN_CODE}","tenant_id":"system"}`, 'FIELD_MISSING', 'user_id'],
    ['no object', '[]', 'FIELD_INVALID', 'object'],
  ])('answers a function error for a payload with %s, and writes nothing', async (_what, payload, type, message) => {
    const before = await count();
    const response = await invoke(STAGE0, payload);
    expect([response.status, response.headers.get('X-Amz-Function-Error')]).toEqual([200, 'Unhandled']);
    const error = (await response.json()) as Record<string, unknown>;
    expect(error).toEqual({ errorType: type, errorMessage: expect.stringContaining(message), trace: [] });
    expect(await count()).toBe(before);
  });

  it('answers a function error for a kernel that ran and failed, and says where that is recorded', async () => {
    const payload = { ...JSON.parse(PLAN_PAYLOAD), input: { span_id: '00000000-0000-4000-8000-00000000dead' } };
    const error = (await (await invoke(STAGE0, JSON.stringify(payload))).json()) as {
      errorType: string;
      errorMessage: string;
    };
    expect(error.errorType).toBe('FUNCTION_NOT_FOUND');
    const execution = /execution ([0-9a-f-]{36})/.exec(error.errorMessage)?.[1];
    const { rows } = await admin.query('select status, error from ledger.universal_registry where id = $1', [
      execution,
    ]);
    expect(rows).toMatchObject([{ status: 'error', error: { code: 'FUNCTION_NOT_FOUND' } }]);
  });

  it('refuses what is no JSON, or no UTF-8', async () => {
    await expectServiceError(invoke(STAGE0, '{"boot_function_id":'), 400, 'InvalidRequestContentException');
    await expectServiceError(invoke(STAGE0, new Uint8Array([0x22, 0xff, 0x22])), 400, 'InvalidRequestContentException');
  });

  it('refuses a function that is not there', async () => {
    await expectServiceError(invoke('loglineos-nothing', '{}'), 404, 'ResourceNotFoundException');
    await expectServiceError(invoke('constructor', '{}'), 404, 'ResourceNotFoundException');
  });

  it('refuses 7 MB, and more than 1 MB that nobody waits for', async () => {
    await expectServiceError(invoke(STAGE0, 'x'.repeat(7 * 1024 * 1024)), 413, 'RequestTooLargeException');
    const event = { 'X-Amz-Invocation-Type': 'Event' };
    await expectServiceError(invoke(STAGE0, `"${'x'.repeat(1024 * 1024)}"`, event), 413, 'RequestTooLargeException');
  });

  it('takes 6 MB, which is more than a span may hold', async () => {
    const input = 'x'.repeat(PAYLOAD_BYTES_MAX - PLAN_PAYLOAD.length - 11);
    const response = await invoke(STAGE0, `${PLAN_PAYLOAD.slice(0, -1)},"input":"${input}"}`);
    expect(await response.json()).toMatchObject({ errorType: 'SPAN_TOO_LARGE' });
  });

  it('runs nothing for a DryRun', async () => {
    const before = await count();
    const response = await invoke(STAGE0, PLAN_PAYLOAD, { 'X-Amz-Invocation-Type': 'DryRun' });
    expect([response.status, await response.text()]).toEqual([204, '']);
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(await count()).toBe(before);
  });

  it('answers an Event at once, runs it after, and logs that one failed', async () => {
    const event = { 'X-Amz-Invocation-Type': 'Event' };
    const response = await invoke(STAGE0, `${PLAN_PAYLOAD.slice(0, -1)},"trace_id":"of-an-event"}`, event);
    expect([response.status, await response.text()]).toEqual([202, '']);
    const executions = () =>
      admin.query(`select from ledger.universal_registry where trace_id = 'of-an-event' and did = 'ran_kernel'`);
    await expect.poll(async () => (await executions()).rowCount).toBe(1);
    expect((await invoke(STAGE0, '{"user_id":"nobody"}', event)).status).toBe(202);
    await expect.poll(() => stack.stderr).toContain('boot_function_id is missing');
  });

  it('refuses an invocation type nobody knows', async () => {
    await expectServiceError(
      invoke(STAGE0, PLAN_PAYLOAD, { 'X-Amz-Invocation-Type': 'Async' }),
      400,
      'InvalidParameterValueException',
    );
  });

  it('gives the end of the log to who asks for it', async () => {
    const response = await invoke(STAGE0, PLAN_PAYLOAD, { 'X-Amz-Log-Type': 'Tail' });
    expect(Buffer.from(response.headers.get('X-Amz-Log-Result') ?? '', 'base64').toString()).toMatch(
      /^REPORT Duration: [\d.]+ ms/,
    );
  });

  it('refuses a web page in the browser of the user', async () => {
    for (const headers of [
      { Origin: 'https://evil.example' },
      { Origin: 'null' },
      { 'Sec-Fetch-Site': 'cross-site' },
    ]) {
      await expectServiceError(
        invoke(STAGE0, PLAN_PAYLOAD, headers as Record<string, string>),
        403,
        'AccessDeniedException',
      );
    }
  });
});

const awsVersion = findAws();
if (awsVersion === null) process.stderr.write('skipped: the tests of the aws command, which is not on the PATH\n');

describe.skipIf(awsVersion === null)('the aws command', () => {
  const rawPayload = awsVersion === 1 ? [] : ['--cli-binary-format', 'raw-in-base64-out'];

  /** `aws lambda invoke`, as the plan has it. */
  async function aws(name: string, payload: string, ...more: string[]) {
    const out = join(home, `out-${Math.random()}.json`);
    const args = [
      'lambda',
      'invoke',
      '--endpoint-url',
      ready.lambda_endpoint,
      '--function-name',
      name,
      ...rawPayload,
      '--payload',
      payload,
      ...more,
      out,
    ];
    const { PATH, HOME } = process.env;
    const env = {
      PATH,
      HOME,
      AWS_ACCESS_KEY_ID: 'local',
      AWS_SECRET_ACCESS_KEY: 'local',
      AWS_REGION: 'eu-central-1',
      AWS_DEFAULT_REGION: 'eu-central-1',
      AWS_MAX_ATTEMPTS: '1',
    };
    const child = spawn('aws', args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    let [stdout, stderr] = ['', ''];
    child.stdout.on('data', (chunk) => {
      stdout += chunk;
    });
    child.stderr.on('data', (chunk) => {
      stderr += chunk;
    });
    const [code] = await once(child, 'close');
    const written = await readFile(out, 'utf8').catch(() => '');
    return {
      code,
      stderr,
      said: stdout === '' ? null : JSON.parse(stdout),
      answer: written === '' ? null : JSON.parse(written),
    };
  }

  it('boots with the payload of the plan', async () => {
    const { code, said, answer } = await aws(STAGE0, PLAN_PAYLOAD);
    expect([code, said]).toMatchObject([0, { StatusCode: 200, ExecutedVersion: '$LATEST' }]);
    expect(said).not.toHaveProperty('FunctionError');
    expect(answer).toMatchObject({ ok: true, status: 'complete', function_id: RUN_CODE });
    const { rowCount } = await admin.query(
      `select from ledger.universal_registry where id = $1 and did = 'ran_kernel'`,
      [answer.execution_id],
    );
    expect(rowCount).toBe(1);
  });

  it('migrates and seeds', async () => {
    const [migrated, seeded] = await Promise.all([aws('loglineos-db-migration', '{}'), aws('loglineos-seed', '{}')]);
    expect(migrated.answer).toMatchObject({ applied: [] });
    expect(seeded.answer).toMatchObject({ appended: [], unchanged: SEEDED });
  });

  it('shows a function error, and ends well', async () => {
    const { code, said, answer } = await aws(STAGE0, '{}');
    expect([code, said]).toMatchObject([0, { StatusCode: 200, FunctionError: 'Unhandled' }]);
    expect(answer).toMatchObject({ errorType: 'FIELD_MISSING' });
  });

  it('hears of a function that is not there, and of 7 MB', async () => {
    const large = join(home, 'large.json');
    await writeFile(large, `{"input":"${'x'.repeat(7 * 1024 * 1024)}"}`);
    const [missing, tooLarge] = await Promise.all([aws('loglineos-nothing', '{}'), aws(STAGE0, `file://${large}`)]);
    expect(missing.code).not.toBe(0);
    expect(missing.stderr).toContain('ResourceNotFoundException');
    expect(tooLarge.code).not.toBe(0);
    expect(tooLarge.stderr).toContain('RequestTooLargeException');
  });

  it('sends an Event and a DryRun', async () => {
    const [event, dryRun] = await Promise.all([
      aws(STAGE0, PLAN_PAYLOAD, '--invocation-type', 'Event'),
      aws(STAGE0, PLAN_PAYLOAD, '--invocation-type', 'DryRun'),
    ]);
    expect([event.said?.StatusCode, dryRun.said?.StatusCode]).toEqual([202, 204]);
  });
});

/** The first number of its version; null when there is none. */
function findAws(): number | null {
  try {
    return Number(
      /aws-cli\/(\d+)/.exec(
        execFileSync('aws', ['--version'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }),
      )?.[1],
    );
  } catch {
    return null;
  }
}
