import { randomBytes, randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { IntegrityError } from '../../src/errors.ts';
import { createApiToken, createAuthenticator } from '../../src/identity/index.ts';
import { appendSpans, readLastPosition, type SpanDraft, verifyLedger } from '../../src/ledger/index.ts';
import { nodeEd25519 } from '../../src/span/ed25519-node.ts';
import { createSigner, type KeyEnds, sealSpan, type TrustedKeys } from '../../src/span/index.ts';
import { boot, GovernanceVerifier, type Stage0 } from '../../src/stage0/index.ts';
import { requestDraft } from '../../src/work/index.ts';
import { expectProblem } from '../api/http.ts';
import { callerOf, openApi } from '../identity/support.ts';
import { rootSigner, runtimeSigner, trustedKeys } from '../support/keys.ts';
import { ALICE, contextOf, hashable, nextVersion } from '../support/spans.ts';
import { openRequests, workUntil } from '../worker/shifts.ts';
import { type AnyJson, expectRefusal, Installation, PROBE, RUN_CODE } from './installation.ts';

const nextSigner = createSigner(nodeEd25519, randomBytes(32));
const afterwards = (signer: { publicKey: string }, end: number): KeyEnds =>
  new Map([
    [nextSigner.publicKey, Infinity],
    [signer.publicKey, end],
  ]);

let installation: Installation;
/** As it was when the key leaked, and as it is since the key was revoked. */
let before: Stage0;
let since: Stage0;
let keys: TrustedKeys;
let end: number;

const lastPosition = () => readLastPosition(installation.ledger.open('loglineos_auditor'));

function containerOf(trusted: TrustedKeys, signer = nextSigner): Stage0 {
  return installation.container({ signer, verifier: new GovernanceVerifier(trusted, nodeEd25519) });
}

describe('a runtime key that was revoked from a position on', () => {
  const honest: Record<string, string> = {};
  const forged: Record<string, string> = {};

  /** By whoever has the key, and the login of the app. */
  async function append(draft: SpanDraft, stage0 = before): Promise<string> {
    const context = { ...contextOf(ALICE, stage0.signer), now: () => new Date() };
    const [appended] = await appendSpans(stage0.database, [draft], context);
    return (appended as { id: string }).id;
  }

  const fn = (more: Partial<SpanDraft> = {}) =>
    append({ entity_type: 'function', name: 'one', status: 'active', code: 'return 1', ...more });
  const request = (functionId: string, stage0?: Stage0) => append(requestDraft({ id: functionId }, {}), stage0);
  const token = async () => (await createApiToken(before, callerOf(ALICE), { name: 'a token', scopes: ['*'] })).token;
  const newest = async (id: string): Promise<AnyJson> => (await installation.spans('id = $1', [id])).at(-1);

  beforeAll(async () => {
    installation = await Installation.create();
    await installation.seed();
    before = containerOf(trustedKeys, runtimeSigner);
    honest.fn = await fn();
    honest.superseded = await fn();
    honest.token = await token();
    honest.request = await request(honest.fn);
    end = await lastPosition();
    keys = { root: trustedKeys.root, runtime: afterwards(runtimeSigner, end) };
    since = containerOf(keys);

    forged.fn = await fn();
    await append({ id: honest.superseded, entity_type: 'function', status: 'active', code: 'return "forged"' });
    forged.scheduled = await fn({ status: 'scheduled' });
    forged.token = await token();
    forged.request = await request(honest.fn);
  });
  afterAll(() => installation?.close());

  it('speaks by no API token that it signed behind it, and by those from before', async () => {
    const apiOf = (stage0: Stage0, trusted: TrustedKeys) => {
      const authenticator = createAuthenticator({ ...stage0, trustedKeys: trusted });
      return openApi(stage0, { trustedKeys: trusted, authenticator });
    };
    const me = ({ as }: ReturnType<typeof apiOf>, one = '') => as(one).request('/api/me');
    // Nothing else is wrong with it.
    expect((await me(apiOf(before, trustedKeys), forged.token)).status).toBe(200);
    const api = apiOf(since, keys);
    await expectProblem(me(api, forged.token), 401, 'TOKEN_INVALID');
    expect((await me(api, honest.token)).status).toBe(200);

    const { as } = api;
    const proofOf = (id = '') => as(honest.token ?? '').get(`/api/spans/${id}/verify`);
    expect(await proofOf(honest.fn)).toMatchObject({ ok: true, problems: [] });
    expect(await proofOf(honest.superseded)).toMatchObject({
      ok: false,
      versions: [{ ok: true }, { ok: false }],
      problems: [{ seq: 1, class: 'key', detail: expect.stringMatching(`counts up to position ${end}$`) }],
    });
  });

  it('runs no request and no function that it signed behind it, and those from before', async () => {
    const asked = Object.fromEntries(
      await Promise.all(
        [honest.fn, honest.superseded, forged.fn].map(async (id = '') => [id, await request(id, since)] as const),
      ),
    );
    await workUntil(since, 'request-worker', async () => (await openRequests(installation)) === 0);
    for (const id of [honest.request, asked[honest.fn ?? '']]) {
      expect(await newest(id ?? '')).toMatchObject({ status: 'complete', output: 1, public_key: nextSigner.publicKey });
    }
    for (const id of [forged.request, asked[honest.superseded ?? ''], asked[forged.fn ?? '']]) {
      const ended = await newest(id ?? '');
      expect(ended).toMatchObject({ status: 'dead', attempt: 0, error: { code: 'SPAN_NOT_PROVED' } });
      expect(ended.error.message).toMatch(/counts up to position/);
    }
    expect(await installation.spans(`entity_type = 'execution' and output = '"forged"'`)).toEqual([]);
  });

  it('runs no such function by run_code, and puts none on the clock', async () => {
    const run = (span_id = '') => boot(since, { boot_function_id: RUN_CODE, identity: ALICE, input: { span_id } });
    expect(await run(honest.fn)).toMatchObject({ ok: true, output: { result: 1 } });
    for (const id of [forged.fn, honest.superseded]) {
      expect(await run(id)).toMatchObject({ ok: false, error: { code: 'SPAN_NOT_PROVED' } });
    }
    const errors = () => installation.spans(`entity_type = 'schedule_error' and caused_by = $1`, [forged.scheduled]);
    await workUntil(since, 'observer', async () => (await errors()).length > 0);
    expect((await errors())[0]).toMatchObject({ error: { code: 'SPAN_NOT_PROVED' } });
    expect(await installation.spans(`entity_type = 'request' and parent_id = $1`, [forged.scheduled])).toEqual([]);
  });

  it('brings about nothing by a policy of a tenant that it signed behind it', async () => {
    const policy = {
      entity_type: 'policy',
      name: 'forged',
      status: 'active',
      visibility: 'tenant' as const,
      code: `export default function on() { return [{ emit_span: { entity_type: 'forged' } }]; }`,
      content: { match: { entity_type: ['trigger'] } },
    };
    const id = await append(policy);
    await append({ entity_type: 'trigger', visibility: 'tenant' }, since);
    const errors = () => installation.spans(`entity_type = 'policy_error' and parent_id = $1`, [id]);
    await workUntil(since, 'policy-agent', async () => (await errors()).length > 0);
    expect((await errors())[0]).toMatchObject({ error: { code: 'SPAN_NOT_PROVED' } });
    expect(await installation.spans(`entity_type = 'forged'`)).toEqual([]);
  });

  it('leaves rows that verify names, each with class key, and no others', async () => {
    const { problems } = await verifyLedger(installation.ledger.open('loglineos_auditor'), keys, nodeEd25519);
    const behind = await installation.spans('public_key = $1 and position > $2', [runtimeSigner.publicKey, end]);
    expect(behind.length).toBeGreaterThanOrEqual(6);
    expect(problems.map((problem) => `${problem.class} ${problem.id} ${problem.seq}`).sort()).toEqual(
      behind.map(({ id, seq }) => `key ${id} ${seq}`).sort(),
    );
  });

  it('is not believed when it repeats the answer of a boot', async () => {
    const asked = { boot_function_id: RUN_CODE, identity: ALICE, input: null, idempotency_key: randomUUID() };
    expect(await boot(before, asked)).toMatchObject({ ok: true });
    await expect(boot(since, asked)).rejects.toMatchObject({ kind: 'integrity', code: 'EXECUTION_NOT_PROVED' });
  });
});

describe('a root key that was rotated', () => {
  const CODE = 'export default async function main() { return "forged"; }';
  let own: Installation;
  beforeAll(async () => {
    own = installation = await Installation.create();
    await own.seed();
    end = await lastPosition();
    since = containerOf({ root: afterwards(rootSigner, end), runtime: trustedKeys.runtime }, runtimeSigner);
  });
  afterAll(() => own?.close());

  it('keeps what it signed before, and signs no new kernel, which a warm container refuses too', async () => {
    const run = () => boot(since, { boot_function_id: RUN_CODE, identity: ALICE, input: null });
    expect(await run()).toMatchObject({ ok: true, function_seq: 0 });

    const kernel = await own.sealed(RUN_CODE);
    const forged = nextVersion(kernel, { code: CODE }, rootSigner);
    await own.insert(forged);
    const refused = await expectRefusal(own, run, IntegrityError, 'KEY_NOT_TRUSTED');
    expect(refused.message).toMatch(`counts up to position ${end}`);

    // The next version has the forged one in its chain for ever, and counts.
    await own.insert(nextVersion(forged, { code: kernel.code ?? null }, nextSigner));
    expect(await run()).toMatchObject({ ok: true, function_seq: 2, output: { result: 42 } });
  });

  it('counts for no row that was moved behind its end, in a warm container either', async () => {
    const stage0 = containerOf({ root: afterwards(rootSigner, end), runtime: trustedKeys.runtime }, runtimeSigner);
    const run = () => boot(stage0, { boot_function_id: PROBE, identity: ALICE, input: { probe: 'answer', value: 1 } });
    expect(await run()).toMatchObject({ ok: true });
    await own.tamper('update ledger.universal_registry set position = default where id = $1', [PROBE]);
    await expectRefusal(own, run, IntegrityError, 'KEY_NOT_TRUSTED');
  });

  it('signs no row that claims a place from before', async () => {
    const run = () => boot(since, { boot_function_id: RUN_CODE, identity: ALICE, input: null });
    await own.insert(
      nextVersion(await own.sealed(RUN_CODE), { code: CODE, at: '2020-01-01T00:00:00.000Z' }, rootSigner),
    );
    await expectRefusal(own, run, IntegrityError, 'KEY_NOT_TRUSTED');
    const span = sealSpan(hashable({}, { userId: 'system', tenantId: 'system' }), rootSigner);
    await own.insert(span);
    const [row] = await own.spans('id = $1', [span.id]);
    expect(Number(row.position)).toBeGreaterThan(end);
  });
});
