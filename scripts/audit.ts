/**
 * `npx loglineos audit`: verify the rows that are new, and a part of history again, beside the anchors in the folder. Exit
 * 0 when no problem is open, 1 with every open one named, 2 when there was no audit.
 *
 *   --all           all of history
 *   --acknowledge   what was found before is known, and does not count any more
 *   --restart       other anchors, of the ledger as it is now
 *   --json          one object
 */
import { parseArgs } from 'node:util';
import { failureText } from '../src/errors.ts';
import { auditLocally } from '../src/local/auditing.ts';
import { homeFolder } from '../src/local/home.ts';
import { openAsAuditor, trustedKeys } from '../src/local/open-database.ts';
import { loadBlake3 } from '../src/span/blake3-wasm.ts';
import { nodeEd25519 } from '../src/span/ed25519-node.ts';
import { useBlake3 } from '../src/span/index.ts';

const HISTORY_MS = 20_000;
const RUN_MS_MAX = 24 * 60 * 60 * 1000;

async function main(): Promise<number> {
  const flag = { type: 'boolean', default: false } as const;
  const { values } = parseArgs({ options: { all: flag, acknowledge: flag, restart: flag, json: flag } });
  useBlake3(await loadBlake3());
  const { database, secrets, close } = await openAsAuditor(process.env, 'loglineos-audit');
  const showProgress = process.stderr.isTTY && !values.json;
  const stop = new AbortController();
  process.on('SIGINT', () => stop.abort());
  try {
    const report = await auditLocally(
      homeFolder(process.env),
      {
        database,
        keys: trustedKeys(process.env, secrets),
        scheme: nodeEd25519,
        now: () => new Date(),
        endOfTime: new Date(Date.now() + RUN_MS_MAX),
        historyMs: HISTORY_MS,
        stop: stop.signal,
        onProgress: (rows) => {
          if (showProgress) process.stderr.write(`\r${rows} rows read`);
        },
      },
      values,
    );
    if (showProgress) process.stderr.write('\r\x1b[K');
    process.stdout.write(values.json ? `${JSON.stringify(report)}\n` : describe(report));
    return report.worked ? Number(!report.ok) : 2;
  } finally {
    await close();
  }
}

function describe(report: Awaited<ReturnType<typeof auditLocally>>): string {
  const { worked, problems, problem_count, new_rows, history_rows, is_whole, anchored_rows, lag_rows } = report;
  if (!worked) return 'another auditor was at work\n';
  const lines = problems.map((found) => `${found.class.padEnd(9)}  ${found.id}  seq ${found.seq}  ${found.detail}`);
  const waiting = lag_rows === 0 ? '' : `, ${lag_rows ?? 'unknown'} still to read`;
  const again = is_whole ? 'all of history' : `${history_rows} of history`;
  const open = `${problem_count} ${problem_count === 1 ? 'problem is' : 'problems are'} open`;
  return [
    ...lines,
    `${new_rows} new rows and ${again} read, ${anchored_rows} anchored${waiting}: ${problem_count === 0 ? 'no problem is open' : open}`,
    '',
  ].join('\n');
}

main().then(
  (code) => process.exit(code),
  (error) => {
    process.stderr.write(failureText(error, 'the audit failed'));
    process.exit(2);
  },
);
