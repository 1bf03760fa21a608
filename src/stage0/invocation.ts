import { type BootAnswer, boot } from './boot.ts';
import { BootFailed } from './boot-failed.ts';
import { parseBootRequest } from './request.ts';
import type { Stage0 } from './stage0.ts';

/**
 * A boot as a Lambda invocation: the event is the request and says the identity itself, because AWS has authorised the
 * caller. A failure is a function error, so what did not end well is thrown.
 *
 * @param endOfTime when Lambda ends the invocation.
 */
export async function invokeStage0(stage0: Stage0, event: unknown, endOfTime?: Date): Promise<BootAnswer> {
  const answer = await boot(stage0, parseBootRequest(event), { endOfTime });
  if (!answer.ok) throw new BootFailed(answer);
  return answer;
}
