import type { Command } from 'commander';
import type { Client, RequestChanges, RequestFilter } from '../client/index.ts';
import { InputError } from '../errors.ts';
import { count, moreOf, show, table } from './output.ts';
import { describeRequest } from './run-commands.ts';
import { openSession } from './session.ts';
import { resolveFunction, wholeNumber } from './values.ts';

/** Requests that the server changes in one call. */
const CHANGED_MAX = 1_000;

interface FilterOptions {
  status?: string;
  state?: string;
  function?: string;
  limit?: number;
}

/** `loglineos requests …`: what was asked for, and how it stands. */
export function addRequestCommands(program: Command): void {
  const requests = program.command('requests').description('requests to run a function');

  withFilter(requests.command('list', { isDefault: true }).description('list them, newest first'))
    .option('--before <place>', 'go on where an earlier list ended')
    .action(async (options: FilterOptions & { before?: string }, command: Command) => {
      const session = await openSession(command.optsWithGlobals());
      const filter = await readFilter(session.client, options);
      const page = await session.client.requests({ ...filter, limit: options.limit ?? 20 }, options.before);
      show(session, page, () => {
        const rows = page.requests.map((request) => [
          request.id,
          request.name ?? request.function_id,
          request.status,
          request.state,
          request.attempt,
          request.created_at,
          request.error?.code,
        ]);
        return table(['id', 'function', 'status', 'state', 'attempt', 'created', 'error'], rows) + moreOf(page);
      });
    });

  requests
    .command('show')
    .description('one request')
    .argument('<id>')
    .action(async (id: string, _options: object, command: Command) => {
      const session = await openSession(command.optsWithGlobals());
      const request = await session.client.request(id);
      show(session, request, () => describeRequest(request));
    });

  addChange(requests, 'cancel', 'cancelled', 'take requests out of the queue; what one is doing now is not stopped');
  addChange(requests, 'redrive', 'redriven', 'let dead requests begin again');
}

function addChange(requests: Command, how: 'cancel' | 'redrive', done: string, description: string): void {
  withFilter(requests.command(how).description(description))
    .argument('[ids...]')
    .option('--all', 'all of yours, if nothing else is said')
    .action(async (ids: string[], options: FilterOptions & { all?: boolean }, command: Command) => {
      const session = await openSession(command.optsWithGlobals());
      const filter = await readFilter(session.client, options);
      const isFiltered = options.all === true || Object.values(filter).some((value) => value !== undefined);
      if (ids.length > 0 === isFiltered) {
        throw new InputError('SELECTION_MISSING', `say which to ${how}: ids, or a filter, or --all`);
      }
      const limit = options.limit ?? Number.POSITIVE_INFINITY;
      const changes = isFiltered
        ? await changeMatching(session.client, how, filter, limit)
        : await session.client[how]({ ids });
      show(session, changes, () => {
        const { changed, unchanged } = changes;
        const others = unchanged.map(({ id, reason }) => [id, reason]);
        return `${count(changed.length, 'request')} ${done}\n${others.length === 0 ? '' : table(['left as it is', 'because'], others)}`;
      });
      process.exitCode = changes.unchanged.length === 0 ? 0 : 1;
    });
}

/** Call by call, each one once: one that is redriven and dead again before the last call is not redriven again. */
async function changeMatching(client: Client, how: 'cancel' | 'redrive', filter: RequestFilter, limit: number) {
  const all: Omit<RequestChanges, 'before'> = { changed: [], unchanged: [] };
  let before: string | undefined;
  do {
    const next = Math.min(CHANGED_MAX, limit - all.changed.length);
    const changes = await client[how]({ filter, before, limit: next });
    all.changed.push(...changes.changed);
    all.unchanged.push(...changes.unchanged);
    before = changes.before ?? undefined;
  } while (before !== undefined && all.changed.length < limit);
  return all;
}

function withFilter(command: Command): Command {
  return command
    .option('--status <status>', 'scheduled, error, complete, dead or cancelled')
    .option('--state <state>', 'where it waits: ready, delayed, leased or dead')
    .option('--function <function>', 'of this function, by id or name')
    .option('--limit <n>', 'at most so many', wholeNumber);
}

async function readFilter(client: Client, options: FilterOptions): Promise<RequestFilter> {
  return {
    status: options.status,
    state: options.state,
    function_id: options.function === undefined ? undefined : await resolveFunction(client, options.function),
  };
}
