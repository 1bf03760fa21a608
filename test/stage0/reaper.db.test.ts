import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Sandbox, SandboxResult } from '../../src/kernel/index.ts';
import { appendSpans, readVersions } from '../../src/ledger/index.ts';
import { nodeEd25519 } from '../../src/span/ed25519-node.ts';
import { verifySpan } from '../../src/span/index.ts';
import { type BootAnswer, boot, reapLostBoots } from '../../src/stage0/index.ts';
import { trustedKeys } from '../support/keys.ts';
import { ALICE, BOB } from '../support/spans.ts';
import { Installation, PROBE } from './installation.ts';

const LONG_AFTER_MS = 10 * 60 * 1000;

let installation: Installation;
beforeAll(async () => {
  installation = await Installation.create();
  await installation.seed();
});
afterAll(() => installation?.close());

interface HangingBoot {
  id: string;
  executionId: string;
  /** Let the kernel end after all. */
  finish(): void;
  answer: Promise<BootAnswer>;
}

/** A boot whose boot_event is in the ledger and whose kernel goes on and on. */
async function hang(identity = ALICE): Promise<HangingBoot> {
  const result = Promise.withResolvers<SandboxResult>();
  const started = Promise.withResolvers<string>();
  const run = (job: { env: { boot_event_id: string } }) => {
    started.resolve(job.env.boot_event_id);
    return result.promise;
  };
  const stage0 = installation.container({ sandbox: { run } as unknown as Sandbox });
  const answer = boot(stage0, { boot_function_id: PROBE, identity, input: null });
  const id = await started.promise;
  const finish = () => result.resolve({ ok: true, output: 'late', durationMs: 1, memoryBytes: 1 });
  const [bootEvent] = await installation.spans('id = $1', [id]);
  return { id, executionId: bootEvent?.related_to?.[0] as string, finish, answer };
}

const executionsOf = (bootEventId: string) =>
  installation.spans(`entity_type = 'execution' and caused_by = $1`, [bootEventId]);
const inTheFuture = (ms: number) => new Date(Date.now() + ms);
const reapAll = () => reapLostBoots(installation.stage0, '-infinity', inTheFuture(LONG_AFTER_MS));

describe('a boot_event without an execution', () => {
  it('gets exactly one when its deadline has passed, marked lost, in the name of its owner', async () => {
    const { id, executionId } = await hang(BOB);
    expect(await reapAll()).toBe(1);
    const bootEvent = await installation.span(id);
    const executions = await executionsOf(id);
    expect(executions).toHaveLength(1);
    expect(executions[0]).toMatchObject({
      id: executionId,
      status: 'lost',
      error: { code: 'LOST' },
      output: null,
      parent_id: PROBE,
      owner_id: BOB.userId,
      tenant_id: BOB.tenantId,
      trace_id: bootEvent.trace_id,
      metadata: bootEvent.metadata,
    });
    const [span] = await readVersions(installation.stage0.database, BOB, executionId);
    expect(verifySpan(span as never, trustedKeys, nodeEd25519)).toEqual([]);
    expect(await reapAll()).toBe(0);
    expect(await executionsOf(id)).toHaveLength(1);
  });

  it('is left alone before its deadline', async () => {
    const { id, finish, answer } = await hang();
    const { expires_at } = await installation.span(id);
    expect(expires_at.getTime()).toBeGreaterThan(Date.now() + 60_000);
    expect(await reapLostBoots(installation.stage0, '-infinity', new Date())).toBe(0);
    expect(await reapLostBoots(installation.stage0, '-infinity', expires_at)).toBe(0);
    finish();
    expect(await answer).toMatchObject({ ok: true, status: 'complete', output: 'late' });
  });

  it('is left alone when it was due before the window', async () => {
    const { id } = await hang();
    const { expires_at } = await installation.span(id);
    expect(await reapLostBoots(installation.stage0, expires_at, inTheFuture(LONG_AFTER_MS))).toBe(0);
    expect(await reapAll()).toBe(1);
  });

  it('gets one when two reapers come at once', async () => {
    const hanging = await Promise.all(Array.from({ length: 12 }, () => hang()));
    const reaped = await Promise.all([reapAll(), reapAll(), reapAll()]);
    expect(reaped.reduce((sum, count) => sum + count, 0)).toBe(hanging.length);
    for (const { id } of hanging) expect((await executionsOf(id)).map(({ status }) => status)).toEqual(['lost']);
  });

  it('stays lost when its runner comes late: the runner answers what the ledger says', async () => {
    const { id, executionId, finish, answer } = await hang();
    await reapAll();
    finish();
    expect(await answer).toMatchObject({
      ok: false,
      status: 'lost',
      output: null,
      error: { code: 'LOST' },
      boot_event_id: id,
      execution_id: executionId,
    });
    expect((await executionsOf(id)).map(({ status }) => status)).toEqual(['lost']);
  });

  it('gets exactly one when runner and reaper meet', async () => {
    const hanging = await Promise.all(Array.from({ length: 12 }, () => hang()));
    const reaping = reapAll();
    for (const { finish } of hanging) finish();
    const [answers] = await Promise.all([Promise.all(hanging.map(({ answer }) => answer)), reaping]);
    for (const [i, { id }] of hanging.entries()) {
      const executions = await executionsOf(id);
      expect(executions.map(({ status }) => status)).toEqual([answers[i]?.status]);
    }
  });

  it('is every one of more than a batch', async () => {
    await reapAll();
    const drafts = Array.from({ length: 510 }, () => ({
      entity_type: 'boot_event',
      who: 'stage0',
      related_to: [randomUUID()],
      expires_at: new Date(0).toISOString(),
    }));
    const { database, signer, now } = installation.stage0;
    await appendSpans(database, drafts, { identity: ALICE, signer, now });
    expect(await reapAll()).toBe(510);
  });
});
