import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.ts';
import { readVersions } from '../../src/ledger/index.ts';
import { nodeEd25519 } from '../../src/span/ed25519-node.ts';
import { isUuid, verifySpan } from '../../src/span/index.ts';
import { BootFailed, boot, invokeStage0 } from '../../src/stage0/index.ts';
import { runtimeSigner, trustedKeys } from '../support/keys.ts';
import { ALICE } from '../support/spans.ts';
import { expectRefusal, Installation, PLAN_PAYLOAD, PROBE, RUN_CODE } from './installation.ts';

let installation: Installation;
beforeAll(async () => {
  installation = await Installation.create();
  await installation.seed();
});
afterAll(() => installation?.close());

describe('the payload of the plan', () => {
  it('boots run_code_kernel, which runs its sample', async () => {
    const answer = await installation.invoke(PLAN_PAYLOAD);
    expect(answer).toEqual({
      ok: true,
      status: 'complete',
      boot_event_id: expect.toSatisfy(isUuid),
      execution_id: expect.toSatisfy(isUuid),
      function_id: RUN_CODE,
      function_seq: 0,
      output: { execution_id: expect.toSatisfy(isUuid), status: 'complete', result: 42, error: null },
      error: null,
      duration_ms: expect.any(Number),
      trace_id: expect.stringMatching(/^[0-9a-f]{32}$/),
    });
    expect(Number.isInteger(answer.duration_ms)).toBe(true);
  });

  it('leaves one boot_event, one execution of the kernel and one of the function, all of one trace', async () => {
    const answer = await installation.invoke({ ...PLAN_PAYLOAD, trace_id: 'trace-of-the-plan' });
    const rows = await installation.spans('trace_id = $1', ['trace-of-the-plan']);
    const functionExecution = (answer.output as { execution_id: string }).execution_id;
    expect(rows.map(({ id, entity_type, did }) => [id, entity_type, did])).toEqual([
      [answer.boot_event_id, 'boot_event', 'booted'],
      [functionExecution, 'execution', 'ran_function'],
      [answer.execution_id, 'execution', 'ran_kernel'],
    ]);
    expect(answer.trace_id).toBe('trace-of-the-plan');
  });
});

describe('what a boot records', () => {
  it('names the hashes of the kernel and of the manifest, in the boot_event and in the execution', async () => {
    const [kernel, manifest] = [await installation.sealed(RUN_CODE), await installation.manifest()];
    const answer = await installation.runCode({ code: 'return 1' });
    const proof = {
      kernel_id: RUN_CODE,
      kernel_seq: 0,
      kernel_hash: kernel.curr_hash,
      manifest_seq: manifest.seq,
      manifest_hash: manifest.curr_hash,
    };
    const bootEvent = await installation.span(answer.boot_event_id);
    const execution = await installation.span(answer.execution_id);
    expect(bootEvent.metadata).toEqual(proof);
    expect(execution.metadata).toEqual(proof);
    expect(bootEvent).toMatchObject({
      owner_id: ALICE.userId,
      tenant_id: ALICE.tenantId,
      visibility: 'private',
      input: { code: 'return 1' },
      public_key: runtimeSigner.publicKey,
    });
    expect(execution).toMatchObject({
      caused_by: answer.boot_event_id,
      parent_id: RUN_CODE,
      status: 'complete',
      output: answer.output,
      error: null,
    });
  });

  it('proves itself: hash, signature and key of every row it appended', async () => {
    const answer = await installation.runCode({ code: 'return 0.1 + 0.2' });
    const { execution_id } = answer.output as { execution_id: string };
    for (const id of [answer.boot_event_id, answer.execution_id, execution_id]) {
      const [span, ...later] = await readVersions(installation.stage0.database, ALICE, id);
      expect(later).toEqual([]);
      expect(verifySpan(span as never, trustedKeys, nodeEd25519)).toEqual([]);
    }
  });

  it('commits the boot_event before any code runs, and the execution after it', async () => {
    expect(await installation.probe({ probe: 'myself' })).toEqual([{ entity_type: 'boot_event', status: 'started' }]);
  });

  it('has exactly one execution for each boot_event when many boots run at once', async () => {
    const answers = await Promise.all(
      Array.from({ length: 12 }, (_, i) => installation.boot(PROBE, { probe: 'answer', value: i })),
    );
    expect(answers.map(({ output }) => output)).toEqual(Array.from({ length: 12 }, (_, i) => i));
    const ids = answers.map(({ boot_event_id }) => boot_event_id);
    const rows = await installation.spans('caused_by = any($1)', [ids]);
    expect(rows.map(({ caused_by }) => caused_by).sort()).toEqual([...ids].sort());
  });

  it('says in the answer, in the execution and as function error that a kernel threw, with message and line', async () => {
    const answer = await installation.boot(PROBE, { probe: 'throwsHere' });
    expect(answer).toMatchObject({
      ok: false,
      status: 'error',
      output: null,
      error: { code: 'ON_PURPOSE', message: 'the probe failed on purpose' },
    });
    const code = (await installation.sealed(PROBE)).code as string;
    const line = code.split('\n').findIndex((text) => text.includes('the probe failed on purpose')) + 1;
    expect((await installation.span(answer.execution_id)).error).toMatchObject({
      code: 'ON_PURPOSE',
      message: 'the probe failed on purpose',
      line,
      stack: expect.stringContaining(`probe.js:${line}:`),
    });
    const error = await invokeStage0(installation.stage0, {
      ...PLAN_PAYLOAD,
      boot_function_id: PROBE,
      input: { probe: 'throwsHere' },
    }).catch((reason) => reason);
    expect(error).toBeInstanceOf(BootFailed);
    expect(error.code).toBe('ON_PURPOSE');
    expect(error.message).toMatch(
      /^the probe failed on purpose \(execution [0-9a-f-]{36} of boot_event [0-9a-f-]{36}\)$/,
    );
  });

  it('ends a kernel that runs for ever at the end of time, and the next boot works', async () => {
    const request = { boot_function_id: PROBE, identity: ALICE, input: { probe: 'spin' } };
    const answer = await boot(installation.stage0, request, { endOfTime: new Date(Date.now() + 300) });
    expect(answer).toMatchObject({ ok: false, status: 'timeout', error: { code: 'TIMEOUT' } });
    expect(await installation.span(answer.execution_id)).toMatchObject({
      status: 'timeout',
      error: { code: 'TIMEOUT' },
    });
    expect(await installation.probe({ probe: 'answer', value: 'again' })).toBe('again');
  });

  it.each(['nul', 'surrogate', 'beyondSafe', 'deep'])(
    'records OUTPUT_NOT_STORABLE for an answer no span can hold: %s',
    async (probe) => {
      const answer = await installation.boot(PROBE, { probe });
      expect(answer).toMatchObject({
        ok: false,
        status: 'error',
        output: null,
        error: { code: 'OUTPUT_NOT_STORABLE' },
      });
      expect(await installation.span(answer.execution_id)).toMatchObject({
        status: 'error',
        output: null,
        error: { code: 'OUTPUT_NOT_STORABLE', message: expect.stringContaining('output') },
      });
    },
  );

  it('records OUTPUT_TOO_LARGE for a kernel that answers more than it may', async () => {
    const answer = await installation.boot(PROBE, { probe: 'large', length: 900_000 });
    expect(answer).toMatchObject({ ok: false, status: 'error', error: { code: 'OUTPUT_TOO_LARGE' } });
    expect((await installation.probe({ probe: 'large', length: 890_000 })).length).toBe(890_000);
  });

  it('answers null for a kernel that returns nothing', async () => {
    expect(await installation.probe({ probe: 'undefined' })).toBeNull();
  });

  it('ends a boot whose sandbox has no room at once, with the reason in its execution', async () => {
    const crowded = await Installation.create({ maxChildren: 1, maxWaiting: 1 });
    try {
      await crowded.seed();
      const settled = await Promise.allSettled(
        Array.from({ length: 6 }, () => crowded.boot(PROBE, { probe: 'answer', value: 1 })),
      );
      const bootEvents = await crowded.spans(`entity_type = 'boot_event'`);
      const executions = await crowded.spans(`entity_type = 'execution'`);
      expect(settled.filter(({ status }) => status === 'fulfilled').length).toBeGreaterThan(0);
      expect(executions.map(({ caused_by }) => caused_by).sort()).toEqual(bootEvents.map(({ id }) => id).sort());
      const refused = executions.filter(({ status }) => status !== 'complete');
      expect(refused.length).toBeGreaterThan(0);
      for (const { status, error } of refused) expect([status, error.code]).toEqual(['error', 'SANDBOX_BUSY']);
    } finally {
      await crowded.close();
    }
  });
});

describe('a request that is not one', () => {
  const valid = PLAN_PAYLOAD;
  const { boot_function_id: _id, ...withoutId } = valid;
  const { user_id: _user, ...withoutUser } = valid;
  const { tenant_id: _tenant, ...withoutTenant } = valid;
  it.each<[string, unknown, string, string | undefined]>([
    ['no id', withoutId, 'FIELD_MISSING', 'boot_function_id'],
    ['an id that is no UUID', { ...valid, boot_function_id: 'run_code' }, 'FIELD_INVALID', 'boot_function_id'],
    [
      'an id with a line feed after it',
      { ...valid, boot_function_id: `${RUN_CODE}\n` },
      'FIELD_INVALID',
      'boot_function_id',
    ],
    ['a list of ids', { ...valid, boot_function_id: [RUN_CODE] }, 'FIELD_INVALID', 'boot_function_id'],
    ['a null id', { ...valid, boot_function_id: null }, 'FIELD_INVALID', 'boot_function_id'],
    ['no user', withoutUser, 'FIELD_MISSING', 'user_id'],
    ['no tenant', withoutTenant, 'FIELD_MISSING', 'tenant_id'],
    ['an empty user', { ...valid, user_id: '' }, 'FIELD_INVALID', 'user_id'],
    ['a user who is a number', { ...valid, user_id: 7 }, 'FIELD_INVALID', 'user_id'],
    ['a user with U+0000', { ...valid, user_id: 'a\0b' }, 'FIELD_INVALID', 'user_id'],
    ['a user with a lone surrogate', { ...valid, user_id: 'a\ud800' }, 'FIELD_INVALID', 'user_id'],
    ['a tenant with a lone surrogate', { ...valid, tenant_id: '\udc00' }, 'FIELD_INVALID', 'tenant_id'],
    ['a tenant of 201 characters', { ...valid, tenant_id: 't'.repeat(201) }, 'FIELD_INVALID', 'tenant_id'],
    ['a trace_id with a space', { ...valid, trace_id: 'a b' }, 'FIELD_INVALID', 'trace_id'],
    ['an empty idempotency_key', { ...valid, idempotency_key: '' }, 'FIELD_INVALID', 'idempotency_key'],
    [
      'an idempotency_key with a lone surrogate',
      { ...valid, idempotency_key: '\ud800' },
      'FIELD_INVALID',
      'idempotency_key',
    ],
    ['an unknown field', { ...valid, boot_function: RUN_CODE }, 'FIELD_UNKNOWN', 'boot_function'],
    [
      'a field named as a prototype is',
      JSON.parse(`{"__proto__":{"x":1},${JSON.stringify(valid).slice(1)}`),
      'FIELD_UNKNOWN',
      '__proto__',
    ],
    ['null', null, 'FIELD_INVALID', undefined],
    ['a list', [valid], 'FIELD_INVALID', undefined],
    ['text', JSON.stringify(valid), 'FIELD_INVALID', undefined],
    ['nothing', undefined, 'FIELD_INVALID', undefined],
  ])('is refused with the field it concerns, and nothing is written: %s', async (_what, event, code, field) => {
    const error = await expectRefusal(installation, () => installation.invoke(event), InputError, code);
    expect(error.field).toBe(field);
  });

  it.each<[string, unknown]>([
    ['U+0000', { text: 'a\0b' }],
    ['a lone surrogate', { text: '\ud800' }],
    ['an integer beyond 2^53-1', { n: 2 ** 60 }],
    ['nested 50,000 deep', JSON.parse('['.repeat(50_000) + ']'.repeat(50_000))],
  ])('is refused when its input cannot be stored: %s', async (_what, input) => {
    const error = await expectRefusal(
      installation,
      () => installation.invoke({ ...valid, tenant_id: ALICE.tenantId, input }),
      InputError,
      'VALUE_NOT_STORABLE',
    );
    expect(error.field).toMatch(/^input/);
  });

  it('is refused when its input is larger than a span', async () => {
    const input = { code: 'return 1', input: 'x'.repeat(1_100_000) };
    await expectRefusal(installation, () => installation.runCode(input), InputError, 'SPAN_TOO_LARGE');
  });

  it('takes an id in upper case for what it is', async () => {
    const answer = await installation.invoke({
      ...valid,
      boot_function_id: PROBE.toUpperCase(),
      input: { probe: 'answer', value: 1 },
    });
    expect(answer).toMatchObject({ ok: true, function_id: PROBE });
  });
});
