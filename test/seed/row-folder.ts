import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

/** A `ROW/` folder of a test's own. */
export interface RowFolder {
  path: string;
  write(file: string, content: string | Uint8Array): Promise<void>;
  /** One JSON object a line. */
  writeRows(file: string, rows: object[]): Promise<void>;
  remove(): Promise<void>;
}

export const KERNELS = 'kernels/01-kernels.ndjson';
export const MANIFEST = 'manifest/03-manifest.ndjson';
export const PROVIDERS = 'providers/04-providers.ndjson';

export async function createRowFolder(): Promise<RowFolder> {
  const path = await mkdtemp(join(tmpdir(), 'loglineos-row-'));
  const write: RowFolder['write'] = async (file, content) => {
    await mkdir(dirname(join(path, file)), { recursive: true });
    await writeFile(join(path, file), content);
  };
  return {
    path,
    write,
    writeRows: (file, rows) => write(file, rows.map((row) => `${JSON.stringify(row)}\n`).join('')),
    remove: () => rm(path, { recursive: true, force: true }),
  };
}

export function kernelRow(more: object = {}): Record<string, unknown> {
  return {
    id: '00000000-0000-4000-8000-000000000001',
    entity_type: 'function',
    name: 'run_code_kernel',
    code_file: 'run_code.js',
    status: 'active',
    visibility: 'public',
    ...more,
  };
}

export function manifestRow(content: object = {}): Record<string, unknown> {
  return {
    id: '00000000-0000-4000-8000-0000000000aa',
    entity_type: 'manifest',
    name: 'kernel_manifest',
    visibility: 'public',
    content: {
      kernels: {},
      allowed_boot_ids: [],
      throttle: { per_tenant_daily_exec_limit: 100, metered_boot_ids: [], per_tenant_concurrency: 64, tenants: {} },
      policy: { slow_ms: 5000, timeout_ms: 60000, memory_mb: 128 },
      override_pubkey_hex: null,
      ...content,
    },
  };
}
