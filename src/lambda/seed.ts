import { fileURLToPath } from 'node:url';
import { readSecretField } from '../aws/index.ts';
import { Database } from '../ledger/index.ts';
import { readRowFiles, type SeedResult, seed } from '../seed/index.ts';
import { nodeEd25519 } from '../span/ed25519-node.ts';
import { createSignerFromHex, requireKeyInUse } from '../span/index.ts';
import { connectionOptions, readSeedConfig } from './config.ts';
import { loggedFunctionError } from './function-error.ts';
import { onceUnlessItFails } from './once.ts';

/** Packed beside the bundle by `scripts/build.ts`. */
const ROW_FOLDER = fileURLToPath(new URL('./ROW', import.meta.url));

const config = readSeedConfig(process.env);
const database = onceUnlessItFails(
  async () => new Database({ ...connectionOptions(config.database), applicationName: 'loglineos-seed' }),
);

/** `loglineos-seed`: append what differs between `ROW/` and the ledger, signed with the root key. */
export async function handler(): Promise<SeedResult> {
  try {
    const rows = await readRowFiles(ROW_FOLDER, { overridePublicKey: config.overridePublicKey });
    const rootSigner = createSignerFromHex(nodeEd25519, await readSecretField(config.rootSecretArn, 'root_key'));
    requireKeyInUse(config.rootKeys, rootSigner);
    return await seed(await database(), rows, rootSigner, () => new Date(), config.rootKeys);
  } catch (error) {
    throw loggedFunctionError(error);
  }
}
