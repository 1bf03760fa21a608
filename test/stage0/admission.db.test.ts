import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AccessError, GovernanceError, IntegrityError } from '../../src/errors.ts';
import { Sandbox } from '../../src/kernel/index.ts';
import { appendSpans, type Identity, readLatestVersions } from '../../src/ledger/index.ts';

import { type HashableSpan, type SealedSpan, type Signer, sealSpan } from '../../src/span/index.ts';
import { boot, MANIFEST_ID } from '../../src/stage0/index.ts';
import { rootSigner, runtimeSigner, strangerSigner } from '../support/keys.ts';
import { ALAN, ALICE, BOB, hashable, nextVersion } from '../support/spans.ts';
import { type AnyJson, expectRefusal, Installation, PROBE, RUN_CODE } from './installation.ts';

const SYSTEM: Identity = { userId: 'system', tenantId: 'system' };
const FREE_ID = '00000000-0000-4000-8000-00000000f0f0';
const CODE = 'export default function main(ctx) { return ctx.append({ entity_type: "note", name: "it ran" }); }';

let sandbox: Sandbox;
beforeAll(() => {
  sandbox = new Sandbox();
});
afterAll(() => sandbox.close());

/** A ledger for one test, seeded, and with a boot behind it: its Stage-0 is warm. */
async function withWarmInstallation(
  run: (installation: Installation) => Promise<void>,
  seedFirst = true,
): Promise<void> {
  const installation = await Installation.create(sandbox);
  try {
    if (seedFirst) {
      await installation.seed();
      expect(await installation.runCode({ code: 'return 1' })).toMatchObject({ ok: true });
    }
    await run(installation);
    expect(await installation.spans(`name = 'it ran'`), 'what a refused kernel wrote').toEqual([]);
  } finally {
    await installation.close();
  }
}

function kernelOf(more: Partial<HashableSpan> = {}, identity: Identity = ALICE): HashableSpan {
  return hashable(
    { entity_type: 'function', name: 'mine', code: CODE, status: 'active', runtime: 'kernel', ...more },
    identity,
  );
}

describe('a kernel that the manifest does not allow', () => {
  let installation: Installation;
  beforeAll(async () => {
    installation = await Installation.create(sandbox);
    await installation.seed();
  });
  afterAll(() => installation?.close());

  it('is refused when nobody knows its id', async () => {
    await expectRefusal(
      installation,
      () => installation.runCode(null, ALICE, { boot_function_id: randomUUID() }),
      GovernanceError,
      'KERNEL_NOT_FOUND',
    );
  });

  it("is refused when it is the caller's own function", async () => {
    const { id } = await installation.appendFunction(CODE);
    await expectRefusal(installation, () => installation.boot(id), GovernanceError, 'KERNEL_NOT_ALLOWED');
  });

  it('is refused with no word about whether it exists when the caller may not see it', async () => {
    const { id } = await installation.appendFunction(CODE, {}, BOB);
    const refused = await expectRefusal(installation, () => installation.boot(id), GovernanceError, 'KERNEL_NOT_FOUND');
    const unknown = randomUUID();
    const notThere = await expectRefusal(
      installation,
      () => installation.boot(unknown),
      GovernanceError,
      'KERNEL_NOT_FOUND',
    );
    expect(refused.message.replace(id, '…')).toBe(notThere.message.replace(unknown, '…'));
  });

  it('is refused when it is the manifest itself, or the description of the loader', async () => {
    await expectRefusal(installation, () => installation.boot(MANIFEST_ID), GovernanceError, 'KERNEL_NOT_ALLOWED');
    await expectRefusal(
      installation,
      () => installation.boot('00000000-0000-4000-8000-0000000000ff'),
      GovernanceError,
      'KERNEL_NOT_ALLOWED',
    );
  });

  it('is refused from the next boot on when a new version of the manifest revokes it, also by a warm container', async () => {
    expect(await installation.runCode({ code: 'return 1' })).toMatchObject({ ok: true });
    await installation.seed((content) => {
      content.allowed_boot_ids = [PROBE];
    });
    await expectRefusal(
      installation,
      () => installation.runCode({ code: 'return 1' }),
      GovernanceError,
      'KERNEL_REVOKED',
    );
    expect(await installation.probe({ probe: 'answer', value: 1 })).toBe(1);
    await installation.seed();
    const answer = await installation.runCode({ code: 'return 1' });
    expect(answer).toMatchObject({ ok: true });
    expect((await installation.span(answer.execution_id)).metadata.manifest_seq).toBe(2);
  });
});

describe('a kernel that is altered by a superuser while Stage-0 is warm', () => {
  let installation: Installation;
  beforeAll(async () => {
    installation = await Installation.create(sandbox);
    await installation.seed();
    await installation.runCode({ code: 'return 1' });
  });
  afterAll(() => installation?.close());

  /** Alter a column of a row, expect a refusal, put it back, expect a boot. */
  async function alterAndRestore(
    id: string,
    column: string,
    value: string,
    expected: 'integrity' | 'governance',
    code: string,
  ) {
    const { rows } = await installation.admin.query(
      `select "${column}" as value from ledger.universal_registry where id = $1`,
      [id],
    );
    const set = `update ledger.universal_registry set "${column}" =`;
    await installation.tamper(`${set} ${value} where id = '${id}'`);
    try {
      const errorClass = expected === 'integrity' ? IntegrityError : GovernanceError;
      await expectRefusal(installation, () => installation.runCode({ code: 'return 1' }), errorClass, code);
    } finally {
      const before = rows[0].value;
      const isJson =
        before !== null && typeof before === 'object' && !Array.isArray(before) && !(before instanceof Date);
      await installation.tamper(`${set} $1 where id = '${id}'`, [isJson ? JSON.stringify(before) : before]);
    }
    expect(await installation.runCode({ code: 'return 1' })).toMatchObject({ ok: true });
  }

  it.each<[string, string, 'integrity' | 'governance', string]>([
    ['code', `replace(code, 'complete', 'Complete')`, 'integrity', 'HASH_MISMATCH'],
    ['code', `code || ' '`, 'integrity', 'HASH_MISMATCH'],
    ['name', `'run_code_kernek'`, 'integrity', 'HASH_MISMATCH'],
    ['description', 'null', 'integrity', 'HASH_MISMATCH'],
    ['at', `at + interval '1 millisecond'`, 'integrity', 'HASH_MISMATCH'],
    ['at', `at + interval '1 microsecond'`, 'integrity', 'HASH_MISMATCH'],
    ['tags', `array['kernel', '']`, 'integrity', 'HASH_MISMATCH'],
    ['metadata', `'{}'`, 'integrity', 'HASH_MISMATCH'],
    ['is_deleted', 'false', 'integrity', 'HASH_MISMATCH'],
    ['owner_id', `'System'`, 'integrity', 'HASH_MISMATCH'],
    ['tenant_id', `'acme'`, 'integrity', 'HASH_MISMATCH'],
    ['public_key', `'${strangerSigner.publicKey}'`, 'integrity', 'HASH_MISMATCH'],
    [
      'curr_hash',
      `overlay(curr_hash placing case left(curr_hash, 1) when '0' then '1' else '0' end from 1)`,
      'integrity',
      'HASH_MISMATCH',
    ],
    [
      'signature',
      `overlay(signature placing case left(signature, 1) when '0' then '1' else '0' end from 1)`,
      'integrity',
      'SIGNATURE_INVALID',
    ],
    ['status', `'Active'`, 'governance', 'KERNEL_NOT_ACTIVE'],
    ['entity_type', `'functioN'`, 'governance', 'KERNEL_NOT_ACTIVE'],
    ['code', 'null', 'governance', 'KERNEL_NOT_ACTIVE'],
    ['visibility', `'private'`, 'governance', 'KERNEL_NOT_FOUND'],
  ])('is refused, and boots again when put back: %s = %s', async (column, value, expected, code) => {
    await alterAndRestore(RUN_CODE, column, value, expected, code);
  });

  it.each<[string, string]>([
    ['content', `jsonb_set(content, '{throttle,per_tenant_daily_exec_limit}', '101')`],
    ['content', `jsonb_set(content, '{throttle,per_tenant_daily_exec_limit}', '100.0')`],
    ['content', `jsonb_set(content, '{allowed_boot_ids,9}', '"${FREE_ID}"')`],
    ['description', `description || ' '`],
  ])('is refused when the manifest is altered: %s = %s', async (column, value) => {
    await alterAndRestore(MANIFEST_ID, column, value, 'integrity', 'HASH_MISMATCH');
  });
});

describe('a kernel that a stranger appended', () => {
  it('is refused as version 0 of a free id that the manifest allows, though its own signature is valid', async () => {
    await withWarmInstallation(async (installation) => {
      await installation.seed((content) => content.allowed_boot_ids.push(FREE_ID));
      await expectRefusal(installation, () => installation.boot(FREE_ID), GovernanceError, 'KERNEL_NOT_FOUND');
      for (const [signer, identity] of [
        [strangerSigner, ALICE],
        [runtimeSigner, ALAN],
      ] as [Signer, Identity][]) {
        // Its first writer: a private row that only he sees, and so boots.
        const id = identity === ALICE ? FREE_ID : randomUUID();
        if (id !== FREE_ID) await installation.seed((content) => content.allowed_boot_ids.push(id));
        await installation.append(identity, sealSpan(kernelOf({ id }, identity), signer));
        await expectRefusal(
          installation,
          () => installation.boot(id, null, identity),
          IntegrityError,
          'KEY_NOT_TRUSTED',
        );
      }
    });
  });

  it('cannot be appended as the next version of run_code by the app, whatever identity it claims', async () => {
    await withWarmInstallation(async (installation) => {
      const kernel = await installation.sealed(RUN_CODE);
      const forged: [Identity, SealedSpan][] = [
        [ALICE, nextVersion(kernel, { code: CODE }, strangerSigner)],
        [SYSTEM, nextVersion(kernel, { code: CODE }, strangerSigner)],
        [SYSTEM, nextVersion(kernel, { code: CODE, visibility: 'tenant' }, strangerSigner)],
        [
          ALICE,
          nextVersion(
            kernel,
            { code: CODE, owner_id: 'alice', tenant_id: 'acme', visibility: 'private' },
            strangerSigner,
          ),
        ],
      ];
      for (const [identity, span] of forged) {
        await expectRefusal(
          installation,
          () => installation.append(identity, span),
          AccessError,
          expect.stringMatching(/^NOT_/),
        );
      }
      expect(await installation.runCode({ code: 'return 1' })).toMatchObject({ ok: true, function_seq: 0 });
    });
  });

  it.each<[string, Signer]>([
    ['a key nobody knows', strangerSigner],
    ['the runtime key', runtimeSigner],
  ])('is refused as the next version of run_code that a superuser inserts, signed by %s', async (_whose, signer) => {
    await withWarmInstallation(async (installation) => {
      const kernel = await installation.sealed(RUN_CODE);
      await installation.insert(nextVersion(kernel, { code: CODE }, signer));
      await expectRefusal(installation, () => installation.runCode(null), IntegrityError, 'KEY_NOT_TRUSTED');
    });
  });

  it("is refused when it says the root's key and brings another's signature", async () => {
    await withWarmInstallation(async (installation) => {
      const kernel = await installation.sealed(RUN_CODE);
      const version = nextVersion(kernel, { code: CODE }, rootSigner);
      const signature = strangerSigner.signHash(Buffer.from(version.curr_hash, 'hex'));
      await installation.insert({ ...version, signature });
      await expectRefusal(installation, () => installation.runCode(null), IntegrityError, 'SIGNATURE_INVALID');
    });
  });

  it('boots as next version when the root key signed it', async () => {
    await withWarmInstallation(async (installation) => {
      const kernel = await installation.sealed(RUN_CODE);
      await installation.insert(nextVersion(kernel, { code: 'export default () => "version 1";' }, rootSigner));
      expect(await installation.runCode(null)).toMatchObject({ ok: true, function_seq: 1, output: 'version 1' });
    });
  });
});

describe('a kernel that is no longer in use', () => {
  it.each([{ status: 'retired' }, { is_deleted: true }])(
    'is refused though the manifest still allows it, and no older version stands in: %j',
    async (more) => {
      await withWarmInstallation(async (installation) => {
        const kernel = { id: FREE_ID, name: 'short_lived', code: CODE.replace('it ran', 'ran in time') };
        await installation.seed(undefined, [kernel]);
        expect(await installation.boot(FREE_ID)).toMatchObject({ ok: true, function_seq: 0 });
        await installation.seed(undefined, [{ ...kernel, code: CODE, ...more }]);
        await expectRefusal(installation, () => installation.boot(FREE_ID), GovernanceError, 'KERNEL_NOT_ACTIVE');
      });
    },
  );
});

describe('a manifest that does not hold', () => {
  it('refuses everything when it is not there', async () => {
    await withWarmInstallation(async (installation) => {
      await expectRefusal(installation, () => installation.runCode(null), GovernanceError, 'MANIFEST_MISSING');
    }, false);
  });

  it("is not replaced by a tenant's own manifest", async () => {
    await withWarmInstallation(async (installation) => {
      const manifest = hashable({ id: MANIFEST_ID, entity_type: 'manifest', name: 'kernel_manifest', content: {} });
      await installation.append(ALICE, sealSpan(manifest, rootSigner));
      // Signed by the root key and yet nothing a boot may stand on.
      await expectRefusal(installation, () => installation.runCode(null), IntegrityError, 'MANIFEST_INVALID');
    }, false);
  });

  it.each<[string, Signer]>([
    ['the runtime key', runtimeSigner],
    ['a key nobody knows', strangerSigner],
  ])('refuses everything when its next version is signed by %s', async (_whose, signer) => {
    await withWarmInstallation(async (installation) => {
      const manifest = await installation.manifest();
      await installation.insert(nextVersion(manifest, {}, signer));
      await expectRefusal(installation, () => installation.runCode(null), IntegrityError, 'KEY_NOT_TRUSTED');
    });
  });

  it.each<[string, (content: AnyJson) => void, string]>([
    [
      'a limit that is text',
      (content) => {
        content.throttle.per_tenant_daily_exec_limit = '100';
      },
      'content.throttle.per_tenant_daily_exec_limit',
    ],
    [
      'no policy',
      (content) => {
        delete content.policy;
      },
      'content.policy',
    ],
    ['an id that is none', (content) => content.allowed_boot_ids.push('run_code'), 'content.allowed_boot_ids.6'],
    [
      'a field nobody knows',
      (content) => {
        content.policy.retention_days = 1;
      },
      'content.policy.retention_days',
    ],
    [
      'an override key that is none',
      (content) => {
        content.override_pubkey_hex = 'ff';
      },
      'content.override_pubkey_hex',
    ],
  ])('refuses everything when it says what is no manifest, signed or not: %s', async (_what, change, field) => {
    await withWarmInstallation(async (installation) => {
      const manifest = await installation.manifest();
      const content = structuredClone(manifest.content) as object;
      change(content);
      await installation.insert(nextVersion(manifest, { content: content as never }, rootSigner));
      const error = await expectRefusal(
        installation,
        () => installation.runCode(null),
        IntegrityError,
        'MANIFEST_INVALID',
      );
      expect(error.field).toBe(field);
    });
  });
});

describe('a chain that is broken', () => {
  const kernel = { id: FREE_ID, name: 'chained', code: CODE.replace('it ran', 'ran in time') };

  async function withThreeVersions(run: (installation: Installation) => Promise<void>): Promise<void> {
    await withWarmInstallation(async (installation) => {
      for (const version of [0, 1, 2])
        await installation.seed(undefined, [{ ...kernel, code: `${kernel.code} // ${version}` }]);
      const answer = await boot(installation.container(), { boot_function_id: FREE_ID, identity: ALICE, input: null });
      expect(answer).toMatchObject({ ok: true, function_seq: 2 });
      await run(installation);
      const request = { boot_function_id: FREE_ID, identity: ALICE, input: null };
      await expectRefusal(installation, () => boot(installation.container(), request), IntegrityError, 'CHAIN_BROKEN');
    });
  }

  it.each([0, 1])('refuses a kernel whose version %i a superuser removed', async (seq) => {
    await withThreeVersions((installation) =>
      installation.tamper('delete from ledger.universal_registry where id = $1 and seq = $2', [FREE_ID, seq]),
    );
  });

  it('refuses a kernel whose newest version does not follow the one before it', async () => {
    await withThreeVersions(async (installation) => {
      const newest = await installation.sealed(FREE_ID);
      await installation.insert(nextVersion(newest, { prev_hash: newest.prev_hash as string }, rootSigner));
    });
  });

  it('refuses a kernel that a superuser has put in the place of another, with another owner before it', async () => {
    await withThreeVersions(async (installation) => {
      const newest = await installation.sealed(FREE_ID);
      await installation.insert(nextVersion(newest, { owner_id: 'alice' }, rootSigner));
    });
  });

  it('refuses a kernel whose first version was altered', async () => {
    await withWarmInstallation(async (installation) => {
      for (const version of [0, 1])
        await installation.seed(undefined, [{ ...kernel, code: `${kernel.code} // ${version}` }]);
      await installation.tamper(`update ledger.universal_registry set description = 'x' where id = $1 and seq = 0`, [
        FREE_ID,
      ]);
      const request = { boot_function_id: FREE_ID, identity: ALICE, input: null };
      await expectRefusal(installation, () => boot(installation.container(), request), IntegrityError, 'HASH_MISMATCH');
    });
  });
});

describe('what the ledger itself keeps from a stranger', () => {
  it('lets nobody but a publisher write a public row, so nobody sees a kernel of the stranger', async () => {
    await withWarmInstallation(async (installation) => {
      await installation.seed((content) => content.allowed_boot_ids.push(FREE_ID));
      const { database } = installation.stage0;
      const span = sealSpan(kernelOf({ id: FREE_ID, visibility: 'public' }), strangerSigner);
      await expectRefusal(installation, () => installation.append(ALICE, span), AccessError, 'NOT_PERMITTED');
      await appendSpans(database, [{ ...kernelOf({ id: FREE_ID }) }], {
        identity: ALICE,
        signer: runtimeSigner,
        now: () => new Date(),
      });
      expect((await readLatestVersions(database, BOB, [FREE_ID])).size).toBe(0);
    });
  });
});
