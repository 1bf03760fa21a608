import { UpstreamError } from '../../src/errors.ts';
import type { DeployedFunctions } from './functions.ts';
import { LIVE } from './live-aliases.ts';

const LOADER = 'loglineos-stage0-loader';
/** Boots `run_code_kernel` with its own sample. */
const SAMPLE_BOOT = {
  boot_function_id: '00000000-0000-4000-8000-000000000001',
  user_id: 'test',
  tenant_id: 'system',
};

/** An alias that was moved, and a stage that was changed, are seen everywhere only after some seconds. */
const ATTEMPTS_MAX = 5;
const PAUSE_MS = 1_000;
const HEALTH_TIMEOUT_MS = 10_000;

/**
 * Boot a kernel by the alias, and ask the API how it is.
 *
 * @param version of Stage-0 that is to answer; undefined when any may.
 * @param restUrl of the REST API's stage; undefined: the API is not asked.
 * @throws {UpstreamError} `SMOKE_FAILED`, `FUNCTION_FAILED`
 */
export async function smoke(
  functions: DeployedFunctions,
  version: string | undefined,
  restUrl: string | undefined,
): Promise<void> {
  await attempt(() => bootSample(functions, version));
  if (restUrl !== undefined) await attempt(() => askHealth(restUrl));
}

async function bootSample(functions: DeployedFunctions, expected: string | undefined): Promise<void> {
  const { answer, version } = await functions.invoke(LOADER, LIVE, SAMPLE_BOOT);
  if ((answer as { ok?: unknown } | null)?.ok !== true) {
    throw new UpstreamError('SMOKE_FAILED', `${LOADER} did not answer ok to the sample boot`);
  }
  if (expected !== undefined && version !== expected) {
    throw new UpstreamError('SMOKE_FAILED', `${LOADER}:${LIVE} ran version ${version}, not ${expected}`);
  }
}

async function askHealth(restUrl: string): Promise<void> {
  const url = `${restUrl.replace(/\/$/, '')}/health`;
  let found: string | number;
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(HEALTH_TIMEOUT_MS) });
    if (response.ok) return;
    found = response.status;
  } catch (error) {
    const { cause, message } = error as Error;
    found = (cause as Error | undefined)?.message ?? message;
  }
  throw new UpstreamError('SMOKE_FAILED', `GET ${url} should answer 200, and answered ${found}`);
}

/** Tries again after a pause, but for what a function itself says. */
async function attempt(run: () => Promise<void>): Promise<void> {
  for (let tried = 1; ; tried++) {
    try {
      return await run();
    } catch (error) {
      const isFinal = error instanceof UpstreamError && error.code === 'FUNCTION_FAILED';
      if (isFinal || tried === ATTEMPTS_MAX) throw error;
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
}
