/**
 * `npm run verify`: read the whole ledger and check every row. Exit 0 when all of it proves itself, 1 with every bad row
 * named, 2 when it could not be read. `--json` prints one object.
 */
import { parseArgs } from 'node:util';
import { failureText } from '../src/errors.ts';
import { verifyLedger } from '../src/ledger/index.ts';
import { openAsAuditor, trustedKeys } from '../src/local/open-database.ts';
import { loadBlake3 } from '../src/span/blake3-wasm.ts';
import { nodeEd25519 } from '../src/span/ed25519-node.ts';
import { useBlake3 } from '../src/span/index.ts';

async function main(): Promise<number> {
  const { values } = parseArgs({ options: { json: { type: 'boolean', default: false } } });
  useBlake3(await loadBlake3());
  const { database, secrets, close } = await openAsAuditor(process.env, 'loglineos-verify');
  const showProgress = process.stderr.isTTY && !values.json;
  try {
    const report = await verifyLedger(database, trustedKeys(process.env, secrets), nodeEd25519, (checked) => {
      if (showProgress) process.stderr.write(`\r${checked} rows checked`);
    });
    if (showProgress) process.stderr.write('\r\x1b[K');
    if (values.json) {
      process.stdout.write(`${JSON.stringify(report)}\n`);
    } else {
      for (const { id, seq, class: problemClass, detail } of report.problems) {
        process.stdout.write(`${problemClass.padEnd(9)}  ${id}  seq ${seq}  ${detail}\n`);
      }
      const count = report.problems.length;
      process.stdout.write(
        report.ok
          ? `${report.checked} rows checked: every one proves itself\n`
          : `${report.checked} rows checked: ${count} ${count === 1 ? 'problem' : 'problems'}\n`,
      );
    }
    return report.ok ? 0 : 1;
  } finally {
    await close();
  }
}

main().then(
  (code) => process.exit(code),
  (error) => {
    process.stderr.write(failureText(error, 'verify failed'));
    process.exit(2);
  },
);
