import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import type { SpanQuery } from '../client/index.ts';
import { failureText, UpstreamError } from '../errors.ts';
import type { StoredSpan } from '../span/index.ts';
import { cell, listing, moreOf, plain, show, table } from './output.ts';
import { openSession, type Session } from './session.ts';
import { wholeNumber } from './values.ts';

/** How often `tail` looks for new spans when there are none, and when the system does not answer. */
const POLL_MS = 400;
const AWAY_MS = 2_000;

interface FilterOptions {
  entityType?: string;
  status?: string;
  name?: string;
  parent?: string;
  causedBy?: string;
  trace?: string;
  owner?: string;
}

/** Commands that look at spans and change nothing. */
export function addLookCommands(program: Command): void {
  withFilter(program.command('spans').description('list spans, newest first'))
    .option('--limit <n>', 'at most so many', wholeNumber, 20)
    .option('--before <place>', 'go on where an earlier list ended')
    .action(async (options: FilterOptions & { limit: number; before?: string }, command: Command) => {
      const session = await openSession(command.optsWithGlobals());
      const page = await session.client.spans({ ...queryOf(options), limit: options.limit }, options.before);
      show(session, page, () => {
        const rows = page.spans.map((span) => [
          span.at,
          span.entity_type,
          span.who,
          span.did,
          span.name,
          span.status,
          span.id,
        ]);
        return table(['at', 'type', 'who', 'did', 'name', 'status', 'id'], rows) + moreOf(page);
      });
    });

  program
    .command('span')
    .description('show a span: its newest version, all of them, or their proof')
    .argument('<id>')
    .option('--versions', 'its versions, oldest first')
    .option('--after <seq>', 'go on where an earlier list of versions ended', wholeNumber)
    .option('--verify', 'hash every version anew and check its signature; exit 1 when one does not prove itself')
    .action(async (id: string, options: { versions?: boolean; after?: number; verify?: boolean }, command: Command) => {
      const session = await openSession(command.optsWithGlobals());
      if (options.verify === true) await showProof(session, id);
      else if (options.versions === true) await showVersions(session, id, options.after);
      else {
        const span = await session.client.span(id);
        show(session, span, () => listing(span));
      }
    });

  withFilter(program.command('tail').description('show spans as they are appended; Ctrl-C ends it'))
    .option('--after <position>', 'from this position on, and not only what is new; `start` for all')
    .action(async (options: FilterOptions & { after?: string }, command: Command) => {
      const session = await openSession(command.optsWithGlobals());
      await tail(session, queryOf(options), options.after);
    });
}

async function showVersions(session: Session, id: string, after: number | undefined): Promise<void> {
  const answer = await session.client.versions(id, { after });
  show(session, answer, () => {
    const rows = answer.versions.map(({ seq, at, who, did, status, curr_hash }) => [
      seq,
      at,
      who,
      did,
      status,
      curr_hash.slice(0, 16),
    ]);
    const more = answer.next === null ? '' : `more with --after ${answer.next}\n`;
    return table(['seq', 'at', 'who', 'did', 'status', 'hash'], rows) + more;
  });
}

async function showProof(session: Session, id: string): Promise<void> {
  const proof = await session.client.verify(id);
  while (proof.next !== null) {
    const { ok, versions, problems, next } = await session.client.verify(id, { after: proof.next });
    proof.ok &&= ok;
    proof.versions.push(...versions);
    proof.problems.push(...problems);
    proof.next = next;
  }
  show(session, proof, () => {
    const rows = proof.versions.map(({ seq, curr_hash, public_key, ok }) => [
      seq,
      ok ? 'proved' : 'NOT PROVED',
      curr_hash.slice(0, 16),
      public_key.slice(0, 16),
    ]);
    const problems = proof.problems.map((problem) => [problem.seq, problem.class, problem.detail]);
    return (
      table(['seq', 'proof', 'hash', 'key'], rows) +
      (problems.length === 0 ? '' : `\n${table(['seq', 'class', 'problem'], problems)}`)
    );
  });
  process.exitCode = proof.ok ? 0 : 1;
}

/** The timeline from a position on, for ever. While the system is away it waits, and then misses nothing. */
async function tail({ client, isJson }: Session, query: SpanQuery, from: string | undefined): Promise<void> {
  let after = from === 'start' ? undefined : (from ?? (await client.timeline('end')).position);
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      if (!isJson && after !== undefined) process.stderr.write(`go on with --after ${after}\n`);
      process.exit(0);
    });
  }
  for (let isAway = false; ; ) {
    try {
      const page = await client.timeline(after, query);
      isAway = false;
      for (const span of page.spans) process.stdout.write(isJson ? `${JSON.stringify(span)}\n` : lineOf(span));
      const isEnd = page.position === (after ?? page.position);
      after = page.position;
      if (isEnd) await sleep(POLL_MS);
    } catch (error) {
      if (!(error instanceof UpstreamError)) throw error;
      if (!isAway) process.stderr.write(plain(`waiting: ${failureText(error, '')}`));
      isAway = true;
      await sleep(AWAY_MS);
    }
  }
}

function lineOf(span: StoredSpan): string {
  const time = span.at.slice(11, 23);
  const said = [span.who, span.did, span.this].filter((word) => word != null).map((word) => cell(word));
  const version = span.seq === 0 ? '' : ` v${span.seq}`;
  return `${time}  ${cell(span.entity_type).padEnd(16)}  ${cell(span.status).padEnd(9)}  ${span.id}${version}  ${said.join(' ')}\n`;
}

function withFilter(command: Command): Command {
  return command
    .option('--entity-type <type>', 'such as execution, request or function')
    .option('--status <status>')
    .option('--name <name>')
    .option('--parent <id>', 'the parent_id: executions of a function')
    .option('--caused-by <id>', 'what a request or boot brought about')
    .option('--trace <id>', 'the trace_id')
    .option('--owner <user>', 'the owner_id');
}

function queryOf(options: FilterOptions): SpanQuery {
  return {
    entity_type: options.entityType,
    status: options.status,
    name: options.name,
    parent_id: options.parent,
    caused_by: options.causedBy,
    trace_id: options.trace,
    owner: options.owner,
  };
}
