import { EXAMPLE_FUNCTION_ID, EXAMPLE_REQUEST_ID, EXAMPLE_TOKEN_ID } from '../../src/api/schemas.ts';
import { appendSpans } from '../../src/ledger/index.ts';
import type { AnyJson, Installation } from '../stage0/installation.ts';
import { ALICE, contextOf } from '../support/spans.ts';

/** A route as the document tells it. */
export interface Operation {
  path: string;
  method: string;
  operation: AnyJson;
}

export function operationsOf(document: AnyJson): Operation[] {
  return Object.entries<AnyJson>(document.paths).flatMap(([path, methods]) =>
    Object.entries<AnyJson>(methods).map(([method, operation]) => ({ path, method, operation })),
  );
}

interface ExampleRequest {
  url: string;
  init: RequestInit;
  /** The one that `/docs` shows whole. */
  isFirst: boolean;
}

/** The requests that the document gives as examples of a route, by the names of their bodies. */
export function examplesOf(path: string, method: string, { parameters = [], requestBody }: AnyJson) {
  const said = parameters.filter(({ schema }: AnyJson) => schema.example !== undefined);
  let place = path;
  const query = new URLSearchParams();
  for (const { name, in: where, schema } of said) {
    if (where === 'path') place = place.replace(`{${name}}`, schema.example);
    else query.append(name, schema.example);
  }
  const url = query.size === 0 ? place : `${place}?${query}`;
  const bodies = Object.entries<AnyJson>(requestBody?.content['application/json'].examples ?? { '': {} });
  return bodies.map(([name, { value }], i): [string, ExampleRequest] => [
    name,
    {
      url,
      init: { method: method.toUpperCase(), ...(value === undefined ? {} : { body: JSON.stringify(value) }) },
      isFirst: i === 0,
    },
  ]);
}

/** What the ids in the examples stand for: spans of Alice's. */
export async function prepareExamples({ stage0 }: Installation): Promise<void> {
  const fn = { id: EXAMPLE_FUNCTION_ID, entity_type: 'function', name: 'order', code: 'return input;' };
  const request = {
    id: EXAMPLE_REQUEST_ID,
    entity_type: 'request',
    status: 'scheduled',
    parent_id: fn.id,
    name: fn.name,
  };
  const token = { id: EXAMPLE_TOKEN_ID, entity_type: 'api_token', status: 'active', content: { scopes: [] } };
  await appendSpans(stage0.database, [fn, request, token], contextOf(ALICE));
}
