import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connectionConfig } from '../../src/ledger/database.ts';
import {
  appendOnce,
  appendSpans,
  Database,
  readLatestVersions,
  readLostBoots,
  readTimeline,
  readVersions,
  releaseExecution,
  reserveExecution,
  TIMELINE_START,
} from '../../src/ledger/index.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { ALICE, BOB, contextOf, draft } from '../support/spans.ts';

let testDatabase: TestDatabase;
/** One connection: whoever comes next gets the same session. */
let database: Database;
beforeAll(async () => {
  testDatabase = await createTestDatabase();
  database = testDatabase.open('loglineos_app', { connectionsMax: 1 });
});
afterAll(() => testDatabase.close());

interface SessionState {
  user_id: string | null;
  tenant_id: string | null;
  role: string;
  settings: string;
  locks: number;
}

async function sessionState(): Promise<SessionState> {
  const [state] = await database.query<SessionState & Record<string, unknown>>({
    text: `select nullif(current_setting('app.user_id', true), '') as user_id,
                  nullif(current_setting('app.tenant_id', true), '') as tenant_id,
                  current_user as role,
                  (select string_agg(name || '=' || setting, ',' order by name) from pg_settings
                    where name in ('statement_timeout', 'idle_in_transaction_session_timeout', 'synchronous_commit',
                                   'transaction_read_only', 'default_transaction_read_only', 'search_path', 'TimeZone')) as settings,
                  (select count(*)::int from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()) as locks`,
  });
  return state as SessionState;
}

describe('nothing of the session survives a transaction', () => {
  it('of any that the ledger makes, committed or rolled back', async () => {
    const before = await sessionState();
    expect(before).toMatchObject({ user_id: null, tenant_id: null, role: 'loglineos_app', locks: 0 });
    const [span] = await appendSpans(database, [draft()], contextOf(ALICE));
    const id = span?.id as string;
    const uses: [what: string, use: () => Promise<unknown>][] = [
      ['append', () => appendSpans(database, [draft({ id })], contextOf(ALICE))],
      ['a refused append', () => appendSpans(database, [draft({ tenant_id: 'bolt' })], contextOf(ALICE))],
      ['readLatestVersions', () => readLatestVersions(database, ALICE, [id])],
      ['readVersions', () => readVersions(database, ALICE, id)],
      ['readTimeline', () => readTimeline(database, ALICE, TIMELINE_START, 10)],
      ['readLostBoots', () => readLostBoots(database, '-infinity', 'infinity', 1)],
      ['reserveExecution', () => reserveExecution(database, 'acme', '2026-11-23', 10)],
      ['releaseExecution', () => releaseExecution(database, 'acme', '2026-11-23')],
      [
        'a kernel’s transaction',
        () =>
          database.transaction(ALICE, (query) => query({ text: 'select pg_advisory_xact_lock(1)' }), {
            role: 'loglineos_kernel',
            readOnly: true,
            timeoutMs: 77,
          }),
      ],
      [
        'a transaction that fails',
        () =>
          database.transaction(BOB, (query) => query({ text: 'select 1/0' }), {
            role: 'loglineos_kernel',
            readOnly: true,
            timeoutMs: 77,
          }),
      ],
      [
        'a transaction whose code throws',
        () =>
          database.transaction(BOB, async () => {
            throw new Error('mine');
          }),
      ],
    ];
    for (const [what, use] of uses) {
      await use().catch(() => {});
      expect(await sessionState(), what).toEqual(before);
    }
  });

  it('so that the next one to use the connection sees nothing', async () => {
    await appendSpans(database, [draft()], contextOf(ALICE));
    expect(await database.query({ text: 'select from ledger.universal_registry' })).toEqual([]);
    expect(await database.query({ text: 'select from ledger.visible_timeline' })).toEqual([]);
  });
});

describe('a transaction', () => {
  it('has its identity, its role and its bounds', async () => {
    const [state] = await database.transaction(
      { userId: "o'brien", tenantId: 'a\\b' },
      (query) =>
        query({
          text: `select current_setting('app.user_id') as user_id, current_setting('app.tenant_id') as tenant_id, current_user as role,
                        current_setting('statement_timeout') as timeout, current_setting('transaction_read_only') as read_only`,
        }),
      { role: 'loglineos_kernel', readOnly: true, timeoutMs: 1234 },
    );
    expect(state).toEqual({
      user_id: "o'brien",
      tenant_id: 'a\\b',
      role: 'loglineos_kernel',
      timeout: '1234ms',
      read_only: 'on',
    });
  });

  it('vanishes whole when its code throws', async () => {
    const select = { text: 'select from ledger.universal_registry' };
    const count = async () => (await database.transaction(ALICE, (query) => query(select))).length;
    const before = await count();
    const failure = database.transaction(ALICE, async (query) => {
      await appendOnce(query, [draft()], contextOf(ALICE));
      throw new Error('mine');
    });
    await expect(failure).rejects.toThrow('mine');
    expect(await count()).toBe(before);
  });

  it('ends a statement that takes too long, and the connection goes on', async () => {
    const slow = database.transaction(ALICE, (query) => query({ text: 'select pg_sleep(5)' }), { timeoutMs: 50 });
    await expect(slow).rejects.toMatchObject({ kind: 'upstream', code: 'DATABASE_TIMEOUT' });
    await expect(database.query({ text: 'select 1 as one' })).resolves.toEqual([{ one: 1 }]);
  });

  it('may not write when it is read only', async () => {
    const write = database.transaction(ALICE, (query) => query({ text: 'create temp table t (a int)' }), {
      readOnly: true,
    });
    await expect(write).rejects.toMatchObject({ kind: 'input', code: 'SQL_REFUSED' });
  });

  it('tells the caller nothing of the statement that failed', async () => {
    const failing = database.query({ text: `select 'a secret'::text, nosuchcolumn` });
    await expect(failing).rejects.not.toThrow(/secret|nosuchcolumn|select/);
  });
});

describe('a pool', () => {
  it('reaches another machine by verified TLS alone', () => {
    for (const host of [
      'db.example.com',
      '10.0.0.1',
      'localhost.example.com',
      '127.0.0.1.example.com',
      '[2001:db8::1]',
    ]) {
      const { ssl } = connectionConfig({
        url: `postgres://u:p@${host}:5432/d?sslmode=disable`,
        certificateAuthorities: ['mine'],
      });
      expect(ssl, host).toMatchObject({ rejectUnauthorized: true, ca: expect.arrayContaining(['mine']) });
    }
    for (const host of ['localhost', '127.0.0.1', '[::1]']) {
      expect(connectionConfig({ url: `postgres://u:p@${host}/d` }).ssl, host).toBe(false);
    }
  });

  it('recovers from a session that the server ended', async () => {
    const [session] = await database.query<{ pid: number }>({ text: 'select pg_backend_pid() as pid' });
    const admin = await testDatabase.connect('admin');
    await admin.query('select pg_terminate_backend($1)', [session?.pid]);
    await expect
      .poll(() => database.query({ text: 'select 1 as one' }).catch((error: { code: string }) => error.code))
      .toEqual([{ one: 1 }]);
  });

  it('asks for the password again after a refused login', async () => {
    const asked: boolean[] = [];
    const url = new URL(testDatabase.urls.loglineos_app);
    const right = url.password;
    url.password = '';
    const rotated = testDatabase.open('loglineos_app', {
      url: url.href,
      password: async (refresh) => {
        asked.push(refresh);
        return refresh ? right : 'of yesterday';
      },
    });
    expect(await rotated.query({ text: 'select 1 as one' })).toEqual([{ one: 1 }]);
    expect(asked).toEqual([false, true]);
  });

  it('says that no database answers, without the password', async () => {
    const nowhere = new Database({ url: 'postgres://u:hunter2@127.0.0.1:1/d', applicationName: 'test' });
    const failure = await nowhere.query({ text: 'select 1' }).catch((error: Error) => error);
    expect(failure).toMatchObject({ kind: 'upstream', code: 'DATABASE_UNAVAILABLE' });
    expect(String(failure)).not.toContain('hunter2');
    await nowhere.close();
  });
});

describe('a transaction in which a statement failed and was caught', () => {
  it('says that nothing of it was written', async () => {
    const first = draft();
    const work = database.transaction(ALICE, async (query) => {
      const [appended] = await appendOnce(query, [first], contextOf(ALICE));
      await appendOnce(query, [draft({ id: appended?.id as string, seq: 0 })], contextOf(ALICE)).catch(() => {});
      return appended;
    });
    await expect(work).rejects.toMatchObject({ kind: 'conflict', code: 'ROLLED_BACK' });
  });
});
