import {
  createLocalJWKSet,
  createRemoteJWKSet,
  customFetch,
  errors,
  type JSONWebKeySet,
  type JWTPayload,
  type JWTVerifyGetKey,
  jwtVerify,
} from 'jose';
import { AccessError, InputError, UpstreamError } from '../errors.ts';
import { isLoopback } from '../ledger/index.ts';
import type { Caller } from './caller.ts';
import { isOutsideName } from './names.ts';

/** Whose JWTs count, and what in them says who the caller is. */
export interface JwtOptions {
  /** As it stands in `iss`; its keys are found by OpenID Connect Discovery 1.0 unless `jwksUri` says where they are. */
  issuer: string;
  audience: string;
  jwksUri?: string | undefined;
  /** The issuer's keys themselves (RFC 7517), for a network without a way to it; then it is never asked. */
  jwks?: JSONWebKeySet | undefined;
  userClaim: string;
  tenantClaim: string;
  /** A list, or words separated by spaces. */
  scopesClaim: string;
  /** An unknown key makes us ask again for the issuer's keys, but not more often than this. */
  keysCooldownMs?: number;
}

/** Signatures by a key that the issuer alone has. No `none`; no HS*, whose key could be the public one. */
const ALGORITHMS = [
  ...['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'],
  ...['ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'],
];
/** How far the issuer's clock and ours may be apart. */
const CLOCK_SKEW_S = 60;
const KEYS_COOLDOWN_MS = 30_000;
/** A key that the issuer withdrew is believed for no longer than this. */
const KEYS_AGE_MAX_MS = 10 * 60 * 1000;
const FETCH_TIMEOUT_MS = 5_000;
const DOCUMENT_BYTES_MAX = 512 * 1024;
/** An issuer that did not answer is left alone so long. */
const FAILED_MS = 5_000;

/** Reads JWTs of one issuer. Knows its keys, and asks for new ones when a token names a key that it does not know. */
export class JwtReader {
  readonly #options: JwtOptions;
  readonly #now: () => Date;
  #keys: Promise<JWTVerifyGetKey> | undefined;
  #failedAt = Number.NEGATIVE_INFINITY;

  /** @throws {InputError} `ISSUER_INVALID`: an address that is not https, except on this machine. */
  constructor(options: JwtOptions, now: () => Date) {
    for (const url of [options.issuer, options.jwksUri]) {
      if (url !== undefined && !isSafeUrl(url)) {
        throw new InputError('ISSUER_INVALID', `expected an https URL, found ${url}`, {
          field: url === options.issuer ? 'issuer' : 'jwksUri',
        });
      }
    }
    this.#options = options;
    this.#now = now;
  }

  /**
   * @throws {AccessError} `TOKEN_INVALID`, `TOKEN_EXPIRED`
   * @throws {UpstreamError} `ISSUER_UNAVAILABLE`: nothing can be said of the token now.
   */
  async read(token: string): Promise<Caller> {
    const { issuer, audience } = this.#options;
    let payload: JWTPayload;
    try {
      ({ payload } = await jwtVerify(token, await this.#keySet(), {
        issuer,
        audience,
        algorithms: ALGORITHMS,
        clockTolerance: CLOCK_SKEW_S,
        currentDate: this.#now(),
        requiredClaims: ['exp'],
      }));
    } catch (error) {
      throw refusalOf(error);
    }
    return this.#callerOf(payload);
  }

  #callerOf(payload: JWTPayload): Caller {
    const { userClaim, tenantClaim, scopesClaim } = this.#options;
    const name = (claim: string) => {
      const value = payload[claim];
      if (isOutsideName(value)) return value;
      throw new AccessError('TOKEN_INVALID', `the claim ${claim} of this token is missing, or names nobody`);
    };
    return {
      identity: { userId: name(userClaim), tenantId: name(tenantClaim) },
      scopes: wordsOf(payload[scopesClaim]),
      tokenId: null,
      expiresAt: new Date(((payload.exp as number) + CLOCK_SKEW_S) * 1000),
    };
  }

  #keySet(): Promise<JWTVerifyGetKey> {
    this.#keys ??= this.#findKeySet().catch((error) => {
      this.#keys = undefined;
      throw error;
    });
    return this.#keys;
  }

  async #findKeySet(): Promise<JWTVerifyGetKey> {
    if (this.#options.jwks !== undefined) return createLocalJWKSet(this.#options.jwks);
    const keys = createRemoteJWKSet(new URL(this.#options.jwksUri ?? (await this.#discover())), {
      timeoutDuration: FETCH_TIMEOUT_MS,
      cooldownDuration: this.#options.keysCooldownMs ?? KEYS_COOLDOWN_MS,
      cacheMaxAge: KEYS_AGE_MAX_MS,
      [customFetch]: async (url, { signal }) => {
        try {
          return Response.json(await this.#fetch(url, signal));
        } catch (error) {
          if (!keys.fresh) this.#keys = undefined; // they may have moved: look again where they are
          throw error;
        }
      },
    });
    return keys;
  }

  async #discover(): Promise<string> {
    const { issuer } = this.#options;
    const url = `${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`;
    const found = (await this.#fetch(url, AbortSignal.timeout(FETCH_TIMEOUT_MS))) as Record<string, unknown> | null;
    const jwksUri = found?.jwks_uri;
    if (found?.issuer === issuer && typeof jwksUri === 'string' && isSafeUrl(jwksUri)) return jwksUri;
    throw unavailable(`${url} does not say, of issuer ${issuer}, where its keys are by https`);
  }

  /** JSON of the issuer, of bounded size. No redirect is followed. */
  async #fetch(url: string, signal: AbortSignal): Promise<unknown> {
    if (performance.now() - this.#failedAt < FAILED_MS) throw unavailable('it did not answer a moment ago');
    try {
      const response = await fetch(url, { headers: { Accept: 'application/json' }, redirect: 'error', signal });
      if (response.status !== 200 || response.body === null) throw new Error(`status ${response.status}`);
      const chunks: Uint8Array[] = [];
      let bytes = 0;
      for await (const chunk of response.body) {
        bytes += chunk.length;
        if (bytes > DOCUMENT_BYTES_MAX) throw new Error(`more than ${DOCUMENT_BYTES_MAX} bytes`);
        chunks.push(chunk);
      }
      return JSON.parse(Buffer.concat(chunks).toString());
    } catch (cause) {
      this.#failedAt = performance.now();
      throw unavailable('it does not answer as it should', cause);
    }
  }
}

/** An issuer is asked over TLS, or on this machine. */
export function isSafeUrl(text: string): boolean {
  const url = URL.parse(text);
  return url?.protocol === 'https:' || (url?.protocol === 'http:' && isLoopback(url.hostname));
}

function unavailable(why: string, cause?: unknown): UpstreamError {
  return new UpstreamError('ISSUER_UNAVAILABLE', `the issuer of JWTs cannot be asked for its keys: ${why}`, { cause });
}

function refusalOf(error: unknown): Error {
  if (error instanceof UpstreamError) return error;
  if (error instanceof errors.JWKSInvalid) return unavailable('what it says are no keys', error);
  if (error instanceof errors.JWTExpired) return new AccessError('TOKEN_EXPIRED', 'this token has expired');
  const claim = error instanceof errors.JWTClaimValidationFailed ? `: its claim ${error.claim} is not as expected` : '';
  return new AccessError('TOKEN_INVALID', `this token is not valid${claim}`, { cause: error });
}

function wordsOf(claim: unknown): string[] {
  const texts = Array.isArray(claim) ? claim : [claim];
  return texts.filter((text) => typeof text === 'string').flatMap((text) => text.split(/\s+/).filter(Boolean));
}
