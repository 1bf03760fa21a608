import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { FUNCTIONS } from '../../scripts/build.ts';
import { createHome, type Ended, Program, StackProcess as Stack, type StackProcess } from '../local/stack-process.ts';
import { AwsServices } from './aws-services.ts';

const NAMES = FUNCTIONS.map(({ name }) => name);
const MIGRATE = 'loglineos-db-migration';
const SEED = 'loglineos-seed';
const LOADER = 'loglineos-stage0-loader';
const TERRAFORM = new URL('./terraform.mjs', import.meta.url).pathname;

let folder: string;
let removeHome: () => Promise<void>;
let stack: StackProcess;
let stackUrl: string;
let aws: AwsServices;
let calls: string;
/** Release one, deployed into an empty account, and how that went. */
let installed: AwsServices;
let installation: Ended;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'loglineos-deploy-test-'));
  const { home, remove } = await createHome();
  removeHome = remove;
  const started = await Stack.start(home);
  stack = started.stack;
  stackUrl = started.ready.url;
  await mkdir(join(folder, 'bin'));
  const terraform = join(folder, 'bin', 'terraform');
  await writeFile(terraform, `#!/bin/sh\nexec '${process.execPath}' '${TERRAFORM}' "$@"\n`);
  await chmod(terraform, 0o755);
  await begin();
  installation = await deploy(await zips('one'));
  installed = aws;
});
afterAll(async () => {
  await installed?.stop();
  await stack?.kill('SIGTERM');
  await removeHome?.();
  await rm(folder, { recursive: true, force: true });
});
beforeEach(() => begin(installed));

async function begin(before?: AwsServices): Promise<void> {
  aws = await AwsServices.start(stackUrl, before);
  calls = join(folder, `calls-${Math.random()}`);
  await writeFile(calls, '');
}

afterEach(async () => {
  await aws.stop();
  expect(aws.faults).toEqual([]);
});

/** Zips of one release: of each function another one, some of them broken. */
async function zips(release: string, broken: string[] = []): Promise<string> {
  const made = join(folder, `${release}-${broken.join('-')}`);
  await mkdir(made, { recursive: true });
  for (const name of NAMES) {
    await writeFile(join(made, `${name}.zip`), `${name}, release ${release}${broken.includes(name) ? ', broken' : ''}`);
  }
  return made;
}

function start(args: string[], env: NodeJS.ProcessEnv = {}): Program {
  return new Program('scripts/deploy.ts', args, {
    PATH: `${join(folder, 'bin')}:${process.env.PATH}`,
    HOME: folder,
    AWS_EC2_METADATA_DISABLED: 'true',
    TERRAFORM_CALLS: calls,
    TERRAFORM_OUTPUTS: JSON.stringify({ region: { value: 'eu-central-1' }, rest_url: { value: stackUrl } }),
    ...aws.env,
    ...env,
  });
}

async function deploy(artifacts: string, args: string[] = [], env: NodeJS.ProcessEnv = {}) {
  return start(['--env', 'dev', '--artifacts', artifacts, '--auto-approve', ...args], env).ended;
}

const rollback = (args: string[] = []) => start(['rollback', '--env', 'dev', '--url', stackUrl, ...args]).ended;

const update = async (artifacts: string, args: string[] = []) =>
  start(['--env', 'dev', '--artifacts', artifacts, '--functions-only', '--url', stackUrl, ...args]).ended;

const logged = (what: string) => aws.log.filter((line) => line.startsWith(what));
const terraformCalls = async () =>
  (await readFile(calls, 'utf8'))
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as string[]);

describe('npm run deploy', () => {
  it('deploys into an empty account: zips, Terraform, schema, system rows, a boot and the API', async () => {
    const { code, stdout, stderr } = installation;
    expect([code, stderr, installed.faults]).toEqual([0, '', []]);
    const zip = await readFile(join(await zips('one'), `${LOADER}.zip`));
    expect(installed.objects.get(`${LOADER}/${createHash('sha256').update(zip).digest('hex')}.zip`)).toEqual(zip);
    expect(installed.objects.size).toBe(NAMES.length);
    expect(installed.log.filter((line) => !line.startsWith('put '))).toEqual([
      'terraform apply',
      `invoke ${MIGRATE}:1`,
      `invoke ${SEED}:1`,
      `invoke ${LOADER}:live`,
    ]);
    expect(installed.live()).toEqual(['version 1: release one']);
    expect(stdout).toContain(`${LOADER}:live boots; the API answers`);
  });

  it('moves nothing when all is there, and uploads only what differs', async () => {
    const artifacts = await zips('one');
    const again = await deploy(artifacts);
    expect([again.code, again.stderr]).toEqual([0, '']);
    expect(aws.log).toEqual([
      'terraform apply',
      // A password or a key may be another one.
      `invoke ${MIGRATE}:1`,
      `invoke ${SEED}:1`,
      `invoke ${LOADER}:live`,
    ]);
    const [init, apply, output] = await terraformCalls();
    expect(init).toEqual([
      expect.stringMatching(/^-chdir=.*\/infra\/envs\/dev$/),
      'init',
      '-input=false',
      '-backend-config=backend.hcl',
    ]);
    expect(apply).toEqual([init?.[0], 'apply', expect.stringMatching(/^-var-file=.*\.tfvars\.json$/), '-auto-approve']);
    expect(output).toEqual([init?.[0], 'output', '-json']);
    expect(again.stdout).toContain('every function runs this version already');

    const upgraded = await zips('two');
    await writeFile(join(upgraded, `${SEED}.zip`), await readFile(join(artifacts, `${SEED}.zip`)));
    aws.log.length = 0;
    expect((await deploy(upgraded)).code).toBe(0);
    expect(logged('put ')).toHaveLength(NAMES.length - 1);
    expect(logged('move ').sort()).toEqual(
      NAMES.filter((name) => name !== SEED)
        .map((name) => `move ${name} 1 2`)
        .sort(),
    );
    // The new migration runs before anything else that is new.
    const order = aws.log.filter((line) => !line.startsWith('put '));
    expect(order.slice(0, 4)).toEqual([
      'terraform apply',
      `invoke ${MIGRATE}:2`,
      `invoke ${SEED}:1`,
      expect.stringMatching('^move '),
    ]);
    expect(order.at(-1)).toBe(`invoke ${LOADER}:live`);
    expect(aws.live()).toEqual(['version 1: release one', 'version 2: release two']);
  });

  it('moves every alias back when the new version does not boot, and says so', async () => {
    const { code, stdout, stderr } = await update(await zips('two', [LOADER]));
    expect(code).toBe(1);
    expect(stderr).toBe(`${LOADER}, version 2, failed: this code is broken (SCHEMA_MISSING) (FUNCTION_FAILED)\n`);
    expect(stdout).toContain('rolled back: every alias is where it was');
    expect(aws.live()).toEqual(['version 1: release one']);
    expect(logged('move ')).toHaveLength(2 * NAMES.length);
    // And the next one that is good goes on from there.
    expect((await update(await zips('three'))).code).toBe(0);
    expect(aws.live()).toEqual(['version 3: release three']);
  });

  it('moves every alias back when the API does not answer', async () => {
    const outputs = { region: { value: 'eu-central-1' }, rest_url: { value: `${stackUrl}/nowhere/` } };
    const { code, stderr } = await deploy(await zips('two'), [], { TERRAFORM_OUTPUTS: JSON.stringify(outputs) });
    expect([code, stderr]).toEqual([
      1,
      `GET ${stackUrl}/nowhere/health should answer 200, and answered 401 (SMOKE_FAILED)\n`,
    ]);
    expect(aws.live()).toEqual(['version 1: release one']);
  });

  it.each([MIGRATE, SEED])('leaves the aliases alone when the new %s fails', async (broken) => {
    const { code, stderr } = await update(await zips('two', [broken]));
    expect([code, stderr]).toEqual([
      2,
      `${broken}, version 2, failed: this code is broken (SCHEMA_MISSING) (FUNCTION_FAILED)\n`,
    ]);
    expect(logged('move ')).toEqual([]);
    expect(aws.live()).toEqual(['version 1: release one']);
  });

  it('has nothing to go back to when the first deployment fails, and is run again', async () => {
    aws.functions.clear();
    const { code, stdout } = await deploy(await zips('one', [LOADER]));
    expect(code).toBe(1);
    expect(stdout).toContain('there is no former version to go back to');
    const again = await deploy(await zips('one', [LOADER]));
    expect([again.code, again.stdout]).toEqual([
      1,
      expect.stringContaining('there is no former version to go back to'),
    ]);
    expect((await rollback()).stderr).toContain('(NO_FORMER_VERSION)');
    expect((await deploy(await zips('two'))).code).toBe(0);
    expect(aws.live()).toEqual(['version 2: release two']);
  });

  it('brings a function that is new with an upgrade', async () => {
    aws.functions.delete('loglineos-timeline');
    expect((await deploy(await zips('two', [LOADER]))).code).toBe(1);
    // It stays where Terraform made it; all others are back.
    expect(aws.live()).toEqual(['version 1: release one', 'version 1: release two']);
    expect((await deploy(await zips('three'))).code).toBe(0);
  });

  it('seeds the former rows again when it goes back, and says that the schema stays', async () => {
    const next = await zips('rows', [LOADER]);
    const row = { name: 'run_code_kernel', id: '00000000-0000-4000-8000-000000000001', seq: 7 };
    await answering(next, MIGRATE, { version: 99, applied: ['0099_more.sql'] });
    await answering(next, SEED, { appended: [row], unchanged: 3 });
    const { code, stdout } = await update(next);
    expect(code).toBe(1);
    expect(aws.log.at(-1)).toBe(`invoke ${SEED}:1`);
    expect(stdout).toContain('schema version 99, 1 migrations applied\n');
    expect(stdout).toContain('migrations only go forward: the schema stays at version 99 (0099_more.sql)\n');
  });

  /** A zip whose function answers this, whatever it is asked. */
  async function answering(artifacts: string, name: string, answer: object): Promise<void> {
    await writeFile(join(artifacts, `${name}.zip`), `release rows, answers ${JSON.stringify(answer)}`);
  }

  it('repairs what was killed after half the aliases were moved', async () => {
    const next = await zips('two');
    await killedAfter(NAMES.length + 6, next);
    expect(aws.live()).toEqual(['version 1: release one', 'version 2: release two']);
    aws.log.length = 0;
    expect((await update(next)).code).toBe(0);
    expect(aws.live()).toEqual(['version 2: release two']);
    expect(logged('move ')).toHaveLength(NAMES.length - 6);
  });

  it('leaves a version that is in place and does not boot, and says how to go back', async () => {
    const next = await zips('two', [LOADER]);
    await killedAfter(2 * NAMES.length, next);
    aws.log.length = 0;
    const { code, stdout, stderr } = await update(next);
    expect([code, stderr]).toEqual([1, expect.stringContaining('this code is broken')]);
    expect(stdout).toContain(
      'the version in place does not work, and the aliases stay: to go back, run npm run deploy -- rollback',
    );
    expect(logged('move ')).toEqual([]);
    expect(aws.live()).toEqual(['version 2: release two']);
    expect((await rollback()).code).toBe(0);
    expect(aws.live()).toEqual(['version 1: release one']);
  });

  it('goes back to what last ran together, wherever others were killed', async () => {
    await killedAfter(NAMES.length + 6, await zips('two')); // half of the aliases are moved
    await killedAfter(6 + 3, await zips('three')); // those are back, and three say what is to come
    expect((await update(await zips('four', [LOADER]))).code).toBe(1);
    expect(aws.live()).toEqual(['version 1: release one']);
    await killedAfter(NAMES.length + 3, await zips('five'));
    expect((await rollback()).code).toBe(0);
    expect(aws.live()).toEqual(['version 1: release one']);
  });

  /** A deployment whose process dies after it has changed so many aliases. */
  async function killedAfter(changes: number, artifacts: string): Promise<void> {
    aws.aliasChangesMax = aws.aliasChanges + changes;
    const program = start(['--env', 'dev', '--artifacts', artifacts, '--functions-only']);
    await expect.poll(() => aws.aliasChanges, { timeout: 20_000 }).toBe(aws.aliasChangesMax);
    await program.kill('SIGKILL');
    aws.aliasChangesMax = Number.POSITIVE_INFINITY;
  }

  it.each<[string, (name: string) => void]>([
    [
      'before it could say what it would do',
      (name) => {
        const { live } = aws.functions.get(name) ?? {};
        if (name === LOADER && live !== undefined) live.revision = 'of-somebody-else';
      },
    ],
    [
      'after it said so',
      (name) => {
        const { live } = aws.functions.get(NAMES.find((other) => other !== name) as string) ?? {};
        const isLast = aws.aliasChanges === NAMES.length - 1;
        if (isLast && live !== undefined) live.description = 'deployment 0123456789ab: version 1 to 7';
      },
    ],
  ])('leaves the aliases to somebody else who deploys at the same time, and began %s', async (_when, change) => {
    aws.beforeAliasChange = change;
    const { code, stderr } = await update(await zips('two'));
    expect([code, stderr]).toEqual([2, expect.stringContaining('(DEPLOYMENT_CONFLICT)')]);
    expect(aws.live()).toEqual(['version 1: release one']);
  });

  it.each<[string, () => Promise<unknown>]>([
    ['has moved the aliases', async () => {}],
    ['found its version in place', async () => update(await zips('two'))],
  ])(
    'leaves the aliases to somebody else who deploys while it boots, when it %s',
    async (_when, before) => {
      await before();
      let other: Ended | undefined;
      aws.beforeInvocation = async (name, qualifier) => {
        if (name !== LOADER || qualifier !== 'live') return;
        aws.beforeInvocation = async () => {};
        other = await update(await zips('three'));
        aws.log.length = 0;
      };
      const { code, stdout, stderr } = await update(await zips('two'));
      expect(other).toMatchObject({ code: 0, stderr: '' });
      expect([code, stderr]).toEqual([2, expect.stringContaining('(DEPLOYMENT_CONFLICT)')]);
      expect(stdout).not.toMatch(/roll(ed )?back/);
      expect(logged('move ')).toEqual([]);
      expect(aws.live()).toEqual(['version 3: release three']);
    },
    60_000,
  );

  it('leaves the aliases to somebody else who deploys while it goes back', async () => {
    aws.beforeAliasChange = (name) => {
      const { live } = aws.functions.get(name) ?? {};
      const goesBack = aws.aliasChanges >= 2 * NAMES.length;
      if (goesBack && name === LOADER && live !== undefined) live.revision = 'of-somebody-else';
    };
    const { code, stdout, stderr } = await update(await zips('two', [LOADER]));
    expect([code, stderr]).toEqual([2, expect.stringContaining('(DEPLOYMENT_CONFLICT)')]);
    expect(stdout).not.toContain('rolled back');
  });

  it('takes a conflict for a conflict, whatever else fails with it', async () => {
    aws.beforeAliasChange = (name) => {
      const changed = aws.functions.get(name);
      if (aws.aliasChanges < NAMES.length || changed?.live === undefined) return;
      if (name === NAMES[1]) changed.live.revision = 'of-somebody-else';
      if (name === NAMES[0]) changed.live = undefined; // The first that fails, and no conflict.
    };
    const { code, stderr } = await update(await zips('two'));
    expect([code, stderr]).toEqual([2, expect.stringContaining('(DEPLOYMENT_CONFLICT)')]);
  });
});

describe('npm run deploy -- rollback', () => {
  it('moves every alias to where it was before the newest deployment, seeds that, and boots it', async () => {
    await update(await zips('two'));
    aws.log.length = 0;
    const { code, stdout } = await rollback();
    expect(code).toBe(0);
    expect(stdout).toContain('the schema stays as it is');
    expect(aws.live()).toEqual(['version 1: release one']);
    expect(aws.log.slice(-2)).toEqual([`invoke ${SEED}:1`, `invoke ${LOADER}:live`]);
    aws.log.length = 0;
    expect((await rollback()).code).toBe(0);
    expect(logged('move ')).toEqual([]);
    // Forward again, by the same sources.
    expect((await update(await zips('two'))).code).toBe(0);
    expect(aws.live()).toEqual(['version 2: release two']);
  });

  it('changes nothing in a dry run', async () => {
    await update(await zips('two'));
    aws.log.length = 0;
    const { code, stdout } = await rollback(['--dry-run']);
    expect([code, aws.log]).toEqual([0, []]);
    expect(stdout).toContain(`would move ${LOADER}:live from version 2 to 1\n`);
  });
});

describe('npm run deploy -- --functions-only', () => {
  it('gives functions that are there new code, and all that follows, without Terraform', async () => {
    const next = await zips('two');
    expect(await update(next)).toMatchObject({ code: 0, stderr: '' });
    expect(logged('update ').sort()).toEqual(NAMES.map((name) => `update ${name}`).sort());
    expect(aws.live()).toEqual(['version 2: release two']);
    aws.log.length = 0;
    expect((await update(next)).code).toBe(0);
    expect(aws.log).toEqual([`invoke ${MIGRATE}:2`, `invoke ${SEED}:2`, `invoke ${LOADER}:live`]);
    expect(await readFile(calls, 'utf8')).toBe('');
  });

  it('refuses where a function is not there, or where this is another environment', async () => {
    const prod = await start(['--env', 'prod', '--functions-only', '--artifacts', await zips('two')]).ended;
    expect([prod.code, prod.stderr]).toEqual([2, expect.stringContaining('this is not prod')]);
    aws.functions.delete('loglineos-timeline');
    const missing = await update(await zips('two'));
    expect([missing.code, missing.stderr]).toEqual([
      2,
      expect.stringMatching(/loglineos-timeline.*\(FUNCTION_NOT_DEPLOYED\)/),
    ]);
    expect(aws.log).toEqual([]);
  });

  it('changes nothing in a dry run, and says which code it would update', async () => {
    const artifacts = await zips('one');
    const next = await zips('two');
    await writeFile(join(next, `${SEED}.zip`), await readFile(join(artifacts, `${SEED}.zip`)));
    const { code, stdout } = await update(next, ['--dry-run']);
    expect([code, aws.log]).toEqual([0, []]);
    expect(stdout).toContain(`would update the code of ${LOADER} (1 KiB)\n`);
    expect(stdout).not.toContain(`code of ${SEED}`);
  });
});

describe('npm run deploy -- --dry-run', () => {
  it('says every step and takes none', async () => {
    aws.objects.clear();
    const { code, stdout, stderr } = await deploy(await zips('one'), ['--dry-run']);
    expect([code, stderr, aws.log]).toEqual([0, '', []]);
    expect(await readFile(calls, 'utf8')).toBe('');
    expect(
      stdout.match(/^would upload s3:\/\/artefacts\/loglineos-[\w-]+\/[0-9a-f]{64}\.zip \(1 KiB\)$/gm),
    ).toHaveLength(NAMES.length);
    expect(stdout).toMatch(
      /^would run terraform -chdir=\S+\/infra\/envs\/dev init -input=false -backend-config=backend\.hcl$/m,
    );
    expect(stdout).toMatch(/^would run terraform -chdir=\S+ apply -var-file=\S+ -auto-approve$/m);
    expect(stdout).toContain(`would invoke ${MIGRATE} and ${SEED}`);
    expect(
      stdout
        .trimEnd()
        .split('\n')
        .filter((line) => !line.startsWith('would ')),
    ).toEqual([]);
  });
});

describe('npm run deploy, where something is missing', () => {
  it.each<[string, string[], NodeJS.ProcessEnv, RegExp]>([
    ['the environment', [], {}, /^--env is dev or prod, not left out \(ENV_INVALID\)\n$/],
    ['a known environment', ['--env', 'staging'], {}, /^--env is dev or prod, not staging \(ENV_INVALID\)\n$/],
    [
      'a known command',
      ['back', '--env', 'dev'],
      {},
      /^the only command is rollback, not back \(ARGUMENT_INVALID\)\n$/,
    ],
    ['a known option', ['--env', 'dev', '--force'], {}, /'--force'.*\(ARGUMENT_INVALID\)\n$/],
    ['the bucket', ['--env', 'dev'], { ARTIFACT_BUCKET: undefined }, /--bucket NAME \(BUCKET_MISSING\)\n$/],
    [
      'the zips',
      ['--env', 'dev', '--artifacts', '/nowhere'],
      {},
      /^\/nowhere\/loglineos-[\w-]+\.zip .*\(ZIP_MISSING\)\n$/,
    ],
    [
      'credentials',
      ['--env', 'dev'],
      { AWS_ACCESS_KEY_ID: undefined },
      /^no AWS credentials: .*AWS_PROFILE \(CREDENTIALS_MISSING\)\n$/,
    ],
    ['a region', ['--env', 'dev'], { AWS_REGION: undefined }, /^no AWS region: set AWS_REGION \(REGION_MISSING\)\n$/],
    ['Terraform', ['--env', 'dev'], { PATH: '/nonexistent' }, /^no terraform on the PATH; .*\(TERRAFORM_MISSING\)\n$/],
    ['an output', ['--env', 'dev'], { TERRAFORM_OUTPUTS: '{}' }, /no output region .*\(OUTPUT_MISSING\)\n$/],
    [
      'rights to the bucket',
      ['--env', 'dev', '--bucket', 'of-others'],
      {},
      /^s3:\/\/of-others answered 403: .*\(BUCKET_REFUSED\)\n$/,
    ],
    [
      'the bucket in AWS',
      ['--env', 'dev', '--bucket', 'other'],
      {},
      /^AWS refused: The specified bucket does not exist\n$/,
    ],
    [
      'what Terraform needs',
      ['--env', 'dev'],
      { TERRAFORM_FAILS: 'apply' },
      /^Error: it would not\nterraform apply ended with 1; no alias was moved\. .*\(TERRAFORM_FAILED\)\n$/,
    ],
  ])('says so of %s, exit 2', async (_what, args, env, message) => {
    const artifacts = args.includes('--artifacts') ? [] : ['--artifacts', await zips('one')];
    const { code, stderr } = await start([...args, ...artifacts], env).ended;
    expect([code, stderr]).toEqual([2, expect.stringMatching(message)]);
    expect(stderr).not.toContain('test-secret');
    expect(logged('move ')).toEqual([]);
  });
});

const hasTerraform = findTerraform();
if (!hasTerraform) process.stderr.write('skipped: the test of the terraform command, which is not on the PATH\n');

describe.skipIf(!hasTerraform)('the terraform command', () => {
  it('understands what it is told, and is understood', async () => {
    const root = join(folder, 'root');
    const bin = join(folder, 'real-bin');
    await mkdir(root);
    await mkdir(bin);
    // Without providers, because those would have to be downloaded: the apply is played as in the other tests.
    await writeFile(
      join(root, 'main.tf'),
      `terraform {
  backend "local" {}
}
variable "artifact_bucket" { type = string }
variable "artifact_keys" { type = map(string) }
resource "terraform_data" "functions" {
  input = { artifact_bucket = var.artifact_bucket, artifact_keys = var.artifact_keys }
  provisioner "local-exec" {
    command = "curl --fail --silent --data @- ${aws.url}/terraform <<< $INPUT"
    interpreter = ["bash", "-c"]
    environment = { INPUT = jsonencode(self.input) }
  }
}
output "region" { value = "eu-central-1" }
output "rest_url" { value = "${stackUrl}" }
`,
    );
    await writeFile(join(root, 'backend.hcl'), `path = "${join(folder, 'state')}"\n`);
    const wrapper = join(bin, 'terraform');
    const real = execFileSync('which', ['terraform'], { encoding: 'utf8' }).trim();
    await writeFile(wrapper, `#!/bin/sh\nshift\nexec '${real}' '-chdir=${root}' "$@"\n`);
    await chmod(wrapper, 0o755);
    const { code, stdout } = await deploy(await zips('one'), [], { PATH: `${bin}:${process.env.PATH}` });
    expect(stdout).toContain('Apply complete!');
    expect(code).toBe(0);
    expect(aws.live()).toEqual(['version 1: release one']);
  });
});

function findTerraform(): boolean {
  try {
    execFileSync('terraform', ['version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}
