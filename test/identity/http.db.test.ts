import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { expectProblem } from '../api/http.ts';
import { Installation, RUN_CODE } from '../stage0/installation.ts';
import { Issuer } from './issuer.ts';
import { authenticatorOf, LOCAL_TOKEN, openApi } from './support.ts';

let installation: Installation;
let issuer: Issuer;
let api: ReturnType<typeof openApi>;
beforeAll(async () => {
  installation = await Installation.create();
  await installation.seed();
  issuer = await Issuer.start();
  api = openApi(installation.stage0, { authenticator: authenticatorOf(installation.stage0, issuer.options) });
});
afterAll(async () => {
  await issuer?.stop();
  await installation?.close();
});

describe('a JWT over HTTP', () => {
  it('is the identity of what is done with it, whatever the body says', async () => {
    const carol = api.as(await issuer.sign({ sub: 'carol', tenant_id: 'cove', scope: 'spans:append spans:read boot' }));
    expect(await carol.get('/api/me')).toMatchObject({ user_id: 'carol', tenant_id: 'cove' });
    const { id } = await carol.post('/api/spans', { entity_type: 'note' }, 201);
    expect(await installation.span(id)).toMatchObject({ owner_id: 'carol', tenant_id: 'cove', who: 'carol' });
    const said = { boot_function_id: RUN_CODE, user_id: 'alice', tenant_id: 'system' };
    const { execution_id } = await carol.post('/boot', said);
    expect((await installation.spans('id = $1', [execution_id]))[0]).toMatchObject({ tenant_id: 'cove' });
  });

  it('may make a token that lasts longer than itself, with no more than it has', async () => {
    const carol = api.as(await issuer.sign({ sub: 'carol', tenant_id: 'cove', scope: 'tokens:manage spans:read' }));
    const { token } = await carol.post('/api/tokens', { name: 'mine', scopes: ['spans:read'] }, 201);
    expect(await api.as(token).get('/api/me')).toMatchObject({ user_id: 'carol', tenant_id: 'cove' });
    const more = carol.request('/api/tokens', { name: 'mine', scopes: ['spans:append'] });
    await expectProblem(more, 403, 'SCOPE_NOT_YOURS', 'scopes.0');
  });

  it('is a 401 when it is not one of the issuer’s, or over', async () => {
    const exp = Math.floor(Date.now() / 1000) - 120;
    await expectProblem(api.as(await issuer.sign({ exp })).request('/api/me'), 401, 'TOKEN_EXPIRED');
    await expectProblem(api.as(await issuer.sign({ aud: 'x' })).request('/api/me'), 401, 'TOKEN_INVALID');
    const huge = await issuer.sign({ more: 'x'.repeat(8_192) });
    await expectProblem(api.as(huge).request('/api/me'), 401, 'TOKEN_INVALID');
  });

  it('counts for nothing where no issuer is configured', async () => {
    await expectProblem(
      openApi(installation.stage0)
        .as(await issuer.sign())
        .request('/api/me'),
      401,
      'TOKEN_INVALID',
    );
  });

  it('is a 503 while the issuer cannot be asked, and the others go on', async () => {
    const away = { ...issuer.options, issuer: 'http://127.0.0.1:1' };
    const { as } = openApi(installation.stage0, { authenticator: authenticatorOf(installation.stage0, away) });
    await expectProblem(as(await issuer.sign()).request('/api/me'), 503, 'ISSUER_UNAVAILABLE');
    expect(await as(LOCAL_TOKEN).get('/api/me')).toMatchObject({ user_id: 'local' });
  });
});
