import { execFile, spawnSync } from 'node:child_process';
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type Hcl, INFRA, parseHcl } from './infrastructure.ts';

export const HAS_TERRAFORM = spawnSync('terraform', ['version']).status === 0;

/** A resource or data source (`data.…`) as it is after an apply: its arguments, and what AWS would say of it. */
export interface Evaluated {
  address: string;
  type: string;
  name: string;
  values: Hcl;
}

/** What AWS would say, where our expressions look closer. Of all else it says `type.name.attribute`. */
const SAID_BY_AWS: Record<string, Record<string, Hcl>> = {
  'data.aws_region': { region: 'eu-central-1' },
  'data.aws_caller_identity': { account_id: '123456789012' },
  'data.aws_partition': { partition: 'aws' },
  'data.aws_availability_zones': { names: ['eu-central-1a', 'eu-central-1b', 'eu-central-1c'] },
  aws_apigatewayv2_api: { api_endpoint: 'wss://sockets.execute-api.eu-central-1.amazonaws.com' },
  aws_db_instance: { master_user_secret: [{ secret_arn: 'the master’s secret' }] },
  aws_lambda_alias: {
    invoke_arn: 'arn:aws:apigateway:eu-central-1:lambda:path/2015-03-31/functions/ALIAS/invocations',
  },
};

/**
 * Let Terraform itself evaluate an environment, without AWS and without its provider: every resource becomes a local value of
 * what it is given. So cycles, types, loops and all expressions are Terraform's own; what AWS would accept is not asked.
 */
export async function evaluate(root: string, variables: Record<string, unknown>): Promise<Evaluated[]> {
  const folder = await mkdtemp(join(tmpdir(), 'loglineos-terraform-'));
  try {
    for (const entry of await readdir(INFRA, { recursive: true, withFileTypes: true })) {
      if (entry.isDirectory()) await rewriteFolder(join(entry.parentPath, entry.name), folder);
    }
    const cwd = join(folder, root);
    await writeFile(join(cwd, 'rds-ca.pem'), '-----BEGIN CERTIFICATE-----');
    await writeFile(join(cwd, 'test.auto.tfvars.json'), JSON.stringify(variables));
    const terraform = (...args: string[]) =>
      promisify(execFile)('terraform', args, { cwd, maxBuffer: 1e8, env: { ...process.env, TF_IN_AUTOMATION: '1' } });
    await terraform('init', '-no-color');
    await terraform('apply', '-auto-approve', '-no-color');
    const { stdout } = await terraform('output', '-json', 'evaluated');
    return resourcesOf(JSON.parse(stdout), root);
  } finally {
    await rm(folder, { recursive: true });
  }
}

function resourcesOf({ own, modules }: Hcl, place: string): Evaluated[] {
  return [
    ...Object.entries<Hcl>(own).flatMap(([label, each]) => {
      const [, data = '', type, name] = /^(data__)?(\w+?)__(\w+)$/.exec(label) as unknown as string[];
      const said = { address: `${place} ${label}`, type: `${data && 'data.'}${type}`, name: name as string };
      return Object.values<Hcl>(each).map((values) => ({ ...said, values }));
    }),
    ...Object.entries<Hcl>(modules).flatMap(([name, each]) =>
      'own' in each
        ? resourcesOf(each, name)
        : Object.entries<Hcl>(each).flatMap(([key, one]) => resourcesOf(one, `${name}["${key}"]`)),
    ),
  ];
}

interface Declaration {
  label: string;
  isCounted: boolean;
  isKeyed: boolean;
}

async function rewriteFolder(source: string, target: string): Promise<void> {
  const folder = join(target, source.slice(INFRA.length));
  await mkdir(folder, { recursive: true });
  const files: [string, Hcl][] = [];
  for (const name of await readdir(source)) {
    if (name.endsWith('.tftpl')) await cp(join(source, name), join(folder, name));
    if (name.endsWith('.tf')) files.push([name, await parseHcl(name, await readFile(join(source, name), 'utf8'))]);
  }
  const rewriter = new Rewriter(files.map(([, hcl]) => hcl));
  for (const [name, hcl] of files) await writeFile(join(folder, `${name}.json`), JSON.stringify(rewriter.rewrite(hcl)));
  if (files.length > 0) await writeFile(join(folder, 'evaluated.tf.json'), JSON.stringify(rewriter.evaluated()));
}

/** The files of one folder, in Terraform's JSON. */
class Rewriter {
  readonly #declared = new Map<string, Declaration>();
  readonly #modules: Record<string, Hcl>;
  /** What is asked of each resource. */
  readonly #asked = new Map<string, Set<string>>();

  constructor(files: Hcl[]) {
    for (const { address, label, body } of files.flatMap(declarationsOf))
      this.#declared.set(address, { label, isCounted: 'count' in body, isKeyed: 'for_each' in body });
    this.#modules = Object.assign({}, ...files.map(({ module }) => module));
    for (const file of files) this.#expression(file); // to see what is asked
  }

  rewrite(hcl: Hcl): Hcl {
    const each = (blocks: Hcl = {}, change: (body: Hcl) => Hcl) =>
      Object.fromEntries(Object.entries<Hcl>(blocks).map(([name, [body]]) => [name, change(body)]));
    const fields = (body: Hcl, asIs: string[] = []) =>
      Object.fromEntries(
        Object.entries(body).map(([name, value]) => [name, asIs.includes(name) ? value : this.#template(value)]),
      );
    const resources = declarationsOf(hcl).map(({ address, type, label, body }) => {
      const { count, for_each, lifecycle: _, depends_on: __, ...given } = body;
      const said = {
        ...Object.fromEntries(['arn', ...(this.#asked.get(address) ?? [])].map((name) => [name, `${address}.${name}`])),
        ...SAID_BY_AWS[type],
      };
      const unsaid = Object.fromEntries(Object.entries(said).filter(([name]) => !(name in given)));
      const values = this.#expression(given);
      const one = type.endsWith('aws_iam_policy_document')
        ? `{json = jsonencode(${values})}`
        : `merge(${this.#expression(unsaid)}, ${values})`;
      const each = one.replace(/\beach\.(key|value)\b/g, 'each__$1').replace(/\bcount\.index\b/g, 'count__index');
      if (count !== undefined) return [label, `\${[for count__index in range(${this.#expression(count)}) : ${each}]}`];
      if (for_each === undefined) return [label, `\${${one}}`];
      const items = this.#expression(for_each);
      return [label, `\${{for each__key, each__value in ${items} : each__key => ${each}}}`];
    });
    const blocks = {
      variable: each(hcl.variable, ({ type, ...body }) => ({ ...body, type: type.replace(/^\$\{([\s\S]*)\}$/, '$1') })),
      locals: [...(hcl.locals ?? []).map((locals: Hcl) => fields(locals)), Object.fromEntries(resources)],
      module: each(hcl.module, (body) => fields(body, ['source'])),
      output: each(hcl.output, ({ value }) => ({ value: this.#template(value) })),
    };
    return Object.fromEntries(Object.entries(blocks).filter(([, block]) => Object.keys(block).length > 0));
  }

  /** One output more: the resources of the folder, each as a list, and those of its modules. */
  evaluated(): Hcl {
    const own = [...this.#declared.values()].map(({ label, isCounted, isKeyed }) => {
      const list = isCounted ? `local.${label}` : isKeyed ? `values(local.${label})` : `[local.${label}]`;
      return `${label} = ${list}`;
    });
    const modules = Object.entries(this.#modules).map(([name, [{ for_each }]]) =>
      for_each === undefined
        ? `${name} = module.${name}.evaluated`
        : `${name} = {for key, each in module.${name} : key => each.evaluated}`,
    );
    return { output: { evaluated: { value: `\${{own = {${own.join(', ')}}, modules = {${modules.join(', ')}}}}` } } };
  }

  #template(value: Hcl): Hcl {
    return value === undefined ? undefined : `\${${this.#expression(value)}}`;
  }

  /** A value of HCL's JSON as an expression. */
  #expression(value: Hcl): string {
    if (typeof value === 'string') return this.#text(value);
    if (typeof value !== 'object' || value === null) return String(value);
    if (Array.isArray(value)) return `[${value.map((item) => this.#expression(item)).join(', ')}]`;
    const { dynamic = {}, ...fields } = value;
    const blocks = Object.entries<Hcl>(dynamic).map(([name, list]) => [
      JSON.stringify(name),
      // Each block of a kind, and the kinds of one name one after the other, behind those that are written out.
      `concat(${[
        this.#expression(fields[name] ?? []),
        ...list.map(({ for_each, content }: Hcl) => {
          const items = `[for key, value in ${this.#expression(for_each)} : {key = key, value = value}]`;
          return `[for ${name} in ${items} : ${this.#expression(content[0])}]`;
        }),
      ].join(', ')})`,
    ]);
    const written = Object.entries(fields)
      .filter(([name]) => !(name in dynamic))
      .map(([name, item]) => [name.includes('${') ? this.#text(name) : JSON.stringify(name), this.#expression(item)]);
    return `{${[...written, ...blocks].map(([name, item]) => `${name} = ${item}`).join(', ')}}`;
  }

  #text(text: string): string {
    const parts = partsOf(text);
    const [only] = parts;
    if (parts.length === 1 && only?.isExpression) return `(${this.#references(only.text)})`;
    return `"${parts
      .map((part) =>
        part.isExpression ? `\${${this.#references(part.text)}}` : JSON.stringify(part.text).slice(1, -1),
      )
      .join('')}"`;
  }

  #references(expression: string): string {
    return expression
      .replace(/ephemeral\.\w+\.\w+(\[[^\]]*\])?\.\w+/g, '"drawn"')
      .replace(
        REFERENCE,
        (whole, data: string | undefined, type: string, name: string, index = '', attribute?: string) => {
          const address = `${data ?? ''}${type}.${name}`;
          if (!this.#declared.has(address)) return whole;
          const place = `local.${labelOf(data, type, name)}`;
          if (attribute !== undefined) {
            if (!this.#asked.has(address)) this.#asked.set(address, new Set());
            this.#asked.get(address)?.add(attribute);
            return `${place}${index}.${attribute}`;
          }
          return `${place}${index}`;
        },
      );
  }
}

const REFERENCE = /(?<![\w.\-"])(data\.)?(aws_\w+|archive_file)\.(\w+)(\[[^\]]*\])?(?:\.(\w+))?/g;

const labelOf = (data: string | undefined, type: string, name: string) =>
  `${data === undefined ? '' : 'data__'}${type}__${name}`;

function declarationsOf({ resource = {}, data = {} }: Hcl) {
  const of = (prefix: string, types: Hcl) =>
    Object.entries<Hcl>(types).flatMap(([type, named]) =>
      Object.entries<Hcl>(named).map(([name, [body]]) => ({
        address: `${prefix}${type}.${name}`,
        type: `${prefix}${type}`,
        label: labelOf(prefix === '' ? undefined : prefix, type, name),
        body,
      })),
    );
  return [...of('', resource), ...of('data.', data)];
}

/** A template, as literal text and the expressions within `${…}`. */
function partsOf(text: string): { isExpression: boolean; text: string }[] {
  const parts: { isExpression: boolean; text: string }[] = [];
  let literal = '';
  for (let i = 0; i < text.length; ) {
    if (text.startsWith('$${', i)) {
      literal += '$${';
      i += 3;
    } else if (text.startsWith('${', i)) {
      const end = endOfExpression(text, i + 2);
      if (literal !== '') parts.push({ isExpression: false, text: literal });
      literal = '';
      parts.push({ isExpression: true, text: text.slice(i + 2, end) });
      i = end + 1;
    } else literal += text[i++];
  }
  if (literal !== '' || parts.length === 0) parts.push({ isExpression: false, text: literal });
  return parts;
}

/** Where the brace is that closes what is open at `from`; braces and quotes may stand within each other. */
function endOfExpression(text: string, from: number): number {
  const open: ('{' | '"')[] = ['{'];
  for (let i = from; i < text.length; i++) {
    const isQuoted = open.at(-1) === '"';
    if (isQuoted && text[i] === '\\') i++;
    else if (text[i] === '"') isQuoted ? open.pop() : open.push('"');
    else if (text[i] === '{' && (!isQuoted || (text[i - 1] === '$' && text[i - 2] !== '$'))) open.push('{');
    else if (text[i] === '}' && !isQuoted) {
      open.pop();
      if (open.length === 0) return i;
    }
  }
  throw new Error(`no end of the expression in ${text}`);
}
