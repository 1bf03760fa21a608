/**
 * Every bundle under Lambda's own Runtime Interface Client, which compiles for minutes when it is installed: so only with
 * `LOGLINEOS_TEST_RIC=1`, or `npm run test:ric`. It wants cmake, autoconf, automake, libtool, g++, make and python3.
 */
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { buildAll, FUNCTIONS } from '../../scripts/build.ts';
import { descendantsOf, isAlive } from '../local/stack-process.ts';
import { RuntimeApi } from './runtime-api.ts';

const CLIENT_VERSION = '4.0.2';
const CLIENT_FOLDER = join(tmpdir(), `loglineos-ric-${CLIENT_VERSION}`);
const CLIENT = join(CLIENT_FOLDER, 'node_modules/aws-lambda-ric/index.mjs');
const DIST = new URL('../../dist', import.meta.url).pathname;

const isWanted = process.env.LOGLINEOS_TEST_RIC === '1';
if (!isWanted)
  process.stderr.write('skipped: the bundles under the Runtime Interface Client; LOGLINEOS_TEST_RIC=1 runs them\n');

/** Enough of a request that each of them can say what it lacks. */
const EVENT = { requestContext: { connectionId: 'L0SM9cOFvHcCIhw=', routeKey: '$default' } };

/** What any of them asks for, and nothing that could be reached. */
const arn = (name: string) => `arn:aws:secretsmanager:eu-central-1:123456789012:secret:${name}`;
const ENVIRONMENT = {
  AWS_REGION: 'eu-central-1',
  AWS_ACCESS_KEY_ID: 'AKID',
  AWS_SECRET_ACCESS_KEY: 'secret',
  AWS_ENDPOINT_URL: 'http://127.0.0.1:1',
  DATABASE_HOST: '127.0.0.1',
  DATABASE_NAME: 'deployed',
  DATABASE_USER: 'somebody',
  ...Object.fromEntries(
    ['DATABASE', 'APP_LOGIN', 'SEEDER_LOGIN', 'AUDITOR_LOGIN', 'ROOT', 'RUNTIME'].map((name) => [
      `${name}_SECRET_ARN`,
      arn(name),
    ]),
  ),
  TRUSTED_ROOT_KEYS: 'a'.repeat(64),
  TRUSTED_RUNTIME_KEYS: 'b'.repeat(64),
  CONNECTIONS_TABLE: 'connections',
  AUDIT_TABLE: 'audit',
  READER_FUNCTION: 'loglineos-timeline-reader',
  SANDBOX_FUNCTION: 'loglineos-sandbox',
  SOCKETS_ENDPOINT: 'http://127.0.0.1:1/prod',
};

describe.skipIf(!isWanted)('under the Runtime Interface Client', () => {
  beforeAll(async () => {
    await buildAll();
    if (existsSync(join(dirname(CLIENT), 'rapid-client.node'))) return;
    await mkdir(CLIENT_FOLDER, { recursive: true });
    const dependencies = { 'aws-lambda-ric': CLIENT_VERSION };
    const allowScripts = { 'aws-lambda-ric': true };
    await writeFile(join(CLIENT_FOLDER, 'package.json'), JSON.stringify({ private: true, dependencies, allowScripts }));
    await promisify(execFile)('npm', ['install', '--no-audit', '--no-fund'], { cwd: CLIENT_FOLDER });
  }, 900_000);

  const started: RuntimeApi[] = [];
  const start = async (name: string, env: Record<string, string> = ENVIRONMENT) => {
    const container = await RuntimeApi.start(CLIENT, join(DIST, name), env);
    started.push(container);
    return container;
  };
  afterEach(() => Promise.all(started.splice(0).map((container) => container.stop())));

  it.each(FUNCTIONS.map(({ name }) => name))('%s starts, answers, and answers again', async (name) => {
    const container = await start(name);
    expect(await container.initialized(), container.output).toBeUndefined();
    for (const when of ['cold', 'warm']) {
      const { response, error, timedOut } = await container.invoke(EVENT);
      expect([when, timedOut, container.output]).toEqual([when, undefined, expect.any(String)]);
      if (response === undefined) {
        // A code of ours, or what API Gateway makes a 401 of; never a stack.
        expect(error.errorType).toMatch(/^[A-Z][A-Z_]+$|^Error$/);
        if (error.errorType === 'Error') expect(error.errorMessage).toBe('Unauthorized');
        expect(JSON.stringify(error.trace ?? error.stackTrace ?? [])).not.toContain('index.mjs');
      } else {
        expect(response).not.toContain('index.mjs');
      }
    }
  });

  it.each(FUNCTIONS.map(({ name }) => name).filter((name) => name !== 'loglineos-sandbox'))(
    '%s does not start without its configuration, and names what is missing',
    async (name) => {
      const container = await start(name, { AWS_REGION: 'eu-central-1' });
      expect(await container.initialized()).toMatchObject({
        error: { errorMessage: expect.stringMatching(/^[A-Z_]+ is missing$/) },
      });
    },
  );

  const job = (code: string) => ({
    compartment: 'tenant:a',
    code,
    file_name: 'f.js',
    entry: 'function',
    each: false,
    input: '{"a":20}',
    timeout_ms: 60_000,
    memory_mb: 64,
    output_bytes: 1_000,
  });

  it('untrusted code runs, fails and ends in time, in a container without an environment', async () => {
    const container = await start('loglineos-sandbox', {});
    const answered = async (code: string, timeoutMs?: number) =>
      JSON.parse((await container.invoke(job(code), timeoutMs)).response ?? 'null');
    expect(await answered('return input.a + 1')).toMatchObject({ ok: true, output: 21 });
    expect(await answered('throw new Error("no")')).toMatchObject({
      ok: false,
      error: { code: 'THREW', message: 'no' },
    });
    expect(await answered('for (;;);', 2_000)).toMatchObject({ ok: false, error: { code: 'TIMEOUT' } });
    expect(await answered('return 1')).toMatchObject({ ok: true, output: 1 });
    expect(await container.invoke({ ...job('return 1'), entry: 'main' })).toMatchObject({
      error: { errorType: 'FIELD_INVALID' },
    });
  });

  it('a function that is killed at its time leaves no process', async () => {
    // Something that takes connections and says nothing.
    const silent = createServer(() => {});
    silent.listen(0, '127.0.0.1');
    await once(silent, 'listening');
    onTestFinished(() => void silent.close());
    const { port } = silent.address() as { port: number };
    const container = await start('loglineos-stage0-loader', {
      ...ENVIRONMENT,
      AWS_ENDPOINT_URL: `http://127.0.0.1:${port}`,
    });
    await container.initialized();
    const ended = container.invoke({}, 4_000);
    await expect.poll(() => descendantsOf(container.pid).length, { timeout: 3_000 }).toBeGreaterThan(0);
    const children = descendantsOf(container.pid);
    expect(children.some((pid) => readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes('child.cjs'))).toBe(true);
    expect(await ended).toEqual({ timedOut: true });
    await expect.poll(() => children.filter(isAlive), { timeout: 5_000 }).toEqual([]);
  });
});
