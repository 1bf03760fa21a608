import type { Database, Identity } from './database.ts';

/** What a boot_event depends on: rows that must still be the newest, and the tenant's day if the kernel is metered. */
export interface BootConditions {
  /** Where the rows lie (see `readPlacedVersions`), by span id. */
  rowVersions: Map<string, string>;
  metered: { day: string; limit: number } | null;
}

/** `stale`: a row is no longer what it was, or not the newest; nothing is written. */
export type BootEventOutcome = 'appended' | 'stale';

/**
 * Append a boot_event if its conditions hold, in one statement: no moment lies between the check and the append.
 *
 * @param bootEvent the signed row as JSON, see `sealDraft`.
 * @throws {GovernanceError} `QUOTA_EXCEEDED`: the tenant's day is used up; nothing is written.
 */
export async function appendBootEvent(
  database: Database,
  identity: Identity,
  bootEvent: string,
  { rowVersions, metered }: BootConditions,
): Promise<BootEventOutcome> {
  const [row] = await database.query<{ outcome: BootEventOutcome }>({
    text: 'select ledger.append_boot_event($1, $2, $3, $4, $5, $6, $7) as outcome',
    values: [
      identity.userId,
      identity.tenantId,
      `[${bootEvent}]`,
      [...rowVersions.keys()],
      [...rowVersions.values()],
      metered?.day ?? null,
      metered?.limit ?? null,
    ],
  });
  return row?.outcome ?? 'stale';
}
