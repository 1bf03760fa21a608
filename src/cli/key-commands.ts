import { type Command, InvalidArgumentError, Option } from 'commander';
import { InputError } from '../errors.ts';
import { INSTANT_EXPECTED, toInstant } from '../fields.ts';
import {
  endKey,
  KEY_KINDS,
  type KeyKind,
  type KeyRing,
  keyEndsOf,
  keyEntries,
  keyId,
  publicKeyOf,
} from '../keys/index.ts';
import {
  type Database,
  readFirstPositionSince,
  readLastPosition,
  readRowsSignedBehind,
  type SignedRow,
} from '../ledger/index.ts';
import { type KeyKeeper, LocalKeys, SecretsManagerKeys } from './key-keepers.ts';
import { count, show, table } from './output.ts';
import type { GlobalOptions } from './session.ts';

/** Rows behind a cut that are listed one by one; `verify` names all of them. */
const LISTED_MAX = 1_000;

interface KeyOptions extends GlobalOptions {
  rootSecret?: string;
  runtimeSecret?: string;
  overrideSecret?: string;
}

/** A key as it is shown: all of it is public. */
interface ShownKey {
  kind: KeyKind;
  key_id: string;
  public_key: string;
  state: 'in use' | 'waiting' | 'trusted' | 'former';
  /** The last position that it counts for; null while it has no end. */
  until: number | null;
}

/** `loglineos keys …`: of the local folder, or of AWS Secrets Manager where secrets are named. */
export function addKeyCommands(program: Command): void {
  const keys = program
    .command('keys')
    .description('root and runtime keys: of the local folder, or of the secrets that are named');

  withSecrets(keys.command('list', { isDefault: true }).description('list them, with those before them')).action(
    async (_options: object, command: Command) => {
      const options = command.optsWithGlobals<KeyOptions>();
      await showKeys(keeperOf(options), options);
    },
  );

  withSecrets(keys.command('create').description('make those that are not there; what is there stays'))
    .option('--override-secret <id>', 'name or ARN of the secret with the key whose signature passes the quota')
    .action(async (_options: object, command: Command) => {
      const options = command.optsWithGlobals<KeyOptions>();
      const keeper = keeperOf(options);
      const { made, overridePublicKey } = await keeper.create();
      const override =
        keeper.isConfigured && overridePublicKey !== null ? { override_public_key: overridePublicKey } : {};
      await showKeys(keeper, options, { made, ...override });
    });

  withSecrets(keys.command('rotate').description('another key signs from now on; what was signed before stays proved'))
    .argument('<kind>', KEY_KINDS.join(' or '), kindOf)
    .option('--activate', 'put the key to use that waits in the secret, once every function trusts it', false)
    .action(async (kind: KeyKind, { activate }: { activate: boolean }, command: Command) => {
      const options = command.optsWithGlobals<KeyOptions>();
      const keeper = keeperOf(options);
      await showKeys(keeper, options, { next: await keeper.rotate(kind, { activate }) });
    });

  withSecrets(keys.command('trust').description('clients may sign their own spans with the secret half of this key'))
    .argument('<key>', 'an Ed25519 public key, 64 hex digits', publicKeyFrom)
    .action(async (publicKey: string, _options: object, command: Command) => {
      const options = command.optsWithGlobals<KeyOptions>();
      const keeper = keeperOf(options);
      await showKeys(keeper, options, { next: await keeper.trust(publicKey) });
    });

  withSecrets(keys.command('revoke').description('end a former key: what it signed from there on counts no more'))
    .argument('<key>', 'all of the public key, or its key id')
    .addOption(
      new Option('--from <when>', `${INSTANT_EXPECTED}, or a position; the end of the ledger if not said`).argParser(
        fromOf,
      ),
    )
    .action(async (key: string, { from }: { from?: number | string }, command: Command) => {
      const options = command.optsWithGlobals<KeyOptions>();
      const keeper = keeperOf(options);
      const { database, close } = await keeper.openLedger();
      try {
        await revoke(keeper, options, database, key, from);
      } finally {
        await close();
      }
    });
}

async function revoke(
  keeper: KeyKeeper,
  options: KeyOptions,
  database: Database,
  key: string,
  from: number | string | undefined,
): Promise<void> {
  const { kind, publicKey, ring } = await findFormer(keeper, key);
  const first = await firstPositionOf(database, from);
  const ended = endKey(ring, publicKey, first - 1);
  const until = ended.former.get(publicKey) as number;
  await keeper.write(kind, ended);
  const { count: rowCount, rows } = await readRowsSignedBehind(database, publicKey, until, LISTED_MAX);
  const next = keeper.isConfigured
    ? ['apply the lines above', 'loglineos verify names each of these rows with class key']
    : ['npm start', 'loglineos verify names each of these rows with class key'];
  await showKeys(keeper, options, { revoked: { public_key: publicKey, until }, row_count: rowCount, rows, next });
}

/** A key that signs no more. */
async function findFormer(
  keeper: KeyKeeper,
  key: string,
): Promise<{ kind: KeyKind; publicKey: string; ring: KeyRing }> {
  for (const kind of keeper.kinds) {
    const ring = await keeper.read(kind);
    const isMeant = (publicKey: string) => publicKey === key || keyId(publicKey) === key;
    const publicKey = [...ring.former.keys()].find(isMeant);
    if (publicKey !== undefined) return { kind, publicKey, ring };
    if (isMeant(publicKeyOf(ring.secretKey))) {
      throw new InputError('KEY_IN_USE', `${key} is the ${kind} key in use: put another in its place first (rotate)`);
    }
  }
  throw new InputError('KEY_UNKNOWN', `${key} is none of these keys; keys list shows them`);
}

/**
 * The first position that counts no more. Of an instant it is that of the first row that says it is then, or later: the
 * database gives positions in the order of appends, and whoever has the key can sign any `at`, but no earlier position.
 */
async function firstPositionOf(database: Database, from: number | string | undefined): Promise<number> {
  const next = (await readLastPosition(database)) + 1;
  if (from === undefined) return next;
  if (typeof from === 'string') {
    if (from > new Date().toISOString()) throw invalid(`${from} is yet to come`);
    return (await readFirstPositionSince(database, from)) ?? next;
  }
  if (from > next) throw invalid(`the ledger ends before position ${next}, found ${from}`);
  return from;
}

async function showKeys(
  keeper: KeyKeeper,
  options: KeyOptions,
  more: { made?: string[]; override_public_key?: string; next?: string[] } & Partial<Revocation> = {},
): Promise<void> {
  const keys: ShownKey[] = [];
  const trusted: Record<string, string[]> = {};
  for (const kind of keeper.kinds) {
    const ring = await keeper.read(kind);
    const waiting = await keeper.readWaiting(kind);
    const add = (public_key: string, state: ShownKey['state'], end = Infinity) =>
      keys.push({ kind, key_id: keyId(public_key), public_key, state, until: end === Infinity ? null : end });
    if (waiting !== null) add(publicKeyOf(waiting), 'waiting');
    add(publicKeyOf(ring.secretKey), 'in use');
    for (const [publicKey, end] of ring.former) add(publicKey, end === Infinity ? 'trusted' : 'former', end);
    trusted[`trusted_${kind}_keys`] = [
      ...(waiting === null ? [] : [publicKeyOf(waiting)]),
      ...keyEntries(keyEndsOf(ring)),
    ];
  }
  const { next, ...answer } = more;
  show({ isJson: options.json === true }, { keys, ...trusted, ...more }, () =>
    [
      table(
        ['kind', 'key id', 'state', 'until', 'public key'],
        keys.map(({ kind, key_id, state, until, public_key }) => [kind, key_id, state, until, public_key]),
      ),
      revocationText(answer),
      keeper.isConfigured ? `\n${terraformLines(trusted, more.override_public_key)}` : '',
      next === undefined ? '' : `\nnext:\n${next.map((step, i) => `  ${i + 1}. ${step}\n`).join('')}`,
    ].join(''),
  );
}

interface Revocation {
  revoked: { public_key: string; until: number };
  row_count: number;
  rows: SignedRow[];
}

function revocationText({ revoked, row_count = 0, rows = [] }: Partial<Revocation>): string {
  if (revoked === undefined) return '';
  const signed = `\n${keyId(revoked.public_key)} counts up to position ${revoked.until}; behind it, it signed ${count(row_count, 'row')}\n`;
  if (row_count === 0) return signed;
  const cells = rows.map((row) => [
    row.position,
    row.at,
    row.entity_type,
    row.tenant_id,
    row.owner_id,
    row.seq,
    row.id,
  ]);
  const rest = row_count > rows.length ? `and ${row_count - rows.length} more\n` : '';
  return signed + table(['position', 'at', 'type', 'tenant', 'owner', 'seq', 'id'], cells) + rest;
}

/** As the variables of `infra/` want them. */
function terraformLines(trusted: Record<string, string[]>, overridePublicKey: string | undefined): string {
  const lines = Object.entries(trusted).map(([name, entries]) => `${name} = ${JSON.stringify(entries)}\n`);
  if (overridePublicKey !== undefined) lines.push(`override_public_key = ${JSON.stringify(overridePublicKey)}\n`);
  return lines.join('');
}

function keeperOf({ rootSecret, runtimeSecret, overrideSecret }: KeyOptions): KeyKeeper {
  const secrets = { root: rootSecret, runtime: runtimeSecret, override: overrideSecret };
  const isNamed = Object.values(secrets).some((secret) => secret !== undefined);
  return isNamed ? new SecretsManagerKeys(secrets, process.env) : new LocalKeys(process.env);
}

function withSecrets(command: Command): Command {
  return command
    .option('--root-secret <id>', 'name or ARN of the secret in AWS Secrets Manager with the root key')
    .option('--runtime-secret <id>', 'the same of the runtime key');
}

function kindOf(text: string): KeyKind {
  const kind = KEY_KINDS.find((one) => one === text);
  if (kind !== undefined) return kind;
  throw new InvalidArgumentError(`expected ${KEY_KINDS.join(' or ')}`);
}

function publicKeyFrom(text: string): string {
  if (/^[0-9a-f]{64}$/.test(text)) return text;
  throw new InvalidArgumentError('expected 64 hex digits');
}

/** A position, or an instant in UTC. */
function fromOf(text: string): number | string {
  if (/^[1-9]\d{0,14}$/.test(text)) return Number(text);
  const instant = toInstant(text);
  if (instant !== undefined) return instant;
  throw new InvalidArgumentError(`expected a position from 1 on, or ${INSTANT_EXPECTED}`);
}

function invalid(why: string): InputError {
  return new InputError('FIELD_INVALID', `--from: ${why}`, { field: '--from' });
}
