import type { BootAnswer } from './boot.ts';

/** A boot that ran and did not end well. What happened is in the ledger; the message says where. */
export class BootFailed extends Error {
  readonly code: string;

  constructor(answer: BootAnswer) {
    const { error, status, execution_id, boot_event_id } = answer;
    super(`${error?.message ?? status} (execution ${execution_id} of boot_event ${boot_event_id})`);
    this.code = error?.code ?? status.toUpperCase();
  }
}
