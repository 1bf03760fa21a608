import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Ready } from '../../src/local/stack.ts';
import { createHome, descendantsOf, isAlive, StackProcess } from './stack-process.ts';

let home: string;
let remove: () => Promise<void>;
let stack: StackProcess;
let ready: Ready;
beforeAll(async () => {
  ({ home, remove } = await createHome());
  const environment = { LOGLINEOS_SANDBOX: 'function', OPENAI_API_KEY: 'sk-mark' };
  ({ stack, ready } = await StackProcess.start(home, environment));
});
afterAll(async () => {
  await stack?.kill('SIGTERM');
  await remove?.();
});

/** Descendants of a process that run this file. */
const running = (file: string, parent = stack.child.pid as number) =>
  descendantsOf(parent).filter((pid) => readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes(file));
const untrustedChildren = (parent?: number) =>
  running('child.cjs', parent).filter((pid) => readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes('untrusted'));

async function api(method: string, path: string, body?: unknown) {
  const headers = { Authorization: `Bearer ${ready.token}`, 'Content-Type': 'application/json' };
  const response = await fetch(`${ready.url}${path}`, {
    method,
    headers,
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return response.json() as Promise<Record<string, unknown>>;
}

async function executed(code: string, more: object = {}) {
  const { id } = await api('POST', '/api/spans', { entity_type: 'function', name: 'f', code });
  const { request_id } = await api('POST', '/api/execute', { span_id: id, input: { a: 20 }, max_attempts: 1, ...more });
  const request = () => api('GET', `/api/requests/${request_id}`);
  await expect.poll(async () => (await request()).finished_at, { timeout: 15_000 }).not.toBeNull();
  return request();
}

describe('the local stack with untrusted code in a function of its own', () => {
  it('boots, and its functions run in a process without an environment', async () => {
    expect(ready.boot).toMatchObject({ ok: true, verified: true, output: { result: 42 } });
    const [host = 0, ...others] = running('sandbox-process.ts');
    expect(others).toEqual([]);
    expect(untrustedChildren()).toEqual(untrustedChildren(host));
    expect(untrustedChildren(host)).not.toEqual([]);
    const variables = readFileSync(`/proc/${host}/environ`, 'latin1').split('\0').filter(Boolean);
    // How the parent is reached; Node takes it out when it starts.
    expect(variables.filter((variable) => !variable.startsWith('NODE_CHANNEL_'))).toEqual([]);
    for (const child of untrustedChildren(host)) {
      const own = readFileSync(`/proc/${child}/environ`, 'latin1');
      expect(own.replace(/^(PWD=[^\0]*|_=[^\0]*|OLDPWD=[^\0]*|SHLVL=\d+|\0)*$/, '')).toBe('');
    }
  });

  it('runs code once, and requests, and shows them to policies', async () => {
    const boot = { boot_function_id: '00000000-0000-4000-8000-000000000001' };
    const asked = (input: unknown) => api('POST', '/api/boot', { ...boot, input });
    expect(await asked({ code: 'return input.a + 1', input: { a: 1 } })).toMatchObject({ output: { result: 2 } });
    expect(await asked({ code: 'for (;;);', timeout_ms: 200 })).toMatchObject({
      output: { status: 'timeout', error: { code: 'TIMEOUT', message: 'time: at most 200 ms' } },
    });
    expect(await executed('return input.a * 2')).toMatchObject({ status: 'complete', output: 40, attempt: 1 });
    expect(await executed('throw new Error("no")')).toMatchObject({
      status: 'dead',
      error: { code: 'THREW', message: 'no' },
    });
    const metrics = async () => ((await api('GET', '/api/spans?entity_type=metric')).spans as unknown[]).length;
    await expect.poll(metrics, { timeout: 15_000 }).toBeGreaterThan(3);
  });

  it('goes on when the process died, and no attempt counts for it', async () => {
    const [host = 0] = running('sandbox-process.ts');
    const request = executed('const end = Date.now() + 700; while (Date.now() < end); return 1');
    await new Promise((resolve) => setTimeout(resolve, 400));
    process.kill(host, 'SIGKILL');
    expect(await request).toMatchObject({ status: 'complete', output: 1, attempt: 1 });
    expect(running('sandbox-process.ts')).not.toEqual([host]);
  });

  it('leaves nothing behind when it is killed', async () => {
    const all = descendantsOf(stack.child.pid as number).filter((pid) =>
      [...running('sandbox-process.ts'), ...running('child.cjs')].includes(pid),
    );
    expect(all.length).toBeGreaterThan(1);
    await stack.kill('SIGKILL');
    await expect.poll(() => all.filter(isAlive), { timeout: 5_000 }).toEqual([]);
  });

  it('is not guessed from a word that says neither', async () => {
    const { code, stderr } = await new StackProcess(home, { LOGLINEOS_SANDBOX: 'lambda' }).refused();
    expect([code, stderr]).toEqual([1, expect.stringMatching(/LOGLINEOS_SANDBOX: expected children or function/)]);
  });
});
