import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type AnyJson, Installation, PLAN_PAYLOAD, PROBE } from '../stage0/installation.ts';
import { SECRET_KEYS, TRUSTED_KEYS_ENV } from '../support/keys.ts';
import { FunctionProcess, type Invocation } from './function-process.ts';
import { SecretsManager } from './secrets-manager.ts';

const HANDLER = new URL('../../src/lambda/stage0.ts', import.meta.url).pathname;
const XRAY = { Root: '1-5759e988-bd862e3fe1be46a994272793', traceId: '5759e988bd862e3fe1be46a994272793' };
const UNKNOWN = '00000000-0000-4000-8000-00000000dead';
const hex = (key: Uint8Array) => Buffer.from(key).toString('hex');
const TENANT_KEY = 'f00dfacef00dface'.repeat(4);

let installation: Installation;
let manager: SecretsManager;
let env: Record<string, string>;
let stage0: FunctionProcess;
let secrets: string[];

beforeAll(async () => {
  installation = await Installation.create();
  await installation.seed();
  manager = await SecretsManager.start();
  const { hostname, port, pathname, username, password } = new URL(installation.ledger.urls.loglineos_app);
  const keys = { runtime_key: hex(SECRET_KEYS.runtime), tenant_master_key: TENANT_KEY };
  secrets = [keys.runtime_key, keys.tenant_master_key];
  env = {
    ...manager.env,
    _X_AMZN_TRACE_ID: `Root=${XRAY.Root};Parent=53995c3f42cd8ad8;Sampled=1`,
    DATABASE_HOST: hostname,
    DATABASE_PORT: port,
    DATABASE_NAME: pathname.slice(1),
    DATABASE_USER: username,
    DATABASE_SECRET_ARN: manager.put('app', { password }),
    RUNTIME_SECRET_ARN: manager.put('runtime', keys),
    ...TRUSTED_KEYS_ENV,
  };
  stage0 = new FunctionProcess(HANDLER, env);
});

afterAll(async () => {
  await stage0?.end();
  await manager?.stop();
  await installation?.close();
});

/** What an invocation wrote, line by line; every line must be one JSON object. */
async function invoke(event: unknown, container = stage0): Promise<Invocation & { lines: AnyJson[] }> {
  const before = container.output.length;
  const invocation = await container.invoke(event);
  // The last line of an invocation.
  await expect.poll(() => container.output.slice(before)).toMatch(/"_aws":.*\n/);
  const written = container.output.slice(before).replace(JSON.stringify(invocation), '');
  return {
    ...invocation,
    lines: written
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line)),
  };
}

const metricsOf = (lines: AnyJson[]) => {
  const found = lines.filter(({ _aws }) => _aws !== undefined);
  expect(found).toHaveLength(1);
  expectEmbeddedMetrics(found[0]);
  return found[0];
};

/** The rules of the specification that `src/lambda/emf.ts` cites, its JSON schema and what its text adds. */
function expectEmbeddedMetrics(line: AnyJson): void {
  expect(Object.keys(line._aws).sort()).toEqual(['CloudWatchMetrics', 'Timestamp']);
  expect(Number.isSafeInteger(line._aws.Timestamp)).toBe(true);
  expect(Math.abs(line._aws.Timestamp - Date.now())).toBeLessThan(60_000);
  expect(line._aws.CloudWatchMetrics.length).toBeGreaterThan(0);
  for (const directive of line._aws.CloudWatchMetrics) {
    expect(Object.keys(directive).sort()).toEqual(['Dimensions', 'Metrics', 'Namespace']);
    expect(directive.Namespace).toMatch(/^.{1,1024}$/);
    expect(directive.Dimensions.length).toBeGreaterThan(0);
    for (const set of directive.Dimensions) {
      expect(set.length).toBeLessThanOrEqual(30);
      for (const name of set) {
        expect(name).toMatch(/^.{1,250}$/);
        expect(line[name]).toMatch(/^[\x20-\x7e]{1,1024}$/);
      }
    }
    expect(directive.Metrics.length).toBeGreaterThan(0);
    expect(directive.Metrics.length).toBeLessThanOrEqual(100);
    for (const { Name, Unit, ...others } of directive.Metrics) {
      expect(Name).toMatch(/^.{1,1024}$/);
      expect(['Count', 'Milliseconds']).toContain(Unit);
      expect(others).toEqual({});
      expect(Number.isFinite(line[Name]), Name).toBe(true);
    }
  }
}

describe('a boot on Lambda', () => {
  it('leaves one line in the Embedded Metric Format: how long it took, for the function and for its kernel', async () => {
    const startedAt = performance.now();
    const { answer, lines } = await invoke(PLAN_PAYLOAD);
    expect(answer).toMatchObject({ ok: true });
    const line = metricsOf(lines);
    expect(line._aws.CloudWatchMetrics).toEqual([
      {
        Namespace: 'LogLineOS',
        Dimensions: [['FunctionName'], ['FunctionName', 'Kernel']],
        Metrics: [
          { Name: 'BootDuration', Unit: 'Milliseconds' },
          { Name: 'BootErrors', Unit: 'Count' },
          { Name: 'BootRefused', Unit: 'Count' },
        ],
      },
    ]);
    expect(line).toMatchObject({
      level: 'info',
      message: 'boot',
      outcome: 'complete',
      FunctionName: 'the-function',
      Kernel: 'run_code_kernel',
      BootErrors: 0,
      BootRefused: 0,
      boot_event_id: answer.boot_event_id,
      execution_id: answer.execution_id,
    });
    expect(line.BootDuration).toBeGreaterThan(1);
    expect(line.BootDuration).toBeLessThan(performance.now() - startedAt);
  });

  it('says in each line which function, invocation and trace it belongs to, and in its spans too', async () => {
    for (const [more, traceId] of [
      [{}, XRAY.traceId],
      [{ trace_id: 'the-callers' }, 'the-callers'],
    ] as const) {
      const { answer, lines } = await invoke({ ...PLAN_PAYLOAD, ...more });
      for (const line of lines) {
        expect(line).toMatchObject({
          time: expect.stringMatching(/^\d{4}-.*Z$/),
          level: expect.stringMatching(/./),
          message: expect.stringMatching(/./),
          function: 'the-function',
          request_id: '8476a536-e9f4-11e8-9739-2dfe598c3fcd',
          trace_id: traceId,
        });
      }
      expect((await installation.span(answer.boot_event_id)).trace_id).toBe(traceId);
    }
  });

  it.each<[string, unknown, string]>([
    ['of an unknown kernel', { ...PLAN_PAYLOAD, boot_function_id: UNKNOWN }, 'KERNEL_NOT_FOUND'],
    ['of what is no id', { ...PLAN_PAYLOAD, boot_function_id: 'constructor' }, 'FIELD_INVALID'],
    ['that says nothing', {}, 'FIELD_MISSING'],
    ['with null', null, 'FIELD_INVALID'],
    ['with a list', [PLAN_PAYLOAD], 'FIELD_INVALID'],
    ['with a text', 'boot', 'FIELD_INVALID'],
    [
      'with a trace id of megabytes',
      { ...PLAN_PAYLOAD, boot_function_id: UNKNOWN, trace_id: 'x'.repeat(1e6) },
      'FIELD_INVALID',
    ],
  ])('%s is counted as refused, without a series of its own', async (_what, event, code) => {
    const { error, lines } = await invoke(event);
    expect(error).toMatchObject({ name: code, stack: '' });
    const line = metricsOf(lines);
    expect(line).toMatchObject({ outcome: 'refused', BootErrors: 0, BootRefused: 1 });
    expect(line._aws.CloudWatchMetrics[0].Dimensions).toEqual([['FunctionName']]);
    expect(JSON.stringify(line).length).toBeLessThan(1_000);
    expect(lines.find(({ level }) => level === 'error')).toMatchObject({ function: 'the-function' });
  });

  it('that ran and failed is counted as an error of its kernel, however its id was written', async () => {
    const event = { ...PLAN_PAYLOAD, boot_function_id: PROBE.toUpperCase(), input: { probe: 'throwsHere' } };
    const { error, lines } = await invoke(event);
    expect(error).toMatchObject({ name: 'ON_PURPOSE', stack: '' });
    expect(metricsOf(lines)).toMatchObject({ outcome: 'error', Kernel: 'probe', BootErrors: 1, BootRefused: 0 });
  });

  it('that had no secret is counted as an error, not as refused', async () => {
    const container = new FunctionProcess(HANDLER, { ...env, RUNTIME_SECRET_ARN: `${env.RUNTIME_SECRET_ARN}-gone` });
    const { error, lines } = await invoke(PLAN_PAYLOAD, container);
    await container.end();
    expect(error).toMatchObject({ name: 'SECRET_UNAVAILABLE', stack: '' });
    const line = metricsOf(lines);
    expect(line).toMatchObject({ outcome: 'error', BootErrors: 1, BootRefused: 0 });
    expect(line._aws.CloudWatchMetrics[0].Dimensions).toEqual([['FunctionName']]);
  });

  it('wrote no secret', () => {
    expect(stage0.output).toContain('BootDuration');
    for (const secret of secrets) expect(stage0.output).not.toContain(secret);
  });
});
