import { setTimeout as sleep } from 'node:timers/promises';
import { type Command, Option } from 'commander';
import type { Client, RequestView } from '../client/index.ts';
import { errorText } from '../errors.ts';
import type { Json, Span, StoredSpan } from '../span/index.ts';
import { readCode } from './code-check.ts';
import { listing, show } from './output.ts';
import { openSession } from './session.ts';
import { findOwn, readJsonOption, resolveFunction, resolveKernel, wholeNumber } from './values.ts';

/** How often a request that is waited for is looked at: soon at first, then less often. */
const POLL_MS = { first: 50, last: 1_000 };
const ENDS: readonly string[] = ['complete', 'dead', 'cancelled'];

interface ExecuteOptions {
  input?: string;
  wait?: boolean;
  priority?: number;
  maxAttempts?: number;
  delay?: number;
  timeout?: number;
  key?: string;
}

interface DeployOptions {
  name: string;
  input?: string;
  /** False for `--no-schedule`. */
  schedule?: string | false;
  timezone?: string;
  visibility?: 'private' | 'tenant';
}

/** Commands that run something, or bring in what is to run. */
export function addRunCommands(program: Command): void {
  program
    .command('boot')
    .description('boot a kernel and show its answer')
    .argument('<kernel>', 'its id or name')
    .option('--input <json>', 'JSON, or @file')
    .action(async (kernel: string, options: { input?: string }, command: Command) => {
      const session = await openSession(command.optsWithGlobals());
      const input = (await readJsonOption('input', options.input)) ?? null;
      const answer = await session.client.boot(await resolveKernel(session.client, kernel), input);
      show(session, answer, () =>
        listing({
          status: answer.status,
          output: answer.output,
          error: answer.error,
          took: `${answer.duration_ms} ms`,
          execution: answer.execution_id,
          boot_event: answer.boot_event_id,
        }),
      );
      process.exitCode = answer.ok ? 0 : 1;
    });

  program
    .command('execute')
    .description('ask for a run of a function')
    .argument('<function>', 'its id or name')
    .option('--input <json>', 'JSON, or @file')
    .option('--wait', 'until it has ended; exit 1 when it did not end well')
    .option('--priority <n>', 'higher goes first', wholeNumber)
    .option('--max-attempts <n>', 'times that it may run', wholeNumber)
    .option('--delay <ms>', 'not before so many milliseconds', wholeNumber)
    .option('--timeout <ms>', 'at most so long, each time', wholeNumber)
    .option('--key <text>', 'idempotency key: the same key never asks twice')
    .action(async (fn: string, options: ExecuteOptions, command: Command) => {
      const session = await openSession(command.optsWithGlobals());
      const asked = await session.client.execute({
        span_id: await resolveFunction(session.client, fn),
        input: await readJsonOption('input', options.input),
        priority: options.priority,
        max_attempts: options.maxAttempts,
        delay_ms: options.delay,
        timeout_ms: options.timeout,
        ...(options.key === undefined ? {} : { idempotency_key: options.key }),
      });
      if (options.wait !== true) {
        show(session, asked, () => listing({ request: asked.request_id, status: asked.status }));
        return;
      }
      const request = await waitForEnd(session.client, asked.request_id);
      show(session, request, () => describeRequest(request));
      process.exitCode = request.status === 'complete' ? 0 : 1;
    });

  program
    .command('deploy')
    .description('append a function, or its next version when you have one of this name')
    .argument('<file>', 'JavaScript')
    .requiredOption('--name <name>', 'what it is called')
    .option('--input <json>', 'what it is given each time it is due; JSON, or @file')
    .option('--schedule <when>', 'run it by the clock: cron, or an ISO 8601 duration such as PT10M')
    .option('--no-schedule', 'do not run it by the clock any more')
    .option('--timezone <zone>', 'of the schedule, such as Europe/Lisbon')
    .addOption(visibilityOption())
    .action(async (file: string, options: DeployOptions, command: Command) => {
      const session = await openSession(command.optsWithGlobals());
      const code = await readCode(file, 'function');
      const input = await readJsonOption('input', options.input);
      const before = await findOwn(session.client, 'function', options.name);
      const draft = functionDraft(code, options, before);
      const deployed = await session.client.append({ ...draft, input: input ?? before?.input ?? null });
      show(session, deployed, () => `${options.name} is ${deployed.id}, version ${deployed.seq}\n`);
    });
}

export function visibilityOption(): Option {
  return new Option('--visibility <who>', 'who may see it').choices(['private', 'tenant']);
}

/** What is not said stays as it was in the version before. */
function functionDraft(code: string, options: DeployOptions, before: StoredSpan | undefined): Span {
  const { schedule: scheduleBefore, timezone, policy: _policy, ...metadata } = (before?.metadata ?? {}) as Row;
  const schedule = options.schedule === false ? undefined : (options.schedule ?? scheduleBefore);
  if (schedule !== undefined) metadata.schedule = schedule;
  if (schedule !== undefined && (options.timezone ?? timezone) !== undefined) {
    metadata.timezone = options.timezone ?? (timezone as Json);
  }
  return {
    ...continued(before, options.name, options.visibility),
    entity_type: 'function',
    did: 'deployed',
    status: schedule === undefined ? 'active' : 'scheduled',
    code,
    language: 'javascript',
    metadata: Object.keys(metadata).length === 0 ? null : metadata,
  };
}

type Row = Record<string, Json>;

/** A span of this name, or its next version: which fails if somebody else appends that one first. */
export function continued(before: StoredSpan | undefined, name: string, visibility: DeployOptions['visibility']): Span {
  return {
    ...(before === undefined ? {} : { id: before.id, seq: before.seq + 1 }),
    name,
    description: before?.description ?? null,
    visibility: visibility ?? before?.visibility ?? 'private',
  };
}

async function waitForEnd(client: Client, id: string): Promise<RequestView> {
  for (let wait = POLL_MS.first; ; wait = Math.min(wait * 1.5, POLL_MS.last)) {
    const request = await client.request(id);
    if (ENDS.includes(request.status)) return request;
    await sleep(wait);
  }
}

export function describeRequest(request: RequestView): string {
  return listing({
    request: request.id,
    function: request.name === null ? request.function_id : `${request.name} (${request.function_id})`,
    status: request.status,
    waits: request.state === request.status ? null : request.state,
    attempt: request.max_attempts === null ? request.attempt : `${request.attempt} of ${request.max_attempts}`,
    created: request.created_at,
    scheduled: request.scheduled_at,
    started: request.started_at,
    finished: request.finished_at,
    output: request.output,
    error: request.error === null ? null : errorText(request.error),
    executions: request.execution_ids.length === 0 ? null : request.execution_ids.join('\n'),
  });
}
