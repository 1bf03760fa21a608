import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { GovernanceError } from '../../src/errors.ts';
import type { Identity } from '../../src/ledger/index.ts';
import { boot } from '../../src/stage0/index.ts';
import { rootSigner, runtimeSigner, strangerSigner } from '../support/keys.ts';
import { Installation, overrideSigner, PROBE, RUN_CODE } from './installation.ts';

const LIMIT = 5;
const ONE = { code: 'return 1' };

let installation: Installation;
beforeAll(async () => {
  installation = await Installation.create();
  await installation.seed((content) => {
    content.throttle.per_tenant_daily_exec_limit = LIMIT;
    content.throttle.tenants = { single: { per_tenant_daily_exec_limit: 1 }, none: { per_tenant_daily_exec_limit: 0 } };
  });
});
afterAll(() => installation?.close());

const userOf = (tenantId: string): Identity => ({ userId: 'una', tenantId });

async function functionRuns(tenantId: string): Promise<number> {
  return (await installation.spans(`did = 'ran_function' and tenant_id = $1`, [tenantId])).length;
}

async function expectOverQuota(attempt: Promise<unknown>): Promise<void> {
  const error = await attempt.catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(GovernanceError);
  expect(error).toMatchObject({ code: 'QUOTA_EXCEEDED' });
}

describe("a tenant's day", () => {
  it('lets exactly N of 2N parallel boots run, and refuses each other one with a policy_violation and nothing else', async () => {
    const settled = await Promise.allSettled(
      Array.from({ length: 2 * LIMIT }, () => installation.runCode(ONE, userOf('crowd'))),
    );
    const refused = settled.filter((one) => one.status === 'rejected');
    expect(refused).toHaveLength(LIMIT);
    for (const { reason } of refused) {
      expect(reason).toBeInstanceOf(GovernanceError);
      expect(reason).toMatchObject({ code: 'QUOTA_EXCEEDED' });
    }
    const rows = await installation.spans('tenant_id = $1', ['crowd']);
    const count = (what: string) => rows.filter(({ entity_type, did }) => `${entity_type} ${did}` === what).length;
    expect(count('execution ran_function')).toBe(LIMIT);
    expect(count('execution ran_kernel')).toBe(LIMIT);
    expect(count('boot_event booted')).toBe(LIMIT);
    expect(count('policy_violation refused')).toBe(LIMIT);
    expect(rows).toHaveLength(4 * LIMIT);
    expect(await installation.usage('crowd')).toBe(LIMIT);
    const violation = rows.find(({ entity_type }) => entity_type === 'policy_violation');
    expect(violation).toMatchObject({
      related_to: [RUN_CODE],
      error: { code: 'QUOTA_EXCEEDED' },
      metric_value: LIMIT,
      owner_id: 'una',
    });
  });

  it('is counted by tenant, not by user, and one tenant does not use up another', async () => {
    await installation.runCode(ONE, { userId: 'first', tenantId: 'single' });
    await expectOverQuota(installation.runCode(ONE, { userId: 'second', tenantId: 'single' }));
    expect(await installation.runCode(ONE, userOf('another'))).toMatchObject({ ok: true });
  });

  it('of none at all refuses the first', async () => {
    await expectOverQuota(installation.runCode(ONE, userOf('none')));
    expect(await installation.usage('none')).toBe(0);
  });

  it('is a day in UTC: the next one begins anew', async () => {
    const at = (time: string) => installation.container({ now: () => new Date(time) });
    const request = { boot_function_id: RUN_CODE, identity: userOf('days'), input: ONE };
    for (let i = 0; i < LIMIT; i++) await boot(at('2027-03-01T23:59:59.999Z'), request);
    await expectOverQuota(boot(at('2027-03-01T23:59:59.999Z'), request));
    expect(await boot(at('2027-03-02T00:00:00.000Z'), request)).toMatchObject({ ok: true });
  });

  it('is not used by a kernel that runs no function', async () => {
    for (let i = 0; i < LIMIT + 2; i++)
      expect(await installation.boot(PROBE, { probe: 'answer', value: i }, userOf('idle'))).toMatchObject({ ok: true });
    expect(await installation.usage('idle')).toBe(0);
  });

  it('is given back when the look-up fails: nothing ran', async () => {
    const missing = { span_id: '00000000-0000-4000-8000-00000000dead' };
    for (let i = 0; i < LIMIT + 2; i++)
      expect(await installation.runCode(missing, userOf('clumsy'))).toMatchObject({ ok: false });
    expect(await installation.usage('clumsy')).toBe(0);
    expect(await installation.runCode(ONE, userOf('clumsy'))).toMatchObject({ ok: true });
    expect(await installation.usage('clumsy')).toBe(1);
  });

  it('is charged for a function that failed: it ran', async () => {
    expect(await installation.runCode({ code: 'throw new Error("mine")' }, userOf('unlucky'))).toMatchObject({
      ok: true,
    });
    expect(await installation.usage('unlucky')).toBe(1);
  });

  it('is charged for a function that a nested kernel ran, and bounds it', async () => {
    const nested = { probe: 'invoke', kernel: RUN_CODE, input: ONE };
    for (let i = 0; i < LIMIT; i++)
      expect(await installation.boot(PROBE, nested, userOf('nested'))).toMatchObject({ ok: true });
    const over = await installation.boot(PROBE, nested, userOf('nested'));
    expect(over).toMatchObject({ ok: false, status: 'error', error: { code: 'QUOTA_EXCEEDED' } });
    expect(await functionRuns('nested')).toBe(LIMIT);
    expect(await installation.usage('nested')).toBe(LIMIT);
  });

  it('is given back when a nested look-up fails', async () => {
    const nested = { probe: 'invoke', kernel: RUN_CODE, input: { span_id: '00000000-0000-4000-8000-00000000dead' } };
    expect(await installation.boot(PROBE, nested, userOf('nested-clumsy'))).toMatchObject({ ok: false });
    expect(await installation.usage('nested-clumsy')).toBe(0);
  });

  it('that a new manifest changes is changed at the next boot', async () => {
    const narrow = await Installation.create(installation.sandbox);
    try {
      await narrow.seed();
      await narrow.runCode(ONE);
      await narrow.seed((content) => {
        content.throttle.per_tenant_daily_exec_limit = 1;
      });
      await expectOverQuota(narrow.runCode(ONE));
    } finally {
      await narrow.close();
    }
  });
});

describe('a forced run', () => {
  const identity = userOf('forced');
  const sign = (hash: string, signer = overrideSigner) => signer.signHash(Buffer.from(hash, 'hex'));
  let ours: { id: string; curr_hash: string };
  let other: { id: string; curr_hash: string };
  beforeAll(async () => {
    ours = await installation.appendFunction('return "forced"', {}, identity);
    other = await installation.appendFunction('return "another"', {}, identity);
    for (let i = 0; i < LIMIT; i++) await installation.runCode(ONE, identity);
    await expectOverQuota(installation.runCode({ span_id: ours.id }, identity));
  });

  it("passes the quota with the override key's signature over the function's hash, and is counted", async () => {
    const answer = await installation.runCode(
      { span_id: ours.id, force: { signature: sign(ours.curr_hash) } },
      identity,
    );
    expect(answer).toMatchObject({ ok: true, output: { status: 'complete', result: 'forced' } });
    expect(await installation.usage('forced')).toBe(LIMIT + 1);
    await expectOverQuota(installation.runCode({ span_id: ours.id }, identity));
  });

  it.each<[string, () => object]>([
    ['the root key', () => ({ span_id: ours.id, force: { signature: sign(ours.curr_hash, rootSigner) } })],
    ['the runtime key', () => ({ span_id: ours.id, force: { signature: sign(ours.curr_hash, runtimeSigner) } })],
    ['a stranger', () => ({ span_id: ours.id, force: { signature: sign(ours.curr_hash, strangerSigner) } })],
    [
      'the override key, over another function',
      () => ({ span_id: ours.id, force: { signature: sign(other.curr_hash) } }),
    ],
    ['the override key, over no function', () => ({ code: 'return 1', force: { signature: sign(ours.curr_hash) } })],
    [
      'the override public key itself',
      () => ({ span_id: ours.id, force: { signature: overrideSigner.publicKey.repeat(2) } }),
    ],
    ['garbage', () => ({ span_id: ours.id, force: { signature: 'ff'.repeat(64) } })],
    ['nothing', () => ({ span_id: ours.id, force: {} })],
    ['true', () => ({ span_id: ours.id, force: true })],
    ['null', () => ({ span_id: ours.id, force: null })],
    ['a list', () => ({ span_id: [ours.id], force: { signature: sign(ours.curr_hash) } })],
  ])('is refused with a signature of %s, and nothing is written', async (_whose, input) => {
    const before = [await installation.count(), await installation.usage('forced')];
    const error = await installation.runCode(input(), identity).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(GovernanceError);
    expect(error).toMatchObject({ code: 'OVERRIDE_INVALID', field: 'input.force.signature' });
    expect([await installation.count(), await installation.usage('forced')]).toEqual(before);
  });

  it('counts for the version it was signed for, no later one', async () => {
    const signature = sign(ours.curr_hash);
    await installation.appendFunction('return "changed since"', { id: ours.id }, identity);
    await expect(installation.runCode({ span_id: ours.id, force: { signature } }, identity)).rejects.toMatchObject({
      code: 'OVERRIDE_INVALID',
    });
  });
});
