import { LogLineError } from '../errors.ts';
// By name: functions without a ledger pack this too.
import { BootFailed } from '../stage0/boot-failed.ts';
import { log } from './log.ts';

/**
 * What a caller of `lambda:Invoke` may see of an error: code and message of ours, nothing of anything else, and never
 * a stack. Lambda reports `name` as errorType and `message` as errorMessage.
 */
export function functionError(error: unknown): Error {
  const isOurs = error instanceof LogLineError || error instanceof BootFailed;
  const shown = new Error(isOurs ? error.message : 'the function failed; its log says why');
  shown.name = isOurs ? error.code : 'INTERNAL';
  shown.stack = '';
  return shown;
}

/** The same for a handler: all that is known goes to the log first. */
export function loggedFunctionError(error: unknown): Error {
  log({
    level: 'error',
    message: 'the function failed',
    error: String(error),
    cause: String((error as Error).cause ?? ''),
  });
  return functionError(error);
}
