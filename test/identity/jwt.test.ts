import { createHmac } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AccessError, InputError, UpstreamError } from '../../src/errors.ts';
import { type JwtOptions, JwtReader } from '../../src/identity/jwt.ts';
import { readJwtOptions } from '../../src/identity/jwt-config.ts';
import { AUDIENCE, createKey, Issuer } from './issuer.ts';

let issuer: Issuer;
let clock: Date;
let reader: JwtReader;
beforeEach(async () => {
  issuer = await Issuer.start();
  clock = new Date();
  reader = new JwtReader(issuer.options, () => clock);
});
afterEach(() => issuer.stop());

const seconds = (n: number) => Math.floor(Date.now() / 1000) + n;
const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** A refusal, which says nothing of the token itself. */
async function expectRefused(token: string | Promise<string>, code = 'TOKEN_INVALID'): Promise<void> {
  const shown = await token;
  const error = await reader.read(shown).catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(AccessError);
  expect(error).toMatchObject({ code });
  for (const part of shown.split('.').filter(({ length }) => length > 8))
    expect((error as Error).message).not.toContain(part);
}

describe('a JWT of the issuer', () => {
  it('says who calls, what he may do, and until when', async () => {
    const exp = seconds(300);
    expect(await reader.read(await issuer.sign({ scope: 'spans:read  execute', exp }))).toEqual({
      identity: { userId: 'alice', tenantId: 'acme' },
      scopes: ['spans:read', 'execute'],
      tokenId: null,
      expiresAt: new Date((exp + 60) * 1000),
    });
  });

  it.each(['PS256', 'ES256', 'EdDSA'])('may be signed by %s', async (alg) => {
    issuer.keys = [await createKey('other', alg)];
    expect((await reader.read(await issuer.sign())).identity.userId).toBe('alice');
  });

  it('may list its scopes, and allows nothing when it says none', async () => {
    expect((await reader.read(await issuer.sign({ scope: ['execute', 'boot *', 7] }))).scopes).toEqual([
      'execute',
      'boot',
      '*',
    ]);
    expect((await reader.read(await issuer.sign({ scope: undefined }))).scopes).toEqual([]);
  });

  it('may name user, tenant and scopes by other claims', async () => {
    const claims = { userClaim: 'email', tenantClaim: 'https://acme.example/org', scopesClaim: 'permissions' };
    reader = new JwtReader({ ...issuer.options, ...claims }, () => clock);
    const said = { email: 'al@x.example', 'https://acme.example/org': 'org-7', permissions: ['boot'] };
    expect(await reader.read(await issuer.sign(said))).toMatchObject({
      identity: { userId: 'al@x.example', tenantId: 'org-7' },
      scopes: ['boot'],
    });
  });

  it('counts a minute longer than it says, and begins a minute earlier, for clocks differ', async () => {
    await reader.read(await issuer.sign({ exp: seconds(-50), nbf: seconds(50) }));
    await expectRefused(issuer.sign({ exp: seconds(-70) }), 'TOKEN_EXPIRED');
    await expectRefused(issuer.sign({ nbf: seconds(70) }));
  });

  it('is measured by our clock', async () => {
    const token = await issuer.sign({ exp: seconds(300) });
    clock = new Date(Date.now() + 361_000);
    await expectRefused(token, 'TOKEN_EXPIRED');
  });
});

describe('a JWT is refused', () => {
  it.each<[string, Record<string, unknown>]>([
    ['for another audience', { aud: 'another' }],
    ['for no audience', { aud: undefined }],
    ['of another issuer', { iss: 'https://login.example' }],
    ['of no issuer', { iss: undefined }],
    ['that never ends', { exp: undefined }],
    ['whose end is no number', { exp: 'never' }],
    ['of no user', { sub: undefined }],
    ['of no tenant', { tenant_id: undefined }],
    ['of an empty user', { sub: '' }],
    ['of a user that is no text', { sub: 7 }],
    ['of several tenants', { tenant_id: ['acme', 'bolt'] }],
    ['of a user that no row can hold', { sub: 'al\0ice' }],
    ['of a user longer than a name', { sub: 'a'.repeat(201) }],
    ['of the user system', { sub: 'system' }],
    ['of the tenant system', { tenant_id: 'system' }],
    ['of a user called as a kernel', { sub: 'kernel:run_code' }],
    ['of a user called as Stage-0', { sub: 'stage0' }],
  ])('%s', async (_what, claims) => {
    await expectRefused(issuer.sign(claims));
  });

  it('that nobody signed', async () => {
    const [, claims] = (await issuer.sign()).split('.');
    await expectRefused(`${encode({ alg: 'none' })}.${claims}.`);
    await expectRefused(`${encode({ alg: 'none', kid: 'first' })}.${claims}.AAAA`);
  });

  it.each(['HS256', 'HS384', 'HS512'])('that takes the public key for a shared secret: %s', async (alg) => {
    const [, claims] = (await issuer.sign()).split('.');
    const [key] = issuer.keys;
    for (const secret of [key?.pem ?? '', key?.pem.trimEnd() ?? '', JSON.stringify(key?.jwk)]) {
      const said = `${encode({ alg, kid: 'first' })}.${claims}`;
      const mac = createHmac(`sha${alg.slice(2)}`, secret)
        .update(said)
        .digest('base64url');
      await expectRefused(`${said}.${mac}`);
    }
  });

  it('that is signed by an algorithm we did not choose, though the issuer has such a key', async () => {
    issuer.keys = [await createKey('new', 'ML-DSA-44')];
    await expectRefused(issuer.sign());
  });

  it('that another key signed under the name of ours', async () => {
    await expectRefused(issuer.sign({}, {}, await createKey('first')));
  });

  it('whose claims were changed', async () => {
    const [header, claims = '', signature] = (await issuer.sign()).split('.');
    const said = JSON.parse(Buffer.from(claims, 'base64url').toString());
    await expectRefused(`${header}.${encode({ ...said, scope: '*' })}.${signature}`);
  });

  it('that wants something understood that we do not', async () => {
    await expectRefused(issuer.sign({}, { crit: ['b64x'], b64x: true }));
    await expectRefused('e30.e30.e30');
    await expectRefused('not-json.e30.e30');
  });
});

describe('the keys of the issuer', () => {
  it('are asked for once, however many tokens come at a time', async () => {
    const token = await issuer.sign();
    await Promise.all(Array.from({ length: 50 }, () => reader.read(token)));
    expect(issuer.asked).toEqual({ '/.well-known/openid-configuration': 1, '/keys': 1 });
  });

  it('are asked for again when a token names a new one', async () => {
    await reader.read(await issuer.sign());
    const [old] = issuer.keys;
    issuer.keys = [await createKey('second')];
    await reader.read(await issuer.sign());
    await expectRefused(issuer.sign({}, {}, old)); // it is withdrawn
  });

  it('are not asked for at every name that nobody knows', async () => {
    reader = new JwtReader({ ...issuer.options, keysCooldownMs: 60_000 }, () => clock);
    const stranger = await createKey('nobody');
    const tokens = await Promise.all(
      Array.from({ length: 100 }, (_, i) => issuer.sign({}, { kid: `k${i}` }, stranger)),
    );
    for (const token of tokens) await expectRefused(token);
    expect(issuer.asked['/keys']).toBe(1);
    await reader.read(await issuer.sign());
  });

  it('may be where the configuration says', async () => {
    issuer.answers.set('/.well-known/openid-configuration', 404);
    reader = new JwtReader({ ...issuer.options, jwksUri: `${issuer.url}/keys` }, () => clock);
    await reader.read(await issuer.sign());
    expect(issuer.asked).toEqual({ '/keys': 1 });
  });

  it.each<[string, string, number | string]>([
    ['it does not answer well', '/.well-known/openid-configuration', 500],
    ['it answers no JSON', '/.well-known/openid-configuration', '<html>'],
    [
      'it speaks for another issuer',
      '/.well-known/openid-configuration',
      '{"issuer":"https://x.example","jwks_uri":"<issuer>/keys"}',
    ],
    ['it has no keys', '/keys', 404],
    ['what it says are no keys', '/keys', '{"keys":7}'],
    ['it says without end', '/keys', JSON.stringify({ keys: [], more: 'x'.repeat(600_000) })],
  ])('are not there: %s; that is no fault of the token', async (_what, path, answer) => {
    issuer.answers.set(path, typeof answer === 'string' ? answer.replace('<issuer>', issuer.url) : answer);
    await expect(reader.read(await issuer.sign())).rejects.toMatchObject({ code: 'ISSUER_UNAVAILABLE' });
  });

  it('are not asked for where plain HTTP would go over the network', async () => {
    const { issuer: discovery } = issuer.options;
    issuer.answers.set(
      '/.well-known/openid-configuration',
      JSON.stringify({ issuer: discovery, jwks_uri: 'http://keys.example/keys' }),
    );
    await expect(reader.read(await issuer.sign())).rejects.toBeInstanceOf(UpstreamError);
    for (const options of [{ issuer: 'http://login.example' }, { jwksUri: 'http://keys.example' }]) {
      expect(() => new JwtReader({ ...issuer.options, ...options }, () => clock)).toThrow(InputError);
    }
  });

  it('serve on while the issuer is away, and strangers do not make us wait for it', async () => {
    const token = await issuer.sign();
    const unknown = await issuer.sign({}, { kid: 'unknown' });
    await reader.read(token);
    issuer.answers.set('/keys', 503);
    for (let i = 0; i < 20; i++) {
      await expect(reader.read(unknown)).rejects.toMatchObject({ code: 'ISSUER_UNAVAILABLE' });
      await reader.read(token);
    }
    expect(issuer.asked['/keys']).toBe(2);
  });
});

describe('keys that the configuration gives', () => {
  const jwksOf = (...keys: typeof issuer.keys) => {
    const env = {
      LOGLINEOS_JWT_ISSUER: issuer.url,
      LOGLINEOS_JWT_AUDIENCE: AUDIENCE,
      LOGLINEOS_JWT_JWKS: JSON.stringify({ keys: keys.map(({ jwk }) => jwk) }),
    };
    return new JwtReader(readJwtOptions(env) as JwtOptions, () => clock);
  };

  it('are enough: the issuer is never asked, whatever a token names', async () => {
    reader = jwksOf(...issuer.keys);
    expect(await reader.read(await issuer.sign())).toMatchObject({ identity: { userId: 'alice', tenantId: 'acme' } });
    await expectRefused(issuer.sign({}, { kid: 'unknown' }));
    await expectRefused(issuer.sign({ iss: 'https://x.example' }));
    await expectRefused(issuer.sign({ aud: 'others' }));
    await expectRefused(issuer.sign({ exp: seconds(-70) }), 'TOKEN_EXPIRED');
    await expectRefused(issuer.sign({}, {}, await createKey('first'))); // of the name of ours
    expect(issuer.asked).toEqual({});
  });

  it('follow each other: both count while both are there, and the old one no more when it is not', async () => {
    const [old, next] = [issuer.keys[0] as (typeof issuer.keys)[0], await createKey('next', 'ES256')];
    reader = jwksOf(old, next);
    for (const key of [old, next]) await reader.read(await issuer.sign({}, {}, key));
    reader = jwksOf(next);
    await reader.read(await issuer.sign({}, {}, next));
    await expectRefused(issuer.sign({}, {}, old));
  });

  it.each<[string, (key: Record<string, unknown>) => unknown, RegExp]>([
    ['is no JSON', () => '{', /JSON Web Key Set/],
    ['is no set', () => [], /JSON Web Key Set/],
    ['is null', () => null, /JSON Web Key Set/],
    ['has no key', () => ({ keys: [] }), /at least one key/],
    ['has a key that is none', () => ({ keys: [7] }), /keys\[0\] with a `kid`/],
    ['has a key without a name', ({ kid: _kid, ...key }) => ({ keys: [key] }), /keys\[0\] with a `kid`/],
    ['has one name twice', (key) => ({ keys: [key, key] }), /another `kid` for each/],
    [
      'has a shared secret',
      (key) => ({ keys: [key, { kid: 'x', kty: 'oct', k: 'c2VjcmV0' }] }),
      /keys\[1\] to be of kty/,
    ],
    ['has a private key', (key) => ({ keys: [{ ...key, d: 'c2VjcmV0' }] }), /keys\[0\] without its private part/],
    ['has half a key', ({ n: _n, ...key }) => ({ keys: [key] }), /keys\[0\] to be a public key/],
  ])('are refused when what is given %s, naming the variable and no key', (_what, change, says) => {
    const given = change({ ...issuer.keys[0]?.jwk });
    const env = {
      LOGLINEOS_JWT_ISSUER: issuer.url,
      LOGLINEOS_JWT_AUDIENCE: AUDIENCE,
      LOGLINEOS_JWT_JWKS: typeof given === 'string' ? given : JSON.stringify(given),
    };
    const field = 'LOGLINEOS_JWT_JWKS';
    expect(() => readJwtOptions(env)).toThrow(expect.objectContaining({ code: 'FIELD_INVALID', field }));
    expect(() => readJwtOptions(env)).toThrow(says);
    expect(() => readJwtOptions(env)).not.toThrow(/c2VjcmV0/);
  });

  it('are refused beside an address of keys', () => {
    const keys = JSON.stringify({ keys: issuer.keys.map(({ jwk }) => jwk) });
    const uri = 'https://keys.example/keys';
    const issuerAndAudience = { LOGLINEOS_JWT_ISSUER: issuer.url, LOGLINEOS_JWT_AUDIENCE: AUDIENCE };
    expect(() =>
      readJwtOptions({ ...issuerAndAudience, LOGLINEOS_JWT_JWKS: keys, LOGLINEOS_JWT_JWKS_URI: uri }),
    ).toThrow(/none beside LOGLINEOS_JWT_JWKS_URI/);
  });
});

describe('the configuration', () => {
  it('may be none, and then no JWT counts', () => {
    expect(readJwtOptions({ PATH: '/bin', LOGLINEOS_JWT_ISSUER: '' })).toBeUndefined();
  });

  it('has names for the claims that most issuers use', () => {
    const env = { LOGLINEOS_JWT_ISSUER: 'https://login.example/', LOGLINEOS_JWT_AUDIENCE: 'us' };
    expect(readJwtOptions(env)).toEqual({
      issuer: 'https://login.example/',
      audience: 'us',
      jwksUri: undefined,
      userClaim: 'sub',
      tenantClaim: 'tenant_id',
      scopesClaim: 'scope',
    });
  });

  it.each([
    [{ LOGLINEOS_JWT_ISSUER: 'https://login.example' }, 'LOGLINEOS_JWT_AUDIENCE'],
    [{ LOGLINEOS_JWT_AUDIENCE: 'us' }, 'LOGLINEOS_JWT_ISSUER'],
    [{ LOGLINEOS_JWT_ISSUER: 'login.example', LOGLINEOS_JWT_AUDIENCE: 'us' }, 'LOGLINEOS_JWT_ISSUER'],
    [
      { LOGLINEOS_JWT_ISSUER: 'https://x.example', LOGLINEOS_JWT_AUDIENCE: 'us', LOGLINEOS_JWT_USERCLAIM: 'sub' },
      'LOGLINEOS_JWT_USERCLAIM',
    ],
  ])('names the variable that is missing or wrong: %j', (env, field) => {
    expect(() => readJwtOptions(env)).toThrow(expect.objectContaining({ field }));
  });
});
