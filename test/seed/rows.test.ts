import { readFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readRowFiles } from '../../src/seed/index.ts';
import { SPAN_LENGTH_MAX } from '../../src/span/index.ts';
import { createRowFolder, KERNELS, kernelRow, MANIFEST, manifestRow, PROVIDERS, type RowFolder } from './row-folder.ts';

const INSTALLATION = { overridePublicKey: null };

let folder: RowFolder;
beforeEach(async () => {
  folder = await createRowFolder();
  await folder.write('kernels/run_code.js', 'return 1;\n');
});
afterEach(() => folder.remove());

async function expectRefusal(place: string, words: RegExp): Promise<void> {
  const refusal = readRowFiles(folder.path, INSTALLATION);
  await expect(refusal).rejects.toMatchObject({ name: 'InputError', code: 'ROW_INVALID', field: place });
  await expect(refusal).rejects.toThrow(`${place} `);
  await expect(refusal).rejects.toThrow(words);
}

describe('readRowFiles', () => {
  it('makes a draft of each line, owned by the system', async () => {
    await folder.writeRows(KERNELS, [kernelRow({ tags: ['kernel'] })]);
    expect(await readRowFiles(folder.path, INSTALLATION)).toEqual([
      {
        id: '00000000-0000-4000-8000-000000000001',
        entity_type: 'function',
        name: 'run_code_kernel',
        did: 'seeded',
        this: 'function:run_code_kernel',
        who: 'seed',
        code: 'return 1;\n',
        status: 'active',
        visibility: 'public',
        tags: ['kernel'],
        owner_id: 'system',
        tenant_id: 'system',
      },
    ]);
  });

  it('takes code byte for byte: byte order mark, CRLF, no last line end', async () => {
    const code = '\ufeff// ção 😀\r\nreturn `\\n`;\t\n\n  ';
    await folder.write('kernels/run_code.js', code);
    await folder.writeRows(KERNELS, [kernelRow()]);
    const [draft] = await readRowFiles(folder.path, INSTALLATION);
    expect(Buffer.from(draft?.code as string)).toEqual(Buffer.from(code));
  });

  it('reads the files in order, skips empty lines, and lets a file be missing', async () => {
    await folder.writeRows(PROVIDERS, [
      { ...kernelRow(), id: '00000000-0000-4000-8000-000000000100', code_file: undefined },
    ]);
    await folder.write(KERNELS, `\n${JSON.stringify(kernelRow())}\r\n\n`);
    const drafts = await readRowFiles(folder.path, INSTALLATION);
    expect(drafts.map(({ id }) => (id as string).slice(-3))).toEqual(['001', '100']);
  });

  it('puts the installation’s override key into the manifest', async () => {
    await folder.writeRows(MANIFEST, [manifestRow()]);
    const overridePublicKey = 'ab'.repeat(32);
    const [draft] = await readRowFiles(folder.path, { overridePublicKey });
    expect(draft?.content).toMatchObject({ override_pubkey_hex: overridePublicKey });
    await expect(readRowFiles(folder.path, { overridePublicKey: 'short' })).rejects.toThrow(/override_pubkey_hex/);
  });

  it('reads the project’s own ROW folder, each kernel’s code as its file has it', async () => {
    const row = new URL('../../ROW/', import.meta.url);
    const drafts = await readRowFiles(row.pathname, INSTALLATION);
    const lines = (await readFile(new URL(KERNELS, row), 'utf8'))
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    for (const { id, code_file } of lines.filter(({ code_file }) => code_file !== undefined)) {
      expect(drafts.find((draft) => draft.id === id)?.code).toBe(
        await readFile(new URL(`kernels/${code_file}`, row), 'utf8'),
      );
    }
    expect(drafts.length).toBeGreaterThan(1);
  });
});

describe('a bad line is named by file and line:', () => {
  it.each<[what: string, line: string, words: RegExp]>([
    ['no JSON', '{"id": ', /JSON/],
    ['a list', '[]', /object/],
    ['null', 'null', /object/],
    ['a text', '"x"', /object/],
    ['two objects', '{} {}', /JSON/],
    ['a byte order mark', `\ufeff${JSON.stringify(kernelRow())}`, /JSON/],
    ['no id', JSON.stringify(kernelRow({ id: undefined })), /id/],
    ['an id that is no UUID', JSON.stringify(kernelRow({ id: '00000000-0000-4000-8000-bldp00000001' })), /id/],
    ['an id in upper case', JSON.stringify(kernelRow({ id: 'AAAAAAAA-0000-4000-8000-000000000001' })), /id/],
    ['no name', JSON.stringify(kernelRow({ name: '' })), /name/],
    ['no entity_type', JSON.stringify(kernelRow({ entity_type: undefined })), /entity_type/],
    ['an empty entity_type', JSON.stringify(kernelRow({ entity_type: '' })), /entity_type/],
    ['no visibility', JSON.stringify(kernelRow({ visibility: undefined })), /visibility/],
    ['an unknown visibility', JSON.stringify(kernelRow({ visibility: 'secret' })), /visibility/],
    ['an unknown column', JSON.stringify(kernelRow({ colour: 'red' })), /colour/],
    [
      'a column named __proto__',
      '{"__proto__":{},"id":"00000000-0000-4000-8000-000000000001","name":"n","entity_type":"x","visibility":"public"}',
      /__proto__/,
    ],
    ['a wrong type', JSON.stringify(kernelRow({ priority: 'high' })), /priority/],
    [
      'a number that loses digits',
      JSON.stringify(kernelRow()).replace('}', ',"input":{"n":9007199254740993}}'),
      /input\.n/,
    ],
    ['U+0000', JSON.stringify(kernelRow({ description: 'a\0b' })), /description/],
    ['a seq', JSON.stringify(kernelRow({ seq: 0 })), /seq/],
    ['a time', JSON.stringify(kernelRow({ at: '2026-11-23T10:00:00.000Z' })), /at/],
    ['a proof', JSON.stringify(kernelRow({ signature: 'ab'.repeat(64) })), /signature/],
    ['a position', JSON.stringify(kernelRow({ position: 1 })), /position/],
    ['code in a file that is not there', JSON.stringify(kernelRow({ code_file: 'gone.js' })), /gone\.js/],
    ['code outside its folder', JSON.stringify(kernelRow({ code_file: '../run_code.js' })), /code_file/],
    ['code at an absolute path', JSON.stringify(kernelRow({ code_file: '/etc/passwd' })), /code_file/],
    ['code in no .js file', JSON.stringify(kernelRow({ code_file: '01-kernels.ndjson' })), /code_file/],
    ['a code_file that is no text', JSON.stringify(kernelRow({ code_file: 7 })), /code_file/],
  ])('%s', async (_what, line, words) => {
    const good = JSON.stringify(kernelRow({ id: '00000000-0000-4000-8000-00000000000a', name: 'good' }));
    await folder.write(KERNELS, `${good}\n\n${line}\n${good}\n`);
    await expectRefusal(`ROW/${KERNELS}:3`, words);
  });

  it('code that is not UTF-8', async () => {
    await folder.write('kernels/run_code.js', Uint8Array.of(0x2f, 0x2f, 0xff, 0x0a));
    await folder.writeRows(KERNELS, [kernelRow()]);
    await expectRefusal(`ROW/${KERNELS}:1`, /UTF-8/);
  });

  it('a row that is not UTF-8', async () => {
    const line = Buffer.from(`${JSON.stringify(kernelRow({ description: 'x?x' }))}\n`);
    line[line.indexOf('x?x') + 1] = 0xff;
    await folder.write(KERNELS, line);
    await expectRefusal(`ROW/${KERNELS}:1`, /UTF-8/);
  });

  it('code with U+0000, or too much of it', async () => {
    await folder.writeRows(KERNELS, [kernelRow()]);
    await folder.write('kernels/run_code.js', 'return "\0"');
    await expectRefusal(`ROW/${KERNELS}:1`, /code/);
    await folder.write('kernels/run_code.js', '/'.repeat(SPAN_LENGTH_MAX));
    await expectRefusal(`ROW/${KERNELS}:1`, /characters/);
  });

  it('an id that an earlier line has, in whatever file', async () => {
    await folder.writeRows(KERNELS, [kernelRow()]);
    await folder.writeRows(PROVIDERS, [kernelRow({ code_file: undefined })]);
    await expectRefusal(`ROW/${PROVIDERS}:1`, /kernels\/01-kernels\.ndjson:1/);
  });

  it.each<[what: string, content: object, words: RegExp]>([
    ['an unknown member', { extra: 1 }, /content/],
    ['a kernel id that is no UUID', { kernels: { run: 'x' } }, /kernels\.run/],
    [
      'a limit below zero',
      { throttle: { per_tenant_daily_exec_limit: -1, metered_boot_ids: [], tenants: {} } },
      /per_tenant_daily_exec_limit/,
    ],
    ['no time limit', { policy: { slow_ms: 1, timeout_ms: 0, memory_mb: 1 } }, /timeout_ms/],
  ])('a manifest with %s', async (_what, content, words) => {
    await folder.writeRows(MANIFEST, [manifestRow(content)]);
    await expectRefusal(`ROW/${MANIFEST}:1`, words);
  });
});
