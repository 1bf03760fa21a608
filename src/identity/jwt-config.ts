import { InputError } from '../errors.ts';
import { Fields } from '../fields.ts';
import { isSafeUrl, type JwtOptions } from './jwt.ts';

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
  const url = <T extends string | undefined>(name: string, text: T): T => {
    if (text === undefined || isSafeUrl(text)) return text;
    throw new InputError('FIELD_INVALID', `${name}: expected ${URL_EXPECTED}`, { field: name });
  };
  const options = {
    issuer: url(`${PREFIX}ISSUER`, fields.text(`${PREFIX}ISSUER`, /./, URL_EXPECTED)),
    audience: fields.text(`${PREFIX}AUDIENCE`, /./, 'text'),
    jwksUri: url(`${PREFIX}JWKS_URI`, fields.optionalText(`${PREFIX}JWKS_URI`, /./, URL_EXPECTED)),
    userClaim: fields.optionalText(`${PREFIX}USER_CLAIM`, /./, 'text') ?? 'sub',
    tenantClaim: fields.optionalText(`${PREFIX}TENANT_CLAIM`, /./, 'text') ?? 'tenant_id',
    scopesClaim: fields.optionalText(`${PREFIX}SCOPES_CLAIM`, /./, 'text') ?? 'scope',
  };
  fields.end();
  return options;
}

const PREFIX = 'LOGLINEOS_JWT_';
const URL_EXPECTED = 'an https URL';
