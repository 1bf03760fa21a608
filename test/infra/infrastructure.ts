import { readdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join, relative } from 'node:path';

/** Its types would bring those of browsers into every file. */
export const { parse: parseHcl } = createRequire(import.meta.url)('@cdktf/hcl2json') as {
  parse: (fileName: string, text: string) => Promise<Hcl>;
};

export const INFRA = new URL('../../infra', import.meta.url).pathname;

/** Anything of HCL as JSON: blocks are lists, expressions are text in `${…}`. */
// biome-ignore lint/suspicious/noExplicitAny: what is in it, each rule knows.
export type Hcl = any;

/** A resource, or a data source: what is written between its braces. */
export interface Declared {
  /** `infra` and the folder: `modules/database`. */
  folder: string;
  type: string;
  name: string;
  body: Hcl;
}

/** All of `infra/`, as it is written. Nothing is evaluated. */
export interface Infrastructure {
  resources: Declared[];
  data: Declared[];
  ephemeral: Declared[];
  /** By folder and name. */
  modules: Record<string, Record<string, Hcl>>;
  locals: Record<string, Record<string, Hcl>>;
  variables: Record<string, Record<string, Hcl>>;
  outputs: Record<string, Record<string, Hcl>>;
  /** The blocks `terraform` and `provider` of each folder. */
  terraform: Record<string, Hcl>;
  providers: Record<string, Hcl>;
  /** What API Gateway is told, with its placeholders. */
  gateway: Hcl;
}

export async function readInfrastructure(): Promise<Infrastructure> {
  const infra: Infrastructure = {
    resources: [],
    data: [],
    ephemeral: [],
    modules: {},
    locals: {},
    variables: {},
    outputs: {},
    terraform: {},
    providers: {},
    gateway: JSON.parse(await readFile(join(INFRA, 'modules/rest_api/definition.json.tftpl'), 'utf8')),
  };
  const entries = await readdir(INFRA, { recursive: true, withFileTypes: true });
  for (const entry of entries) {
    if (!entry.isFile() || !entry.name.endsWith('.tf')) continue;
    const folder = relative(INFRA, entry.parentPath);
    const hcl = await parseHcl(entry.name, await readFile(join(entry.parentPath, entry.name), 'utf8'));
    for (const [kind, list] of [
      ['resource', infra.resources],
      ['data', infra.data],
      ['ephemeral', infra.ephemeral],
    ] as const) {
      for (const [type, named] of Object.entries<Hcl>(hcl[kind] ?? {})) {
        for (const [name, [body]] of Object.entries<Hcl>(named)) list.push({ folder, type, name, body });
      }
    }
    for (const [kind, byFolder] of [
      ['module', infra.modules],
      ['variable', infra.variables],
      ['output', infra.outputs],
    ] as const) {
      byFolder[folder] ??= {};
      for (const [name, [body]] of Object.entries<Hcl>(hcl[kind] ?? {})) byFolder[folder][name] = body;
    }
    infra.locals[folder] = Object.assign(infra.locals[folder] ?? {}, ...(hcl.locals ?? []));
    if (hcl.terraform !== undefined) infra.terraform[folder] = hcl.terraform[0];
    if (hcl.provider !== undefined) infra.providers[folder] = hcl.provider.aws[0];
  }
  return infra;
}

export function resourcesOf({ resources }: Infrastructure, ...types: string[]): Declared[] {
  return resources.filter(({ type }) => types.includes(type));
}

/** The one resource of this type in a folder, or the one of this name. */
export function theResource({ resources }: Infrastructure, folder: string, type: string, name?: string): Hcl {
  const found = resources.filter(
    (each) => each.folder === folder && each.type === type && (name === undefined || each.name === name),
  );
  if (found.length !== 1) throw new Error(`${found.length} of ${type} ${name ?? ''} in ${folder}`);
  return found[0]?.body;
}

export const placeOf = ({ folder, type, name }: Declared) => `${folder}: ${type}.${name}`;

/** What a function is given, as `infra/modules/loglineos/functions.tf` has it. */
export interface DeclaredFunction {
  timeout_s: number;
  memory_mb: number;
  database?: 'app' | 'seeder' | 'auditor' | 'master';
  secrets?: string[];
  permissions?: string[];
  environment?: Record<string, string>;
  rate?: string;
  ends_itself?: boolean;
  is_bare?: boolean;
}

export function functionsOf({ locals }: Infrastructure): Record<string, DeclaredFunction> {
  return locals['modules/loglineos']?.functions;
}

/** The permissions that functions are given by name. */
export function permissionsOf({ locals }: Infrastructure): Record<string, Hcl> {
  return locals['modules/loglineos']?.permissions;
}

/** A statement of a policy, wherever it is written. */
export interface Statement {
  place: string;
  body: Hcl;
}

/** Every statement of a role's policy: those without principals, and those of the permissions. */
export function statementsOf(infra: Infrastructure): Statement[] {
  const documents = infra.data
    .filter(({ type }) => type === 'aws_iam_policy_document')
    .flatMap((document) => {
      const { statement = [], dynamic = {} } = document.body;
      const blocks = (dynamic.statement ?? []).flatMap(({ content }: Hcl) => content);
      return [...statement, ...blocks].map((body) => ({ place: `${placeOf(document)} ${body.sid ?? ''}`, body }));
    })
    .filter(({ body }) => body.principals === undefined);
  const permissions = Object.entries(permissionsOf(infra)).map(([name, body]) => ({
    place: `permission ${name}`,
    body,
  }));
  return [...documents, ...permissions];
}
