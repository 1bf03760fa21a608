import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { Hono } from 'hono';

/** The console's files by name, as `src/console/build.ts` makes them. */
export type ConsoleFiles = ReadonlyMap<string, Uint8Array>;

/** The files as `npm run build` leaves them beside a Lambda bundle. */
export async function readConsole(folder: URL): Promise<ConsoleFiles> {
  const names = await readdir(folder);
  return new Map(await Promise.all(names.map(async (name) => [name, await readFile(new URL(name, folder))] as const)));
}

const TYPES: Record<string, string> = {
  html: 'text/html; charset=utf-8',
  css: 'text/css; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
  svg: 'image/svg+xml',
};

/** Nothing but its own files, no script or style in the page, nowhere to send to, and no way from text to markup. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join('; ');

/** `/console`: files alone, so nobody is asked for a token; the page asks for one before it asks the other routes. */
export function consoleRoutes(load: () => Promise<ConsoleFiles>): Hono {
  const app = new Hono();
  let loading: Promise<ConsoleFiles> | undefined;

  app.get('/:name?', async (c) => {
    loading ??= load().catch((error) => {
      loading = undefined; // the next one who asks may have more luck
      throw error;
    });
    const name = c.req.param('name') ?? 'index.html';
    const bytes = (await loading).get(name);
    if (bytes === undefined) return c.notFound();
    const etag = `"${createHash('sha256').update(bytes).digest('base64url')}"`;
    const headers = {
      'Content-Type': TYPES[name.slice(name.lastIndexOf('.') + 1)] ?? 'application/octet-stream',
      'Content-Security-Policy': POLICY,
      'Referrer-Policy': 'no-referrer',
      'X-Content-Type-Options': 'nosniff',
      'Cache-Control': 'no-cache',
      ETag: etag,
    };
    if (c.req.header('If-None-Match') === etag) return c.body(null, 304, headers);
    return c.body(new Uint8Array(bytes), 200, headers);
  });

  return app;
}
