import { Fields } from '../fields.ts';
import type { JwtOptions } from './jwt.ts';

/**
 * Whose JWTs count, by environment variables; undefined when none do.
 *
 *   LOGLINEOS_JWT_ISSUER        as it stands in `iss`, for instance https://login.example/
 *   LOGLINEOS_JWT_AUDIENCE      what `aud` must name
 *   LOGLINEOS_JWT_JWKS_URI      where the issuer's keys are, if it has no /.well-known/openid-configuration
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
  const options = {
    issuer: fields.text(`${PREFIX}ISSUER`, URL_PATTERN, URL_EXPECTED),
    audience: fields.text(`${PREFIX}AUDIENCE`, /./, 'text'),
    jwksUri: fields.optionalText(`${PREFIX}JWKS_URI`, URL_PATTERN, URL_EXPECTED),
    userClaim: fields.optionalText(`${PREFIX}USER_CLAIM`, /./, 'text') ?? 'sub',
    tenantClaim: fields.optionalText(`${PREFIX}TENANT_CLAIM`, /./, 'text') ?? 'tenant_id',
    scopesClaim: fields.optionalText(`${PREFIX}SCOPES_CLAIM`, /./, 'text') ?? 'scope',
  };
  fields.end();
  return options;
}

const PREFIX = 'LOGLINEOS_JWT_';
const URL_PATTERN = /^https?:\/\/[^/]/;
const URL_EXPECTED = 'an https URL';
