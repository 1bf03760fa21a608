/**
 * `npm start`: the local stack. `PORT` (8787), `LOGLINEOS_HOME` (.loglineos), `DATABASE_URL` (a Postgres of your own),
 * `LOGLINEOS_SANDBOX` (children, or function), `LOGLINEOS_JWT_ISSUER` and those beside it (`../identity/jwt-config.ts`).
 * With `--json` it prints one line when ready, for programs.
 */
import { parseArgs } from 'node:util';
import { failureText, InputError } from '../errors.ts';
import { readJwtOptions } from '../identity/index.ts';
import { homeFolder } from './home.ts';
import { type Ready, type Stack, startStack } from './stack.ts';

const DEFAULT_PORT = 8787;

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { json: { type: 'boolean', default: false } } });
  const starting = startStack({
    home: homeFolder(process.env),
    databaseUrl: process.env.DATABASE_URL || undefined,
    port: parsePort(process.env.PORT),
    jwt: readJwtOptions(process.env),
    sandbox: parseSandbox(process.env.LOGLINEOS_SANDBOX),
    log: (entry) => process.stderr.write(`${JSON.stringify({ time: new Date().toISOString(), ...entry })}\n`),
  });
  const isStopping = stopOnSignal(starting);
  const { ready } = await starting;
  if (!isStopping()) process.stdout.write(values.json ? `${JSON.stringify(ready)}\n` : describe(ready));
}

function parsePort(text: string | undefined): number {
  const port = Number(text || DEFAULT_PORT);
  if ((text && !/^\d{1,5}$/.test(text)) || port > 65535) {
    throw new InputError('PORT_INVALID', `PORT: expected a number from 0 to 65535, found ${text}`, { field: 'PORT' });
  }
  return port;
}

function parseSandbox(text: string | undefined): 'children' | 'function' {
  if (!text || text === 'children') return 'children';
  if (text === 'function') return 'function';
  const field = 'LOGLINEOS_SANDBOX';
  throw new InputError('FIELD_INVALID', `${field}: expected children or function, found ${text}`, { field });
}

/** From the first moment on: a stack that is still starting is stopped when it is there, and leaves nothing behind. */
function stopOnSignal(starting: Promise<Stack>): () => boolean {
  let stopping = false;
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, async () => {
      if (stopping) return;
      stopping = true;
      await starting.then(
        (stack) => stack.stop(),
        () => {}, // it has undone what it did; main says why
      );
      process.exit(0);
    });
  }
  return () => stopping;
}

function describe({ url, token, tenant_id, user_id, database_url, boot }: Ready): string {
  return `
LogLineOS is ready at ${url}

  tenant     ${tenant_id}, user ${user_id}
  token      ${token}
  console    ${url}/console#token=${token}
  database   ${database_url}

${describeBoot(url, token, boot)}
Ctrl-C stops it; the data stays.
`;
}

function describeBoot(url: string, token: string, boot: Ready['boot']): string {
  if (boot.status === 'refused') return `run_code_kernel was not booted: ${boot.error.message}\n`;
  const { result } = (boot.output ?? {}) as { result?: unknown };
  const look = `curl -H 'Authorization: Bearer ${token}' ${url}/api/spans/${boot.execution_id}`;
  return `It booted run_code_kernel: ${boot.status} in ${boot.duration_ms} ms, result ${JSON.stringify(result)}
  boot_event ${boot.boot_event_id}
  execution  ${boot.execution_id}, ${boot.verified ? 'verified' : 'NOT VERIFIED'}

Look at the execution, and at its proof:
  ${look}
  ${look}/verify
`;
}

main().catch((error) => {
  process.stderr.write(failureText(error, 'cannot start'));
  process.exit(1);
});
