import { readSecretField } from '../aws/index.ts';
import { Sandbox } from '../kernel/index.ts';
import { Database } from '../ledger/index.ts';
import { nodeEd25519 } from '../span/ed25519-node.ts';
import { createSignerFromHex } from '../span/index.ts';
import { type BootAnswer, GovernanceVerifier, invokeStage0, reapLostBoots, type Stage0 } from '../stage0/index.ts';
import { connectionOptions, readStage0Config } from './config.ts';
import { loggedFunctionError } from './function-error.ts';
import { log } from './log.ts';
import { onceUnlessItFails } from './once.ts';

/** Time kept back of what Lambda gives, to append the execution of a kernel that used up the rest. */
const ENDING_MS = 3_000;

/** How far back a look for lost boots goes: a starting container's first one, and those that follow. */
const FIRST_REAP_WINDOW_MS = 24 * 60 * 60 * 1000;
const REAP_WINDOW_MS = 15 * 60 * 1000;
const REAP_EVERY_MS = 60 * 1000;

const config = readStage0Config(process.env);

const stage0 = onceUnlessItFails(async (): Promise<Stage0> => {
  const sandbox = new Sandbox();
  sandbox.prewarm('kernel', 'kernel:0').catch(() => {}); // starts while the secrets travel; a boot would say what failed
  return {
    // One connection for a lock's transaction, one for what happens beside it.
    database: new Database({
      ...connectionOptions(config.database),
      applicationName: 'loglineos-stage0-loader',
      connectionsMax: 2,
    }),
    sandbox,
    signer: createSignerFromHex(nodeEd25519, await readSecretField(config.runtimeSecretArn, 'runtime_key')),
    scheme: nodeEd25519,
    verifier: new GovernanceVerifier(config.trustedKeys, nodeEd25519),
    admissions: new Map(),
    tenantMasterKey: Buffer.from(await readSecretField(config.runtimeSecretArn, 'tenant_master_key'), 'hex'),
    now: () => new Date(),
    log,
  };
});

/** `loglineos-stage0-loader`: boot the kernel that the event names. */
export async function handler(event: unknown, context: { getRemainingTimeInMillis(): number }): Promise<BootAnswer> {
  const endOfTime = new Date(Date.now() + context.getRemainingTimeInMillis() - ENDING_MS);
  try {
    const built = await stage0();
    return await invokeStage0(built, event, endOfTime).finally(() => reapNowAndThen(built));
  } catch (error) {
    throw loggedFunctionError(error);
  }
}

let reapedAt = 0;

/** Until a schedule does it: containers that live end the boots of those that died. Never the caller's trouble. */
async function reapNowAndThen(built: Stage0): Promise<void> {
  const now = Date.now();
  if (now - reapedAt < REAP_EVERY_MS) return;
  const window = reapedAt === 0 ? FIRST_REAP_WINDOW_MS : REAP_WINDOW_MS;
  reapedAt = now;
  await reapLostBoots(built, new Date(now - window), new Date(now)).catch((error) => {
    log({ level: 'error', message: 'the reaper failed', error: String(error) });
  });
}
