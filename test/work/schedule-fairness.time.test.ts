import { afterAll, beforeAll, expect, it } from 'vitest';
import { type AnyJson, Installation } from '../stage0/installation.ts';
import { BOB } from '../support/spans.ts';
import { until } from '../worker/shifts.ts';
import { append, startBeside } from './policies-at-work.ts';

const MANY = { userId: 'one', tenantId: 'many' };
const EVERY_SECOND = {
  entity_type: 'function',
  code: 'return input',
  status: 'scheduled',
  metadata: { schedule: 'PT1S' },
};

let installation: Installation;
beforeAll(async () => {
  installation = await Installation.create();
  await installation.seed();
});
afterAll(() => installation?.close());

const requestsOf = (id: string): Promise<AnyJson[]> =>
  installation.spans(`entity_type = 'request' and seq = 0 and parent_id = $1`, [id]);

it('the observer lets no tenant wait for the many functions of another', async () => {
  const observer = startBeside(installation.container(), 'observer');
  const many = await append(
    installation,
    Array.from({ length: 950 }, () => EVERY_SECOND),
    MANY,
  );
  await until(async () => (await requestsOf(many.at(-1) as string)).length > 0, 20_000);
  const [id] = (await append(installation, [EVERY_SECOND], BOB)) as [string];
  await until(async () => (await requestsOf(id)).length >= 6, 20_000);
  const requests = await requestsOf(id);
  const others: AnyJson[] = await installation.spans(
    "entity_type = 'request' and seq = 0 and tenant_id = 'many' and at between $1 and $2",
    [requests.at(0)?.at, requests.at(-1)?.at],
  );
  const [late, othersLate] = [requests, others].map(
    (all) => all.reduce((sum, { at, scheduled_at }) => sum + at.getTime() - scheduled_at.getTime(), 0) / all.length,
  ) as [number, number];
  // On a slow machine the many are more than it can do in a second: they wait for each other, and only for each other.
  expect(late, `ms late, the others ${othersLate}`).toBeLessThan(Math.max(500, othersLate / 3));
  expect(await observer.stop()).toMatchObject({ ok: true, error: null });
});
