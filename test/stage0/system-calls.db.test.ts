import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { blake3Hex } from '../../src/span/index.ts';
import { boot } from '../../src/stage0/index.ts';
import { runtimeSigner, strangerSigner } from '../support/keys.ts';
import { ALAN, ALICE, BOB, nextVersion } from '../support/spans.ts';
import { Installation, PROBE, RUN_CODE } from './installation.ts';

const TIMEOUT_MS = 2_000;
const REVOKED = '00000000-0000-4000-8000-00000000f002';
const RETIRED = '00000000-0000-4000-8000-00000000f003';
const ALTERED = '00000000-0000-4000-8000-00000000f004';
const REPLACED = '00000000-0000-4000-8000-00000000f005';

let installation: Installation;
beforeAll(async () => {
  installation = await Installation.create();
  const code = 'export default (ctx) => ({ kernel_id: ctx.env.kernel_id, input: ctx.input });';
  await installation.seed(
    (content) => {
      content.policy.timeout_ms = TIMEOUT_MS;
      content.allowed_boot_ids = content.allowed_boot_ids.filter((id: string) => id !== REVOKED);
    },
    [
      { id: REVOKED, name: 'revoked', code },
      { id: RETIRED, name: 'retired', code, status: 'retired' },
      { id: ALTERED, name: 'altered', code },
      { id: REPLACED, name: 'replaced', code },
    ],
  );
});
afterAll(() => installation?.close());

const note = (more: object = {}) => ({ entity_type: 'note', name: `note ${randomUUID()}`, ...more });
const named = (name: string) => installation.spans('name = $1', [name]);

describe('ctx.env', () => {
  it('says who, what and until when, and no more', async () => {
    const { env, now, uuid } = await installation.probe({ probe: 'env' });
    const kernel = await installation.sealed(PROBE);
    expect(env).toEqual({
      user_id: ALICE.userId,
      tenant_id: ALICE.tenantId,
      kernel_id: PROBE,
      kernel_seq: 0,
      kernel_hash: kernel.curr_hash,
      boot_event_id: expect.any(String),
      trace_id: expect.any(String),
      deadline: expect.any(String),
      policy: { slow_ms: 5_000, timeout_ms: TIMEOUT_MS, memory_mb: 128 },
    });
    expect(Date.parse(env.deadline)).toBeGreaterThan(Date.parse(now));
    expect(uuid).toMatch(/^[0-9a-f-]{36}$/);
  });
});

describe('ctx.sql', () => {
  const sql = (text: string) => ({ probe: 'sql', text });

  it('reads with parameters what the caller may see, and nothing of others', async () => {
    const mine = await installation.appendFunction('return 1');
    const theirs = await installation.appendFunction('return 1', { visibility: 'tenant' }, BOB);
    const his = await installation.appendFunction('return 1', {}, ALAN);
    const ids = [mine.id, theirs.id, his.id];
    expect(await installation.probe({ probe: 'select', ids })).toEqual([{ id: mine.id }]);
    expect(await installation.probe({ probe: 'select', ids }, ALAN)).toEqual([{ id: his.id }]);
    expect(await installation.probe({ probe: 'select', ids }, BOB)).toEqual([{ id: theirs.id }]);
  });

  it('leaves out columns that are null, as spans do', async () => {
    expect(await installation.probe(sql('select 1 as one, null as nothing'))).toEqual([{ one: 1 }]);
  });

  it.each<[string, string]>([
    ['insert', `insert into ledger.universal_registry (id) values (gen_random_uuid())`],
    ['update', 'update ledger.universal_registry set name = null'],
    ['delete', 'delete from ledger.universal_registry'],
    ['truncate', 'truncate ledger.universal_registry'],
    ['create table', 'create temp table mine (id int)'],
    ['copy', `copy (select 1) to program 'true'`],
    ['the append function', `select ledger.append('alice', 'acme', '[]')`],
    ['the counter of the day', `select ledger.reserve_execution('acme', current_date, 5)`],
    ['a look past row level security', `select * from ledger.lost_boots('-infinity', 'infinity', 10)`],
    ['no SQL', 'selec 1'],
    ['set_config', `select set_config('app.tenant_id', 'bolt', true)`],
    ['set_config in other letters', `select SET_CONFIG('app.tenant_id', 'bolt', true)`],
    ['set_config by its Unicode escape', `select U&"set\\005fconfig"('app.tenant_id', 'bolt', true)`],
    ['two statements', 'select 1; select 2'],
    ['an end of the transaction', 'commit'],
    ['an end of the transaction and another', `commit; select 1`],
    ['a change of role', 'reset role'],
    ['a change of role, of the session', `set session authorization default`],
    ['a change of identity', `set local app.tenant_id = 'bolt'`],
    ['a change of identity for the session', `set app.tenant_id = 'bolt'`],
    ['a block', `do $$ begin execute 'set local app.tenant_id = ''bolt'''; end $$`],
    ['a prepared statement', 'prepare mine as select 1'],
    ['a session lock', 'select pg_advisory_lock(1)'],
    [
      'a statement hidden in a string',
      `select query_to_xml('select set_' || 'config(''app.tenant_id'', ''bolt'', true)', true, false, '')`,
    ],
  ])('refuses %s, alone and while a lock is held, and the next look sees what it should', async (_what, text) => {
    const count = await installation.count();
    const theirs = await installation.appendFunction('return 1', { visibility: 'tenant' }, BOB);
    for (const probe of [sql(text), { probe: 'lockSql', statements: [text] }]) {
      const error = await installation.failedProbe(probe);
      expect(['SQL_REFUSED', 'NOT_PERMITTED'], `code of ${JSON.stringify(error)}`).toContain(error.code);
      expect(error.message).not.toContain(text);
    }
    expect(await installation.probe({ probe: 'select', ids: [theirs.id] })).toEqual([]);
    expect(await installation.spans(`name = 'written by sql'`)).toEqual([]);
    expect(await installation.count()).toBe(count + 1 + 6);
  });

  it('cannot become another tenant between two statements of one lock', async () => {
    const theirs = await installation.appendFunction('return 1', { visibility: 'tenant' }, BOB);
    const statements = [
      `set local app.tenant_id = 'bolt'`,
      `select id from ledger.universal_registry where id = '${theirs.id}'`,
    ];
    const answer = await installation.boot(PROBE, { probe: 'lockSql', statements });
    expect(answer.output ?? []).toEqual([]);
  });

  it('answers each of several calls when it is ready, however they overlap', async () => {
    for (let i = 0; i < 12; i++) expect(await installation.probe({ probe: 'overlap' })).toEqual([1, 100, 2_000]);
  });

  it('refuses more rows than a kernel should hold', async () => {
    expect(await installation.failedProbe(sql('select * from generate_series(1, 1001) n'))).toMatchObject({
      code: 'TOO_MANY_ROWS',
    });
    expect(await installation.probe(sql('select * from generate_series(1, 1000) n'))).toHaveLength(1_000);
  });

  it('ends with the kernel: a statement that takes too long does not outlive it', async () => {
    const request = {
      boot_function_id: PROBE,
      identity: ALICE,
      input: sql('select count(*) from generate_series(1, 2000000000) takes_too_long'),
    };
    const answer = await boot(installation.stage0, request, { endOfTime: new Date(Date.now() + 400) });
    expect(answer).toMatchObject({ ok: false });
    expect(['TIMEOUT', 'DATABASE_TIMEOUT']).toContain(answer.error?.code);
    await expect
      .poll(
        async () =>
          (
            await installation.admin.query(
              `select from pg_stat_activity where query like '%takes_too_long%' and state = 'active' and pid <> pg_backend_pid()`,
            )
          ).rowCount,
        { timeout: 3_000 },
      )
      .toBe(0);
  });
});

describe('ctx.append', () => {
  it('completes a span with the caller, the boot and its trace, and signs it with the runtime key', async () => {
    const span = note({ content: { n: 1 } });
    const answer = await installation.boot(PROBE, { probe: 'append', span });
    const [row, ...more] = await named(span.name);
    expect(more).toEqual([]);
    expect(row).toMatchObject({
      ...ownerOf(ALICE),
      who: ALICE.userId,
      visibility: 'private',
      seq: 0,
      caused_by: answer.boot_event_id,
      trace_id: answer.trace_id,
      public_key: runtimeSigner.publicKey,
    });
    expect(answer.output).toMatchObject({ id: row.id, seq: 0, curr_hash: row.curr_hash });
  });

  it('appends the next version of a span, and several spans at once or none of them', async () => {
    const { id } = await installation.appendFunction('return 1');
    expect(
      await installation.probe({ probe: 'append', span: { id, entity_type: 'function', code: 'return 2' } }),
    ).toMatchObject({ id, seq: 1 });
    const [one, two] = [note(), note()];
    expect(await installation.probe({ probe: 'append', span: [one, two] })).toHaveLength(2);
    const [three, four] = [note(), note({ duration_ms: 'long' })];
    expect(await installation.failedProbe({ probe: 'append', span: [three, four] })).toMatchObject({
      code: 'TYPE_MISMATCH',
    });
    expect(await named(three.name)).toEqual([]);
  });

  it.each<[string, object, string]>([
    ["another tenant's name", { tenant_id: 'bolt' }, 'NOT_PERMITTED'],
    ["another owner's name", { owner_id: 'alan' }, 'NOT_PERMITTED'],
    ['a public row', { visibility: 'public' }, 'NOT_PERMITTED'],
    ['a column nobody knows', { colour: 'red' }, 'UNKNOWN_COLUMN'],
    ['a proof of its own', { signature: 'ff'.repeat(64) }, 'FIELD_IS_ASSIGNED'],
    ['a position of its own', { position: 1 }, 'FIELD_IS_ASSIGNED'],
    ['a visibility nobody knows', { visibility: 'secret' }, 'CONSTRAINT_VIOLATED'],
    ['a number beyond its column', { duration_ms: 2 ** 40 }, 'TYPE_MISMATCH'],
  ])('refuses %s, and nothing is written', async (_what, more, code) => {
    const span = note(more);
    expect(await installation.failedProbe({ probe: 'append', span })).toMatchObject({ code });
    expect(await named(span.name)).toEqual([]);
  });

  it("refuses the next version of another owner's span", async () => {
    const shared = await installation.appendFunction('return 1', { visibility: 'tenant' });
    const span = { id: shared.id, entity_type: 'function', code: 'return 666' };
    expect(await installation.failedProbe({ probe: 'append', span }, ALAN)).toMatchObject({ code: 'NOT_YOUR_SPAN' });
  });
});

describe('ctx.fetchSpan', () => {
  it('gives the newest version that the caller may see, or null', async () => {
    const { id } = await installation.appendFunction('return 1');
    await installation.appendFunction('return 2', { id });
    expect(await installation.probe({ probe: 'fetch', id })).toMatchObject({ id, seq: 1, code: 'return 2' });
    expect(await installation.probe({ probe: 'fetch', id }, BOB)).toBeNull();
    expect(await installation.probe({ probe: 'fetch', id: randomUUID() })).toBeNull();
  });

  it('gives nothing that does not prove itself', async () => {
    const { id } = await installation.appendFunction('return 1');
    await installation.tamper(`update ledger.universal_registry set name = 'another' where id = $1`, [id]);
    expect(await installation.failedProbe({ probe: 'fetch', id })).toMatchObject({ code: 'SPAN_NOT_PROVED' });
  });
});

describe('ctx.lock', () => {
  it('commits what was appended under it when the work ends, and shows it to the work before', async () => {
    const span = note();
    expect(await installation.probe({ probe: 'lockAppend', key: 'commits', span })).toMatchObject({
      seq: 0,
      visible: 1,
    });
    expect(await named(span.name)).toHaveLength(1);
  });

  it('rolls back what was appended under it when the work throws', async () => {
    const span = note();
    expect(await installation.failedProbe({ probe: 'lockAppend', key: 'throws', span, fails: true })).toMatchObject({
      message: 'let go without committing',
    });
    expect(await named(span.name)).toEqual([]);
  });

  it('lets one kernel of a tenant in at a time; other keys and tenants do not wait', async () => {
    const work = (key: string, identity = ALICE) =>
      installation.probe({ probe: 'lockAppend', key, span: note(), busy: 800 }, identity);
    const [one, two] = (await Promise.all([work('busy'), work('busy')])).sort((a, b) =>
      a.startedAt < b.startedAt ? -1 : 1,
    );
    expect(one.finishedAt <= two.startedAt).toBe(true);
    for (const pair of [() => [work('busy'), work('idle')], () => [work('busy'), work('busy', BOB)]]) {
      // A starved machine may start the second one late; a lock that kept it waiting would do so every time.
      let ranTogether = false;
      for (let attempt = 0; attempt < 5 && !ranTogether; attempt++) {
        const [first, second] = (await Promise.all(pair())).sort((a, b) => (a.startedAt < b.startedAt ? -1 : 1));
        ranTogether = (first as typeof one).finishedAt > (second as typeof one).startedAt;
      }
      expect(ranTogether).toBe(true);
    }
  });

  it('is let go, and its appends with it, when the kernel dies inside', async () => {
    const span = note();
    const request = { boot_function_id: PROBE, identity: ALICE, input: { probe: 'lockThenSpin', key: 'dies', span } };
    const answer = await boot(installation.stage0, request, { endOfTime: new Date(Date.now() + 500) });
    expect(answer).toMatchObject({ ok: false, status: 'timeout' });
    expect(await named(span.name)).toEqual([]);
    const after = note();
    const startedAt = Date.now();
    expect(await installation.probe({ probe: 'lockAppend', key: 'dies', span: after })).toMatchObject({ seq: 0 });
    expect(Date.now() - startedAt).toBeLessThan(2_000);
  });

  it('takes with it what still waited for its turn when the kernel dies inside', async () => {
    const span = note();
    const request = {
      boot_function_id: PROBE,
      identity: ALICE,
      input: { probe: 'lockSleepAppend', key: 'waits', span },
    };
    const answer = await boot(installation.stage0, request, { endOfTime: new Date(Date.now() + 500) });
    expect(answer).toMatchObject({ ok: false });
    // The same connections serve the next boots: nothing of the dead kernel may still come out of them.
    for (let i = 0; i < 5; i++) expect(await installation.probe({ probe: 'answer', value: i })).toBe(i);
    await new Promise((resolve) => setTimeout(resolve, 600));
    expect(await named(span.name)).toEqual([]);
  });

  it('is one at a time: a second is refused, inside the first or together with it', async () => {
    expect(await installation.failedProbe({ probe: 'lockTwice' })).toMatchObject({ code: 'LOCK_HELD' });
    expect(await installation.probe({ probe: 'lockTogether' })).toEqual(['one', 'LOCK_HELD']);
    await expect.poll(async () => (await openTransactions()).length).toBe(0);
  });

  it('covers what a kernel does that is invoked under it', async () => {
    const span = note();
    const input = { probe: 'append', span };
    expect(await installation.probe({ probe: 'lockInvoke', kernel: PROBE, input })).toMatchObject({ seq: 0 });
    expect(await named(span.name)).toHaveLength(1);
    expect(
      await installation.failedProbe({
        probe: 'lockInvoke',
        kernel: PROBE,
        input: { probe: 'lockAppend', key: 'x', span },
      }),
    ).toMatchObject({
      code: 'LOCK_HELD',
    });
  });

  it('leaves no transaction open', async () => {
    await expect.poll(openTransactions).toEqual([]);
  });

  async function openTransactions() {
    const text = `select state, query from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and state like 'idle in%'`;
    return (await installation.admin.query(text)).rows;
  }
});

describe('ctx.invoke', () => {
  it('runs another kernel for the same caller, within the same boot', async () => {
    const answer = await installation.boot(PROBE, { probe: 'invoke', kernel: REPLACED, input: { n: 1 } });
    expect(answer.output).toEqual({ kernel_id: REPLACED, input: { n: 1 } });
    const rows = await installation.spans(`trace_id = $1`, [answer.trace_id]);
    expect(rows.map(({ entity_type }) => entity_type)).toEqual(['boot_event', 'execution']);
  });

  it('gives a nested run_code the identity and the boot of the caller', async () => {
    const fn = await installation.appendFunction('return input * 2');
    const answer = await installation.boot(PROBE, {
      probe: 'invoke',
      kernel: RUN_CODE,
      input: { span_id: fn.id, input: 21 },
    });
    expect(answer.output).toMatchObject({ status: 'complete', result: 42 });
    const [execution] = await installation.spans(`did = 'ran_function' and caused_by = $1`, [answer.boot_event_id]);
    expect(execution).toMatchObject({ ...ownerOf(ALICE), parent_id: fn.id });
    const foreign = await installation.boot(
      PROBE,
      { probe: 'invoke', kernel: RUN_CODE, input: { span_id: fn.id } },
      BOB,
    );
    expect(foreign).toMatchObject({ ok: false, error: { code: 'FUNCTION_NOT_FOUND' } });
  });

  it.each<[string, string, string]>([
    ['nobody knows', randomUUID(), 'KERNEL_NOT_FOUND'],
    ['the manifest revoked', REVOKED, 'KERNEL_REVOKED'],
    ['is no longer active', RETIRED, 'KERNEL_NOT_ACTIVE'],
    ['is no UUID', 'replaced', 'TYPE_MISMATCH'],
  ])('refuses a kernel that %s', async (_what, kernel, code) => {
    expect(await installation.failedProbe({ probe: 'invoke', kernel, input: null })).toMatchObject({ code });
  });

  it("refuses the caller's own function", async () => {
    const { id } = await installation.appendFunction('export default () => 1');
    expect(await installation.failedProbe({ probe: 'invoke', kernel: id, input: null })).toMatchObject({
      code: 'KERNEL_NOT_ALLOWED',
    });
  });

  it('refuses a kernel that was altered, or replaced by a stranger, while Stage-0 is warm', async () => {
    for (const kernel of [ALTERED, REPLACED])
      expect(await installation.probe({ probe: 'invoke', kernel, input: 1 })).toMatchObject({ input: 1 });
    await installation.tamper(
      `update ledger.universal_registry set code = replace(code, 'input', 'inpux') where id = $1`,
      [ALTERED],
    );
    await installation.insert(nextVersion(await installation.sealed(REPLACED), {}, strangerSigner));
    expect(await installation.failedProbe({ probe: 'invoke', kernel: ALTERED, input: 1 })).toMatchObject({
      code: 'HASH_MISMATCH',
    });
    expect(await installation.failedProbe({ probe: 'invoke', kernel: REPLACED, input: 1 })).toMatchObject({
      code: 'KEY_NOT_TRUSTED',
    });
  });

  it('nests three deep', async () => {
    expect(await installation.probe({ probe: 'dive' })).toMatchObject({ depth: 2, error: { code: 'INVOKE_TOO_DEEP' } });
  });

  it('hands the code and message of what the nested kernel threw to the one that invoked it', async () => {
    const error = await installation.failedProbe({ probe: 'invoke', kernel: PROBE, input: { probe: 'throwsHere' } });
    expect(error).toMatchObject({ code: 'ON_PURPOSE', message: 'the probe failed on purpose' });
  });
});

describe('ctx.crypto', () => {
  it('hashes, writes hex and canonical JSON as the ledger does', async () => {
    expect(await installation.probe({ probe: 'crypto', text: 'é' })).toEqual({
      blake3: blake3Hex('é'),
      hex: 'c3a9',
      canonical: '{"a":null,"b":[1,"é"]}',
    });
  });

  it("encrypts for a tenant what no other tenant's kernel can read, and what nobody altered", async () => {
    const encrypted: string = await installation.probe({ probe: 'encrypt', text: 'a secret of acme: é' });
    expect(Buffer.from(encrypted, 'base64').toString('latin1')).not.toContain('secret');
    expect(await installation.probe({ probe: 'encrypt', text: 'a secret of acme: é' })).not.toBe(encrypted);
    expect(await installation.probe({ probe: 'decrypt', text: encrypted })).toBe('a secret of acme: é');
    expect(await installation.probe({ probe: 'decrypt', text: encrypted }, ALAN)).toBe('a secret of acme: é');
    expect(await installation.failedProbe({ probe: 'decrypt', text: encrypted }, BOB)).toMatchObject({
      code: 'DECRYPTION_FAILED',
    });
    const bytes = Buffer.from(encrypted, 'base64');
    for (const i of [0, 12, bytes.length - 1]) {
      const altered = Buffer.from(bytes);
      altered[i] = (altered[i] as number) ^ 1;
      expect(await installation.failedProbe({ probe: 'decrypt', text: altered.toString('base64') })).toMatchObject({
        code: 'DECRYPTION_FAILED',
      });
    }
    for (const text of ['', 'AAAA', bytes.subarray(0, 20).toString('base64')]) {
      expect(await installation.failedProbe({ probe: 'decrypt', text })).toMatchObject({ code: 'DECRYPTION_FAILED' });
    }
  });
});

describe('ctx.log', () => {
  it('logs under the trace of the boot', async () => {
    const answer = await installation.boot(PROBE, { probe: 'log', message: 'hello' });
    expect(installation.logged).toContainEqual({
      level: 'info',
      message: 'hello',
      data: { of: 'a probe' },
      kernel: 'probe',
      trace_id: answer.trace_id,
    });
  });
});

function ownerOf({ userId, tenantId }: { userId: string; tenantId: string }) {
  return { owner_id: userId, tenant_id: tenantId };
}
