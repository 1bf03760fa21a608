import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Ready } from '../../src/local/stack.ts';
import { createHome, Program, StackProcess } from '../local/stack-process.ts';
import { withClient } from '../support/postgres-server.ts';

describe('loglineos audit', () => {
  let home: Awaited<ReturnType<typeof createHome>>;
  let stack: StackProcess;
  let ready: Ready;
  beforeAll(async () => {
    home = await createHome();
    stack = new StackProcess(home.home);
    ready = await stack.ready();
  });
  afterAll(() => home?.remove());

  const audit = async (...args: string[]) => {
    const { code, stdout, stderr } = await new Program('scripts/audit.ts', args, { LOGLINEOS_HOME: home.home }).ended;
    return { code, stdout, stderr };
  };
  const auditJson = async (...args: string[]) => {
    const { code, stdout, stderr } = await audit('--json', ...args);
    expect(stdout.trimEnd().split('\n'), stderr).toHaveLength(1);
    return { code, ...JSON.parse(stdout) };
  };
  const tamper = (sql: string) =>
    withClient(ready.admin_database_url as string, (client) =>
      client.query(`alter table ledger.universal_registry disable trigger all;
                    alter table ledger.registry_witness disable trigger all;
                    ${sql};
                    alter table ledger.universal_registry enable trigger all;
                    alter table ledger.registry_witness enable trigger all`),
    );

  it('says beside a running system that nothing is wrong, and then what is, by name, until it is acknowledged', async () => {
    const first = await auditJson();
    expect(first).toMatchObject({ code: 0, ok: true, is_whole: true, problems: [] });
    expect(first.new_rows).toBeGreaterThan(10);
    const id = ready.boot.status === 'refused' ? '' : ready.boot.execution_id;
    await tamper(
      `delete from ledger.universal_registry where id = '${id}'; delete from ledger.registry_witness where id = '${id}'`,
    );
    const found = await audit();
    expect(found.code).toBe(1);
    expect(found.stdout).toMatch(/^anchor {5}0{8}-.* 1 fewer rows than were anchored/m);
    expect(found.stdout).toMatch(/^anchor {5}.*are not those that were anchored$/m);
    expect(found.stdout).toMatch(/: 2 problems are open\n$/);
    expect(await auditJson('--acknowledge')).toMatchObject({ code: 0, ok: true });
    const { stdout, code } = await audit('--restart');
    expect([code, stdout]).toEqual([
      0,
      expect.stringMatching(/^\d+ new rows and all of history read, \d+ anchored: no problem is open\n$/),
    ]);
  });

  it('is a function of the local Lambda endpoint, too', async () => {
    const invoke = async (event: unknown) => {
      const url = `${ready.lambda_endpoint}/2015-03-31/functions/loglineos-auditor/invocations`;
      const answer = await fetch(url, { method: 'POST', body: JSON.stringify(event) });
      return (await answer.json()) as Record<string, unknown>;
    };
    expect(await invoke({ all: true })).toMatchObject({ worked: true, ok: true, is_whole: true });
    expect(await invoke({ all: 1 })).toMatchObject({ errorType: 'FIELD_INVALID' });
  });

  it('starts the database itself when the system is stopped, and refuses what it does not know', async () => {
    expect((await stack.kill('SIGTERM')).code).toBe(0);
    const { code, stdout } = await new Program('src/cli/main.ts', ['audit', '--all', '--json'], {
      LOGLINEOS_HOME: home.home,
    }).ended;
    expect([code, JSON.parse(stdout)]).toMatchObject([0, { ok: true, is_whole: true }]);
    expect(await audit('--everything')).toMatchObject({ code: 2, stdout: '' });
    const nowhere = await new Program('scripts/audit.ts', [], { LOGLINEOS_HOME: '/nowhere' }).ended;
    expect(nowhere).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining('NO_DATABASE') });
  });
});
