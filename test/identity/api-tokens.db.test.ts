import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createApiToken } from '../../src/identity/index.ts';
import { appendSpans } from '../../src/ledger/index.ts';
import { type HashableSpan, sealSpan } from '../../src/span/index.ts';
import { derivedId } from '../../src/stage0/index.ts';
import { expectProblem } from '../api/http.ts';
import { type AnyJson, Installation } from '../stage0/installation.ts';
import { runtimeSigner, strangerSigner } from '../support/keys.ts';
import { ALAN, ALICE, BOB, contextOf, hashable, nextVersion, OTHER_ALICE } from '../support/spans.ts';
import { authenticatorOf, callerOf, LOCAL, LOCAL_TOKEN, openApi } from './support.ts';

let installation: Installation;
let clock: Date;
let api: ReturnType<typeof openApi>;
beforeAll(async () => {
  installation = await Installation.create();
  await installation.seed();
  clock = new Date();
  api = openApi(installation.container({ now: () => clock }));
});
afterAll(() => installation?.close());

/** A token of somebody's, made by a credential of his that may do everything. */
async function tokenOf(identity = ALICE, scopes = ['*'], more: object = {}) {
  const stage0 = installation.container({ now: () => clock });
  return createApiToken(stage0, callerOf(identity), { name: 'a token', scopes, ...more });
}

const me = (token: string) => api.as(token).request('/api/me');

describe('a token', () => {
  it('speaks for who made it, with the scopes he gave it, and is shown once', async () => {
    const made = await api
      .as(LOCAL_TOKEN)
      .post('/api/tokens', { name: 'reports', scopes: ['spans:read', 'spans:read'] }, 201);
    expect(made).toEqual({
      token: expect.stringMatching(/^llo_[\w-]{43}$/),
      id: expect.any(String),
      name: 'reports',
      scopes: ['spans:read'],
      status: 'active',
      expires_at: new Date(clock.getTime() + 90 * 86_400_000).toISOString(),
    });
    expect(await api.as(made.token).get('/api/me')).toMatchObject({ user_id: LOCAL.userId, tenant_id: LOCAL.tenantId });
    await expectProblem(api.as(made.token).request('/api/execute', {}), 403, 'SCOPE_MISSING');
    const { token: _shown, ...listed } = made;
    expect((await api.as(LOCAL_TOKEN).get('/api/tokens')).tokens).toContainEqual(listed);
  });

  it('is a private span of its owner that has its hash and nothing of it', async () => {
    const { id, token } = await tokenOf();
    const span = await installation.span(id);
    expect(span).toMatchObject({
      entity_type: 'api_token',
      who: ALICE.userId,
      owner_id: ALICE.userId,
      tenant_id: ALICE.tenantId,
      visibility: 'private',
      status: 'active',
      content: { scopes: ['*'], token_hash: expect.stringMatching(/^[0-9a-f]{64}$/) },
    });
    expect(JSON.stringify(span)).not.toContain(token.slice(4, 20));
    expect(JSON.stringify(installation.logged)).not.toContain(token.slice(4, 20));
  });

  it.each([
    ['a changed one', (token: string) => `${token.slice(0, -2)}${token.endsWith('AA') ? 'BB' : 'AA'}`],
    ['a shorter one', (token: string) => token.slice(0, -1)],
    ['a longer one', (token: string) => `${token}A`],
    ['one of another form', (token: string) => token.slice(4)],
    ['one that is huge', (token: string) => token + 'A'.repeat(8_192)],
  ])('is not %s', async (_what, change) => {
    const { token } = await tokenOf();
    expect((await me(token)).status).toBe(200);
    await expectProblem(me(change(token)), 401, 'TOKEN_INVALID');
  });

  it('ends when it says', async () => {
    const { token } = await tokenOf(ALICE, ['*'], { expires_in_s: 60 });
    const before = clock;
    try {
      clock = new Date(before.getTime() + 59_999);
      expect((await me(token)).status).toBe(200);
      clock = new Date(before.getTime() + 60_000);
      await expectProblem(me(token), 401, 'TOKEN_EXPIRED');
    } finally {
      clock = before;
    }
  });

  it('is revoked at once, in every process, and stays so', async () => {
    const { token, id } = await tokenOf();
    const other = openApi(installation.container({ now: () => clock }));
    for (const { as } of [api, other]) expect((await as(token).request('/api/me')).status).toBe(200);
    const caller = await authenticatorOf(installation.stage0).authenticate(token);
    expect(await api.as(token).post(`/api/tokens/${id}/revoke`, {})).toMatchObject({
      id,
      status: 'revoked',
      name: 'a token',
    });
    for (const { as } of [api, other]) await expectProblem(as(token).request('/api/me'), 401, 'TOKEN_REVOKED');
    expect(await authenticatorOf(installation.stage0).ended([caller])).toEqual([caller]);
    const again = (await tokenOf()).token;
    expect(await api.as(again).post(`/api/tokens/${id}/revoke`, {})).toMatchObject({ status: 'revoked' });
    expect(await installation.spans('id = $1', [id])).toHaveLength(2);
    expect(await api.as(again).get(`/api/spans/${id}/verify`)).toMatchObject({ ok: true });
  });

  it('cannot be listed or revoked by anybody else, in whatever tenant', async () => {
    const { id, token } = await tokenOf(ALICE);
    for (const stranger of [ALAN, BOB, OTHER_ALICE]) {
      const theirs = api.as((await tokenOf(stranger)).token);
      expect((await theirs.get('/api/tokens')).tokens.map((one: AnyJson) => one.id)).not.toContain(id);
      await expectProblem(theirs.request(`/api/tokens/${id}/revoke`, {}), 404, 'TOKEN_NOT_FOUND', 'id');
      await expectProblem(theirs.request(`/api/spans/${id}`), 404, 'SPAN_NOT_FOUND', 'id');
    }
    expect((await me(token)).status).toBe(200);
  });

  it('is not what any other span is, though it is the caller’s own', async () => {
    const [note] = await appendSpans(installation.stage0.database, [{ entity_type: 'note' }], contextOf(ALICE));
    const alice = api.as((await tokenOf()).token);
    await expectProblem(alice.request(`/api/tokens/${note?.id}/revoke`, {}), 404, 'TOKEN_NOT_FOUND', 'id');
  });
});

describe('whoever makes a token', () => {
  it.each<[string[], string, string]>([
    [['tokens:manage'], 'execute', 'scopes.0'],
    [['tokens:manage'], '*', 'scopes.0'],
    [['tokens:manage', 'kernel:run_code_kernel:invoke'], 'boot', 'scopes.0'],
    [['tokens:manage', 'kernel:run_code_kernel:invoke'], 'kernel:other:invoke', 'scopes.0'],
  ])('has %j and cannot give %s', async (own, scope, field) => {
    const stage0 = installation.stage0;
    const draft = { name: 'more', scopes: [scope] };
    await expect(createApiToken(stage0, callerOf(ALICE, own), draft)).rejects.toMatchObject({
      code: 'SCOPE_NOT_YOURS',
      field,
    });
  });

  it('may give one kernel who may boot any', async () => {
    const draft = { name: 'less', scopes: ['kernel:run_code_kernel:invoke'] };
    await createApiToken(installation.stage0, callerOf(ALICE, ['boot']), draft);
  });

  it.each<[string, object, string]>([
    ['no name', { scopes: ['boot'] }, 'name'],
    ['no scopes', { name: 'x' }, 'scopes'],
    ['an empty list', { name: 'x', scopes: [] }, 'scopes'],
    ['a scope that is none', { name: 'x', scopes: ['boot', 'spans:write'] }, 'scopes.1'],
    ['a scope of all kernels', { name: 'x', scopes: ['kernel:*:invoke'] }, 'scopes.0'],
    ['no time', { name: 'x', scopes: ['boot'], expires_in_s: 0 }, 'expires_in_s'],
    ['all time', { name: 'x', scopes: ['boot'], expires_in_s: 10 ** 12 }, 'expires_in_s'],
    ['somebody else', { name: 'x', scopes: ['boot'], user_id: 'bob' }, 'user_id'],
  ])('says what is wrong with %s', async (_what, body, field) => {
    const count = await installation.count();
    const response = await api.as(LOCAL_TOKEN).request('/api/tokens', body);
    expect([response.status, ((await response.json()) as AnyJson).field]).toEqual([400, field]);
    expect(await installation.count()).toBe(count);
  });
});

describe('a token that a token made', () => {
  const make = async (expires: object = {}) => {
    const maker = await tokenOf(ALICE, ['*'], expires);
    const made = await api.as(maker.token).post('/api/tokens', { name: 'made', scopes: ['spans:read'] }, 201);
    return { maker, made };
  };

  it('ends with it, also for those who are connected', async () => {
    const { maker, made } = await make();
    const caller = await authenticatorOf(installation.stage0).authenticate(made.token);
    expect(await authenticatorOf(installation.stage0).ended([caller])).toEqual([]);
    await api.as(maker.token).post(`/api/tokens/${maker.id}/revoke`, {});
    await expectProblem(me(made.token), 401, 'TOKEN_REVOKED');
    expect(await authenticatorOf(installation.stage0).ended([caller])).toEqual([caller]);
  });

  it('does not outlive it', async () => {
    const { made } = await make({ expires_in_s: 60 });
    const before = clock;
    try {
      clock = new Date(before.getTime() + 60_000);
      await expectProblem(me(made.token), 401, 'TOKEN_EXPIRED');
    } finally {
      clock = before;
    }
  });

  it.each(['*', 'tokens:manage'])('makes no tokens: it cannot have %s', async (scope) => {
    const { token } = await tokenOf();
    const attempt = api.as(token).request('/api/tokens', { name: 'made', scopes: [scope] });
    await expectProblem(attempt, 403, 'SCOPE_NOT_YOURS', 'scopes.0');
  });
});

describe('a row that we did not say', () => {
  const TOKEN = `llo_${'x'.repeat(43)}`;
  const row = async (more: object = {}) => {
    const { token_hash } = (await installation.span((await tokenOf()).id)).content;
    expect(token_hash).toHaveLength(64);
    const { blake3Hex } = await import('../../src/span/index.ts');
    return hashable({
      id: derivedId(installation.stage0.tenantMasterKey, 'api_token', TOKEN),
      entity_type: 'api_token',
      status: 'active',
      expires_at: '2999-01-01T00:00:00.000Z',
      content: { scopes: ['*'], token_hash: blake3Hex(TOKEN) },
      ...more,
    });
  };

  // Each on a ledger of its own: the place of a token is taken once.
  const attempt = async (put: (own: Installation, span: HashableSpan) => Promise<void>) => {
    const own = await Installation.create(installation.sandbox);
    try {
      await put(own, await row());
      return await authenticatorOf(own.stage0).authenticate(TOKEN);
    } finally {
      await own.close();
    }
  };

  it('is the same row with our signature, and then it counts', async () => {
    const caller = await attempt((own, span) => own.append(ALICE, sealSpan(span, runtimeSigner)));
    expect(caller).toMatchObject({ identity: ALICE, scopes: ['*'] });
  });

  it('lets nobody in: signed by somebody else, by the application’s own login', async () => {
    const signed = attempt((own, span) => own.append(ALICE, sealSpan(span, strangerSigner)));
    await expect(signed).rejects.toMatchObject({ code: 'TOKEN_INVALID' });
  });

  it('lets nobody in: with our key and no signature of it', async () => {
    const forged = attempt((own, span) => {
      const { signature } = sealSpan(span, strangerSigner);
      return own.append(ALICE, { ...sealSpan(span, runtimeSigner), signature });
    });
    await expect(forged).rejects.toMatchObject({ code: 'TOKEN_INVALID' });
  });

  it.each([
    ['other scopes', { content: null }],
    ['a later end', { expires_at: '2999-01-01T00:00:00.001Z' }],
    ['another tenant', { tenant_id: 'bolt' }],
    ['another type', { entity_type: 'note' }],
  ])('lets nobody in: what we signed, put in with %s', async (_what, change) => {
    const changed = attempt((own, span) => {
      const sealed = sealSpan(span, runtimeSigner);
      return own.append({ ...ALICE, ...('tenant_id' in change ? { tenantId: 'bolt' } : {}) }, {
        ...sealed,
        ...change,
      } as typeof sealed);
    });
    await expect(changed).rejects.toMatchObject({ code: 'TOKEN_INVALID' });
  });

  it('does not bring a revoked token back: a version after the end, whoever signed it', async () => {
    const back = attempt(async (own, span) => {
      const first = sealSpan(span, runtimeSigner);
      const end = nextVersion(first, { status: 'revoked' });
      for (const version of [first, end, nextVersion(end, { status: 'active' })]) await own.append(ALICE, version);
    });
    await expect(back).rejects.toMatchObject({ code: 'TOKEN_REVOKED' });
  });

  it('cannot be appended over HTTP, nor by a kernel', async () => {
    const alice = api.as((await tokenOf()).token);
    for (const entity_type of ['api_token', 'access_denied']) {
      await expectProblem(alice.request('/api/spans', { entity_type }), 403, 'ENTITY_TYPE_RESERVED', 'entity_type');
    }
  });
});

describe('who is connected', () => {
  it('has ended when his credential has, by the clock or by revocation; the others have not', async () => {
    const at = (ms: number) => new Date(clock.getTime() + ms);
    const [live, revoked] = [await tokenOf(), await tokenOf(BOB)];
    const authenticator = authenticatorOf(installation.container({ now: () => clock }));
    const callers = [
      callerOf(ALICE),
      { ...callerOf(ALICE), expiresAt: at(1) },
      { ...callerOf(BOB), expiresAt: at(0) },
      { ...callerOf(ALICE), tokenId: live.id },
      { ...callerOf(BOB), tokenId: revoked.id },
      { ...callerOf(BOB), tokenId: '5a0e4b6d-7d9f-4c52-9a53-0c1f6f0a2b11' },
    ];
    await api.as(revoked.token).post(`/api/tokens/${revoked.id}/revoke`, {});
    const ended = await authenticator.ended(callers);
    expect(ended.map((caller) => callers.indexOf(caller as (typeof callers)[number]))).toEqual([2, 4, 5]);
  });
});
