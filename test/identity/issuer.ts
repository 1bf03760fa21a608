import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import {
  type CryptoKey,
  exportJWK,
  exportSPKI,
  generateKeyPair,
  type JWK,
  type JWTHeaderParameters,
  SignJWT,
} from 'jose';
import type { JwtOptions } from '../../src/identity/index.ts';

interface IssuerKey {
  kid: string;
  alg: string;
  privateKey: CryptoKey;
  jwk: JWK;
  /** The public key as PEM, as whoever confuses it with a shared secret would use it. */
  pem: string;
}

export const AUDIENCE = 'loglineos';

/** The same for all issuers of a test file: an RSA key takes long to make. */
let firstKey: Promise<IssuerKey> | undefined;

/** An OpenID Connect issuer on loopback: discovery, keys that rotate, and tokens by them. */
export class Issuer {
  /** What it says are its keys. */
  keys: IssuerKey[] = [];
  /** How often each path was asked for. */
  readonly asked: Record<string, number> = {};
  /** Answers that replace its own, by path: a status, or a body. */
  readonly answers = new Map<string, number | string>();
  readonly #server: Server;

  private constructor() {
    this.#server = createServer((request, response) => {
      const path = request.url ?? '';
      this.asked[path] = (this.asked[path] ?? 0) + 1;
      const answer = this.answers.get(path) ?? this.#answerOf(path);
      response.writeHead(typeof answer === 'number' ? answer : 200, { 'Content-Type': 'application/json' });
      response.end(typeof answer === 'number' ? '{}' : answer);
    });
  }

  static async start(): Promise<Issuer> {
    const issuer = new Issuer();
    issuer.#server.listen(0, '127.0.0.1');
    await once(issuer.#server, 'listening');
    firstKey ??= createKey('first');
    issuer.keys = [await firstKey];
    return issuer;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  get options(): JwtOptions {
    const claims = { userClaim: 'sub', tenantClaim: 'tenant_id', scopesClaim: 'scope' };
    return { issuer: this.url, audience: AUDIENCE, ...claims, keysCooldownMs: 0 };
  }

  #answerOf(path: string): number | string {
    if (path === '/.well-known/openid-configuration')
      return JSON.stringify({ issuer: this.url, jwks_uri: `${this.url}/keys` });
    return path === '/keys' ? JSON.stringify({ keys: this.keys.map(({ jwk }) => jwk) }) : 404;
  }

  /** A token of Alice's, with more or other claims; undefined leaves one out. */
  sign(claims: Record<string, unknown> = {}, header: Partial<JWTHeaderParameters> = {}, key = this.keys.at(-1)) {
    const { kid, alg, privateKey } = key as IssuerKey;
    const now = Math.floor(Date.now() / 1000);
    const alice = {
      iss: this.url,
      aud: AUDIENCE,
      sub: 'alice',
      tenant_id: 'acme',
      scope: 'spans:read',
      exp: now + 300,
    };
    return new SignJWT({ ...alice, ...claims }).setProtectedHeader({ alg, kid, ...header }).sign(privateKey, {
      crit: Object.fromEntries((header.crit ?? []).map((name) => [name, true])),
    });
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

export async function createKey(kid: string, alg = 'RS256'): Promise<IssuerKey> {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true });
  return { kid, alg, privateKey, jwk: { ...(await exportJWK(publicKey)), kid, alg }, pem: await exportSPKI(publicKey) };
}
