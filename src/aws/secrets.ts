import { UpstreamError } from '../errors.ts';

/**
 * The JSON object that a Secrets Manager secret holds. Kept for the life of the container; asked for again when
 * `refresh` says that what we have was refused, which is what makes rotation safe.
 *
 * The SDK is loaded when a secret is first needed, not when the bundle is: it costs more to import than all the rest.
 *
 * @param arn names the secret; its region is the function's.
 * @throws {UpstreamError} `SECRET_UNAVAILABLE`, `SECRET_MALFORMED`; neither holds any of the secret.
 */
async function readSecret(arn: string, refresh = false): Promise<Record<string, unknown>> {
  if (refresh) secrets.delete(arn);
  let secret = secrets.get(arn);
  if (secret === undefined) {
    secret = fetchSecret(arn);
    secrets.set(arn, secret);
    secret.catch(() => secrets.delete(arn));
  }
  return secret;
}

const secrets = new Map<string, Promise<Record<string, unknown>>>();

async function fetchSecret(arn: string): Promise<Record<string, unknown>> {
  const { GetSecretValueCommand, SecretsManagerClient } = await import('@aws-sdk/client-secrets-manager');
  let text: string | undefined;
  try {
    text = (await new SecretsManagerClient({}).send(new GetSecretValueCommand({ SecretId: arn }))).SecretString;
  } catch (error) {
    // The SDK's error names the cause without the value; only its name is passed on.
    throw new UpstreamError('SECRET_UNAVAILABLE', `secret ${arn} cannot be read: ${(error as Error).name}`);
  }
  try {
    const value: unknown = JSON.parse(text ?? '');
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>;
  } catch {
    // Said below; the parser's own message would quote the secret.
  }
  throw new UpstreamError('SECRET_MALFORMED', `secret ${arn} is not a JSON object`);
}

/** A text field of a secret. */
export async function readSecretField(arn: string, field: string, refresh = false): Promise<string> {
  const value = (await readSecret(arn, refresh))[field];
  if (typeof value === 'string' && value !== '') return value;
  secrets.delete(arn); // asked for again next time: it may be put right
  throw new UpstreamError('SECRET_MALFORMED', `secret ${arn} has no field ${field}`, { field });
}
