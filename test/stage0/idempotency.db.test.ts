import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ConflictError } from '../../src/errors.ts';
import type { Sandbox } from '../../src/kernel/index.ts';
import { boot } from '../../src/stage0/index.ts';
import { ALAN, ALICE, BOB } from '../support/spans.ts';
import { Installation, PROBE, RUN_CODE } from './installation.ts';

let installation: Installation;
beforeAll(async () => {
  installation = await Installation.create();
  await installation.seed((content) => {
    content.throttle.tenants = { single: { per_tenant_daily_exec_limit: 1 } };
  });
});
afterAll(() => installation?.close());

const keyed = (idempotency_key: string, more: object = {}) => ({ idempotency_key, ...more });

describe('a boot with an idempotency_key that was used', () => {
  it('answers the same and runs nothing', async () => {
    const input = { code: 'return Math.random()' };
    const first = await installation.runCode(input, ALICE, keyed('same'));
    const [count, usage] = [await installation.count(), await installation.usage(ALICE.tenantId)];
    expect(first).toMatchObject({ ok: true });
    expect(await installation.runCode(input, ALICE, keyed('same'))).toEqual(first);
    expect(await installation.runCode(input, ALICE, keyed('same', { trace_id: 'another-trace' }))).toEqual(first);
    expect([await installation.count(), await installation.usage(ALICE.tenantId)]).toEqual([count, usage]);
    expect((await installation.span(first.boot_event_id)).idempotency_key).toBe('same');
  });

  it('answers the same though the keys of its input stand in another order', async () => {
    const first = await installation.runCode({ code: 'return input', input: { a: 1, b: 2 } }, ALICE, keyed('order'));
    expect(await installation.runCode({ input: { b: 2, a: 1 }, code: 'return input' }, ALICE, keyed('order'))).toEqual(
      first,
    );
  });

  it('answers a failure again, too', async () => {
    const first = await installation.boot(PROBE, { probe: 'throwsHere' }, ALICE, keyed('failed'));
    expect(first).toMatchObject({ ok: false, error: { code: 'ON_PURPOSE' } });
    expect(await installation.boot(PROBE, { probe: 'throwsHere' }, ALICE, keyed('failed'))).toEqual(first);
  });

  it.each<[string, unknown]>([
    ['another input', { code: 'return 2' }],
    ['no input', null],
  ])('is refused with %s', async (_what, input) => {
    await installation.runCode({ code: 'return 1' }, ALICE, keyed('taken'));
    const count = await installation.count();
    const error = await installation.runCode(input, ALICE, keyed('taken')).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(ConflictError);
    expect(error).toMatchObject({ code: 'IDEMPOTENCY_KEY_REUSED', field: 'idempotency_key' });
    expect(await installation.count()).toBe(count);
  });

  it('of another user, tenant or kernel is another key', async () => {
    const ids = new Set<string>();
    for (const identity of [ALICE, ALAN, BOB]) {
      const input = { probe: 'answer', value: identity.userId };
      const answer = await installation.boot(PROBE, input, identity, keyed('everybody'));
      expect(answer.output).toBe(identity.userId);
      ids.add(answer.boot_event_id);
    }
    ids.add((await installation.runCode({ code: 'return 1' }, ALICE, keyed('everybody'))).boot_event_id);
    expect(ids.size).toBe(4);
  });

  it('runs once when many come at the same time: each gets that answer, or hears that it has not ended', async () => {
    const settled = await Promise.allSettled(
      Array.from({ length: 8 }, () => installation.runCode({ code: 'return Math.random()' }, ALICE, keyed('crowd'))),
    );
    const answers = settled.filter((one) => one.status === 'fulfilled').map(({ value }) => value);
    expect(answers.length).toBeGreaterThan(0);
    for (const answer of answers) expect(answer).toEqual(answers[0]);
    for (const one of settled) {
      if (one.status === 'rejected') expect(one.reason).toMatchObject({ code: 'BOOT_IN_PROGRESS' });
    }
    const caused = await installation.spans('caused_by = $1', [answers[0]?.boot_event_id]);
    expect(caused.map(({ did }) => did)).toEqual(['ran_function', 'ran_kernel']);
  });

  it('hears that the first boot has not ended while it runs', async () => {
    const never = { run: () => new Promise(() => {}) } as unknown as Sandbox;
    const request = { boot_function_id: RUN_CODE, identity: ALICE, input: null, idempotency_key: 'running' };
    void boot(installation.container({ sandbox: never }), request);
    await expect.poll(() => installation.spans(`idempotency_key = 'running'`)).toHaveLength(1);
    const error = await boot(installation.stage0, request).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(ConflictError);
    expect(error).toMatchObject({ code: 'BOOT_IN_PROGRESS' });
  });

  it('answers the same when the day has been used up since', async () => {
    const identity = { userId: 'una', tenantId: 'single' };
    const first = await installation.runCode({ code: 'return 1' }, identity, keyed('last'));
    expect(await installation.usage('single')).toBe(1);
    const count = await installation.count();
    expect(await installation.runCode({ code: 'return 1' }, identity, keyed('last'))).toEqual(first);
    expect(await installation.count()).toBe(count);
  });
});
