import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { append } from '../../src/api/append.ts';
import { cursorOf, TIMELINE_START } from '../../src/ledger/index.ts';
import { type StoredSpan, sealSpan } from '../../src/span/index.ts';
import { callerOf } from '../identity/support.ts';
import { type AnyJson, Installation, RUN_CODE } from '../stage0/installation.ts';
import { rootSigner, runtimeSigner, strangerSigner } from '../support/keys.ts';
import { ALAN, ALICE, BOB, hashable, nextVersion } from '../support/spans.ts';
import { asAlan, asAlice, asBob, Caller, expectProblem, openApi } from './http.ts';

let installation: Installation;
let alice: Caller;
let alan: Caller;
let bob: Caller;
beforeAll(async () => {
  installation = await Installation.create();
  await installation.seed();
  const app = openApi(installation);
  [alice, alan, bob] = [asAlice, asAlan, asBob].map((headers) => new Caller(app, headers)) as [Caller, Caller, Caller];
});
afterAll(() => installation?.close());

const note = (more: object = {}) => ({ entity_type: 'note', did: 'wrote', this: 'a note', ...more });

/** An append that is refused must leave nothing. */
async function expectRefused(body: unknown, status: number, code: string, field?: string): Promise<void> {
  const count = await installation.count();
  await expectProblem(alice.request('/api/spans', body), status, code, field);
  expect(await installation.count()).toBe(count);
}

describe('POST /api/spans', () => {
  it('appends one span for the caller, signed and proved, and answers 201 with its place', async () => {
    const answer = await alice.post('/api/spans', note({ content: { text: 'hello' } }), 201);
    expect(answer).toEqual({ id: expect.any(String), seq: 0, curr_hash: expect.stringMatching(/^[0-9a-f]{64}$/) });
    expect(await alice.get(`/api/spans/${answer.id}`)).toMatchObject({
      ...answer,
      who: ALICE.userId,
      owner_id: ALICE.userId,
      tenant_id: ALICE.tenantId,
      visibility: 'private',
      content: { text: 'hello' },
    });
    expect(await alice.get(`/api/spans/${answer.id}/verify`)).toMatchObject({ ok: true });
  });

  it('appends a batch, all of it or nothing, and a later version of the same span', async () => {
    const id = randomUUID();
    const spans = [note({ id, name: 'first' }), note(), note({ id, name: 'second' })];
    const answer = await alice.post('/api/spans', { spans }, 201);
    expect(answer.spans.map(({ seq }: AnyJson) => seq)).toEqual([0, 0, 1]);
    const { versions } = await alice.get(`/api/spans/${id}/versions`);
    expect(versions.map(({ seq, name }: AnyJson) => [seq, name])).toEqual([
      [0, 'first'],
      [1, 'second'],
    ]);
    await expectRefused({ spans: [note(), note({ status: 7 })] }, 400, 'TYPE_MISMATCH', 'spans[1].status');
  });

  it('lets the owner be named when it is the caller, and nobody else', async () => {
    await alice.post('/api/spans', note({ owner_id: ALICE.userId, tenant_id: ALICE.tenantId }), 201);
    await expectRefused(note({ owner_id: ALAN.userId }), 403, 'NOT_YOUR_SPAN', 'owner_id');
    await expectRefused({ spans: [note({ tenant_id: BOB.tenantId })] }, 403, 'NOT_YOUR_SPAN', 'spans[0].tenant_id');
  });

  it.each([
    'api_token',
    'boot_event',
    'execution',
    'loader',
    'manifest',
    'policy_error',
    'policy_violation',
    'provider',
    'provider_execution',
    'request',
    'schedule_error',
    'status_patch',
  ])('refuses what only the system says: %s', async (entity_type) => {
    await expectRefused(
      note({ entity_type, status: 'scheduled', parent_id: RUN_CODE }),
      403,
      'ENTITY_TYPE_RESERVED',
      'entity_type',
    );
    await expectRefused(
      { spans: [note(), note({ entity_type })] },
      403,
      'ENTITY_TYPE_RESERVED',
      'spans[1].entity_type',
    );
  });

  it.each<[string, object, number, string, string | undefined]>([
    ['the name of a kernel', note({ who: 'kernel:run_code' }), 403, 'WHO_RESERVED', 'who'],
    ['the name of a policy', note({ who: 'policy:slow_exec' }), 403, 'WHO_RESERVED', 'who'],
    ['the name of Stage-0', note({ who: 'stage0' }), 403, 'WHO_RESERVED', 'who'],
    ['an id that a seed may want', note({ id: '00000000-0000-4000-8000-000000000401' }), 403, 'ID_RESERVED', 'id'],
    [
      'the provenance of a policy',
      note({ metadata: { policy: { id: RUN_CODE } } }),
      400,
      'FIELD_IS_ASSIGNED',
      'metadata.policy',
    ],
    ['a hash without a signature', note({ curr_hash: 'ab'.repeat(32) }), 400, 'FIELD_IS_ASSIGNED', 'curr_hash'],
    ['a place', note({ position: 1 }), 400, 'FIELD_IS_ASSIGNED', 'position'],
    ['half a signed span', note({ signature: 'ab'.repeat(64) }), 400, 'FIELD_MISSING', 'id'],
    ['a public row', note({ visibility: 'public' }), 403, 'NOT_PERMITTED', undefined],
    ['a column that is none', note({ colour: 'red' }), 400, 'UNKNOWN_COLUMN', 'colour'],
    ['no entity type', { did: 'wrote' }, 400, 'FIELD_MISSING', 'entity_type'],
    ['an entity type that is no text', note({ entity_type: ['note'] }), 400, 'FIELD_INVALID', 'entity_type'],
    ['an empty batch', { spans: [] }, 400, 'BATCH_SIZE', undefined],
    ['a batch of 1001', { spans: Array(1001).fill(note()) }, 400, 'BATCH_SIZE', undefined],
    ['a batch that is no list', { spans: note() }, 400, 'FIELD_INVALID', 'spans'],
    ['a batch with something else beside it', { spans: [note()], owner_id: 'bob' }, 400, 'FIELD_UNKNOWN', 'owner_id'],
    ['a batch that holds no span', { spans: [note(), 7] }, 400, 'FIELD_INVALID', 'spans[1]'],
  ])('refuses %s', async (_what, body, status, code, field) => {
    await expectRefused(body, status, code, field);
  });

  it("adds no version to another's span, and answers 409 when another writer was first", async () => {
    const { id } = await alice.post('/api/spans', note({ visibility: 'tenant' }), 201);
    await expectProblem(alan.request('/api/spans', note({ id })), 403, 'NOT_YOUR_SPAN');
    await alice.post('/api/spans', note({ id, seq: 1, visibility: 'tenant' }), 201);
    await expectRefused(note({ id, seq: 1, visibility: 'tenant' }), 409, 'SEQ_TAKEN', 'seq');
  });

  describe('of a span that its author has signed', () => {
    const sealed = (more: object = {}, signer = runtimeSigner) => sealSpan(hashable(more), signer);

    it('stores it as it was sent, and its next version too', async () => {
      const first = sealed({ content: { text: 'mine' } });
      const place = { id: first.id, seq: 0, curr_hash: first.curr_hash };
      expect(await alice.post('/api/spans', first, 201)).toEqual(place);
      const { curr_hash: _, ...second } = nextVersion(first, { status: 'done' });
      await alice.post('/api/spans', { spans: [note(), second] }, 201);
      expect(await alice.get(`/api/spans/${first.id}/versions`)).toMatchObject({ versions: [first, second] });
      expect(await alice.get(`/api/spans/${first.id}/verify`)).toMatchObject({ ok: true });
    });

    it.each<[string, () => object, number, string, string]>([
      ['a changed word', () => ({ ...sealed(), did: 'changed' }), 409, 'HASH_MISMATCH', 'curr_hash'],
      [
        'a changed word, without the hash',
        () => ({ ...sealed(), did: 'changed', curr_hash: undefined }),
        409,
        'SIGNATURE_INVALID',
        'signature',
      ],
      ['no signature at all', () => ({ ...sealed(), signature: 'signed' }), 409, 'SIGNATURE_INVALID', 'signature'],
      ['the key of a stranger', () => sealed({}, strangerSigner), 409, 'KEY_NOT_TRUSTED', 'public_key'],
      [
        'the key of a stranger, before it looks at the rest',
        () => ({ ...sealed({}, strangerSigner), did: 'changed', signature: 'ab'.repeat(64) }),
        409,
        'KEY_NOT_TRUSTED',
        'public_key',
      ],
      ['another owner', () => sealed({ owner_id: ALAN.userId }), 403, 'NOT_YOUR_SPAN', 'owner_id'],
      ['another tenant', () => sealed({ tenant_id: BOB.tenantId }), 403, 'NOT_YOUR_SPAN', 'tenant_id'],
      ['a type of the system', () => sealed({ entity_type: 'execution' }), 403, 'ENTITY_TYPE_RESERVED', 'entity_type'],
      ['no time', () => ({ ...sealed(), at: undefined }), 400, 'FIELD_MISSING', 'at'],
      ['a place', () => ({ ...sealed(), position: 1 }), 400, 'FIELD_IS_ASSIGNED', 'position'],
    ])('refuses %s, and names it in a batch too', async (_what, span, status, code, field) => {
      await expectRefused(span(), status, code, field);
      await expectRefused({ spans: [note(), span()] }, status, code, `spans[1].${field}`);
    });

    it('takes a hundred of them in one request, among others, and no more', async () => {
      const signed = Array.from({ length: 101 }, () => sealed());
      await expectRefused({ spans: [note(), ...signed] }, 400, 'BATCH_SIZE');
      const answer = await alice.post('/api/spans', { spans: [note(), ...signed.slice(1)] }, 201);
      expect(answer.spans).toHaveLength(101);
    });

    it('refuses a version that does not follow the one before it', async () => {
      const first = sealed();
      await alice.post('/api/spans', first, 201);
      const { curr_hash: _, ...astray } = nextVersion(first, { prev_hash: 'ab'.repeat(32) });
      await expectRefused(astray, 409, 'CHAIN_BROKEN', 'prev_hash');
      await expectRefused(first, 409, 'SEQ_TAKEN', 'seq');
    });
  });

  describe('under an Idempotency-Key', () => {
    const under = (key: string) => ({ 'Idempotency-Key': key });
    const two = { spans: [note({ name: 'one' }), note({ name: 'two' })] };

    it('appends once, and answers the same to whoever repeats it, later versions or not', async () => {
      const first = await alice.post('/api/spans', note({ name: 'one' }), 201, under('once'));
      await alice.post('/api/spans', note({ id: first.id, name: 'changed' }), 201);
      const count = await installation.count();
      expect(await alice.post('/api/spans', note({ name: 'one' }), 201, under('once'))).toEqual(first);
      expect(await installation.count()).toBe(count);
      const { versions } = await alice.get(`/api/spans/${first.id}/versions`);
      expect(versions.map(({ idempotency_key }: AnyJson) => idempotency_key)).toEqual(['once', undefined]);
    });

    it('appends a batch once, however many ask at the same time', async () => {
      const count = await installation.count();
      const answers = await Promise.all(
        Array.from({ length: 10 }, () => alice.post('/api/spans', two, 201, under('many'))),
      );
      expect(new Set(answers.map((answer) => JSON.stringify(answer))).size).toBe(1);
      expect(answers[0].spans.map(({ seq }: AnyJson) => seq)).toEqual([0, 0]);
      expect(await installation.count()).toBe(count + 2);
    });

    it('is known again after the runtime key has changed', async () => {
      const first = await alice.post('/api/spans', note(), 201, under('rotated'));
      const rotated = { ...installation.stage0, signer: rootSigner };
      const again = await append(rotated, callerOf(ALICE), note(), 'rotated');
      expect(again).toEqual(first);
    });

    it.each<[string, AnyJson]>([
      ['another span', note({ name: 'other' })],
      ['a batch that differs in one', { spans: [two.spans[0], note({ name: 'other' })] }],
      ['the beginning of a batch', { spans: [two.spans[0]] }],
      ['a longer batch', { spans: [...two.spans, note()] }],
      ['the same with another time', { spans: [two.spans[0], { ...two.spans[1], at: '2026-01-01T00:00:00.000Z' }] }],
    ])('refuses %s under the key of a batch, and writes nothing', async (what, body) => {
      const key = under(`reused for ${what}`);
      await alice.post('/api/spans', two, 201, key);
      const count = await installation.count();
      const answer = alice.request('/api/spans', body, key);
      await expectProblem(answer, 409, 'IDEMPOTENCY_KEY_REUSED', 'idempotency_key');
      expect(await installation.count()).toBe(count);
    });

    it('belongs to its user and tenant', async () => {
      const callers = [alice, alan, bob];
      const answers = await Promise.all(callers.map((caller) => caller.post('/api/spans', note(), 201, under('ours'))));
      expect(new Set(answers.map(({ id }) => id)).size).toBe(callers.length);
    });

    it.each<[string, AnyJson, string, string]>([
      ['a span that names its id', note({ id: randomUUID() }), 'named', 'id'],
      ['one of a batch that does', { spans: [note(), note({ id: randomUUID() })] }, 'named', 'spans[1].id'],
      ['a later version', note({ seq: 1 }), 'named', 'seq'],
      ['a key that is too long', note(), 'k'.repeat(201), 'idempotency_key'],
      ['an empty key', note(), '', 'idempotency_key'],
    ])('refuses %s', async (_what, body, key, field) => {
      const count = await installation.count();
      await expectProblem(alice.request('/api/spans', body, under(key)), 400, 'FIELD_INVALID', field);
      expect(await installation.count()).toBe(count);
    });

    it.each([
      ['an empty batch', 0],
      ['a batch of 1001', 1001],
    ])('refuses %s', async (_what, length) => {
      const body = { spans: Array(length).fill(note()) };
      await expectProblem(alice.request('/api/spans', body, under('size')), 400, 'BATCH_SIZE');
    });
  });

  describe('of a function', () => {
    const fn = (more: object = {}) => ({ entity_type: 'function', name: 'f', code: 'return 1', ...more });

    it.each([
      ['0 9 * * MON-FRI', 'Europe/Lisbon'],
      ['PT10M', undefined],
      ['R/2026-01-01T00:00:00Z/P1D', 'UTC'],
    ])('takes a schedule that can be read: %s %s', async (schedule, timezone) => {
      const { id } = await alice.post('/api/spans', fn({ metadata: { schedule, timezone } }), 201);
      expect((await alice.get(`/api/spans/${id}`)).metadata.schedule).toBe(schedule);
    });

    it.each<[string, object, string, string]>([
      ['a schedule that is none', { metadata: { schedule: 'every day' } }, 'SCHEDULE_INVALID', 'metadata.schedule'],
      [
        'a time zone that is none',
        { metadata: { schedule: 'PT1M', timezone: 'Mars/Base' } },
        'SCHEDULE_INVALID',
        'metadata.timezone',
      ],
      ['an interval of nothing', { metadata: { schedule: 'PT0S' } }, 'SCHEDULE_INVALID', 'metadata.schedule'],
      ['the word import', { code: 'await import("node:fs")' }, 'CODE_REFUSED', 'code'],
      ['more than 256 KiB', { code: `return 1;${' '.repeat(256 * 1024)}` }, 'CODE_REFUSED', 'code'],
      ['code that is no text', { code: { main: 1 } }, 'TYPE_MISMATCH', 'code'],
    ])('refuses %s', async (_what, more, code, field) => {
      await expectRefused(fn(more), 400, code, field);
      await expectRefused({ spans: [note(), fn(more)] }, 400, code, `spans[1].${field}`);
    });
  });

  describe('of a policy', () => {
    const policy = (content: unknown) => ({
      entity_type: 'policy',
      name: 'p',
      status: 'draft',
      code: 'export default function on(span) { return []; }',
      content,
    });

    it.each([
      {},
      { trigger: 'expiry' },
      {
        trigger: 'span',
        match: { entity_type: ['execution'], status: ['error', 'timeout', null] },
        params: { limit: 3 },
      },
    ])('takes %j', async (content) => {
      await alice.post('/api/spans', policy(content), 201);
    });

    it.each<[unknown, string, string]>([
      [{ trigger: 'always' }, 'FIELD_INVALID', 'content.trigger'],
      [{ match: [] }, 'FIELD_INVALID', 'content.match'],
      [{ match: { entity_type: 'execution' } }, 'FIELD_INVALID', 'content.match.entity_type'],
      [{ match: { status: [{ not: 'error' }] } }, 'FIELD_INVALID', 'content.match.status'],
      [{ match: { entitytype: ['execution'] } }, 'UNKNOWN_COLUMN', 'content.match.entitytype'],
      ['everything', 'FIELD_INVALID', 'content'],
    ])('refuses %j', async (content, code, field) => {
      await expectRefused(policy(content), 400, code, field);
    });

    it('refuses code that the sandbox would refuse', async () => {
      await expectRefused({ ...policy({}), code: 'import fs from "fs"' }, 400, 'CODE_REFUSED', 'code');
    });
  });
});

describe('GET /api/spans', () => {
  const trace = (name: string) => `trace-of-${name}`;
  const ids = async (caller: Caller, query: string) =>
    (await caller.get(`/api/spans?${query}`)).spans.map(({ id }: AnyJson) => id);

  it('lists newest versions that match, newest first, without what was deleted', async () => {
    const trace_id = trace('list');
    const appended = [];
    for (const name of ['a', 'b', 'c']) {
      appended.push((await alice.post('/api/spans', note({ name, trace_id, status: 'open' }), 201)).id);
    }
    const [a, b, c] = appended;
    await alice.post('/api/spans', note({ id: a, name: 'a', trace_id, status: 'closed' }), 201);
    await alice.post('/api/spans', note({ id: b, trace_id, is_deleted: true }), 201);
    expect(await ids(alice, `trace_id=${trace_id}`)).toEqual([a, c]);
    expect(await ids(alice, `trace_id=${trace_id}&status=open`)).toEqual([c]);
    expect(await ids(alice, `trace_id=${trace_id}&status=closed&name=a&entity_type=note`)).toEqual([a]);
    expect(await ids(alice, `trace_id=${trace_id}&name=zzz`)).toEqual([]);
    expect(await ids(bob, `trace_id=${trace_id}`)).toEqual([]);
  });

  it('pages without missing or repeating one', async () => {
    const trace_id = trace('pages');
    const spans = Array.from({ length: 7 }, (_, i) => note({ name: `n${i}`, trace_id }));
    const appended = (await alice.post('/api/spans', { spans }, 201)).spans.map(({ id }: AnyJson) => id);
    const found: string[] = [];
    let before: string | null = '';
    for (let pages = 1; before !== null; pages++) {
      const query: string = before === '' ? '' : `&before=${before}`;
      const page: AnyJson = await alice.get(`/api/spans?trace_id=${trace_id}&limit=3${query}`);
      found.push(...page.spans.map(({ id }: AnyJson) => id));
      before = page.before;
      expect(pages).toBeLessThan(4);
    }
    expect(found).toEqual(appended.reverse());
  });

  it('shows a tenant what is of the tenant, and tells whose it is', async () => {
    const trace_id = trace('tenant');
    const own = (await alan.post('/api/spans', note({ trace_id }), 201)).id;
    const { id: hers } = await alice.post('/api/spans', note({ trace_id, visibility: 'tenant' }), 201);
    await alice.post('/api/spans', note({ trace_id }), 201);
    expect(await ids(alan, `trace_id=${trace_id}`)).toEqual([hers, own]);
    expect(await ids(alan, `trace_id=${trace_id}&owner=alice`)).toEqual([hers]);
    expect(await ids(alan, `trace_id=${trace_id}&owner=alan`)).toEqual([own]);
    expect(await ids(alice, 'name=run_code_kernel&entity_type=function')).toEqual([RUN_CODE]);
    expect(await ids(alice, 'name=run_code_kernel&owner=alice')).toEqual([]);
  });

  it.each([
    ['limit=0', 'FIELD_INVALID', 'limit'],
    ['limit=1001', 'FIELD_INVALID', 'limit'],
    ['before=abc', 'FIELD_INVALID', 'before'],
    [`before=${'f'.repeat(32)}`, 'CURSOR_INVALID', 'before'],
    ['parent_id=abc', 'FIELD_INVALID', 'parent_id'],
    ['entity_type=%00', 'FIELD_INVALID', 'entity_type'],
    ['entity=note', 'FIELD_UNKNOWN', 'entity'],
  ])('refuses %s', async (query, code, field) => {
    await expectProblem(alice.request(`/api/spans?${query}`), 400, code, field);
  });
});

describe('GET /api/timeline', () => {
  /** All that is settled after a cursor, page by page; waits until a span has settled. */
  async function readUntil(caller: Caller, id: string, after: string, query = ''): Promise<StoredSpan[]> {
    const spans: StoredSpan[] = [];
    for (let i = 0; i < 500; i++) {
      const page = await caller.get(`/api/timeline?after=${after}&limit=2${query}`);
      spans.push(...page.spans);
      if (page.spans.some((span: StoredSpan) => span.id === id)) return spans;
      if (page.spans.length === 0) await sleep(10);
      after = page.position;
    }
    return expect.fail(`span ${id} never came`);
  }

  it('gives what came after a position, in order, whatever the size of a page', async () => {
    const { position: end } = await alice.get('/api/timeline?after=end');
    const spans = Array.from({ length: 5 }, (_, i) => note({ name: `t${i}` }));
    const appended = (await alice.post('/api/spans', { spans }, 201)).spans.map(({ id }: AnyJson) => id);
    const read = await readUntil(alice, appended[4], end);
    expect(read.map(({ id }) => id).filter((id) => appended.includes(id))).toEqual(appended);
    const last = read.at(-1) as StoredSpan;
    expect(await alice.get(`/api/timeline?after=${cursorOf(last)}`)).toEqual({ spans: [], position: cursorOf(last) });
  });

  it('moves on past what does not match, though a page be empty', async () => {
    const { position: end } = await alice.get('/api/timeline?after=end');
    const spans = [...Array.from({ length: 6 }, () => note()), note({ status: 'wanted' }), note()];
    const appended = (await alice.post('/api/spans', { spans }, 201)).spans.map(({ id }: AnyJson) => id);
    await readUntil(alice, appended[7], end);
    const page = await alice.get(`/api/timeline?after=${end}&status=wanted`);
    expect(page.spans.map(({ id }: AnyJson) => id)).toEqual([appended[6]]);
    const rest = await alice.get(`/api/timeline?after=${end}&status=nothing-has-this`);
    expect([rest.spans, rest.position > end]).toEqual([[], true]);
    expect(await alice.get(`/api/timeline?after=${page.position}&status=wanted`)).toEqual({
      spans: [],
      position: page.position,
    });
  });

  it('stops where a full page of matches ends, and goes on from there', async () => {
    const { position: end } = await alice.get('/api/timeline?after=end');
    const spans = Array.from({ length: 9 }, (_, i) => note({ status: i % 2 === 0 ? 'even' : 'odd', name: `e${i}` }));
    const appended = (await alice.post('/api/spans', { spans }, 201)).spans.map(({ id }: AnyJson) => id);
    const even = await readUntil(alice, appended[8], end, '&status=even');
    expect(even.map(({ name }) => name)).toEqual(['e0', 'e2', 'e4', 'e6', 'e8']);
  });

  it("shows nobody another tenant's spans", async () => {
    const { id } = await alice.post('/api/spans', note({ visibility: 'tenant' }), 201);
    await readUntil(alan, id, TIMELINE_START);
    const { spans } = await bob.get('/api/timeline?limit=1000');
    expect(spans.length).toBeGreaterThan(0);
    expect(spans.filter(({ tenant_id }: AnyJson) => tenant_id === ALICE.tenantId)).toEqual([]);
  });

  it.each([
    ['after=now', 'FIELD_INVALID', 'after'],
    [`after=${'f'.repeat(32)}`, 'CURSOR_INVALID', 'after'],
    ['limit=many', 'FIELD_INVALID', 'limit'],
    ['position=1', 'FIELD_UNKNOWN', 'position'],
  ])('refuses %s', async (query, code, field) => {
    await expectProblem(alice.request(`/api/timeline?${query}`), 400, code, field);
  });
});
