/**
 * `npm run deploy -- --env dev|prod`: build the functions, put their zips into the bucket, let Terraform make what is
 * missing, bring schema and system rows up to date, point every function's alias `live` to its new version, and see
 * whether it boots. If it does not, every alias that was moved goes back. What is done already is not done again, so a
 * run that was interrupted is simply run again.
 *
 * Exit 0: done. 1: the version does not work; the aliases went back, unless the text says that they stay or did not go
 * back wholly. 2: not done; no alias was moved, unless the text says so.
 */
import { parseArgs } from 'node:util';
import { ConflictError, failureText, InputError, LogLineError } from '../src/errors.ts';
import type { MigrationResult } from '../src/ledger/index.ts';
import type { SeedResult } from '../src/seed/index.ts';
import { FUNCTIONS } from './build.ts';
import { type Artifact, collectArtifacts, uploadArtifacts } from './deploy/artifacts.ts';
import { DeployedFunctions } from './deploy/functions.ts';
import {
  canGoBack,
  describePlan,
  formerVersions,
  goodVersions,
  isDeployed,
  type Versions,
} from './deploy/live-aliases.ts';
import { smoke } from './deploy/smoke.ts';
import { Steps } from './deploy/steps.ts';
import { applyTerraform, readOutputs } from './deploy/terraform.ts';

const LOADER = 'loglineos-stage0-loader';
const MIGRATION = 'loglineos-db-migration';
const SEED = 'loglineos-seed';
const NAMES = FUNCTIONS.map(({ name }) => name);

const DONE = 0;
const BAD = 1;
const NOT_DONE = 2;

const NOTHING_BEFORE = 'there is no former version to go back to: the aliases stay. Mend it and deploy again';

const USAGE = `npm run deploy -- --env dev|prod [options]
npm run deploy -- rollback --env dev|prod [--url URL] [--dry-run]

  --bucket NAME      of the zips; also ARTIFACT_BUCKET in the environment. Not needed with --functions-only
  --artifacts FOLDER deploy the zips of an earlier build, and build nothing
  --functions-only   new code for functions that are there, as aws lambda update-function-code does; no Terraform
  --auto-approve     Terraform does not ask
  --url URL          of the REST API's stage, where Terraform is not asked for it
  --dry-run          say what would be done, and change nothing
  --help             this text
`;

interface Options {
  env: string;
  isDry: boolean;
  isRollback: boolean;
  bucket: string | undefined;
  artifacts: string | undefined;
  functionsOnly: boolean;
  autoApprove: boolean;
  url: string | undefined;
}

async function main(): Promise<number> {
  const options = readOptions();
  if (options === null) {
    process.stdout.write(USAGE);
    return DONE;
  }
  const steps = new Steps(options.isDry);
  if (options.isRollback) return rollBack(options, steps);
  if (options.artifacts === undefined) steps.say('build the functions');
  const artifacts = await collectArtifacts(options.artifacts);
  return options.functionsOnly ? updateFunctions(options, artifacts, steps) : deployAll(options, artifacts, steps);
}

/** With Terraform. */
async function deployAll(options: Options, artifacts: Artifact[], steps: Steps): Promise<number> {
  const { env, bucket, autoApprove } = options;
  if (bucket === undefined) throw new InputError('BUCKET_MISSING', 'say the bucket of the zips: --bucket NAME');
  await uploadArtifacts(artifacts, bucket, steps);
  await applyTerraform(env, bucket, artifacts, autoApprove, steps);
  if (steps.isDry) return sayRelease(steps);
  const { region, restUrl } = await readOutputs(env);
  const functions = new DeployedFunctions(NAMES, region, steps);
  await functions.requireEnvironment(env);
  return release(functions, artifacts, restUrl, steps);
}

/** Without Terraform: only code. */
async function updateFunctions({ env, url }: Options, artifacts: Artifact[], steps: Steps): Promise<number> {
  const functions = new DeployedFunctions(NAMES, undefined, steps);
  await functions.requireEnvironment(env);
  await functions.aliases();
  await functions.updateCode(artifacts);
  if (steps.isDry) return sayRelease(steps);
  return release(functions, artifacts, url, steps);
}

/** From code that is there to code that runs: publish, migrate, seed, move the aliases, smoke test. */
async function release(
  functions: DeployedFunctions,
  artifacts: Artifact[],
  restUrl: string | undefined,
  steps: Steps,
): Promise<number> {
  const versions = await functions.publish(artifacts);
  const aliases = await functions.aliases();

  // Before any alias is moved: if one of these fails, what runs goes on as it is. And always: keys and passwords may have
  // changed where no version did.
  const migrated = (await invoke(functions, MIGRATION, versions, steps)) as MigrationResult;
  steps.say(`schema version ${migrated.version}, ${migrated.applied.length} migrations applied`);
  const seeded = (await invoke(functions, SEED, versions, steps)) as SeedResult;
  steps.say(`${seeded.appended.length} system rows appended, ${seeded.unchanged} as they were`);

  if (isDeployed(aliases, versions)) {
    steps.say('every function runs this version already');
    if (await works(functions, versions, restUrl, steps)) return DONE;
    await functions.requireLive(versions);
    // Perhaps it was killed before it booted, perhaps this has run for weeks: whether to go back is not for a script to say.
    steps.say(
      canGoBack(aliases)
        ? 'the version in place does not work, and the aliases stay: to go back, run npm run deploy -- rollback for this environment'
        : NOTHING_BEFORE,
    );
    return BAD;
  }
  const good = goodVersions(aliases);
  const plan = describePlan(good, versions);
  if (aliases.some(({ name, description }) => description !== plan.get(name))) {
    // Another deployment may have been interrupted: a plan is written only over aliases that belong together.
    await functions.move(good);
    await functions.describe(plan);
  }
  try {
    await functions.move(versions, plan);
  } catch (error) {
    if (error instanceof ConflictError) throw error; // whoever it was has the aliases now
    sayFailure(error);
    return goBack(functions, good, versions, { migrated, seeded }, steps);
  }
  if (await works(functions, versions, restUrl, steps)) return DONE;
  return goBack(functions, good, versions, { migrated, seeded }, steps);
}

/**
 * What the release did stays in the ledger; so the rows of the system are seeded again, as they were.
 *
 * @throws {ConflictError} `DEPLOYMENT_CONFLICT`: what runs now is somebody else's, and stays.
 */
async function goBack(
  functions: DeployedFunctions,
  good: Versions,
  versions: Versions,
  { migrated, seeded }: { migrated: MigrationResult; seeded: SeedResult },
  steps: Steps,
): Promise<number> {
  if ([...versions].every(([name, version]) => good.get(name) === version)) {
    steps.say(NOTHING_BEFORE);
    return BAD;
  }
  try {
    await functions.move(good, describePlan(good, versions));
    if (seeded.appended.length > 0) await invoke(functions, SEED, good, steps);
    steps.say('rolled back: every alias is where it was');
  } catch (error) {
    if (error instanceof ConflictError) throw error;
    sayFailure(error);
    steps.say('not rolled back wholly: run npm run deploy -- rollback for this environment');
  }
  if (migrated.applied.length > 0) {
    steps.say(
      `migrations only go forward: the schema stays at version ${migrated.version} (${migrated.applied.join(', ')})`,
    );
  }
  return BAD;
}

/** Every alias to where it was before the newest deployment. */
async function rollBack({ env, url }: Options, steps: Steps): Promise<number> {
  const functions = new DeployedFunctions(NAMES, undefined, steps);
  await functions.requireEnvironment(env);
  const aliases = await functions.aliases();
  if (!canGoBack(aliases)) {
    throw new InputError('NO_FORMER_VERSION', 'the aliases know of no former version; deploy the one you want');
  }
  const former = formerVersions(aliases);
  await functions.move(former);
  await steps.change(`invoke ${SEED}, version ${former.get(SEED)}`, () =>
    functions.invoke(SEED, former.get(SEED) as string, {}),
  );
  steps.say('migrations only go forward: the schema stays as it is');
  if (steps.isDry) return DONE;
  return (await works(functions, former, url, steps)) ? DONE : BAD;
}

async function invoke(functions: DeployedFunctions, name: string, versions: Versions, steps: Steps): Promise<unknown> {
  const version = versions.get(name) as string;
  steps.say(`invoke ${name}, version ${version}`);
  return (await functions.invoke(name, version, {})).answer;
}

async function works(
  functions: DeployedFunctions,
  versions: Versions,
  restUrl: string | undefined,
  steps: Steps,
): Promise<boolean> {
  try {
    await smoke(functions, versions.get(LOADER) as string, restUrl);
    steps.say(`${LOADER}:live boots; ${restUrl === undefined ? 'the API was not asked: no --url' : 'the API answers'}`);
    return true;
  } catch (error) {
    sayFailure(error);
    return false;
  }
}

/** Which versions these will be is known only when they are made. */
function sayRelease(steps: Steps): number {
  steps.say('would publish a version of each function that changed');
  steps.say(`would invoke ${MIGRATION} and ${SEED} at their new versions`);
  steps.say('would move every alias live that is not at its new version');
  steps.say(`would boot by ${LOADER}:live and ask the API, and move every alias back if that fails`);
  return DONE;
}

function readOptions(): Options | null {
  const { values, positionals } = parseOptions();
  if (values.help) return null;
  const { env } = values;
  if (env !== 'dev' && env !== 'prod') {
    throw new InputError('ENV_INVALID', `--env is dev or prod, not ${env ?? 'left out'}`);
  }
  const [command, ...more] = positionals;
  if (more.length > 0 || (command !== undefined && command !== 'rollback')) {
    throw new InputError('ARGUMENT_INVALID', `the only command is rollback, not ${positionals.join(' ')}`);
  }
  return {
    env,
    isDry: values['dry-run'],
    isRollback: command === 'rollback',
    bucket: values.bucket || process.env.ARTIFACT_BUCKET || undefined,
    artifacts: values.artifacts,
    functionsOnly: values['functions-only'],
    autoApprove: values['auto-approve'],
    url: values.url,
  };
}

function parseOptions() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        env: { type: 'string' },
        bucket: { type: 'string' },
        artifacts: { type: 'string' },
        'functions-only': { type: 'boolean', default: false },
        'auto-approve': { type: 'boolean', default: false },
        url: { type: 'string' },
        'dry-run': { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    });
  } catch (error) {
    throw new InputError('ARGUMENT_INVALID', (error as Error).message, { cause: error });
  }
}

function sayFailure(error: unknown): void {
  process.stderr.write(failureText(withNextStep(error), 'AWS refused'));
}

/** What the SDK says of a machine that is not set up is no help to who reads it. */
function withNextStep(error: unknown): unknown {
  if (error instanceof LogLineError) return error;
  const { name, message } = error as Error;
  if (name === 'CredentialsProviderError' || /^Could not load credentials/.test(message)) {
    return new InputError(
      'CREDENTIALS_MISSING',
      'no AWS credentials: sign in with aws login or aws sso login, or set AWS_PROFILE',
    );
  }
  if (message === 'Region is missing') return new InputError('REGION_MISSING', 'no AWS region: set AWS_REGION');
  return error;
}

main().then(
  (code) => {
    process.exitCode = code;
  },
  (error) => {
    sayFailure(error);
    process.exitCode = NOT_DONE;
  },
);
