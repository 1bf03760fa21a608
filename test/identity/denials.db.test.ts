import { setTimeout as pause } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createApiToken, Denials } from '../../src/identity/index.ts';
import { Database } from '../../src/ledger/index.ts';
import { verifySpan } from '../../src/span/index.ts';
import { expectProblem } from '../api/http.ts';
import { type AnyJson, Installation } from '../stage0/installation.ts';
import { trustedKeys } from '../support/keys.ts';
import { ALICE, BOB } from '../support/spans.ts';
import { callerOf, openApi } from './support.ts';

let installation: Installation;
beforeAll(async () => {
  installation = await Installation.create();
  await installation.seed();
});
afterAll(() => installation?.close());

const denials = (where = 'true', values: unknown[] = []): Promise<AnyJson[]> =>
  installation.spans(`entity_type = 'access_denied' and ${where}`, values);

/** It is written beside the answer. */
async function until<T>(look: () => Promise<T>, isThere: (found: T) => boolean): Promise<T> {
  for (let i = 0; ; i++) {
    const found = await look();
    if (isThere(found) || i === 1_000) return found;
    await pause(20);
  }
}

const counted = (spans: AnyJson[]) => spans.reduce((sum, { content }) => sum + content.count, 0);

describe('who shows a token that is none', () => {
  it('is counted and not listed: a thousand of them leave a handful of spans, and nothing of a token', async () => {
    const { as } = openApi(installation.stage0);
    const tokens = Array.from({ length: 1_000 }, (_, i) => `${i % 2 === 0 ? 'llo_' : 'x.y.'}guess-${i}`);
    for (let i = 0; i < tokens.length; i += 50) {
      const answers = await Promise.all(tokens.slice(i, i + 50).map((token) => as(token).request('/api/me')));
      expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([401]));
    }
    const spans = await until(denials, ({ length }) => length > 0);
    await pause(100);
    expect(spans).toHaveLength(1);
    expect(spans[0]).toMatchObject({
      name: 'TOKEN_INVALID',
      owner_id: 'system',
      tenant_id: 'system',
      visibility: 'private',
      who: 'api',
      content: { count: 1, sources: { unknown: 1 } },
    });
    expect(JSON.stringify(await denials())).not.toContain('guess');
  });
});

describe('a host that is frozen after its answer', () => {
  it('is told what to wait for', async () => {
    const { app } = openApi(installation.stage0);
    const work: Promise<unknown>[] = [];
    const env = { waitUntil: (promise: Promise<unknown>) => work.push(promise) };
    const before = (await denials("name = 'TOKEN_MISSING'")).length;
    const answer = await app.request('/api/me', {}, env);
    expect(answer.status).toBe(401);
    await Promise.all(work);
    expect(await denials("name = 'TOKEN_MISSING'")).toHaveLength(before + 1);
  });
});

describe('whom we know', () => {
  it('is refused in his own tenant, where others of it see that', async () => {
    const { as } = openApi(installation.stage0);
    const { token } = await createApiToken(installation.stage0, callerOf(ALICE), {
      name: 'x',
      scopes: ['spans:append'],
    });
    await expectProblem(as(token).request('/api/spans'), 403, 'SCOPE_MISSING');
    await expectProblem(
      as(token).request('/api/spans', { entity_type: 'execution' }),
      403,
      'ENTITY_TYPE_RESERVED',
      'entity_type',
    );
    const own = await until(
      () => denials('tenant_id = $1', [ALICE.tenantId]),
      ({ length }) => length === 2,
    );
    expect(new Set(own.map(({ name }) => name))).toEqual(new Set(['SCOPE_MISSING', 'ENTITY_TYPE_RESERVED']));
    for (const { owner_id, visibility, this: whom } of own) {
      expect([owner_id, visibility, whom]).toEqual([ALICE.userId, 'tenant', `user:${ALICE.userId}`]);
    }
    const { token: reader } = await createApiToken(installation.stage0, callerOf(ALICE), {
      name: 'x',
      scopes: ['spans:read'],
    });
    expect(await as(reader).get(`/api/spans/${own[0].id}/verify`)).toMatchObject({ ok: true });
  });
});

describe('denials', () => {
  it('say at the end of each while how many there were, and then no more', async () => {
    const room = new Denials({ ...installation.stage0, windowMs: 300 });
    const bob = callerOf(BOB);
    await Promise.all(Array.from({ length: 500 }, () => room.record('SCOPE_MISSING', '192.0.2.1', bob)));
    const look = () => denials('tenant_id = $1', [BOB.tenantId]);
    const spans = await until(look, ({ length }) => length === 2);
    expect(spans.map(({ content }) => content.count)).toEqual([1, 499]);
    expect(spans[1].content.sources).toEqual({ '192.0.2.1': 499 });
    await pause(700);
    expect(await look()).toHaveLength(2);
    await room.record('SCOPE_MISSING', '192.0.2.1', bob);
    expect(await look()).toHaveLength(3);
    for (const { id } of spans) {
      expect(verifySpan((await installation.sealed(id)) as never, trustedKeys, installation.stage0.scheme)).toEqual([]);
    }
  });

  it('name some sources and count the others together', async () => {
    const room = new Denials({ ...installation.stage0, windowMs: 200 });
    for (let i = 0; i < 1_000; i++) void room.record('TICKET_INVALID', `198.51.100.${i}`, undefined);
    const spans = await until(
      () => denials("name = 'TICKET_INVALID'"),
      ({ length }) => length === 2,
    );
    expect(counted(spans)).toBe(1_000);
    expect(Object.keys(spans[1].content.sources)).toHaveLength(21);
    expect(spans[1].content.sources.other).toBe(979);
  });

  it('of more callers than are remembered are the system’s to count', async () => {
    const room = new Denials({ ...installation.stage0, windowMs: 60_000 });
    const all = Array.from({ length: 600 }, (_, i) => callerOf({ userId: `user-${i}`, tenantId: 'crowd' }));
    await Promise.all(all.map((caller) => room.record('NOT_YOUR_SPAN', '192.0.2.1', caller)));
    expect(await denials("name = 'NOT_YOUR_SPAN' and tenant_id = 'crowd'")).toHaveLength(500);
    expect(await denials("name = 'NOT_YOUR_SPAN' and tenant_id = 'system'")).toHaveLength(1);
  });

  it('fail nobody when the ledger is away', async () => {
    const database = new Database({ url: 'postgres://nobody:secret@127.0.0.1:1/none', applicationName: 'test' });
    const logged: object[] = [];
    const room = new Denials({ ...installation.stage0, database, log: (entry) => logged.push(entry) });
    await room.record('TOKEN_INVALID', '192.0.2.1', undefined);
    expect(logged).toEqual([expect.objectContaining({ level: 'warn', code: 'TOKEN_INVALID' })]);
    await database.close();
  });
});
