import { type Command, InvalidArgumentError } from 'commander';
import { listing, moreOf, show, table } from './output.ts';
import { openSession } from './session.ts';

const UNIT_S: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86_400 };

/** `loglineos token …`: credentials for programs, each with as little as it needs. */
export function addTokenCommands(program: Command): void {
  const token = program.command('token').description('API tokens: credentials for programs');

  token
    .command('create')
    .description('make one that speaks for you; it is shown this once')
    .requiredOption('--name <name>', 'what it is for')
    .requiredOption('--scopes <scopes>', 'what it allows, separated by commas: spans:read,execute,…')
    .option('--expires-in <time>', 'how long it lasts, such as 12h or 30d (90d)', seconds)
    .action(async (options: { name: string; scopes: string; expiresIn?: number }, command: Command) => {
      const session = await openSession(command.optsWithGlobals());
      const { name, scopes, expiresIn } = options;
      const more = expiresIn === undefined ? {} : { expires_in_s: expiresIn };
      const created = await session.client.createToken({ name, scopes: scopes.split(','), ...more });
      show(session, created, () => {
        const { id, scopes, expires_at } = created;
        return listing({ token: created.token, id, scopes: scopes.join(','), expires: expires_at });
      });
    });

  token
    .command('list', { isDefault: true })
    .description('list yours, newest first')
    .option('--before <place>', 'go on where an earlier list ended')
    .action(async ({ before }: { before?: string }, command: Command) => {
      const session = await openSession(command.optsWithGlobals());
      const page = await session.client.tokens(before);
      show(session, page, () => {
        const rows = page.tokens.map(({ id, name, status, expires_at, scopes }) => [
          id,
          name,
          status,
          expires_at,
          scopes.join(','),
        ]);
        return table(['id', 'name', 'status', 'expires', 'scopes'], rows) + moreOf(page);
      });
    });

  token
    .command('revoke')
    .description('end one, at once, with those it made')
    .argument('<id>')
    .action(async (id: string, _options: object, command: Command) => {
      const session = await openSession(command.optsWithGlobals());
      const revoked = await session.client.revokeToken(id);
      show(session, revoked, () => `${revoked.name ?? id} is ${revoked.status}\n`);
    });
}

function seconds(text: string): number {
  const [, count, unit] = /^(\d{1,6})([smhd])$/.exec(text) ?? [];
  if (count !== undefined && unit !== undefined) return Number(count) * (UNIT_S[unit] as number);
  throw new InvalidArgumentError('expected a time such as 12h or 30d');
}
