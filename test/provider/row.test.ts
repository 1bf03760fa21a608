import { describe, expect, it } from 'vitest';
import { parseProviderContent } from '../../src/provider/index.ts';
import { readRowFiles } from '../../src/seed/index.ts';

const ROW = new URL('../../ROW', import.meta.url).pathname;
const CONTENT = {
  api: 'openai',
  base_url: 'https://models.example/v1/',
  secret_name: 'EXAMPLE_API_KEY',
  default_model: 'chat-1',
  prices: { 'chat-1': { in: 1, out: 2 } },
  timeout_ms: 1_000,
};

describe('the provider rows', () => {
  it('are the four of the specification, each of the system and complete', async () => {
    const rows = await readRowFiles(ROW, { overridePublicKey: null });
    const providers = rows.filter(({ entity_type }) => entity_type === 'provider');
    const parsed = providers.map(({ id, name, content }) => [id, parseProviderContent(content, name as string)]);
    expect(Object.fromEntries(parsed)).toMatchObject({
      '00000000-0000-4000-8000-000000000100': { name: 'offline', api: 'offline', secretName: null },
      '00000000-0000-4000-8000-000000000101': { name: 'openai', api: 'openai', secretName: 'OPENAI_API_KEY' },
      '00000000-0000-4000-8000-000000000102': { name: 'ollama', api: 'ollama', secretName: null },
      '00000000-0000-4000-8000-000000000103': { name: 'anthropic', api: 'anthropic', secretName: 'ANTHROPIC_API_KEY' },
    });
    expect(parsed).toHaveLength(4);
    for (const row of providers) {
      expect(row).toMatchObject({ tenant_id: 'system', owner_id: 'system', visibility: 'public', status: 'active' });
    }
  });
});

describe('the content of a provider row', () => {
  it('is read, with its defaults', () => {
    expect(parseProviderContent(CONTENT, 'example')).toEqual({
      name: 'example',
      api: 'openai',
      baseUrl: 'https://models.example/v1',
      secretName: 'EXAMPLE_API_KEY',
      defaultModel: 'chat-1',
      defaultEmbeddingModel: null,
      prices: new Map([['chat-1', { in: 1, out: 2 }]]),
      timeoutMs: 1_000,
      maxTokensField: 'max_tokens',
    });
  });

  it.each(['http://127.0.0.1:11434', 'http://localhost:8000/v1', 'http://[::1]:80', 'https://10.0.0.1'])(
    'may name %s',
    (base_url) => {
      expect(parseProviderContent({ ...CONTENT, base_url }, 'example').baseUrl).toMatch(/^https?:/);
    },
  );

  it.each<[field: string, value: unknown]>([
    ['api', 'gopher'],
    ['api', undefined],
    ['base_url', undefined],
    ['base_url', 'http://models.example/v1'],
    ['base_url', 'http://127.0.0.1.example/v1'],
    ['base_url', 'http://127.0.0.1@models.example/v1'],
    ['base_url', 'https://user:password@models.example'],
    ['base_url', 'https://models.example/v1?key=1'],
    ['base_url', 'https://models.example/v1#'],
    ['base_url', 'https://models.example\\@other.example'],
    ['base_url', 'file:///etc/passwd'],
    ['base_url', 'https://'],
    ['secret_name', 'DATABASE_URL'],
    ['secret_name', 'sk-0123456789abcdef'],
    ['secret_name', ''],
    ['default_model', ''],
    ['default_model', undefined],
    ['default_embedding_model', 7],
    ['prices', undefined],
    ['prices', { 'chat-1': { in: 1.5, out: 0 } }],
    ['prices', { 'chat-1': { in: 1 } }],
    ['prices', { 'chat-1': { in: 1, out: 1, per: 1 } }],
    ['timeout_ms', 0],
    ['timeout_ms', 600_001],
    ['max_tokens_field', 'tokens'],
    ['surprise', 1],
  ])('is refused when %s is %j', (field, value) => {
    expect(() => parseProviderContent({ ...CONTENT, [field]: value }, 'example')).toThrow(
      expect.objectContaining({
        kind: 'integrity',
        code: 'PROVIDER_INVALID',
        field: expect.stringMatching(`^content\\.${field}`),
        message: expect.stringContaining('provider example: '),
      }),
    );
  });

  it('has no host and no secret when it is offline', () => {
    const { base_url, secret_name, ...offline } = { ...CONTENT, api: 'offline' };
    expect(parseProviderContent(offline, 'example')).toMatchObject({ baseUrl: '', secretName: null });
    for (const more of [{ base_url }, { secret_name }]) {
      expect(() => parseProviderContent({ ...offline, ...more }, 'example')).toThrow(/content\.\w+: unknown/);
    }
  });
});
