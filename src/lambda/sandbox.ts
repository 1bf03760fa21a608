import { type RemoteResult, readRemoteJob, remoteResultOf, Sandbox } from '../kernel/index.ts';
import { loggedFunctionError } from './function-error.ts';
import { beginInvocation, type InvocationContext } from './log.ts';

/** Kept back of what Lambda gives, so that a run that used up the rest is still told. */
const ENDING_MS = 1_000;
/** Tenants whose children stay in a container. Each is about 43 MB, and one of them may have 256 MB more. */
const CHILDREN_MAX = 8;
/** About as long as a container lives unused: the clock of a frozen one goes on. */
const IDLE_MS = 15 * 60 * 1000;

const sandbox = new Sandbox({ maxChildren: CHILDREN_MAX, idleMs: IDLE_MS });

/**
 * `loglineos-sandbox`: one run of untrusted code. It has no configuration, no secret, no way into the VPC, and a role
 * that allows nothing; what it answers, its caller believes as little as the code.
 *
 * A container serves one tenant after the other, each in children of its own, as in every other process. Nothing keeps a
 * child prewarmed: one that was starting when the container froze would look as if it never came up.
 */
export async function handler(event: unknown, context: InvocationContext): Promise<RemoteResult> {
  const deadlineAt = performance.now() + context.getRemainingTimeInMillis() - ENDING_MS;
  beginInvocation(context);
  try {
    return remoteResultOf(await sandbox.run({ ...readRemoteJob(event), deadlineAt }));
  } catch (error) {
    throw loggedFunctionError(error);
  }
}
