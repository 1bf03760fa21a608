import { ConflictError } from '../errors.ts';
import { appendSpans, readLostBoots } from '../ledger/index.ts';
import { checkProof } from '../span/index.ts';
import { appendContext, type Stage0 } from './stage0.ts';

const REAP_BATCH_MAX = 500;

/**
 * End the boots that nobody ended: each boot_event past its deadline without an execution gets one, marked `lost`, in
 * its owner's name. A runner that was only slow loses the race for the execution's id, or wins it; never both.
 *
 * @returns how many were lost.
 */
export async function reapLostBoots(
  stage0: Stage0,
  dueAfter: Date | '-infinity',
  dueBefore: Date | 'infinity',
): Promise<number> {
  let reaped = 0;
  for (let before = -1; reaped > before; ) {
    before = reaped;
    const lost = await readLostBoots(stage0.database, dueAfter, dueBefore, REAP_BATCH_MAX);
    for (const bootEvent of lost) {
      if (checkProof(bootEvent, stage0.scheme) !== null) continue; // `verify` reports it
      const finishedAt = stage0.now().toISOString();
      const identity = { userId: bootEvent.owner_id, tenantId: bootEvent.tenant_id };
      try {
        await appendSpans(
          stage0.database,
          [
            {
              id: bootEvent.related_to?.[0] as string,
              seq: 0,
              entity_type: 'execution',
              who: 'reaper',
              did: 'ran_kernel',
              this: bootEvent.this ?? null,
              at: finishedAt,
              parent_id: (bootEvent.metadata as { kernel_id?: string } | null)?.kernel_id ?? null,
              caused_by: bootEvent.id,
              status: 'lost',
              name: bootEvent.name ?? null,
              error: { code: 'LOST', message: 'the process ended before it could say how the boot went' },
              started_at: bootEvent.started_at ?? null,
              finished_at: finishedAt,
              trace_id: bootEvent.trace_id ?? null,
              metadata: bootEvent.metadata ?? null,
            },
          ],
          appendContext(stage0, identity),
        );
        reaped++;
      } catch (error) {
        // One row that cannot be ended (it was not Stage-0 that wrote it) does not keep the others open.
        if (!(error instanceof ConflictError))
          stage0.log({ level: 'error', message: 'a boot cannot be ended', id: bootEvent.id });
      }
    }
  }
  return reaped;
}
