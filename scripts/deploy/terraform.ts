import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { UpstreamError } from '../../src/errors.ts';
import { type Artifact, artifactKey } from './artifacts.ts';
import type { Steps } from './steps.ts';

const INFRA = new URL('../../infra/envs/', import.meta.url).pathname;

/** What the rest of a deployment has to know of what Terraform made. */
export interface Outputs {
  region: string;
  /** The REST API's stage. */
  restUrl: string;
}

/**
 * `terraform init` and `apply` of an environment, with these zips. Terraform speaks to the terminal itself; unless it is
 * told not to, it shows its plan and asks.
 *
 * @throws {UpstreamError} `TERRAFORM_MISSING`, `TERRAFORM_FAILED`
 */
export async function applyTerraform(
  env: string,
  bucket: string,
  artifacts: Artifact[],
  autoApprove: boolean,
  steps: Steps,
): Promise<void> {
  const chdir = `-chdir=${join(INFRA, env)}`;
  const folder = await mkdtemp(join(tmpdir(), 'loglineos-deploy-'));
  try {
    const variables = join(folder, 'artifacts.tfvars.json');
    const artifact_keys = Object.fromEntries(artifacts.map((artifact) => [artifact.name, artifactKey(artifact)]));
    await writeFile(variables, JSON.stringify({ artifact_bucket: bucket, artifact_keys }));
    const approval = autoApprove ? ['-auto-approve'] : [];
    for (const args of [
      // Where the state is, is said in a file of the environment's folder.
      [chdir, 'init', '-input=false', '-backend-config=backend.hcl'],
      [chdir, 'apply', `-var-file=${variables}`, ...approval],
    ]) {
      await steps.change(`run terraform ${args.join(' ')}`, () => terraform(args, 'inherit'));
    }
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** @throws {UpstreamError} `TERRAFORM_MISSING`, `TERRAFORM_FAILED`, `OUTPUT_MISSING` */
export async function readOutputs(env: string): Promise<Outputs> {
  const said = await terraform([`-chdir=${join(INFRA, env)}`, 'output', '-json'], 'pipe');
  const outputs = JSON.parse(said) as Record<string, { value: unknown }>;
  const read = (name: string): string => {
    const value = outputs[name]?.value;
    if (typeof value === 'string' && value !== '') return value;
    throw new UpstreamError('OUTPUT_MISSING', `Terraform has no output ${name} of text`);
  };
  return { region: read('region'), restUrl: read('rest_url') };
}

async function terraform(args: string[], stdout: 'inherit' | 'pipe'): Promise<string> {
  const child = spawn('terraform', args, { stdio: ['inherit', stdout, 'inherit'] });
  const said = child.stdout === null ? '' : text(child.stdout);
  // Ctrl-C reaches Terraform too, which must be let end in order: it holds the state's lock.
  const wait = () => {};
  process.on('SIGINT', wait);
  try {
    const [code, signal] = await once(child, 'close');
    if (code === 0) return await said;
    const what = args.find((arg) => !arg.startsWith('-'));
    throw new UpstreamError(
      'TERRAFORM_FAILED',
      `terraform ${what} ended with ${signal ?? code}; no alias was moved. Mend it and run the same command again`,
    );
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new UpstreamError('TERRAFORM_MISSING', 'no terraform on the PATH; --functions-only does without', {
      cause: error,
    });
  } finally {
    process.off('SIGINT', wait);
  }
}
