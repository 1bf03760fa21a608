import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Identity } from '../../src/ledger/index.ts';
import type { Json } from '../../src/span/index.ts';
import { type AnyJson, Installation, overrideSigner } from '../stage0/installation.ts';
import { rootSigner, runtimeSigner, strangerSigner } from '../support/keys.ts';
import { openRequests, requestRuns, startRole, until, type WorkingRole } from '../worker/shifts.ts';

const LIMIT = 100;
const FEW = 2;

let installation: Installation;
let workers: WorkingRole[];
beforeAll(async () => {
  installation = await Installation.create();
  await installation.seed((content) => {
    content.throttle.per_tenant_daily_exec_limit = LIMIT;
    content.throttle.tenants = {
      forced: { per_tenant_daily_exec_limit: FEW },
      none: { per_tenant_daily_exec_limit: 0 },
    };
  });
  workers = Array.from({ length: 2 }, () =>
    startRole(installation.container(), 'request-worker', undefined, installation.ledger.urls.loglineos_app),
  );
});
afterAll(async () => {
  await Promise.all(workers?.map((worker) => worker.stop()) ?? []);
  await installation?.close();
});

const userOf = (tenantId: string): Identity => ({ userId: 'una', tenantId });

async function run(fn: { id: string }, identity: Identity, metadata: Json[]): Promise<AnyJson[]> {
  const options = metadata.map((one) => ({ metadata: one as Record<string, Json> }));
  const ids = await requestRuns(installation, fn.id, identity, options);
  await until(async () => (await openRequests(installation, `tenant_id = '${identity.tenantId}'`)) === 0);
  const ends = await installation.spans('id = any($1) and seq > 0', [ids]);
  expect(ends, 'one end of each').toHaveLength(ids.length);
  return ids.map((id) => ends.find((end) => end.id === id));
}

const executions = (tenantId: string) => installation.spans(`tenant_id = $1 and entity_type = 'execution'`, [tenantId]);
const expectUsage = async (tenantId: string, expected: number) =>
  expect(await installation.usage(tenantId)).toBe(expected);

describe("a tenant's day", () => {
  it('lets exactly 100 of 200 requests run; each other one is dead, with a policy_violation', async () => {
    const una = userOf('crowd');
    const fn = await installation.appendFunction('return 1', {}, una);
    const ends = await run(fn, una, Array(200).fill(null));
    const refused = ends.filter(({ status }) => status === 'dead');
    expect(refused).toHaveLength(LIMIT);
    expect(ends.filter(({ status }) => status === 'complete')).toHaveLength(LIMIT);
    for (const { error, attempt } of refused) expect([error.code, attempt]).toEqual(['QUOTA_EXCEEDED', 0]);

    const ran = await executions('crowd');
    expect(ran).toHaveLength(LIMIT);
    const counted = ran.map(({ metadata: { quota } }) => quota);
    expect(counted.map(({ used }) => used).sort((a, b) => a - b)).toEqual(
      Array.from({ length: LIMIT }, (_, i) => i + 1),
    );
    expect(new Set(counted.map(({ limit }) => limit))).toEqual(new Set([LIMIT]));

    const violations = await installation.spans(`tenant_id = 'crowd' and entity_type = 'policy_violation'`);
    expect(violations.map(({ caused_by }) => caused_by).sort()).toEqual(refused.map(({ id }) => id).sort());
    for (const violation of violations) {
      expect(violation).toMatchObject({
        owner_id: 'una',
        who: 'kernel:request_worker',
        error: { code: 'QUOTA_EXCEEDED' },
        metric_name: 'per_tenant_daily_exec_limit',
        metric_value: LIMIT,
      });
    }
    await expectUsage('crowd', LIMIT);
  });

  it('of none at all lets nothing run', async () => {
    const una = userOf('none');
    const fn = await installation.appendFunction('return 1', {}, una);
    expect((await run(fn, una, [null, null])).map(({ error }) => error.code)).toEqual(Array(2).fill('QUOTA_EXCEEDED'));
    expect(await executions('none')).toEqual([]);
    await expectUsage('none', 0);
  });

  it('that was used up by others is full for a redriven request too, until there is room', async () => {
    const una = userOf('again');
    const fn = await installation.appendFunction('return 1', {}, una);
    await run(fn, una, Array(LIMIT).fill(null));
    const [dead] = await run(fn, una, [null]);
    expect(dead.error.code).toBe('QUOTA_EXCEEDED');
    await installation.admin.query(`update ledger.daily_usage set executions = 99 where tenant_id = 'again'`);
    await installation.appendFunction(
      null as AnyJson,
      { entity_type: 'request', id: dead.id, parent_id: fn.id, status: 'scheduled' },
      una,
    );
    await until(async () => (await openRequests(installation, `tenant_id = 'again'`)) === 0);
    expect((await installation.spans('id = $1', [dead.id])).map(({ status }) => status)).toEqual([
      'scheduled',
      'dead',
      'scheduled',
      'complete',
    ]);
  });
});

describe('a request that asks to pass the quota', () => {
  const una = userOf('forced');
  const sign = (hash: string, signer = overrideSigner) => signer.signHash(Buffer.from(hash, 'hex'));
  let ours: { id: string; curr_hash: string };
  let other: { id: string; curr_hash: string };
  beforeAll(async () => {
    ours = await installation.appendFunction('return "forced"', {}, una);
    other = await installation.appendFunction('return "another"', {}, una);
    expect((await run(ours, una, Array(FEW).fill(null))).map(({ status }) => status)).toEqual(['complete', 'complete']);
    await expectUsage('forced', FEW);
  });

  it("passes with the override key's signature over the function's hash, and is counted", async () => {
    const before = await installation.usage('forced');
    const [end] = await run(ours, una, [{ force: { signature: sign(ours.curr_hash) } }]);
    expect(end).toMatchObject({ status: 'complete', output: 'forced' });
    const [execution] = await installation.spans('caused_by = $1', [end.id]);
    expect(execution.metadata).toMatchObject({ forced: true, function_hash: ours.curr_hash });
    await expectUsage('forced', before + 1);
    const [plain] = await run(ours, una, [null]);
    expect(plain.error.code).toBe('QUOTA_EXCEEDED');
  });

  it.each<[string, () => Json]>([
    ['the root key', () => ({ signature: sign(ours.curr_hash, rootSigner) })],
    ['the runtime key', () => ({ signature: sign(ours.curr_hash, runtimeSigner) })],
    ['a stranger', () => ({ signature: sign(ours.curr_hash, strangerSigner) })],
    ['the override key, over another function', () => ({ signature: sign(other.curr_hash) })],
    ['the override public key itself', () => ({ signature: overrideSigner.publicKey.repeat(2) })],
    ['garbage', () => ({ signature: 'ff'.repeat(64) })],
    ['nothing', () => ({})],
    ['a list', () => ({ signature: [sign(ours.curr_hash)] })],
    ['true', () => true],
    ['null', () => null],
    ['text', () => sign(ours.curr_hash)],
  ])('ends dead with a signature of %s, and gives back what it took', async (_, force) => {
    const [before, ran] = [await installation.usage('forced'), await executions('forced')];
    const [end] = await run(ours, una, [{ force: force() }]);
    expect(end).toMatchObject({ status: 'dead', attempt: 0, error: { code: 'OVERRIDE_INVALID' } });
    await expectUsage('forced', before);
    expect(await executions('forced')).toHaveLength(ran.length);
  });

  it('passes for the version it was signed for, no later one', async () => {
    const signature = sign(other.curr_hash);
    await installation.appendFunction('return "changed since"', { id: other.id }, una);
    const [end] = await run(other, una, [{ force: { signature } }]);
    expect(end.error.code).toBe('OVERRIDE_INVALID');
  });
});
