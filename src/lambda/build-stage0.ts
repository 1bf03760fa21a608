import { readSecretField } from '../aws/index.ts';
import { RemoteFunction } from '../aws/lambda.ts';
import { Sandbox } from '../kernel/index.ts';
import { Database } from '../ledger/index.ts';
import { nodeEd25519 } from '../span/ed25519-node.ts';
import { createSignerFromHex, requireKeyInUse, useBlake3 } from '../span/index.ts';
import { GovernanceVerifier, type Stage0 } from '../stage0/index.ts';
import { connectionOptions, type Stage0Config } from './config.ts';
import { log } from './log.ts';

/** Stage-0 of one container, for the function of that name. */
export async function buildStage0(
  config: Stage0Config,
  functionName: string,
  kernelCompartment: string,
  connectionsMax: number,
): Promise<Stage0> {
  const { providerSecretArn, sandboxFunction, trustedKeys } = config;
  const sandbox = new Sandbox({
    untrusted: sandboxFunction === undefined ? undefined : new RemoteFunction(sandboxFunction),
  });
  sandbox.prewarm('kernel', kernelCompartment).catch(() => {}); // starts while the secrets travel; a boot would say what failed
  // A cold start is not kept waiting for it.
  void import('../span/blake3-wasm.ts').then(({ loadBlake3 }) => loadBlake3()).then(useBlake3, () => {});
  const signer = createSignerFromHex(nodeEd25519, await readSecretField(config.runtimeSecretArn, 'runtime_key'));
  requireKeyInUse(trustedKeys.runtime, signer);
  return {
    database: new Database({ ...connectionOptions(config.database), applicationName: functionName, connectionsMax }),
    sandbox,
    signer,
    scheme: nodeEd25519,
    verifier: new GovernanceVerifier(trustedKeys, nodeEd25519),
    admissions: new Map(),
    tenantMasterKey: Buffer.from(await readSecretField(config.runtimeSecretArn, 'tenant_master_key'), 'hex'),
    providerSecrets: async (name) =>
      providerSecretArn === undefined ? null : readSecretField(providerSecretArn, name),
    now: () => new Date(),
    log,
  };
}
