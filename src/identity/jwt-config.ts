import { createPublicKey, type JsonWebKey } from 'node:crypto';
import type { JSONWebKeySet } from 'jose';
import { InputError } from '../errors.ts';
import { Fields } from '../fields.ts';
import { isSafeUrl, type JwtOptions } from './jwt.ts';

/**
 * Whose JWTs count, by environment variables; undefined when none do.
 *
 *   LOGLINEOS_JWT_ISSUER        as it stands in `iss`, for instance https://login.example/
 *   LOGLINEOS_JWT_AUDIENCE      what `aud` must name
 *   LOGLINEOS_JWT_JWKS_URI      where the issuer's keys are, if it has no /.well-known/openid-configuration
 *   LOGLINEOS_JWT_JWKS          the keys themselves instead, as JSON (RFC 7517): the issuer is not asked
 *   LOGLINEOS_JWT_USER_CLAIM    the claim that names the user: `sub`
 *   LOGLINEOS_JWT_TENANT_CLAIM  the claim that names the tenant: `tenant_id`
 *   LOGLINEOS_JWT_SCOPES_CLAIM  the claim that lists the scopes: `scope`
 *
 * @throws {InputError} `FIELD_MISSING`, `FIELD_INVALID`, naming the variable.
 */
export function readJwtOptions(env: NodeJS.ProcessEnv): JwtOptions | undefined {
  const said = Object.entries(env).filter(([name, value]) => name.startsWith(PREFIX) && value !== '');
  if (said.length === 0) return undefined;
  const fields = new Fields(Object.fromEntries(said), '');
  const url = <T extends string | undefined>(name: string, text: T): T => {
    if (text === undefined || isSafeUrl(text)) return text;
    throw new InputError('FIELD_INVALID', `${name}: expected ${URL_EXPECTED}`, { field: name });
  };
  const options = {
    issuer: url(`${PREFIX}ISSUER`, fields.text(`${PREFIX}ISSUER`, /./, URL_EXPECTED)),
    audience: fields.text(`${PREFIX}AUDIENCE`, /./, 'text'),
    jwksUri: url(`${PREFIX}JWKS_URI`, fields.optionalText(`${PREFIX}JWKS_URI`, /./, URL_EXPECTED)),
    jwks: readKeys(fields),
    userClaim: fields.optionalText(`${PREFIX}USER_CLAIM`, /./, 'text') ?? 'sub',
    tenantClaim: fields.optionalText(`${PREFIX}TENANT_CLAIM`, /./, 'text') ?? 'tenant_id',
    scopesClaim: fields.optionalText(`${PREFIX}SCOPES_CLAIM`, /./, 'text') ?? 'scope',
  };
  fields.end();
  if (options.jwks !== undefined && options.jwksUri !== undefined) {
    throw invalid(`none beside ${PREFIX}JWKS_URI: either says all keys`);
  }
  return options;
}

/** Public keys, each with its name, so that a token says which one is meant, and one can follow the other. */
function readKeys(fields: Fields): JSONWebKeySet | undefined {
  const text = fields.optionalText(JWKS, /./s, JWKS_EXPECTED);
  if (text === undefined) return undefined;
  let keys: unknown;
  try {
    ({ keys } = JSON.parse(text));
  } catch (cause) {
    throw invalid(JWKS_EXPECTED, cause);
  }
  if (!Array.isArray(keys) || keys.length === 0) throw invalid(JWKS_EXPECTED);
  for (const [i, key] of keys.entries()) checkKey(key, `keys[${i}]`);
  const names = keys.map(({ kid }) => kid);
  if (new Set(names).size < names.length) throw invalid('another `kid` for each key');
  return { keys };
}

function checkKey(key: unknown, at: string): void {
  const { kid, kty, d } = (key ?? {}) as Record<string, unknown>;
  if (typeof kid !== 'string' || kid === '') throw invalid(`${at} with a \`kid\``);
  if (d !== undefined) throw invalid(`${at} without its private part`);
  if (!['RSA', 'EC', 'OKP'].includes(kty as string)) throw invalid(`${at} to be of kty RSA, EC or OKP`);
  try {
    createPublicKey({ key: key as JsonWebKey, format: 'jwk' });
  } catch (cause) {
    throw invalid(`${at} to be a public key`, cause);
  }
}

function invalid(expected: string, cause?: unknown): InputError {
  return new InputError('FIELD_INVALID', `${JWKS}: expected ${expected}`, { field: JWKS, cause });
}

const PREFIX = 'LOGLINEOS_JWT_';
const JWKS = `${PREFIX}JWKS`;
const URL_EXPECTED = 'an https URL';
const JWKS_EXPECTED = 'a JSON Web Key Set: {"keys":[…]} with at least one key';
