/**
 * `loglineos`: the system from a terminal. It talks HTTP to a running system, so that it can do what its token can and
 * no more; `verify`, `audit`, `export`, `import` and `bench` alone look at the database of this machine, and `keys` at where keys are
 * kept.
 *
 * Exit 0: done. 1: done, and the answer is bad (a run that failed, a row that does not prove itself). 2: not done.
 */
import { spawn } from 'node:child_process';
import { Command, CommanderError } from 'commander';
import { failureText, LogLineError } from '../errors.ts';
import { homeFolder } from '../local/home.ts';
import { addKeyCommands } from './key-commands.ts';
import { addLookCommands } from './look-commands.ts';
import { plain } from './output.ts';
import { addPolicyCommands } from './policy-commands.ts';
import { addRequestCommands } from './request-commands.ts';
import { addRunCommands } from './run-commands.ts';
import { DEFAULT_URL } from './session.ts';
import { addTokenCommands } from './token-commands.ts';

const NOT_DONE = 2;
/** A reader that has seen enough, such as `head`. */
const BROKEN_PIPE = 'EPIPE';

async function main(): Promise<void> {
  const program = new Command('loglineos')
    .description('A ledger-only backend, from a terminal.')
    .option('--url <url>', `where the system is (LOGLINEOS_URL, or ${DEFAULT_URL})`)
    .option('--token <token>', 'who you are (LOGLINEOS_TOKEN, or the token of the local folder, LOGLINEOS_HOME)')
    .option('--json', 'JSON for programs')
    .exitOverride()
    .configureHelp({ showGlobalOptions: true });
  addRunCommands(program);
  addLookCommands(program);
  addRequestCommands(program);
  addPolicyCommands(program);
  addTokenCommands(program);
  addKeyCommands(program);
  addScript(program, 'verify', 'read the whole ledger of this machine and check every row');
  addScript(program, 'audit', 'verify what is new here and a part of history, and compare it with the anchors');
  addScript(program, 'export', 'write every row of the ledger of this machine to --out <file>, or to standard output');
  addScript(program, 'import', 'bring the ledger of this machine back from exports; --dry-run says what is missing');
  addScript(program, 'bench', 'measure this machine, on a Postgres of its own');
  await program.parseAsync();
}

/** A script of the project's, with all that is said to it. */
function addScript(program: Command, name: string, description: string): void {
  program
    .command(name)
    .description(description)
    .allowUnknownOption()
    .allowExcessArguments()
    .action(async (_options: object, command: Command) => {
      const { json } = command.optsWithGlobals<{ json?: boolean }>();
      const script = new URL(`../../scripts/${name}.ts`, import.meta.url).pathname;
      const args = [script, ...command.args, ...(json === true ? ['--json'] : [])];
      process.on('SIGINT', () => {}); // the terminal tells the script as well, and it says how it ended
      const child = spawn(process.execPath, args, { stdio: 'inherit' });
      process.exitCode = await new Promise<number>((resolve) => child.on('close', (code) => resolve(code ?? NOT_DONE)));
    });
}

/** What a person needs to go on, in a line; never a stack. */
function explain(error: unknown): string {
  const text = plain(failureText(error, 'loglineos failed'));
  if (!(error instanceof LogLineError)) return text;
  if (error.code === 'UNREACHABLE') {
    return `${text}Is it running? Start it with npm start, or say where it is with --url or LOGLINEOS_URL.\n`;
  }
  if (error.code === 'TOKEN_INVALID') {
    return `${text}The token comes from --token, LOGLINEOS_TOKEN, or secrets.json in ${homeFolder(process.env)} (LOGLINEOS_HOME).\n`;
  }
  return text;
}

process.stdout.on('error', (error: { code?: string }) => {
  if (error.code === BROKEN_PIPE) process.exit(0);
  throw error;
});

main().catch((error: unknown) => {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : NOT_DONE; // it has said what
    return;
  }
  process.stderr.write(explain(error));
  process.exitCode = NOT_DONE;
});
