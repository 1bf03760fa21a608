import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import openapiTypescript, { astToString } from 'openapi-typescript';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Ready } from '../../src/local/stack.ts';
import { createHome, PROJECT, StackProcess } from '../local/stack-process.ts';

/** Not imported by name: its types are there only when the test has made them. */
const CALLS = new URL('./calls.ts', import.meta.url);

let home: string;
let remove: () => Promise<void>;
let ready: Ready;
beforeAll(async () => {
  ({ home, remove } = await createHome());
  ({ ready } = await StackProcess.start(home));
});
afterAll(() => remove?.());

/** What tsc finds wrong with the calls, by types made of that document. */
async function check(document: string): Promise<string> {
  await writeFile(join(home, 'openapi.ts'), astToString(await openapiTypescript(document)));
  const tsconfig = join(home, 'tsconfig.json');
  const compilerOptions = {
    typeRoots: [`${PROJECT}node_modules/@types`],
    paths: { openapi: [join(home, 'openapi.ts')], 'openapi-fetch': [`${PROJECT}node_modules/openapi-fetch`] },
  };
  const config = { extends: `${PROJECT}tsconfig.json`, compilerOptions, include: [], files: [CALLS.pathname] };
  await writeFile(tsconfig, JSON.stringify(config));
  const run = promisify(execFile)(`${PROJECT}node_modules/.bin/tsc`, ['-p', tsconfig]);
  return run.then(
    () => '',
    ({ stdout, stderr }) => `${stdout}${stderr}`,
  );
}

it('is type-checked and works: a client that a public generator makes of /openapi.json', async () => {
  const document = await (await fetch(`${ready.url}/openapi.json`)).text();
  expect(await check(document)).toBe('');

  const { callAll } = (await import(CALLS.href)) as { callAll: (url: string, token: string) => Promise<object> };
  expect(await callAll(ready.url, ready.token)).toEqual({
    output: { total: 60 },
    attempts: 1,
    onTimeline: expect.arrayContaining(['function', 'request', 'execution']),
    next: null,
    waiting: expect.any(Number),
    refused: [400, 'FIELD_INVALID', 'id'],
    unknown: [400, 'FIELD_MISSING', 'span_id'],
  });

  // And it notices when the document says something else.
  expect(await check(document.replaceAll('"request_id"', '"id_of_request"'))).toContain('request_id');
});
