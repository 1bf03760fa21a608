import { describe, expect, it } from 'vitest';
import { callProvider, parseProviderContent, readProviderRequest } from '../../src/provider/index.ts';
import { TestClock } from './model-server.ts';

const OFFLINE = parseProviderContent(
  {
    api: 'offline',
    default_model: 'echo',
    default_embedding_model: 'words',
    prices: { '*': { in: 0, out: 0 } },
    timeout_ms: 1_000,
  },
  'offline',
);

function ask(request: unknown) {
  const clock = new TestClock();
  return callProvider(OFFLINE, readProviderRequest(request), { secret: null, deadline: clock.in(1_000), clock });
}

async function embed(...texts: string[]): Promise<number[][]> {
  return ((await ask({ embed: texts })) as { embeddings: number[][] }).embeddings;
}

const cosine = (a: number[] = [], b: number[] = []) => a.reduce((sum, value, i) => sum + value * (b[i] as number), 0);

describe('the offline provider', () => {
  it('says the last message again, for nothing', async () => {
    const messages = [
      { role: 'system', content: 'Be short.' },
      { role: 'user', content: 'Hello' },
    ];
    expect(await ask({ messages })).toEqual({
      text: 'offline: Hello',
      tool_calls: [],
      finish_reason: 'stop',
      model: 'echo',
      tokens_in: 5,
      tokens_out: 4,
      cost_micros: 0,
      latency_ms: 0,
      attempts: 1,
    });
  });

  it('stops where max_tokens says, with text that can be stored', async () => {
    const messages = [{ role: 'user', content: `${'x'.repeat(6)}😀` }];
    expect(await ask({ messages, max_tokens: 4 })).toMatchObject({
      text: 'offline: xxxxxx\ufffd',
      finish_reason: 'length',
      tokens_out: 4,
    });
  });

  it('gives the same unit vector to the same text, always', async () => {
    const [one, again, other] = await embed(
      'The ledger is append-only.',
      'the LEDGER is append only',
      'Something else',
    );
    expect(one).toEqual(again);
    expect(one).not.toEqual(other);
    expect(one).toHaveLength(256);
    expect(cosine(one, one)).toBeCloseTo(1, 4);
    // Fixed, so that a vector stored on one machine is found on another.
    expect((one as number[]).flatMap((value, i) => (value === 0 ? [] : [i]))).toEqual([18, 45, 105, 120, 240]);
  });

  it('puts texts that share words nearer to each other', async () => {
    const [question, near, far] = await embed(
      'how is a span signed',
      'a span is signed with Ed25519',
      'pasta with basil',
    );
    expect(cosine(question, near)).toBeGreaterThan(0.5);
    expect(cosine(question, far)).toBeLessThan(0.3);
  });

  it('has a unit vector even for a text without words', async () => {
    const [vector] = await embed('?!');
    expect(cosine(vector, vector)).toBeCloseTo(1, 4);
  });
});
