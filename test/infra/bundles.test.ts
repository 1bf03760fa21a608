import { build } from 'esbuild';
import { beforeAll, describe, expect, it } from 'vitest';
import { BUNDLE, FUNCTIONS } from '../../scripts/build.ts';
import * as config from '../../src/lambda/config.ts';
import { ROLES } from '../../src/worker/index.ts';
import {
  type DeclaredFunction,
  functionsOf,
  type Infrastructure,
  permissionsOf,
  readInfrastructure,
} from './infrastructure.ts';

/** Our code in a bundle, by the place of its source; what nobody calls is not in it. */
type Sources = Map<string, string>;

let infra: Infrastructure;
let declared: Record<string, DeclaredFunction>;
const bundles = new Map<string, Sources>();

beforeAll(async () => {
  infra = await readInfrastructure();
  declared = functionsOf(infra);
  await Promise.all(FUNCTIONS.map(async ({ name, entry }) => bundles.set(name, await sourcesOf(entry))));
});

/** As `npm run build` bundles it, but to be read, and without what is not ours. */
async function sourcesOf(entry: string): Promise<Sources> {
  const { outputFiles } = await build({
    ...BUNDLE,
    entryPoints: [entry],
    outdir: '/nowhere',
    write: false,
    minify: false,
    sourcemap: false,
    packages: 'external',
  });
  const sources: Sources = new Map();
  for (const { text } of outputFiles) {
    // esbuild says before each module's code where it is from.
    const [, ...parts] = text.split(/^\/\/ ((?:src|ROW)\/\S+)$/m);
    for (let i = 0; i < parts.length; i += 2) sources.set(parts[i] as string, parts[i + 1] as string);
  }
  return sources;
}

describe('the functions of Terraform and the bundles of the build', () => {
  it('are the same, by name', () => {
    expect(Object.keys(declared).sort()).toEqual(FUNCTIONS.map(({ name }) => name).sort());
  });

  it.each(FUNCTIONS)('give $name every variable that it requires, and none that it does not read', ({ name }) => {
    const given = variablesOf(declared[name] as DeclaredFunction);
    const { required, reads } = configurationOf(bundles.get(name) as Sources);
    expect(
      required.filter((variable) => !given.includes(variable)),
      'required, and not given',
    ).toEqual([]);
    expect(
      given.filter((variable) => !reads(given, variable)),
      'given, and not read',
    ).toEqual([]);
  });

  it.each(FUNCTIONS)('let $name do what it does, and nothing else', ({ name }) => {
    expect(grantedTo(declared[name] as DeclaredFunction)).toEqual(actionsOf(bundles.get(name) as Sources));
  });

  it.each(FUNCTIONS)('put $name beside the database when it speaks to it, and outside when not', ({ name }) => {
    const hasDatabase =
      bundles.get(name)?.has('src/ledger/database.ts') || bundles.get(name)?.has('src/ledger/migrate.ts');
    expect(declared[name]?.database !== undefined).toBe(hasDatabase);
  });

  it.each(FUNCTIONS)('keep from $name every secret that its code has no name for', ({ name }) => {
    const { secrets = [], environment = {} } = declared[name] as DeclaredFunction;
    const named = Object.values(environment).flatMap((value) => /secret_arns\.(\w+)/.exec(value)?.[1] ?? []);
    expect(named.sort()).toEqual(secrets.toSorted());
  });

  it('give each role a schedule, and time for what it may take', () => {
    for (const { name, isSingle, longestStepMs } of Object.values(ROLES)) {
      const { rate, timeout_s = 0 } = declared[`loglineos-${name}`] ?? {};
      expect(rate, name).toBe('rate(1 minute)');
      // Another that starts with the next minute must find the place free.
      if (isSingle) expect(timeout_s, name).toBeLessThanOrEqual(60);
      // 3 s and 5 s are kept back, see src/lambda/shift.ts and src/worker/shift.ts; what is left takes work.
      const takesWorkMs = timeout_s * 1000 - 8_000 - longestStepMs({ timeout_ms: 60_000 });
      expect(takesWorkMs, name).toBeGreaterThanOrEqual(isSingle ? 40_000 : 60_000);
    }
  });
});

describe('how this is found', () => {
  it('sees a variable that nobody reads, and one that is missing', () => {
    const { required, reads } = configurationOf(bundles.get('loglineos-timeline') as Sources);
    expect(required).toEqual(['CONNECTIONS_TABLE']);
    expect(reads(['CONNECTIONS_TABLE', 'DATABASE_HOST'], 'DATABASE_HOST')).toBe(false);
    expect(reads(['CONNECTIONS_TABLE', 'DATABASE_HOST'], 'CONNECTIONS_TABLE')).toBe(true);
    const { reads: ofApi } = configurationOf(bundles.get('loglineos-api') as Sources);
    const given = variablesOf(declared['loglineos-api'] as DeclaredFunction);
    expect(ofApi(given, 'LOGLINEOS_JWT_SCOPES_CLAIM')).toBe(true);
  });

  it('sees what a bundle sends through each of its clients', () => {
    expect(actionsOf(bundles.get('loglineos-observer') as Sources)).toContain('cloudwatch:PutMetricData');
    expect(actionsOf(bundles.get('loglineos-timeline') as Sources)).not.toContain('dynamodb:Scan');
    expect(actionsOf(bundles.get('loglineos-timeline-sender') as Sources)).toEqual([
      'dynamodb:DeleteItem',
      'dynamodb:Scan',
      'dynamodb:UpdateItem',
      'execute-api:ManageConnections',
      'lambda:InvokeFunction',
    ]);
  });
});

// ---- variables

/** The database's are the same for all that have one, see `infra/modules/loglineos/main.tf`. */
const DATABASE_VARIABLES = ['HOST', 'NAME', 'USER', 'SECRET_ARN', 'CA_FILE'].map((name) => `DATABASE_${name}`);

function variablesOf({ database, environment = {} }: DeclaredFunction): string[] {
  return [...Object.keys(environment), ...(database === undefined ? [] : DATABASE_VARIABLES)];
}

/** A value that the variable may have. */
function sampleOf(variable: string, n: number): string {
  if (variable.endsWith('_ARN')) return `arn:aws:secretsmanager:eu-central-1:123456789012:secret:s${n}`;
  if (variable.startsWith('TRUSTED_') || variable === 'OVERRIDE_PUBLIC_KEY') return `${n}`.repeat(64);
  if (/^LOGLINEOS_JWT_(ISSUER|JWKS_URI)$|_ENDPOINT$|_ORIGINS$/.test(variable)) return `https://host${n}.example`;
  if (variable === JWKS)
    return JSON.stringify({ keys: [{ kid: `key${n}`, kty: 'OKP', crv: 'Ed25519', x: PUBLIC_KEY }] });
  return `value${n}`;
}

/** Said or asked for: one of the two. */
const [JWKS, JWKS_URI] = ['LOGLINEOS_JWT_JWKS', 'LOGLINEOS_JWT_JWKS_URI'];
/** RFC 8037, appendix A.2. */
const PUBLIC_KEY = '11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo';

/** The readers of configurations, by name. */
const READERS = new Map<string, unknown>(Object.entries(config));

/** What the bundle does with its environment, told by the readers of its configuration themselves. */
function configurationOf(sources: Sources) {
  const names = [...sources].flatMap(([, code]) =>
    [...code.matchAll(/\b(read\w+Config)\(process\.env\)/g)].map(([, name]) => name as string),
  );
  const readers = [...new Set(names)].map((name) => READERS.get(name) as (env: object) => unknown);
  const read = (env: Record<string, string>) =>
    JSON.stringify(
      readers.map((reader) => reader(env)),
      plain,
    );

  const required: string[] = [];
  for (;;) {
    try {
      read(envOf(required));
      break;
    } catch (error) {
      const { code, field } = error as { code?: string; field?: string };
      if (code !== 'FIELD_MISSING' || field === undefined || required.includes(field)) throw error;
      required.push(field);
    }
  }
  return {
    required,
    /** Whether another value of it is another configuration. */
    reads: (given: string[], variable: string) => {
      const env = envOf(given.filter((name) => name !== (variable === JWKS ? JWKS_URI : JWKS)));
      return read(env) !== read({ ...env, [variable]: sampleOf(variable, 2) });
    },
  };
}

const envOf = (variables: string[]) => Object.fromEntries(variables.map((name) => [name, sampleOf(name, 1)]));
const plain = (_name: string, value: unknown) =>
  value instanceof Set || value instanceof Map ? [...value].map(String) : value;

// ---- permissions

const ACTIONS: Record<string, string> = {
  GetSecretValue: 'secretsmanager:GetSecretValue',
  PutMetricData: 'cloudwatch:PutMetricData',
  Invoke: 'lambda:InvokeFunction',
  PostToConnection: 'execute-api:ManageConnections',
  DeleteConnection: 'execute-api:ManageConnections',
  ...Object.fromEntries(
    ['DeleteItem', 'GetItem', 'PutItem', 'Query', 'Scan', 'UpdateItem'].map((name) => [name, `dynamodb:${name}`]),
  ),
};

function grantedTo({ database, secrets = [], permissions = [] }: DeclaredFunction): string[] {
  const named = permissionsOf(infra);
  const actions: string[] = permissions.flatMap((name) => named[name].actions);
  if (database !== undefined || secrets.length > 0) actions.push('secretsmanager:GetSecretValue');
  return [...new Set(actions)].sort();
}

/** Classes of which a bundle has all methods, whichever it calls: by what their instances are called (esbuild may add a digit). */
const CLASSES: Record<string, { source: string; receiver: RegExp }> = {
  Table: { source: 'src/aws/dynamodb.ts', receiver: /table\d*\.(\w+)\(/gi },
  Connections: { source: 'src/lambda/connections.ts', receiver: /connections\d*\.(\w+)\(/gi },
};

/** What a bundle asks AWS for: the commands of its clients, but for those in methods that nothing calls. */
function actionsOf(sources: Sources): string[] {
  const called = new Map(sources);
  // From those that call to those that are called.
  for (const name of ['Connections', 'Table']) {
    const { source, receiver } = CLASSES[name] as (typeof CLASSES)[string];
    const code = called.get(source);
    if (code === undefined) continue;
    called.delete(source);
    const calls = new Set(
      [...called.values()].flatMap((text) => [...text.matchAll(receiver)].map(([, method]) => method)),
    );
    const methods = code.split(/^ {2}(?=(?:async )?\w+\()/m);
    const used = methods.filter((method) => calls.has(/^(?:async )?(\w+)\(/.exec(method)?.[1]));
    called.set(source, used.join('\n'));
  }
  const commands = [...called.values()].flatMap((code) => [...code.matchAll(/new (?:\w+\.)?(\w+?)Command\d*\(/g)]);
  const actions = commands.map(([, command]) => ACTIONS[command as string] ?? `unknown: ${command}`);
  return [...new Set(actions)].sort();
}
