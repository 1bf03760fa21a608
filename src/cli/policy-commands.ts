import { readFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { type Command, Option } from 'commander';
import type { Client } from '../client/index.ts';
import { InputError } from '../errors.ts';
import type { Json, StoredSpan } from '../span/index.ts';
import type { SimulatedAnswer } from '../work/index.ts';
import { readCode } from './code-check.ts';
import { count, moreOf, show, table } from './output.ts';
import { continued, visibilityOption } from './run-commands.ts';
import { openSession, type Session } from './session.ts';
import { findOwn, readJsonOption, readText, wholeNumber } from './values.ts';

interface PolicyOptions {
  name: string;
  match?: string;
  params?: string;
  rules?: string;
  trigger?: string;
  visibility?: 'private' | 'tenant';
}

interface SimulateOptions extends PolicyOptions {
  from?: string;
  to?: string;
  tenantWide?: boolean;
}

/** `loglineos policy …`: deploy one, list them, take one out of work, or see what it would have done. */
export function addPolicyCommands(program: Command): void {
  const policy = program.command('policy').description('policies: code that answers to new spans');

  withContent(
    policy.command('deploy').description('append a policy, or its next version when you have one of this name'),
  )
    .argument('<file>', 'JavaScript')
    .requiredOption('--name <name>', 'what it is called')
    .addOption(visibilityOption())
    .action(async (file: string, options: PolicyOptions, command: Command) => {
      const session = await openSession(command.optsWithGlobals());
      const [code, content] = [await readCode(file, 'on'), await readContent(options)];
      const before = await findOwn(session.client, 'policy', options.name);
      const kept = { ...((before?.content ?? {}) as object), ...content } as { match?: unknown };
      if (kept.match === undefined) {
        throw new InputError('FIELD_MISSING', '--match is missing: which spans it wants; {} for all', {
          field: 'match',
        });
      }
      const deployed = await session.client.append({
        ...continued(before, options.name, options.visibility),
        entity_type: 'policy',
        did: 'deployed',
        status: 'active',
        code,
        language: 'javascript',
        content: kept as Json,
      });
      show(session, deployed, () => `${options.name} is ${deployed.id}, version ${deployed.seq}\n`);
    });

  policy
    .command('list')
    .description('list those that you can see, newest first')
    .option('--limit <n>', 'at most so many', wholeNumber, 20)
    .option('--before <place>', 'go on where an earlier list ended')
    .action(async (options: { limit: number; before?: string }, command: Command) => {
      const session = await openSession(command.optsWithGlobals());
      const page = await session.client.spans({ entity_type: 'policy', limit: options.limit }, options.before);
      show(session, page, () => {
        const rows = page.spans.map(({ name, status, seq, content, owner_id, id }) => {
          const { trigger } = (content ?? {}) as { trigger?: Json };
          return [name, status, seq, trigger ?? 'span', owner_id, id];
        });
        return table(['name', 'status', 'version', 'trigger', 'owner', 'id'], rows) + moreOf(page);
      });
    });

  policy
    .command('retire')
    .description('append a version of a policy that is asked no more; deploy begins it again')
    .argument('<name>', 'of your policy')
    .action(async (name: string, _options: object, command: Command) => {
      const session = await openSession(command.optsWithGlobals());
      const before = await ownPolicy(session.client, name);
      const retired = await session.client.append({
        ...continued(before, name, undefined),
        entity_type: 'policy',
        did: 'retired',
        status: 'retired',
        code: before.code ?? null,
        language: before.language ?? null,
        content: before.content ?? null,
      });
      show(session, retired, () => `${name} is retired, version ${retired.seq}\n`);
    });

  withContent(policy.command('simulate').description('show what a policy would have done; nothing is written'))
    .argument('<file>', 'JavaScript')
    .option('--name <name>', 'of your policy that it would change: it is not shown what that one brought about')
    .option('--from <when>', 'only spans from this time on, or after this position of the timeline')
    .option('--to <when>', 'only spans before this time')
    .option('--tenant-wide', 'all spans that you can see, as a policy of the system would')
    .action(async (file: string, options: SimulateOptions, command: Command) => {
      await simulate(await openSession(command.optsWithGlobals()), file, options);
    });
}

async function ownPolicy(client: Client, name: string): Promise<StoredSpan> {
  const own = await findOwn(client, 'policy', name);
  if (own === undefined) throw new InputError('SPAN_NOT_FOUND', `you have no policy ${name}`);
  return own;
}

function withContent(command: Command): Command {
  return command
    .option(
      '--match <json>',
      'columns and the values that each may have, such as {"entity_type":["execution"]}; or @file',
    )
    .option('--params <json>', "the policy's own numbers; or @file")
    .option(
      '--rules <json>',
      'what may be done, such as [{"effect":"allow","actions":["read"],"resources":["**"]}]; or @file',
    )
    .addOption(new Option('--trigger <what>', 'when it is asked').choices(['span', 'expiry', 'day']));
}

/** What is said; the rest stays as it is, or as it is for everybody. */
async function readContent({ match, params, rules, trigger }: PolicyOptions): Promise<Record<string, Json>> {
  const said = {
    trigger,
    match: await readJsonOption('match', match),
    params: await readJsonOption('params', params),
    rules: await readJsonOption('rules', rules),
  };
  return Object.fromEntries(Object.entries(said).filter(([, value]) => value !== undefined)) as Record<string, Json>;
}

async function simulate(session: Session, file: string, options: SimulateOptions): Promise<void> {
  const { client } = session;
  const [code, content, me] = [await readText(file), await readContent(options), await client.me()];
  const known = options.name === undefined ? undefined : await ownPolicy(client, options.name);
  const policy = {
    id: known?.id,
    name: options.name ?? file,
    code,
    content: { match: {}, ...((known?.content ?? (await seededContent(file))) as object), ...content } as Json,
    tenantId: me.tenant_id,
    ownerId: me.user_id,
    isSystem: options.tenantWide === true,
  };
  // Only here: sandbox and database would be a good part of what every other command takes to start.
  const [{ Sandbox }, { simulatePolicy }] = await Promise.all([
    import('../kernel/index.ts'),
    import('../work/index.ts'),
  ]);
  const sandbox = new Sandbox({ maxChildren: 1 });
  try {
    const { answers, counts } = simulatePolicy(sandbox, policy, history(session, options), new Date());
    const found: SimulatedAnswer[] = [];
    for await (const answer of answers) if (answer.actions.length > 0 || answer.error !== null) found.push(answer);
    show(session, { answers: found, counts }, () => {
      const rows = found.flatMap(rowsOf);
      const heads = ['at', 'type', 'span', 'would'];
      return (
        `${rows.length === 0 ? '' : `${table(heads, rows)}\n`}${count(counts.spans, 'span')} read, ` +
        `${counts.matched} matched, ${count(counts.actions, 'action')}, ${count(counts.errors, 'error')}` +
        `${counts.limit === null ? '' : `\nstopped ${count(counts.limits, 'time')}, last by: ${counts.limit.message} (${counts.limit.code})`}` +
        `${counts.isPaused ? '; it would be paused' : ''}\n`
      );
    });
    process.exitCode = counts.errors === 0 && counts.limits === 0 ? 0 : 1;
  } finally {
    await sandbox.close();
  }
}

/** What the row beside a policy of the system says of it, see `ROW/policies`. */
async function seededContent(file: string): Promise<object> {
  const text = await readFile(join(dirname(file), '02-policies.ndjson'), 'utf8').catch(() => '');
  const rows = text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));
  return rows.find(({ code_file }) => code_file === basename(file))?.content ?? {};
}

/** The timeline of what the caller sees, page by page, between two times. */
async function* history({ client }: Session, { from, to }: SimulateOptions): AsyncGenerator<StoredSpan[]> {
  const isPosition = from !== undefined && /^[0-9a-f]{32}$/.test(from);
  const [first, last] = [isPosition ? Number.NEGATIVE_INFINITY : timeOf('from', from, 0), timeOf('to', to, Infinity)];
  for (let after = isPosition ? from : undefined; ; ) {
    const page = await client.timeline(after, { limit: 1_000 });
    if (page.spans.length === 0) return;
    yield page.spans.filter(({ at }) => Date.parse(at) >= first && Date.parse(at) < last);
    after = page.position;
  }
}

function timeOf(option: string, text: string | undefined, otherwise: number): number {
  const time = text === undefined ? otherwise : Date.parse(text);
  if (!Number.isNaN(time)) return time;
  throw new InputError('FIELD_INVALID', `--${option}: expected a time such as 2026-01-31 or 2026-01-31T12:00:00Z`, {
    field: option,
  });
}

function rowsOf({ span, actions, error }: SimulatedAnswer): unknown[][] {
  const place = [span.at, span.entity_type, span.id];
  if (error !== null) return [[...place, `fail: ${error.message} (${error.code})`]];
  return actions.map(({ emit, run, isRepeated }) => {
    const action = run === null ? `append ${emit?.entity_type}` : `run ${run.spanId}`;
    return [...place, isRepeated ? `${action}, but has already` : action];
  });
}
