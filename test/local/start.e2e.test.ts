import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, rm, stat } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Ready } from '../../src/local/stack.ts';
import { startTemporaryPostgres, TEST_PASSWORD, withClient } from '../support/postgres-server.ts';
import { createHome, descendantsOf, isAlive, Program, postmastersOf, StackProcess } from './stack-process.ts';

const UUID = expect.stringMatching(/^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/);

async function withHome(run: (home: string) => Promise<void>): Promise<void> {
  const { home, remove } = await createHome();
  try {
    await run(home);
  } finally {
    await remove();
  }
}

function bootOf({ boot }: Ready) {
  if (boot.status === 'refused') throw new Error(boot.error.message);
  return boot;
}

/** One line that a person can read, and no stack. */
function expectRefusedStart(
  { code, stdout, stderr }: { code: number | null; stdout: string; stderr: string },
  errorCode: string,
): void {
  expect([code, stdout]).toEqual([1, '']);
  expect(stderr.trimEnd().split('\n')).toEqual([expect.stringMatching(new RegExp(`\\(${errorCode}\\)$`))]);
}

describe('the local stack', () => {
  let home: string;
  let remove: () => Promise<void>;
  let stack: StackProcess;
  let ready: Ready;
  beforeAll(async () => {
    ({ home, remove } = await createHome());
    ({ stack, ready } = await StackProcess.start(home));
  });
  afterAll(async () => {
    await stack?.kill('SIGKILL');
    await remove?.();
  });

  it('prints one line when it is ready, with all that a program needs', () => {
    expect(stack.stdout.split('\n')).toEqual([expect.any(String), '']);
    const local = /^http:\/\/127\.0\.0\.1:\d+$/;
    expect(ready).toMatchObject({
      ready: true,
      url: expect.stringMatching(local),
      ws_url: expect.stringMatching(/^ws:\/\/127\.0\.0\.1:\d+\/ws$/),
      lambda_endpoint: expect.stringMatching(local),
      token: expect.stringMatching(/^llt_[0-9a-f]{64}$/),
      tenant_id: 'local',
      user_id: 'local',
      database_url: expect.stringMatching(/^postgres:\/\/loglineos_app:[^@]+@127\.0\.0\.1:\d+\/loglineos$/),
      admin_database_url: expect.stringMatching(/^postgres:\/\/postgres:[^@]+@127\.0\.0\.1:\d+\/loglineos$/),
      boot: {
        ok: true,
        verified: true,
        status: 'complete',
        boot_event_id: UUID,
        execution_id: UUID,
        output: { execution_id: UUID, status: 'complete', result: 42 },
      },
    });
  });

  it('has booted run_code_kernel, and its execution proves itself', async () => {
    const headers = { Authorization: `Bearer ${ready.token}` };
    for (const id of [bootOf(ready).boot_event_id, bootOf(ready).execution_id]) {
      const proof = await (await fetch(`${ready.url}/api/spans/${id}/verify`, { headers })).json();
      expect(proof).toMatchObject({ id, ok: true, versions: [{ seq: 0, ok: true }], problems: [] });
    }
    const execution = await (await fetch(`${ready.url}/api/spans/${bootOf(ready).execution_id}`, { headers })).json();
    expect(execution).toMatchObject({
      entity_type: 'execution',
      status: 'complete',
      tenant_id: 'local',
      caused_by: bootOf(ready).boot_event_id,
    });
  });

  it('asks for its token over HTTP, and answers what is not there as a problem', async () => {
    const health = await fetch(`${ready.url}/health`);
    expect([health.status, await health.json()]).toEqual([200, { status: 'ok', database: 'reachable' }]);
    const path = `${ready.url}/api/spans/${bootOf(ready).execution_id}`;
    expect((await fetch(path)).status).toBe(401);
    expect((await fetch(path, { headers: { Authorization: `Bearer ${ready.token}x` } })).status).toBe(401);
    const missing = await fetch(`${ready.url}/no/such/route`, { headers: { Authorization: `Bearer ${ready.token}` } });
    expect([missing.status, missing.headers.get('Content-Type')]).toEqual([404, 'application/problem+json']);
    expect(await missing.json()).toMatchObject({ code: 'ROUTE_NOT_FOUND' });
  });

  it('gives the app a login that cannot change a row', async () => {
    await withClient(ready.database_url, async (client) => {
      await expect(client.query('update ledger.universal_registry set name = null')).rejects.toMatchObject({
        code: '42501',
      });
      expect((await client.query('select from ledger.universal_registry')).rowCount).toBe(0);
    });
  });

  it('keeps its secrets where only the user may read them', async () => {
    expect((await stat(join(home, 'secrets.json'))).mode & 0o777).toBe(0o600);
    expect((await stat(join(home, 'postgres'))).mode & 0o077).toBe(0);
  });

  it('refuses a second start on the same folder, in one line, and goes on itself', async () => {
    expectRefusedStart(await new StackProcess(home).refused(), 'ALREADY_RUNNING');
    expect((await fetch(`${ready.url}/health`)).status).toBe(200);
  });

  it('stops on SIGTERM with everything it started, and starts again on the same data', async () => {
    const started = descendantsOf(stack.child.pid as number);
    expect(started.length).toBeGreaterThan(3);
    const ended = await stack.kill('SIGTERM');
    expect([ended.code, ended.signal]).toEqual([0, null]);
    expect(ended.elapsedMs).toBeLessThan(10_000);
    expect(started.filter(isAlive), 'processes left behind').toEqual([]);

    const before = ready;
    ({ stack, ready } = await StackProcess.start(home));
    expect(ready.token).toBe(before.token);
    expect(ready.boot).toMatchObject({ ok: true, function_seq: 0 });
    const headers = { Authorization: `Bearer ${ready.token}` };
    const execution = await fetch(`${ready.url}/api/spans/${bootOf(before).execution_id}`, { headers });
    expect(await execution.json()).toMatchObject({ id: bootOf(before).execution_id, status: 'complete' });
    await withClient(ready.admin_database_url as string, async (client) => {
      const { rows } = await client.query(
        `select count(*)::int as n, count(distinct id)::int as spans, max(seq) as seq
           from ledger.universal_registry where who = 'seed'`,
      );
      expect(rows).toEqual([{ n: rows[0].spans, spans: expect.any(Number), seq: 0 }]);
      expect(rows[0].spans).toBeGreaterThan(3);
    });
  });

  it('stops on SIGTERM though a client is still connected and says nothing', async () => {
    const { port } = new URL(ready.url);
    const idle = await fetch(`${ready.url}/health`); // leaves its connection open
    await idle.text();
    const halfway = connect(Number(port), '127.0.0.1');
    halfway.on('error', () => {});
    await once(halfway, 'connect');
    halfway.write('POST /boot HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{');
    await new Promise((resolve) => setTimeout(resolve, 100));
    const ended = await stack.kill('SIGTERM');
    halfway.destroy();
    expect([ended.code, ended.signal]).toEqual([0, null]);
    expect(ended.elapsedMs).toBeLessThan(10_000);
    expect(postmastersOf(home)).toEqual([]);
  });
});

describe('a start', () => {
  it.each(['http', '65536', ' ', '0x50'])('is refused with a PORT that is none: %j', async (port) => {
    await withHome(async (home) => {
      expectRefusedStart(await new StackProcess(home, { PORT: port }).refused(), 'PORT_INVALID');
    });
  });

  it('is refused when its port is taken, and leaves nothing running', async () => {
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const { port } = taken.address() as { port: number };
    try {
      await withHome(async (home) => {
        const ended = await new StackProcess(home, { PORT: String(port) }).refused();
        expectRefusedStart(ended, 'PORT_TAKEN');
        expect(ended.stderr).toContain(String(port));
        expect(postmastersOf(home)).toEqual([]);
      });
    } finally {
      taken.close();
    }
  });

  it.each(['SIGTERM', 'SIGINT'] as const)(
    'that is ended by %s before it is ready leaves nothing running',
    async (signal) => {
      await withHome(async (home) => {
        const stack = new StackProcess(home);
        await expect.poll(() => postmastersOf(home).length, { timeout: 20_000, interval: 5 }).toBe(1);
        const ended = await stack.kill(signal);
        expect(ended.stdout).toBe('');
        await expect.poll(() => postmastersOf(home), { timeout: 5_000 }).toEqual([]);
        const again = await StackProcess.start(home);
        expect(again.ready.boot).toMatchObject({ ok: true });
        await again.stack.kill('SIGTERM');
      });
    },
  );

  it('on a new folder is won by one of several that come at the same time, and its data are whole', async () => {
    await withHome(async (home) => {
      const stacks = Array.from({ length: 3 }, () => new StackProcess(home));
      const outcomes = await Promise.allSettled(stacks.map((stack) => stack.ready()));
      const winners = stacks.filter((_stack, i) => outcomes[i]?.status === 'fulfilled');
      try {
        expect(winners).toHaveLength(1);
        for (const stack of stacks) if (stack !== winners[0]) expectRefusedStart(await stack.ended, 'ALREADY_RUNNING');
      } finally {
        for (const stack of stacks) await stack.kill('SIGTERM');
      }
      const again = await StackProcess.start(home);
      expect(again.ready.boot).toMatchObject({ ok: true });
      await again.stack.kill('SIGTERM');
    });
  });

  it('works below a folder that only its owner may enter', async () => {
    const closed = await mkdtemp(join(tmpdir(), 'loglineos-closed-'));
    try {
      await chmod(closed, 0o700);
      const home = join(closed, 'home');
      await mkdir(home);
      const { stack, ready } = await StackProcess.start(home);
      expect(ready.boot).toMatchObject({ ok: true });
      expect((await stack.kill('SIGTERM')).code).toBe(0);
      expect(postmastersOf(home)).toEqual([]);
    } finally {
      await rm(closed, { recursive: true, force: true });
    }
  });

  it('uses the Postgres of DATABASE_URL, shares it with a stack of another folder, and leaves it running', async () => {
    const server = await startTemporaryPostgres();
    try {
      await withHome(async (home) => {
        const { stack, ready } = await StackProcess.start(home, { DATABASE_URL: server.url });
        expect(ready).not.toHaveProperty('admin_database_url');
        expect(new URL(ready.database_url).port).toBe(new URL(server.url).port);
        expect(ready.boot).toMatchObject({ ok: true });
        expect(JSON.stringify(ready)).not.toContain(TEST_PASSWORD);
        expect(postmastersOf(home)).toEqual([]);
        expect((await stack.kill('SIGTERM')).code).toBe(0);
        await withClient(server.url, async (client) => {
          const { rows } = await client.query('select caused_by from ledger.universal_registry where id = $1', [
            bootOf(ready).execution_id,
          ]);
          expect(rows).toEqual([{ caused_by: bootOf(ready).boot_event_id }]);
        });
      });
    } finally {
      await server.stop();
    }
  });

  it('says in one line that DATABASE_URL leads nowhere, without its password', async () => {
    await withHome(async (home) => {
      const ended = await new StackProcess(home, {
        DATABASE_URL: 'postgres://postgres:hunter2@127.0.0.1:1/none',
      }).refused();
      expect(ended.code).toBe(1);
      expect(ended.stderr.trimEnd().split('\n')).toHaveLength(1);
      expect(ended.stderr).not.toContain('hunter2');
      expect(ended.stderr).toMatch(/\(DATABASE_UNAVAILABLE\)$|ECONNREFUSED/m);
    });
  });

  it('is for a person to read without --json', async () => {
    await withHome(async (home) => {
      const stack = new Program('src/local/main.ts', [], { LOGLINEOS_HOME: home, PORT: '0' });
      await expect.poll(() => stack.stdout, { timeout: 20_000 }).toContain('LogLineOS is ready at http://127.0.0.1:');
      expect(stack.stdout).toContain('result 42');
      expect((await stack.kill('SIGINT')).code).toBe(0);
    });
  });
});
