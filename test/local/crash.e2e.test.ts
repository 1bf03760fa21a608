import pg from 'pg';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { withClient } from '../support/postgres-server.ts';
import { createHome, descendantsOf, isAlive, Program, postmastersOf, StackProcess } from './stack-process.ts';

const RUN_CODE = '00000000-0000-4000-8000-000000000001';
const FOR_EVER = { code: 'for (;;);' };

let home: string;
let remove: () => Promise<void>;
beforeEach(async () => {
  ({ home, remove } = await createHome());
});
afterEach(() => remove());

/** Start boots that go on and on, and wait until each is announced in the ledger. Returns the ids of their boot_events. */
async function startBoots(url: string, adminUrl: string, count: number): Promise<string[]> {
  for (let i = 0; i < count; i++) {
    const body = JSON.stringify({
      boot_function_id: RUN_CODE,
      user_id: 'una',
      tenant_id: `crash-${i}`,
      input: FOR_EVER,
    });
    void fetch(`${url}/2015-03-31/functions/loglineos-stage0-loader/invocations`, { method: 'POST', body }).catch(
      () => {},
    );
  }
  return withClient(adminUrl, async (client) => {
    const announced = () =>
      client.query(
        `select id from ledger.universal_registry where entity_type = 'boot_event' and tenant_id like 'crash-%'`,
      );
    await expect.poll(async () => (await announced()).rowCount, { timeout: 10_000 }).toBe(count);
    // And that their functions run by now.
    await new Promise((resolve) => setTimeout(resolve, 300));
    return (await announced()).rows.map(({ id }) => id);
  });
}

async function executionsOf(
  adminUrl: string,
  bootEventIds: string[],
): Promise<{ caused_by: string; status: string }[]> {
  const client = new pg.Client(adminUrl);
  await client.connect();
  try {
    const text = `select caused_by, status from ledger.universal_registry where did = 'ran_kernel' and caused_by = any($1)`;
    return (await client.query(text, [bootEventIds])).rows;
  } finally {
    await client.end();
  }
}

describe('a stack that is killed in the middle of a boot', () => {
  it('leaves no process that runs code, and its next start marks each boot lost, once; the ledger proves itself', async () => {
    const killed = await StackProcess.start(home);
    const bootEventIds = await startBoots(killed.ready.url, killed.ready.admin_database_url as string, 3);
    const started = descendantsOf(killed.stack.child.pid as number);
    await killed.stack.kill('SIGKILL');
    const servers = postmastersOf(home);
    expect(servers).toHaveLength(1);
    const sandboxes = started.filter((pid) => !servers.includes(pid) && !isPostgres(pid));
    expect(sandboxes.length).toBeGreaterThan(0);
    await expect.poll(() => sandboxes.filter(isAlive), { timeout: 5_000 }).toEqual([]);

    const { stack, ready } = await StackProcess.start(home);
    try {
      const lost = () => executionsOf(ready.admin_database_url as string, bootEventIds);
      const once = bootEventIds.map((caused_by) => ({ caused_by, status: 'lost' }));
      const sorted = (rows: { caused_by: string }[]) => rows.sort((a, b) => (a.caused_by < b.caused_by ? -1 : 1));
      expect(sorted(await lost())).toEqual(sorted(once));
      expect(ready.boot).toMatchObject({ ok: true });
      const verified = await new Program('scripts/verify.ts', ['--json'], { LOGLINEOS_HOME: home }).ended;
      expect([verified.code, JSON.parse(verified.stdout)]).toMatchObject([0, { ok: true, problems: [] }]);
      expect(sorted(await lost())).toEqual(sorted(once));
    } finally {
      await stack.kill('SIGTERM');
    }
    expect(postmastersOf(home)).toEqual([]);
  });
});

describe('a stack that is asked to stop in the middle of a boot', () => {
  it('stops soon, with everything it started, and the boot ends exactly once', async () => {
    const stopped = await StackProcess.start(home);
    const bootEventIds = await startBoots(stopped.ready.url, stopped.ready.admin_database_url as string, 1);
    const started = descendantsOf(stopped.stack.child.pid as number);
    const timer = setTimeout(() => stopped.stack.child.kill('SIGKILL'), 20_000);
    const ended = await stopped.stack.kill('SIGTERM');
    clearTimeout(timer);
    expect([ended.code, ended.signal]).toEqual([0, null]);
    expect(ended.elapsedMs).toBeLessThan(15_000);
    expect(started.filter(isAlive)).toEqual([]);

    const { stack, ready } = await StackProcess.start(home);
    try {
      expect(await executionsOf(ready.admin_database_url as string, bootEventIds)).toHaveLength(1);
    } finally {
      await stack.kill('SIGTERM');
    }
  });
});

function isPostgres(pid: number): boolean {
  return postmastersOf(home).some((server) => server === pid || descendantsOf(server).includes(pid));
}
