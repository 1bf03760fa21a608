import { createHash } from 'node:crypto';
import { OpenAPIHono } from '@hono/zod-openapi';
import { html, raw } from 'hono/html';
import type { Variables } from './input.ts';
import { openApiDocument } from './openapi.ts';

type Document = ReturnType<typeof openApiDocument>;
type Html = ReturnType<typeof html>;

/** What the page needs of a schema as the document writes it. */
interface Shown {
  $ref?: string;
  type?: string | string[];
  format?: string;
  enum?: unknown[];
  const?: unknown;
  items?: Shown;
  properties?: Record<string, Shown>;
  required?: string[];
  anyOf?: Shown[];
  oneOf?: Shown[];
  allOf?: Shown[];
  description?: string;
}

interface Operation {
  operationId: string;
  summary: string;
  description?: string;
  tags: string[];
  security: object[];
  parameters?: { name: string; in: string; required?: boolean; schema: Shown & { example?: unknown } }[];
  requestBody?: { content: Record<string, { schema: Shown; examples: Record<string, { value: unknown }> }> };
  responses: Record<string, { description: string; content?: Record<string, { schema: Shown; example?: unknown }> }>;
}

/** `/openapi.json`, and `/docs`: the same for people. Neither says anything that is secret, so neither asks for a token. */
export function docsRoutes(api: OpenAPIHono<Variables>): OpenAPIHono<Variables> {
  const app = new OpenAPIHono<Variables>();
  let document: Document | undefined;
  const read = () => {
    document ??= openApiDocument(api);
    return document;
  };
  let page: string | undefined;

  app.get('/openapi.json', (c) => c.json(read()));

  app.get('/docs', async (c) => {
    page ??= String(await pageOf(read()));
    return c.html(page, 200, { 'Content-Security-Policy': POLICY, 'Referrer-Policy': 'no-referrer' });
  });

  return app;
}

function pageOf(document: Document): Html {
  const operations = Object.entries(document.paths ?? {}).flatMap(([path, methods]) =>
    Object.entries(methods as Record<string, Operation>).map(([method, operation]) => ({ path, method, operation })),
  );
  const { info, tags = [], components } = document;
  const groups = tags.map((tag) => ({
    tag,
    of: operations.filter(({ operation }) => operation.tags.includes(tag.name)),
  }));
  const schemas = Object.entries((components?.schemas ?? {}) as Record<string, Shown>);
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${info.title} API</title>
<style>${raw(STYLE)}</style>
</head>
<body>
<a class="skip" href="#content">To the routes</a>
<nav aria-label="Routes">
<p class="name">${info.title} <span>API</span></p>
${groups.map(
  ({ tag, of }) => html`<h2><a href="#${tag.name}">${tag.name}</a></h2>
<ul>${of.map(
    ({ path, method, operation }) =>
      html`<li><a href="#${operation.operationId}"><b class="${method}">${method}</b> ${breakable(path)}</a></li>`,
  )}</ul>`,
)}
<h2><a href="#schemas">Schemas</a></h2>
</nav>
<main id="content" tabindex="-1">
<h1>${info.title} API</h1>
<p>${code(info.description ?? '')}</p>
<p>The same for programs: <a href="/openapi.json">openapi.json</a>, OpenAPI ${document.openapi}. In the examples
<code>$URL</code> is where the system answers and <code>$TOKEN</code> your token. Ids in them stand for your own.</p>
${groups.map(
  ({ tag, of }) => html`<section aria-labelledby="${tag.name}">
<h2 id="${tag.name}">${tag.name}</h2>
<p>${code(tag.description ?? '')}</p>
${of.map(({ path, method, operation }) => operationOf(path, method, operation))}
</section>`,
)}
<section aria-labelledby="schemas">
<h2 id="schemas">Schemas</h2>
${schemas.map(([name, schema]) => schemaOf(name, schema))}
</section>
</main>
</body>
</html>`;
}

function operationOf(path: string, method: string, operation: Operation): Html {
  const { operationId, summary, description, parameters = [], requestBody, responses, security } = operation;
  const body = requestBody?.content['application/json'];
  const [first, ...others] = Object.entries(body?.examples ?? {});
  const [[status, done], ...problems] = Object.entries(responses) as [Responses, ...Responses[]];
  const [mediaType, answer] = Object.entries(done.content ?? {})[0] ?? [];
  return html`<article aria-labelledby="${operationId}">
<h3 id="${operationId}"><a href="#${operationId}"><b class="${method}">${method}</b> ${breakable(path)}</a></h3>
<p class="summary">${summary}${security.length === 0 ? html` <small>no token</small>` : ''}</p>
${description === undefined ? '' : html`<p>${code(description)}</p>`}
${
  parameters.length === 0
    ? ''
    : tableOf(
        'Parameters',
        parameters.map(({ name, in: place, required, schema }) => [
          html`<code>${name}</code>${required ? html` <small>required</small>` : ''}`,
          typeOf(schema),
          html`${place === 'query' ? '' : html`<small>${place}</small> `}${code(schema.description ?? '')}`,
        ]),
      )
}
${body === undefined ? '' : html`<p>Body: ${typeOf(body.schema)}</p>`}
<h4>Example</h4>
<pre>${curlOf(path, method, operation, first?.[1].value)}</pre>
${others.map(
  ([name, { value }]) => html`<details><summary>Body: ${name}</summary><pre>${pretty(value)}</pre></details>`,
)}
<p><b>${status}</b> ${done.description} ${answer === undefined ? '' : typeOf(answer.schema)}</p>
<pre>${mediaType === 'application/json' ? pretty(answer?.example) : String(answer?.example)}</pre>
<details><summary>Problems: ${problems.map(([code]) => code).join(', ')}</summary>
<ul>${problems.map(([code, problem]) => html`<li><b>${code}</b> ${problem.description}</li>`)}</ul></details>
</article>`;
}

type Responses = [string, Operation['responses'][string]];

/** What somebody types who has nothing but a terminal. */
function curlOf(
  path: string,
  method: string,
  { parameters = [], security, responses }: Operation,
  body: unknown,
): string {
  const said = parameters.filter(({ schema }) => schema.example !== undefined);
  const place = said
    .filter(({ in: where }) => where === 'path')
    .reduce((text, { name, schema }) => text.replace(`{${name}}`, String(schema.example)), path);
  const query = said
    .filter(({ in: where }) => where === 'query')
    .map(({ name, schema }): [string, string] => [name, String(schema.example)]);
  const search = query.length === 0 ? '' : `?${new URLSearchParams(query)}`;
  const isStream = Object.values(responses).some(({ content }) => content?.['text/event-stream'] !== undefined);
  return [
    `curl${isStream ? ' -N' : ''} "$URL${place}${search}"`,
    ...(security.length === 0 ? [] : [`-H "Authorization: Bearer $TOKEN"`]),
    ...(body === undefined
      ? method === 'post'
        ? ['-X POST']
        : []
      : [`-H 'Content-Type: application/json'`, `-d '${JSON.stringify(body).replaceAll("'", "'\\''")}'`]),
  ].join(' \\\n  ');
}

function schemaOf(name: string, schema: Shown): Html {
  const properties = Object.entries(schema.properties ?? {});
  return html`<article aria-labelledby="schema-${name}">
<h3 id="schema-${name}"><a href="#schema-${name}">${name}</a></h3>
${schema.description === undefined ? '' : html`<p>${code(schema.description)}</p>`}
${
  properties.length === 0
    ? html`<p>${typeOf(schema)}</p>`
    : tableOf(
        'Fields',
        properties.map(([field, of]) => [
          html`<code>${field}</code>${schema.required?.includes(field) ? html` <small>required</small>` : ''}`,
          typeOf(of),
          code(of.description ?? ''),
        ]),
      )
}
</article>`;
}

/** A schema in a word or two, with a link to where it is told whole. */
function typeOf(schema: Shown): Html {
  const { $ref, type, format, enum: values, items, properties, allOf } = schema;
  const name = $ref?.split('/').at(-1);
  if (name !== undefined) return html`<a href="#schema-${name}">${name}</a>`;
  const forms = schema.anyOf ?? schema.oneOf;
  if (forms !== undefined) return html`${forms.map((form, i) => html`${i === 0 ? '' : ' or '}${typeOf(form)}`)}`;
  if (allOf !== undefined) return html`${allOf.map((part, i) => html`${i === 0 ? '' : ' and '}${typeOf(part)}`)}`;
  if (values !== undefined) return html`${values.join(', ')}`;
  if (schema.const !== undefined) return html`${JSON.stringify(schema.const)}`;
  if (items !== undefined) return html`list of ${typeOf(items)}`;
  if (properties !== undefined) return html`{ ${Object.keys(properties).join(', ')} }`;
  return html`${format ?? [type ?? 'any JSON'].flat().join(' or ')}`;
}

function tableOf(caption: string, rows: (Html | string)[][]): Html {
  return html`<div class="wide" tabindex="0" role="region" aria-label="${caption}"><table>
${rows.map(([name, ...cells]) => html`<tr><th scope="row">${name}</th>${cells.map((cell) => html`<td>${cell}</td>`)}</tr>`)}
</table></div>`;
}

/** Text with what stands between backticks as code. */
function code(text: string): Html {
  return html`${text.split('`').map((part, i) => (i % 2 === 0 ? part : html`<code>${part}</code>`))}`;
}

/** A path that may go on in another line behind each slash. */
function breakable(path: string): Html {
  return html`${path.split('/').map((part, i) => (i === 0 ? part : html`<wbr>/${part}`))}`;
}

function pretty(value: unknown): string {
  return JSON.stringify(value, null, 2);
}

const STYLE = `
:root { color-scheme: light dark; --ink: light-dark(#1c2024, #e6e8ea); --soft: light-dark(#5b6570, #9aa4ae);
  --ground: light-dark(#fff, #14171a); --panel: light-dark(#f5f6f8, #1c2125); --line: light-dark(#e0e3e7, #2c3338);
  --link: light-dark(#0b57b0, #79b8ff); --get: light-dark(#116a3d, #6fd39b); --post: light-dark(#8a4b00, #f0b35e); }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: var(--ground); font: 16px/1.55 system-ui, sans-serif;
  display: grid; grid-template-columns: 18rem minmax(0, 1fr); }
nav { position: sticky; top: 0; height: 100vh; overflow-y: auto; padding: 1.5rem 1rem 2rem 1.5rem;
  border-right: 1px solid var(--line); font-size: .875rem; }
nav .name { margin: 0 0 1rem; font-weight: 650; font-size: 1rem; } nav .name span { color: var(--soft); font-weight: 400; }
nav h2 { font-size: .75rem; margin: 1.25rem 0 .25rem; } nav h2 a { color: var(--soft); }
nav ul { list-style: none; margin: 0; padding: 0; } nav li a { display: block; padding: .15rem 0; color: var(--ink); }
main { padding: 2rem clamp(1rem, 4vw, 3rem) 6rem; max-width: 56rem; outline: none; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 1rem; } h2 { font-size: 1.3rem; margin: 3rem 0 .25rem; }
h3 { font-size: 1rem; margin: 0; font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
h3 a { color: inherit; } h4 { font-size: .8rem; margin: 1rem 0 .25rem; color: var(--soft); font-weight: 600; }
article { border-top: 1px solid var(--line); padding: 1.5rem 0; } :target { scroll-margin-top: 1.5rem; }
h3:target { text-decoration: underline; }
.summary { margin: .35rem 0; font-weight: 550; } small { color: var(--soft); font-weight: 400; }
a { color: var(--link); text-decoration: none; } a:hover { text-decoration: underline; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; border-radius: 2px; }
b.get, b.post { font: 700 .7rem ui-monospace, monospace; text-transform: uppercase; color: var(--get); } b.post { color: var(--post); }
code, pre { font: .85em/1.5 ui-monospace, monospace; } code { background: var(--panel); padding: .1em .3em; border-radius: 3px; }
pre { background: var(--panel); padding: .75rem 1rem; border-radius: 6px; margin: .25rem 0 .75rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .875rem; margin: .5rem 0; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .75rem .3rem 0; border-top: 1px solid var(--line); font-weight: 400; }
summary { cursor: pointer; font-size: .875rem; color: var(--soft); } details { margin: .25rem 0; }
details ul { margin: .25rem 0; padding-left: 1.25rem; font-size: .875rem; }
.skip { position: absolute; left: -999px; } .skip:focus { left: 1rem; top: 1rem; background: var(--ground); padding: .5rem; z-index: 1; }
@media (max-width: 48rem) { body { grid-template-columns: minmax(0, 1fr); }
  nav { position: static; height: auto; border-right: 0; border-bottom: 1px solid var(--line); padding: 1rem; } }
@media print { nav { display: none; } body { display: block; } }
`;

/** No script, nothing from elsewhere, and this very style. */
const POLICY = [
  "default-src 'none'",
  `style-src 'sha256-${createHash('sha256').update(STYLE).digest('base64')}'`,
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');
