import { spawnSync } from 'node:child_process';
import { buildAll, FUNCTIONS } from '../build.ts';
import { type Figure, inTurns } from './figures.ts';

const IMPORT_RUNS = 15;
/** What failed is at the end; before it may stand a line of a minified bundle. */
const STDERR_MAX = 1_000;
/** What Lambda's runtime has and Node has not, for a handler that answers with a stream. */
const RUNTIME = ['--import', 'data:text/javascript,globalThis.awslambda={streamifyResponse:(run)=>run}'];
const PLACEHOLDER = 'ab'.repeat(32);

/** (d) What loading each bundle adds to starting Node. */
export async function benchImports(): Promise<Figure[]> {
  await buildAll();
  const arn = 'arn:aws:secretsmanager:eu-west-1:000000000000:secret:bench';
  const env = {
    DATABASE_HOST: 'localhost',
    DATABASE_NAME: 'bench',
    DATABASE_USER: 'bench',
    ...Object.fromEntries(
      ['DATABASE', 'RUNTIME', 'ROOT', 'APP_LOGIN', 'SEEDER_LOGIN', 'AUDITOR_LOGIN'].map((name) => [
        `${name}_SECRET_ARN`,
        arn,
      ]),
    ),
    CONNECTIONS_TABLE: 'bench',
    AUDIT_TABLE: 'bench',
    READER_FUNCTION: 'bench',
    SOCKETS_ENDPOINT: 'https://localhost',
    TRUSTED_ROOT_KEYS: PLACEHOLDER,
    TRUSTED_RUNTIME_KEYS: PLACEHOLDER,
  };
  const start = (args: string[]) => {
    const started = performance.now();
    const { status, stderr } = spawnSync(process.execPath, args, { env, encoding: 'utf8' });
    if (status !== 0) throw new Error(`node ${args.join(' ')}: ${stderr.slice(-STDERR_MAX)}`);
    return performance.now() - started;
  };
  const measured: Figure[] = [];
  for (const { name } of FUNCTIONS) {
    const bundle = new URL(`../../dist/${name}/index.mjs`, import.meta.url).pathname;
    const [value, limit] = await inTurns(
      async () => start([...RUNTIME, bundle]),
      async () => start([...RUNTIME, '-e', '0']),
      IMPORT_RUNS,
    );
    measured.push({ name: `import_${name}`, value, unit: 'ms', limit, ratio: value / limit });
  }
  return measured;
}
