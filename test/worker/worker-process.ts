/**
 * A container of its own, as a program: works shift after shift, with the keys of the tests, until SIGTERM.
 *
 *   node test/worker/worker-process.ts <role> <database url of loglineos_app>
 */
import { Sandbox } from '../../src/kernel/index.ts';
import { Database, listenForWork } from '../../src/ledger/index.ts';
import { nodeEd25519 } from '../../src/span/ed25519-node.ts';
import { GovernanceVerifier, type Stage0 } from '../../src/stage0/index.ts';
import { ROLES, type RoleName, workShifts } from '../../src/worker/index.ts';
import { runtimeSigner, trustedKeys } from '../support/keys.ts';

const SHIFT_MS = 600_000;
const [role, url] = process.argv.slice(2) as [RoleName, string];

const stop = new AbortController();
process.once('SIGTERM', () => stop.abort());
// Whoever started it was killed: then nobody stops it.
const starter = process.ppid;
setInterval(() => process.ppid !== starter && process.exit(1), 500).unref();

const stage0: Stage0 = {
  database: new Database({ url, applicationName: 'test-worker', connectionsMax: 4 }),
  sandbox: new Sandbox({ maxChildren: 2 }),
  signer: runtimeSigner,
  scheme: nodeEd25519,
  verifier: new GovernanceVerifier(trustedKeys, nodeEd25519),
  admissions: new Map(),
  tenantMasterKey: new Uint8Array(32).fill(5),
  providerSecrets: async () => null,
  now: () => new Date(),
  log: (entry) => console.log(JSON.stringify(entry)),
};
await workShifts(stage0, ROLES[role], SHIFT_MS, {
  stop: stop.signal,
  onWork: (listener) => {
    const end = listenForWork({ url }, listener);
    return () => void end();
  },
});
await stage0.sandbox.close();
await stage0.database.close();
