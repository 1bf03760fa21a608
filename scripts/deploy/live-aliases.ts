/**
 * Which versions run is said by one alias for each function, `live`. They cannot be moved in one step, so a deployment
 * first writes what it is about to do into the description of every alias, and moves them after that. Whoever comes
 * later, perhaps because it was killed in between, reads there where each alias came from.
 *
 * So: if any alias was moved, all of them hold the same plan. If they hold different ones, none was moved.
 */
import { createHash } from 'node:crypto';

export const LIVE = 'live';

/** The alias `live` of one function, as it is now. */
export interface LiveAlias {
  /** The function's name. */
  name: string;
  version: string;
  description: string;
}

/** Function name → version. */
export type Versions = Map<string, string>;

interface Plan {
  deployment: string;
  from: string;
  to: string;
}

const PLAN = /^deployment ([0-9a-f]{12}): version (\d+) to (\d+)$/;

/** A description for each alias, by the function's name. */
export function describePlan(from: Versions, to: Versions): Map<string, string> {
  const moves = [...to].map(([name, version]) => ({ name, before: from.get(name) ?? version, version }));
  const said = moves.map(({ name, before, version }) => `${name} ${before} ${version}\n`).sort();
  const deployment = createHash('sha256').update(said.join('')).digest('hex').slice(0, 12);
  return new Map(
    moves.map(({ name, before, version }) => [name, `deployment ${deployment}: version ${before} to ${version}`]),
  );
}

/** What ran together when all was well: where a deployment that fails goes back to. */
export function goodVersions(aliases: LiveAlias[]): Versions {
  return isWhole(aliases) ? versionsOf(aliases) : formerVersions(aliases);
}

/** What ran together before the newest deployment. */
export function formerVersions(aliases: LiveAlias[]): Versions {
  if (!isOneDeployment(aliases)) return versionsOf(aliases);
  return new Map(aliases.map((alias) => [alias.name, planOf(alias)?.from ?? alias.version]));
}

/** Whether these versions are what the newest deployment was to bring, and it did. */
export function isDeployed(aliases: LiveAlias[], to: Versions): boolean {
  const hasPlan = aliases.every((alias) => planOf(alias) !== null);
  return hasPlan && isWhole(aliases) && aliases.every(({ name, version }) => to.get(name) === version);
}

/** Whether the newest deployment had anything before it. */
export function canGoBack(aliases: LiveAlias[]): boolean {
  return isOneDeployment(aliases) && aliases.map(planOf).some((plan) => plan !== null && plan.from !== plan.to);
}

/** Whether the newest deployment moved every alias to where it should be. */
function isWhole(aliases: LiveAlias[]): boolean {
  return isOneDeployment(aliases) && aliases.every((alias) => alias.version === (planOf(alias)?.to ?? alias.version));
}

/** An alias without a plan is new: it came with a function, and no deployment has got to it yet. */
function isOneDeployment(aliases: LiveAlias[]): boolean {
  const plans = aliases.map(planOf).filter((plan) => plan !== null);
  return new Set(plans.map(({ deployment }) => deployment)).size === 1;
}

function versionsOf(aliases: LiveAlias[]): Versions {
  return new Map(aliases.map(({ name, version }) => [name, version]));
}

function planOf({ description }: LiveAlias): Plan | null {
  const [, deployment, from, to] = PLAN.exec(description) ?? [];
  return deployment && from && to ? { deployment, from, to } : null;
}
