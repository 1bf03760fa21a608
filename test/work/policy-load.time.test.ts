import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Installation } from '../stage0/installation.ts';
import { BOB } from '../support/spans.ts';
import { until } from '../worker/shifts.ts';
import { append, appendPolicy, countNoted, doneBy, startBeside, TWICE } from './policies-at-work.ts';

let installation: Installation;
beforeAll(async () => {
  installation = await Installation.create();
  await installation.seed();
});
afterAll(() => installation?.close());

it('nine policies of the system and two of tenants keep up with 200 new spans a second', async () => {
  const own = [
    await appendPolicy(installation, TWICE, 'execution', { visibility: 'tenant' }),
    await appendPolicy(installation, TWICE, 'execution', {}, BOB),
  ];
  const agent = startBeside(installation.container(), 'policy-agent');
  const execution = (n: number) => ({
    entity_type: 'execution',
    who: 'kernel:request_worker',
    did: 'ran_function',
    status: n % 10 === 0 ? 'error' : 'complete',
    error: n % 10 === 0 ? { code: 'THREW', message: 'on purpose' } : null,
    duration_ms: n % 20 === 0 ? 6_000 : 20,
    name: `${n}`,
    metadata: { quota: { used: n % 100, limit: 100 } },
  });
  const startedAt = Date.now();
  const lags: number[] = [];
  const seconds = 10;
  for (let n = 0; n < seconds * 200; n += 20) {
    const batch = Array.from({ length: 10 }, (_, i) => execution(n + i));
    await Promise.all([append(installation, batch), append(installation, batch, BOB)]);
    if (n % 200 === 0)
      lags.push((await installation.admin.query('select ledger.work_snapshot(now()) as s')).rows[0].s.policies.lag_ms);
    await sleep(Math.max(0, startedAt + (n / 200) * 1_000 - Date.now()));
  }
  const endedAt = Date.now();
  for (const id of own)
    await until(async () => (await doneBy(installation, id, `entity_type = 'noted'`)).length >= seconds * 100);
  const lagMs = Date.now() - endedAt;
  expect(await agent.stop()).toMatchObject({ ok: true, output: { failed: 0, paused: 0, lost: 0 } });
  for (const id of own)
    expect(await countNoted(installation, id)).toEqual({ seen: seconds * 100, noted: seconds * 100 });
  expect(await installation.spans(`entity_type = 'metric' and metric_name = 'exec.duration'`)).not.toHaveLength(0);
  expect(Math.max(...lags), 'lag while spans come in').toBeLessThan(3_000);
  expect(lagMs, 'lag afterwards').toBeLessThan(3_000);
});
