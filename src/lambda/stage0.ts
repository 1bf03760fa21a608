import { LogLineError } from '../errors.ts';
import { type BootAnswer, invokeStage0, reapLostBoots, type Stage0 } from '../stage0/index.ts';
import { buildStage0 } from './build-stage0.ts';
import { readStage0Config } from './config.ts';
import { logMetrics } from './emf.ts';
import { loggedFunctionError } from './function-error.ts';
import { beginInvocation, type InvocationContext, log, xrayTraceId } from './log.ts';
import { onceUnlessItFails } from './once.ts';

/** Time kept back of what Lambda gives, to append the execution of a kernel that used up the rest. */
const ENDING_MS = 3_000;

/** How far back a look for lost boots goes: a starting container's first one, and those that follow. */
const FIRST_REAP_WINDOW_MS = 24 * 60 * 60 * 1000;
const REAP_WINDOW_MS = 15 * 60 * 1000;
const REAP_EVERY_MS = 60 * 1000;

const config = readStage0Config(process.env);

// One connection for a lock's transaction, one for what happens beside it.
const stage0 = onceUnlessItFails(() => buildStage0(config, 'loglineos-stage0-loader', 'kernel:0', 2));

/** `loglineos-stage0-loader`: boot the kernel that the event names. */
export async function handler(event: unknown, context: InvocationContext): Promise<BootAnswer> {
  const startedAt = performance.now();
  const endOfTime = new Date(Date.now() + context.getRemainingTimeInMillis() - ENDING_MS);
  const { boot_function_id, trace_id } = (event ?? {}) as Record<string, unknown>;
  beginInvocation(context, typeof trace_id === 'string' ? trace_id.slice(0, 128) : undefined);
  let built: Stage0 | undefined;
  const logBoot = (outcome: BootOutcome, more = {}) => {
    const kernel = built?.admissions.get(String(boot_function_id).toLowerCase())?.kernel.name;
    logBootMetrics(context.functionName, kernel ?? null, outcome, performance.now() - startedAt, more);
  };
  try {
    built = await stage0();
    const answer = await invokeStage0(built, inXrayTrace(event), endOfTime);
    const { boot_event_id, execution_id, trace_id } = answer;
    logBoot('complete', { boot_event_id, execution_id, trace_id });
    return answer;
  } catch (error) {
    const shown = loggedFunctionError(error);
    logBoot(isRefusal(error) ? 'refused' : 'error');
    throw shown;
  } finally {
    if (built !== undefined) await reapNowAndThen(built);
  }
}

/** The spans of a boot say the trace that AWS sees it in, unless the caller says another. */
function inXrayTrace(event: unknown): unknown {
  const isObject = typeof event === 'object' && event !== null && !Array.isArray(event);
  return isObject ? { trace_id: xrayTraceId(), ...event } : event;
}

type BootOutcome = 'complete' | 'refused' | 'error';

/** Nothing ran, and that was right; everything else that is thrown is an error. */
function isRefusal(error: unknown): boolean {
  return error instanceof LogLineError && error.kind !== 'upstream' && error.kind !== 'kernel';
}

/** @param kernel the name of the kernel that was admitted, so one that the manifest allows: no event can make a series. */
function logBootMetrics(
  functionName: string,
  kernel: string | null,
  outcome: BootOutcome,
  durationMs: number,
  about: Record<string, unknown>,
): void {
  const ofFunction = { FunctionName: functionName };
  logMetrics(
    [
      { name: 'BootDuration', unit: 'Milliseconds', value: durationMs },
      { name: 'BootErrors', unit: 'Count', value: outcome === 'error' ? 1 : 0 },
      { name: 'BootRefused', unit: 'Count', value: outcome === 'refused' ? 1 : 0 },
    ],
    kernel === null ? [ofFunction] : [ofFunction, { ...ofFunction, Kernel: kernel }],
    { message: 'boot', outcome, ...about },
  );
}

let reapedAt = 0;

/** Until a schedule does it: containers that live end the boots of those that died. Never the caller's trouble. */
async function reapNowAndThen(built: Stage0): Promise<void> {
  const now = Date.now();
  if (now - reapedAt < REAP_EVERY_MS) return;
  const window = reapedAt === 0 ? FIRST_REAP_WINDOW_MS : REAP_WINDOW_MS;
  reapedAt = now;
  await reapLostBoots(built, new Date(now - window), new Date(now)).catch((error) => {
    log({ level: 'error', message: 'the reaper failed', error: String(error) });
  });
}
