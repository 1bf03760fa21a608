import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sealSpan } from '../../src/span/index.ts';
import { type AnyJson, Installation } from '../stage0/installation.ts';
import { runtimeSigner, strangerSigner } from '../support/keys.ts';
import { ALAN, ALICE, BOB, hashable, OTHER_ALICE } from '../support/spans.ts';
import { startRole, until, type WorkingRole } from '../worker/shifts.ts';
import { append, appendPolicy, doneBy, errorsOf, policyDraft, retire } from './policies-at-work.ts';

/** A policy that does what it should: one note for each span, that says which one. */
const NOTE = `return [{ emit_span: { entity_type: 'noted', content: { seen: span.id, name: span.name ?? null } } }];`;
/** So much later than its span a healthy policy may answer, whatever the others do. */
const LAG_MS_MAX = 2_500;

let installation: Installation;
let agent: WorkingRole;
beforeAll(async () => {
  installation = await Installation.create();
  await installation.seed();
  agent = startRole(installation.stage0, 'policy-agent');
});
afterAll(async () => {
  const answer = await agent?.stop();
  await installation?.close();
  expect(answer).toMatchObject({ ok: true, error: null });
});

let types = 0;
/** A type of spans that no other test has. */
function newType(): string {
  types += 1;
  return `kind_${types}`;
}

const names = (spans: AnyJson[]) => spans.map(({ content }) => content.name);
const spansOf = (entity_type: string, ...found: string[]) => found.map((name) => ({ entity_type, name }));

/** How long after its trigger each span was emitted, at most, in ms. */
async function lagOf(policyId: string): Promise<number> {
  const { rows } = await installation.admin.query(
    `select max(extract(epoch from a.at - t.at) * 1000)::float as lag
       from ledger.universal_registry a join ledger.universal_registry t on t.id = a.caused_by and t.seq = 0
      where a.metadata #>> '{policy,id}' = $1`,
    [policyId],
  );
  return rows[0].lag;
}

describe('a policy that fails', () => {
  const THROWS_NUL = `throw new Error('before\\0after')`;
  it.each([
    ['throws', `throw new Error('on purpose')`, 'THREW'],
    ['throws nothing that text can say', `throw Object.create(null)`, 'THREW'],
    ['throws what no span can hold', THROWS_NUL, 'THREW'],
    ['throws half a character', `throw new Error('\\ud800')`, 'THREW'],
    ['answers no list', 'return 7', 'ACTION_INVALID'],
    ['answers a thousand actions', `return Array(1000).fill({ emit_span: { entity_type: 'x' } })`, 'ACTION_INVALID'],
    ['says what only the system says', `return [{ emit_span: { entity_type: 'boot_event' } }]`, 'ACTION_INVALID'],
    ['writes for another tenant', `return [{ emit_span: { entity_type: 'x', tenant_id: 'bolt' } }]`, 'ACTION_INVALID'],
    ['writes in another name', `return [{ emit_span: { entity_type: 'x', owner_id: 'alan' } }]`, 'ACTION_INVALID'],
    ['writes what no span can hold', `return [{ emit_span: { entity_type: 'x', name: '\\0' } }]`, 'ACTION_INVALID'],
    ['is no JavaScript', 'export default function on(span) {', 'CODE_INVALID'],
    ['wants to load something', `return import('node:fs')`, 'CODE_REFUSED'],
    ['never settles', 'return new Promise(() => {})', 'TIMEOUT'],
    ['takes all memory', 'const a = []; for (;;) a.push(new Array(1e5).fill(a.length));', 'MEMORY'],
  ])('because it %s, is told so, and stops no other', async (_, code, expected) => {
    const type = newType();
    const failing = await appendPolicy(installation, code, type);
    const healthy = await appendPolicy(installation, NOTE, type);
    await append(installation, spansOf(type, 'a', 'b', 'c'));
    await until(async () => (await errorsOf(installation, failing)).length > 0);
    await append(installation, spansOf(type, 'd'));
    await until(async () => (await doneBy(installation, healthy)).length === 4);
    expect(names(await doneBy(installation, healthy))).toEqual(['a', 'b', 'c', 'd']);
    expect(await lagOf(healthy)).toBeLessThan(LAG_MS_MAX);
    await retire(installation, failing);

    const left = await doneBy(installation, failing);
    expect(new Set(left.map(({ entity_type }) => entity_type))).toEqual(new Set(['policy_error']));
    expect(new Set(left.map(({ error }) => error.code))).toEqual(new Set([expected]));
    expect(left.length, 'errors').toBeLessThanOrEqual(3);
    expect(left[0]).toMatchObject({
      ...{
        owner_id: 'alice',
        tenant_id: 'acme',
        visibility: 'private',
        parent_id: failing,
        who: 'kernel:policy_agent',
      },
      ...{ did: 'isolated', status: 'error' },
    });
  });

  it('at one span only, by looping for ever, answers all others', async () => {
    const type = newType();
    const code = `if (span.name === 'hangs') for (;;); if (span.name === 'throws') throw 1; ${NOTE}`;
    const id = await appendPolicy(installation, code, type);
    const healthy = await appendPolicy(installation, NOTE, type);
    await append(installation, spansOf(type, 'a', 'throws', 'b', 'hangs', 'c', 'd'));
    await sleep(2_000);
    await append(installation, spansOf(type, 'e')); // comes while it hangs
    await until(async () => (await doneBy(installation, id, `entity_type = 'noted'`)).length === 5);
    expect(names(await doneBy(installation, id, `entity_type = 'noted'`))).toEqual(['a', 'b', 'c', 'd', 'e']);
    expect((await errorsOf(installation, id)).sort()).toEqual(['THREW', 'TIMEOUT']);
    expect(names(await doneBy(installation, healthy))).toEqual(['a', 'throws', 'b', 'hangs', 'c', 'd', 'e']);
    expect(await lagOf(healthy)).toBeLessThan(LAG_MS_MAX);
  });

  it('for lack of time goes on span by span, within a bound', async () => {
    const type = newType();
    // Each of them is within the limit, all of them together would take more than a minute.
    const code = `const end = Date.now() + 800; while (Date.now() < end); ${NOTE}`;
    const id = await appendPolicy(installation, code, type);
    await append(installation, spansOf(type, ...Array.from({ length: 80 }, (_, i) => `${i}`)));
    await until(async () => (await doneBy(installation, id, `entity_type = 'noted'`)).length > 0, 12_000);
    await retire(installation, id);
    const done = names(await doneBy(installation, id, `entity_type = 'noted'`));
    expect(done).toEqual(Array.from(done, (_, i) => `${i}`));
  });

  it('again and again is left alone for a while, tried again later, and goes on where it was once it is mended', async () => {
    const type = newType();
    const id = await appendPolicy(installation, 'export default function on(span) {', type);
    const cursor = async () =>
      (await installation.admin.query('select * from ledger.policy_cursor where policy_id = $1', [id])).rows[0];
    await append(installation, spansOf(type, 'a', 'b'));
    await until(async () => (await cursor()).failures >= 3);
    const { failures, paused_until } = await cursor();
    expect(failures).toBe(3);
    const pausedMs = paused_until.getTime() - Date.now();
    expect(pausedMs).toBeGreaterThan(3_000);
    expect(pausedMs).toBeLessThanOrEqual(5_000);
    await until(async () => (await cursor()).failures === 4);
    expect((await cursor()).paused_until.getTime() - Date.now()).toBeGreaterThan(8_000);

    const mended = policyDraft(NOTE, type);
    await append(installation, [{ ...mended, id }]);
    await until(async () => (await doneBy(installation, id, `entity_type = 'noted'`)).length === 2);
    expect(await cursor()).toMatchObject({ failures: 0, paused_until: null, seq: 1 });
  });

  it('is named in its errors as far as they have room', async () => {
    const type = newType();
    const id = await appendPolicy(installation, 'throw 1', type, { name: 'n'.repeat(100_000) });
    await append(installation, spansOf(type, 'a'));
    await until(async () => (await errorsOf(installation, id)).length > 0);
    await retire(installation, id);
    const [error] = await doneBy(installation, id);
    expect(error.name).toBe('n'.repeat(2_000));
  });

  it('because the ledger refuses one of its actions, does all the others', async () => {
    const type = newType();
    const code = `return [{ emit_span: { id: span.id, entity_type: span.entity_type, name: span.name, status: 'seen' } }]`;
    await agent.stop();
    const id = await appendPolicy(installation, code, type);
    await append(installation, spansOf(type, 'a', 'b', 'c'));
    // Nobody but a publisher may continue what everybody sees.
    const published = {
      entity_type: type,
      name: 'public',
      visibility: 'public',
      at: new Date().toISOString(),
    } as const;
    await installation.insert(sealSpan(hashable(published), runtimeSigner));
    await append(installation, spansOf(type, 'd', 'e'));
    agent = startRole(installation.stage0, 'policy-agent');
    const done = () => installation.spans(`entity_type = $1 and status = 'seen'`, [type]);
    await until(async () => (await done()).length === 5);
    expect((await done()).map(({ name }) => name)).toEqual(['a', 'b', 'c', 'd', 'e']);
    expect((await errorsOf(installation, id)).sort()).toEqual(['LOOP', 'NOT_PERMITTED']);
  });
});

describe('a ledger that takes nothing for a while', () => {
  /** Refuse something with a SQLSTATE until the returned function is called. */
  async function refuse(sqlState: string, when: string): Promise<() => Promise<unknown>> {
    await installation.admin.query(`
      create function refuse() returns trigger language plpgsql as $$
      begin raise exception 'not now' using errcode = '${sqlState}'; end $$;
      create trigger refuse before ${when} execute function refuse()`);
    return () => installation.admin.query('drop function refuse cascade');
  }

  const refusals = () =>
    installation.logged.filter(({ message }) => message === 'a policy could not be committed').length;

  it('because it is read-only, loses nothing of what policies want', async () => {
    const type = newType();
    const id = await appendPolicy(installation, NOTE, type);
    const mend = await refuse(
      '25006',
      `insert on ledger.universal_registry for each row when (new.entity_type = 'noted')`,
    );
    const before = refusals();
    await append(installation, spansOf(type, 'a', 'b', 'c'));
    await until(async () => refusals() >= before + 10);
    expect(await doneBy(installation, id)).toEqual([]);
    await mend();
    await until(async () => (await doneBy(installation, id)).length >= 3);
    expect(names(await doneBy(installation, id))).toEqual(['a', 'b', 'c']);
    await retire(installation, id);
  });

  it('of one policy, not even how far it has come, holds up no other', async () => {
    const [type, otherType] = [newType(), newType()];
    const id = await appendPolicy(installation, NOTE, type);
    const mend = await refuse(
      '22000',
      `update of failures on ledger.policy_cursor for each row when (new.policy_id = '${id}')`,
    );
    const before = refusals();
    await append(installation, spansOf(type, 'a', 'b', 'c'));
    await until(async () => refusals() >= before + 10);
    const other = await appendPolicy(installation, NOTE, otherType);
    await append(installation, spansOf(otherType, 'beside'));
    await until(async () => (await doneBy(installation, other)).length === 1);
    expect(await doneBy(installation, id)).toEqual([]);
    await mend();
    await append(installation, spansOf(type, 'after'));
    await until(async () => names(await doneBy(installation, id, `entity_type = 'noted'`)).includes('after'));
    await retire(installation, id);
    await retire(installation, other);
  });

  it('takes the others, when it is one action that never passes', async () => {
    const type = newType();
    await agent.stop();
    const id = await appendPolicy(installation, NOTE, type);
    await append(installation, spansOf(type, 'a', 'b', 'poison', 'c', 'd'));
    const mend = await refuse(
      'LL010',
      `insert on ledger.universal_registry for each row
         when (new.entity_type = 'noted' and new.content ->> 'name' = 'poison')`,
    );
    agent = startRole(installation.stage0, 'policy-agent');
    await until(async () => (await errorsOf(installation, id)).length > 0);
    await until(async () => (await doneBy(installation, id, `entity_type = 'noted'`)).length === 4);
    await mend();
    expect(names(await doneBy(installation, id, `entity_type = 'noted'`))).toEqual(['a', 'b', 'c', 'd']);
    expect(await errorsOf(installation, id)).toEqual(['REQUEST_CLOSED']);
    await retire(installation, id);
  });
});

describe('policies that bring about what policies want', () => {
  it('are not shown what they did themselves, and are told so once', async () => {
    const type = newType();
    const id = await appendPolicy(installation, `return [{ emit_span: { entity_type: '${type}' } }]`, type);
    await append(installation, spansOf(type, 'a', 'b'));
    await until(async () => (await errorsOf(installation, id)).length > 0);
    await append(installation, spansOf(type, 'c'));
    await until(async () => (await doneBy(installation, id, `entity_type = '${type}'`)).length === 3);
    await sleep(1_000);
    expect(await doneBy(installation, id, `entity_type = '${type}'`)).toHaveLength(3);
    expect(await errorsOf(installation, id)).toEqual(['LOOP']);
  });

  it('and feed each other, end where one would come a second time', async () => {
    const [ping, pong] = [newType(), newType()];
    const a = await appendPolicy(installation, `return [{ emit_span: { entity_type: '${pong}' } }]`, ping);
    const b = await appendPolicy(installation, `return [{ emit_span: { entity_type: '${ping}' } }]`, pong);
    await append(installation, spansOf(ping, 'start'));
    await until(async () => (await errorsOf(installation, a)).length > 0);
    await sleep(1_000);
    const all = await installation.spans('entity_type = any($1)', [[ping, pong]]);
    expect(all.map(({ entity_type, metadata }) => [entity_type, metadata?.policy.path])).toEqual([
      [ping, undefined],
      [pong, [a]],
      [ping, [a, b]],
    ]);
  });

  it('in a long chain, end at the greatest depth', async () => {
    const chain = Array.from({ length: 6 }, newType);
    const ids: string[] = [];
    for (let i = 0; i < 5; i++) {
      const code = `return [{ emit_span: { entity_type: '${chain[i + 1]}' } }]`;
      ids.push(await appendPolicy(installation, code, chain[i] as string));
    }
    await append(installation, spansOf(chain[0] as string, 'start'));
    await until(async () => (await errorsOf(installation, ids[3] as string)).length > 0);
    await sleep(500);
    const all = await installation.spans('entity_type = any($1)', [chain]);
    expect(all.map(({ entity_type }) => entity_type)).toEqual(chain.slice(0, 4));
  });
});

describe('what a policy sees', () => {
  it('is what its owner may see of its tenant, and nothing of anybody else', async () => {
    const type = newType();
    const id = await appendPolicy(installation, NOTE, type);
    const everything = await appendPolicy(
      installation,
      `if (span.entity_type !== '${type}') return []; ${NOTE}`,
      type,
      {
        content: {},
      },
    );
    const seen: string[] = [];
    for (const [who, visibility, isSeen] of [
      [ALICE, 'private', true],
      [ALICE, 'tenant', true],
      [ALAN, 'private', false],
      [ALAN, 'tenant', true],
      [BOB, 'private', false],
      [BOB, 'tenant', false],
      [OTHER_ALICE, 'private', false],
      [OTHER_ALICE, 'tenant', false],
    ] as const) {
      const ids = await append(installation, [{ entity_type: type, visibility }], who);
      if (isSeen) seen.push(...ids);
    }
    for (const policy of [id, everything]) {
      const noted = () => doneBy(installation, policy, `entity_type = 'noted'`);
      await until(async () => (await noted()).length >= seen.length);
      await sleep(1_000);
      const done = await noted();
      expect(done.map(({ content }) => content.seen)).toEqual(seen);
      // and what it says of another's span is its own owner's
      expect(new Set(done.map(({ owner_id, visibility }) => `${owner_id} ${visibility}`))).toEqual(
        new Set(['alice private']),
      );
    }
    await retire(installation, everything);
  });

  it('begins with its first version, and leaves out what is deleted', async () => {
    const type = newType();
    await append(installation, spansOf(type, 'before'));
    const id = await appendPolicy(installation, NOTE, type);
    await append(installation, [...spansOf(type, 'after'), { ...spansOf(type, 'deleted')[0], is_deleted: true }]);
    await append(installation, spansOf(type, 'last'));
    await until(async () => (await doneBy(installation, id)).length === 2);
    expect(names(await doneBy(installation, id))).toEqual(['after', 'last']);
  });

  it('ends when it is retired', async () => {
    const type = newType();
    const id = await appendPolicy(installation, NOTE, type);
    const other = await appendPolicy(installation, NOTE, type);
    await append(installation, spansOf(type, 'a'));
    await until(async () => (await doneBy(installation, id)).length === 1);
    await retire(installation, id);
    await append(installation, spansOf(type, 'b'));
    await until(async () => (await doneBy(installation, other)).length === 2);
    expect(names(await doneBy(installation, id))).toEqual(['a']);
  });
});

describe('a policy that does not prove itself', () => {
  const emits = (type: string) => ({ ...policyDraft(NOTE, type), visibility: 'tenant' as const });

  it('is refused, when its row is not what was signed', async () => {
    const type = newType();
    const honest = sealSpan(hashable({ ...emits(type), at: new Date().toISOString() }), runtimeSigner);
    await installation.insert({ ...honest, code: `${honest.code}\n// and more` });
    await append(installation, spansOf(type, 'a'));
    await until(async () => (await errorsOf(installation, honest.id)).length > 0);
    await sleep(500);
    expect(await errorsOf(installation, honest.id)).toEqual(['SPAN_NOT_PROVED']);
  });

  it.each([
    ['the runtime key', runtimeSigner],
    ['a key that nobody knows', strangerSigner],
  ])('is refused, when it says it is the system’s and is signed by %s', async (_, signer) => {
    const type = newType();
    const system = { userId: 'system', tenantId: 'system' };
    const draft = { ...emits(type), visibility: 'public' as const, at: new Date().toISOString() };
    const forged = sealSpan(hashable(draft, system), signer);
    await installation.insert(forged);
    await append(installation, spansOf(type, 'a'), BOB);
    await until(async () => (await errorsOf(installation, forged.id)).length > 0);
    await sleep(500);
    expect(await errorsOf(installation, forged.id)).toEqual(['KEY_NOT_TRUSTED']);
  });
});

describe('actions', () => {
  it("are said by the policy's id: a name is anybody's to give", async () => {
    const type = newType();
    const id = await appendPolicy(installation, NOTE, type, { name: 'quota' });
    await append(installation, spansOf(type, 'a'));
    await until(async () => (await doneBy(installation, id)).length === 1);
    expect((await doneBy(installation, id)).map(({ who }) => who)).toEqual([`policy:${id}`]);
  });

  it('with a key happen once for ever, those without once for each version', async () => {
    const type = newType();
    const code = `return [
      { key: 'of ' + span.name, emit_span: { entity_type: 'keyed', content: { name: span.name } } },
      { emit_span: { entity_type: 'each', content: { name: span.name } } },
    ]`;
    const id = await appendPolicy(installation, code, type);
    const [first] = await append(installation, spansOf(type, 'a', 'a', 'b'));
    await until(async () => (await doneBy(installation, id)).length === 5);
    await append(installation, [
      ...spansOf(type, 'a', 'b', 'c'),
      { id: first as string, entity_type: type, name: 'a' },
    ]);
    await until(async () => (await doneBy(installation, id)).length === 10);
    await sleep(500);
    expect(names(await doneBy(installation, id, `entity_type = 'keyed'`))).toEqual(['a', 'b', 'c']);
    expect(names(await doneBy(installation, id, `entity_type = 'each'`)).sort()).toEqual([...'aaaabbc']);
  });

  it('continue the span that was seen, unless somebody else did first', async () => {
    const type = newType();
    const code = `if (span.status === 'done') return [];
      return [{ emit_span: { id: span.id, entity_type: span.entity_type, name: span.name, status: 'done' } }]`;
    await agent.stop();
    const id = await appendPolicy(installation, code, type);
    const ids = await append(installation, spansOf(type, 'a', 'b', 'c'));
    await append(installation, [{ id: ids[1] as string, entity_type: type, name: 'b', status: 'mine' }]);
    await append(installation, [{ id: ids[1] as string, entity_type: type, name: 'b', status: 'done' }]);
    agent = startRole(installation.stage0, 'policy-agent');
    const done = () => installation.spans(`entity_type = $1 and status = 'done' and who like 'policy:%'`, [type]);
    await until(async () => (await done()).length === 2);
    expect((await done()).map(({ name, seq }) => [name, seq])).toEqual([
      ['a', 1],
      ['c', 1],
    ]);
    expect((await installation.spans('id = $1', [ids[1]])).map(({ status }) => status)).toEqual([null, 'mine', 'done']);
    // It is not shown its own versions, and is told that it would be.
    await until(async () => (await errorsOf(installation, id)).length > 0);
    expect(await errorsOf(installation, id)).toEqual(['LOOP']);
  });
});

describe('a policy of expiries', () => {
  const PAST = '2026-01-01T00:00:00.000Z';
  const inMs = (ms: number) => new Date(Date.now() + ms).toISOString();

  it('is shown each span that has expired once, and what was extended only when that is over', async () => {
    const type = newType();
    // Nobody withdraws what it is shown: it stays expired.
    const content = { trigger: 'expiry', match: { entity_type: ['function'], runtime: [type] } };
    const id = await appendPolicy(installation, NOTE, type, { content });
    const draft = (name: string, expires_at: string) => ({
      ...{ entity_type: 'function', code: 'return 1', runtime: type, name, expires_at },
    });
    const [past, extended] = await append(installation, [
      draft('past', PAST),
      draft('extended', inMs(1_500)),
      draft('soon', inMs(1_000)),
      draft('late', inMs(600_000)),
    ]);
    await append(installation, [{ ...draft('extended', inMs(3_000)), id: extended as string }]);
    await until(async () => (await doneBy(installation, id)).length === 2);
    expect(names(await doneBy(installation, id))).toEqual(['past', 'soon']);
    await until(async () => (await doneBy(installation, id)).length === 3);
    const [, , last] = await doneBy(installation, id);
    expect(last.content.name).toBe('extended');
    const [, version] = await installation.spans('id = $1', [extended]);
    expect(last.at.getTime()).toBeGreaterThanOrEqual(version.expires_at.getTime());

    // What was shown and is extended now is shown again when that is over, as another version.
    await append(installation, [{ ...draft('past', inMs(500)), id: past as string }]);
    await until(async () => (await doneBy(installation, id)).length === 4);
    expect(names(await doneBy(installation, id)).at(-1)).toBe('past');
  });

  it('is not asked again about what it left as it was', async () => {
    const answers = [];
    for (const rest of [2_000, 2_000]) {
      answers.push(await agent.stop());
      agent = startRole(installation.stage0, 'policy-agent');
      // The ttl_reaper leaves code alone, however long ago it expired.
      const left = { entity_type: 'function', code: 'return 1', expires_at: PAST };
      await append(
        installation,
        Array.from({ length: 5 }, () => left),
      );
      await sleep(rest);
    }
    const [, second] = answers;
    expect(second.output.batches, 'batches of 2 s in which nothing else happened').toBeLessThan(20);
  });

  it('reaps what has expired once, and beside as much as it leaves alone', async () => {
    const left = { entity_type: 'function', code: 'return 1', expires_at: PAST };
    await append(
      installation,
      Array.from({ length: 300 }, () => left),
    );
    const type = newType();
    const [id] = await append(installation, [{ entity_type: type, expires_at: PAST }]);
    await until(async () => (await installation.spans('id = $1', [id])).length === 2);
    await sleep(1_000);
    const versions = await installation.spans('id = $1', [id]);
    expect(versions.map(({ seq, is_deleted, who }) => [seq, is_deleted, who])).toEqual([
      [0, null, 'alice'],
      [1, true, 'policy:ttl_reaper'],
    ]);
  });
});
