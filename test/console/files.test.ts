import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, it } from 'vitest';
import { consoleRoutes, readConsole } from '../../src/api/console.ts';
import { buildConsole } from '../../src/console/build.ts';

const SCRIPT_BYTES_MAX = 72 * 1024;

describe('the files of the console', () => {
  const app = consoleRoutes(buildConsole);

  it('come with a policy that allows their own server and nothing else', async () => {
    for (const [path, type] of Object.entries({
      '/': 'text/html; charset=utf-8',
      '/main.js': 'text/javascript; charset=utf-8',
      '/style.css': 'text/css; charset=utf-8',
      '/icon.svg': 'image/svg+xml',
    })) {
      const response = await app.request(path);
      expect([path, response.status, response.headers.get('Content-Type')]).toEqual([path, 200, type]);
      const policy = response.headers.get('Content-Security-Policy') ?? '';
      expect(policy).toMatch(/^default-src 'none'; script-src 'self'; style-src 'self'; /);
      expect(policy).toContain("require-trusted-types-for 'script'");
      expect(policy).not.toMatch(/unsafe|https?:|\*/);
      expect(response.headers.get('X-Content-Type-Options')).toBe('nosniff');
    }
  });

  it('have no script or style within the page', async () => {
    const page = await (await app.request('/')).text();
    expect(page).not.toMatch(/<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)/);
    expect([...page.matchAll(/(?:src|href)="([^"#][^"]*)"/g)].map(([, path]) => path)).toEqual([
      'console/icon.svg',
      'console/style.css',
      'console/main.js',
      'console/icon.svg',
    ]);
  });

  it('are small', async () => {
    const script = (await buildConsole()).get('main.js') as Uint8Array;
    expect(script.length).toBeLessThan(SCRIPT_BYTES_MAX);
  });

  it('are not sent twice to who has them', async () => {
    const etag = (await app.request('/main.js')).headers.get('ETag') as string;
    const again = await app.request('/main.js', { headers: { 'If-None-Match': etag } });
    expect([again.status, await again.text()]).toEqual([304, '']);
    expect((await app.request('/main.js', { headers: { 'If-None-Match': '"another"' } })).status).toBe(200);
  });

  it('are served from a folder as they are when they were just built', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'loglineos-console-'));
    try {
      for (const [name, bytes] of await buildConsole()) await writeFile(join(folder, name), bytes);
      const kept = consoleRoutes(() => readConsole(pathToFileURL(`${folder}/`)));
      for (const path of ['/', '/main.js', '/style.css', '/icon.svg']) {
        const [here, there] = [await app.request(path), await kept.request(path)];
        expect([path, there.status, there.headers.get('ETag')]).toEqual([path, 200, here.headers.get('ETag')]);
        expect(await there.text()).toBe(await here.text());
      }
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('are all there is: another name is not found', async () => {
    for (const path of ['/main.ts', '/..%2fbuild.ts', '/tsconfig.json', '/__proto__']) {
      expect([path, (await app.request(path)).status]).toEqual([path, 404]);
    }
  });

  it('are asked for again after they could not be had', async () => {
    let tries = 0;
    const flaky = consoleRoutes(() => (++tries === 1 ? Promise.reject(new Error('disk')) : buildConsole()));
    flaky.onError((_error, c) => c.text('failed', 500));
    expect((await flaky.request('/')).status).toBe(500);
    expect((await flaky.request('/')).status).toBe(200);
    expect((await flaky.request('/main.js')).status).toBe(200);
    expect(tries).toBe(2);
  });
});
