import {
  GetAliasCommand,
  GetFunctionConfigurationCommand,
  InvokeCommand,
  LambdaClient,
  PublishVersionCommand,
  UpdateAliasCommand,
  UpdateFunctionCodeCommand,
  waitUntilFunctionUpdated,
  waitUntilPublishedVersionActive,
} from '@aws-sdk/client-lambda';
import { ConflictError, InputError, UpstreamError } from '../../src/errors.ts';
import { type Artifact, kib } from './artifacts.ts';
import { LIVE, type LiveAlias, type Versions } from './live-aliases.ts';
import type { Steps } from './steps.ts';

/** Lambda gives a function 15 minutes at most. */
const INVOKE_TIMEOUT_MS = 16 * 60 * 1000;
const UPDATE_TIMEOUT_S = 300;

/** An alias, and Lambda's mark of its last change: whoever changes it says the mark, so that two deployments notice each other. */
interface MarkedAlias extends LiveAlias {
  revision: string | undefined;
}

/** The functions of one account and region, as far as a deployment changes them. */
export class DeployedFunctions {
  readonly #names: string[];
  readonly #steps: Steps;
  /** Lambda takes 15 changes a second of an account; more are refused, and tried again. */
  readonly #client: LambdaClient;
  /** What runs may not be run twice because an answer was lost. */
  readonly #invoker: LambdaClient;

  /** @param region as the environment or the profile says when it is undefined. */
  constructor(names: string[], region: string | undefined, steps: Steps) {
    const where = region === undefined ? {} : { region };
    this.#names = names;
    this.#steps = steps;
    this.#client = new LambdaClient({ ...where, maxAttempts: 8 });
    this.#invoker = new LambdaClient({
      ...where,
      maxAttempts: 1,
      requestHandler: { requestTimeout: INVOKE_TIMEOUT_MS },
    });
  }

  /**
   * That the credentials at hand lead to this environment: Stage-0 is told its name.
   *
   * @throws {InputError} `ENVIRONMENT_DIFFERS`
   */
  async requireEnvironment(env: string): Promise<void> {
    const { Environment } = await this.#configuration('loglineos-stage0-loader');
    const found = Environment?.Variables?.ENVIRONMENT;
    if (found === env) return;
    throw new InputError(
      'ENVIRONMENT_DIFFERS',
      `this is not ${env}: loglineos-stage0-loader says ENVIRONMENT=${found ?? '(nothing)'}; look at AWS_PROFILE and AWS_REGION`,
    );
  }

  /** @throws {InputError} `FUNCTION_NOT_DEPLOYED`: one has no alias `live`. */
  async aliases(): Promise<MarkedAlias[]> {
    return Promise.all(
      this.#names.map(async (name) => {
        const alias = await found(name, this.#client.send(new GetAliasCommand({ FunctionName: name, Name: LIVE })));
        const { FunctionVersion = '', Description = '', RevisionId } = alias;
        return { name, version: FunctionVersion, description: Description, revision: RevisionId };
      }),
    );
  }

  /** What `aws lambda update-function-code --zip-file` does, where the code differs. */
  async updateCode(artifacts: Artifact[]): Promise<void> {
    const hashes = await Promise.all(artifacts.map(async ({ name }) => (await this.#configuration(name)).CodeSha256));
    const outdated = artifacts.filter(({ sha256Base64 }, i) => sha256Base64 !== hashes[i]);
    await allDone(
      outdated.map((artifact) => {
        const { name, zip } = artifact;
        return this.#steps.change(`update the code of ${name} (${kib(artifact)})`, () =>
          this.#client.send(new UpdateFunctionCodeCommand({ FunctionName: name, ZipFile: zip })),
        );
      }),
    );
    const count = artifacts.length - outdated.length;
    if (count > 0) this.#steps.say(`${count} of ${artifacts.length} functions have this code already`);
  }

  /**
   * A version of each function with exactly this code. Lambda makes none where neither code nor configuration changed
   * since the last, and names that one.
   */
  async publish(artifacts: Artifact[]): Promise<Versions> {
    const versions = await Promise.all(
      artifacts.map(async ({ name, sha256Base64 }): Promise<[string, string]> => {
        const waiter = { client: this.#client, maxWaitTime: UPDATE_TIMEOUT_S, minDelay: 1, maxDelay: 5 };
        await waitUntilFunctionUpdated(waiter, { FunctionName: name });
        const { Version = '' } = await this.#client.send(
          new PublishVersionCommand({ FunctionName: name, CodeSha256: sha256Base64 }),
        );
        await waitUntilPublishedVersionActive(waiter, { FunctionName: name, Qualifier: Version });
        return [name, Version];
      }),
    );
    return new Map(versions);
  }

  /** Write what is about to happen into the aliases, which go on as they are. */
  async describe(descriptions: Map<string, string>): Promise<void> {
    const aliases = await this.aliases();
    const stale = aliases.filter(({ name, description }) => description !== descriptions.get(name));
    await allDone(
      stale.map((alias) => this.#updateAlias(alias, { Description: descriptions.get(alias.name) as string })),
    );
  }

  /**
   * Move the aliases that are elsewhere. If one fails the others are moved nevertheless, and then it is thrown.
   *
   * @param plan what their descriptions have to say, or somebody else has begun a deployment since.
   * @throws {ConflictError} `DEPLOYMENT_CONFLICT`
   */
  async move(versions: Versions, plan?: Map<string, string>): Promise<void> {
    const aliases = await this.aliases();
    const foreign = aliases.find(({ name, description }) => plan !== undefined && plan.get(name) !== description);
    if (foreign !== undefined) throw conflict(foreign.name);
    const elsewhere = aliases.filter(({ name, version }) => (versions.get(name) ?? version) !== version);
    await allDone(
      elsewhere.map((alias) => {
        const version = versions.get(alias.name) as string;
        return this.#steps.change(`move ${alias.name}:${LIVE} from version ${alias.version} to ${version}`, () =>
          this.#updateAlias(alias, { FunctionVersion: version }),
        );
      }),
    );
  }

  /** @throws {ConflictError} `DEPLOYMENT_CONFLICT`: an alias is elsewhere by now. */
  async requireLive(versions: Versions): Promise<void> {
    const moved = (await this.aliases()).find(({ name, version }) => versions.get(name) !== version);
    if (moved !== undefined) throw conflict(moved.name);
  }

  /**
   * Invoke a function once and wait.
   *
   * @param qualifier a version or an alias.
   * @returns what it answered, and the version that ran.
   * @throws {UpstreamError} `FUNCTION_FAILED`, with the function's own code and message.
   */
  async invoke(name: string, qualifier: string, event: unknown): Promise<{ answer: unknown; version: string }> {
    const command = new InvokeCommand({ FunctionName: name, Qualifier: qualifier, Payload: JSON.stringify(event) });
    const { Payload, FunctionError, ExecutedVersion = '' } = await found(name, this.#invoker.send(command));
    const answer = JSON.parse(Payload?.transformToString() || 'null');
    if (FunctionError === undefined) return { answer, version: ExecutedVersion };
    throw new UpstreamError(
      'FUNCTION_FAILED',
      `${name}, version ${ExecutedVersion}, failed: ${answer?.errorMessage ?? FunctionError} (${answer?.errorType ?? 'no type'})`,
    );
  }

  async #configuration(name: string) {
    return found(name, this.#client.send(new GetFunctionConfigurationCommand({ FunctionName: name })));
  }

  /** @throws {ConflictError} `DEPLOYMENT_CONFLICT` */
  async #updateAlias({ name, revision }: MarkedAlias, change: object): Promise<void> {
    try {
      await this.#client.send(
        new UpdateAliasCommand({ FunctionName: name, Name: LIVE, RevisionId: revision, ...change }),
      );
    } catch (error) {
      if ((error as Error).name !== 'PreconditionFailedException') throw error;
      throw conflict(name, error);
    }
  }
}

function conflict(name: string, cause?: unknown): ConflictError {
  const message = `someone else is deploying: ${name}:${LIVE} was changed meanwhile. Let them end, then run it again`;
  return new ConflictError('DEPLOYMENT_CONFLICT', message, { cause });
}

/** Waits for all, so that nothing is still under way when one failed. A conflict goes before all else that failed. */
async function allDone(changes: Promise<void>[]): Promise<void> {
  const failed = (await Promise.allSettled(changes)).filter((result) => result.status === 'rejected');
  const told = failed.find(({ reason }) => reason instanceof ConflictError) ?? failed[0];
  if (told !== undefined) throw told.reason;
}

async function found<T>(name: string, call: Promise<T>): Promise<T> {
  try {
    return await call;
  } catch (error) {
    if ((error as Error).name !== 'ResourceNotFoundException') throw error;
    throw new InputError(
      'FUNCTION_NOT_DEPLOYED',
      `${name}, or its alias ${LIVE}, is not there; Terraform makes it: run npm run deploy without --functions-only`,
      { cause: error },
    );
  }
}
