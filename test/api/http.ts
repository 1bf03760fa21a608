import { expect } from 'vitest';
import { createApi } from '../../src/api/index.ts';
import { AccessError } from '../../src/errors.ts';
import type { Authenticator } from '../../src/identity/index.ts';
import { type Identity, listenForTimeline } from '../../src/ledger/index.ts';
import { TimelineHub } from '../../src/timeline/index.ts';
import type { AnyJson, Installation } from '../stage0/installation.ts';
import { trustedKeys } from '../support/keys.ts';
import { ALAN, ALICE, BOB, OTHER_ALICE } from '../support/spans.ts';

const TOKENS = new Map<string, Identity>([
  ['token-of-alice', ALICE],
  ['token-of-alan', ALAN],
  ['token-of-bob', BOB],
  ['token-of-other-alice', OTHER_ALICE],
]);

export const asAlice = { Authorization: 'Bearer token-of-alice' };
export const asAlan = { Authorization: 'Bearer token-of-alan' };
export const asBob = { Authorization: 'Bearer token-of-bob' };
export const asOtherAlice = { Authorization: 'Bearer token-of-other-alice' };

/** Of tokens that never end and allow everything. */
export function authenticatorOf(identityOf: (token: string) => Identity | undefined): Authenticator {
  return {
    async authenticate(token) {
      const identity = identityOf(token);
      if (identity === undefined) throw new AccessError('TOKEN_INVALID', 'this token is not known');
      return { identity, scopes: ['*'], tokenId: null, expiresAt: null };
    },
    ended: async () => [],
  };
}

/** The API over an installation, for the identities that tests know. */
export function openApi(installation: Installation, timeline?: TimelineHub): ReturnType<typeof createApi> {
  return createApi({
    stage0: installation.stage0,
    trustedKeys,
    authenticator: authenticatorOf((token) => TOKENS.get(token)),
    ...(timeline === undefined ? {} : { timeline }),
  });
}

/** The live timeline of an installation; whoever opens it stops it. */
export function openTimeline({ stage0, ledger }: Installation): TimelineHub {
  const listen = (onSpans: () => void) => listenForTimeline({ url: ledger.urls.loglineos_app }, onSpans);
  return new TimelineHub({ ...stage0, authenticator: authenticatorOf(() => undefined), listen });
}

/** What somebody sends and hears, as JSON. */
export class Caller {
  readonly #app: ReturnType<typeof createApi>;
  readonly #headers: Record<string, string>;

  constructor(app: ReturnType<typeof createApi>, headers: Record<string, string>) {
    this.#app = app;
    this.#headers = headers;
  }

  request(path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Response> {
    const all = { ...this.#headers, ...headers };
    return Promise.resolve(
      body === undefined
        ? this.#app.request(path, { headers: all })
        : this.#app.request(path, { method: 'POST', headers: all, body: JSON.stringify(body) }),
    );
  }

  /** The body of an answer that must have this status. */
  async get(path: string): Promise<AnyJson> {
    return answerOf(await this.request(path), 200);
  }

  async post(path: string, body: unknown, status = 200, headers: Record<string, string> = {}): Promise<AnyJson> {
    return answerOf(await this.request(path, body, headers), status);
  }
}

async function answerOf(response: Response, status: number): Promise<AnyJson> {
  const text = await response.text();
  expect(response.status, text).toBe(status);
  return JSON.parse(text);
}

/** RFC 9457, with the code and the field of ours, and nothing else. */
export async function expectProblem(
  answer: Response | Promise<Response>,
  status: number,
  code: string,
  field?: string,
): Promise<Record<string, string>> {
  const response = await answer;
  const text = await response.text();
  expect([response.status, response.headers.get('Content-Type')], text).toEqual([status, 'application/problem+json']);
  const problem = JSON.parse(text);
  expect(problem).toEqual({
    type: 'about:blank',
    title: code.toLowerCase().replaceAll('_', ' '),
    status,
    code,
    detail: expect.stringMatching(/./),
    ...(field === undefined ? {} : { field }),
  });
  expect(text).not.toMatch(/node:|\.ts\b|select |universal_registry/);
  return problem;
}
