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
    secret = fetchSecret(arn).then((fields) => {
      if (fields !== null) return fields;
      throw new UpstreamError('SECRET_UNAVAILABLE', `secret ${arn} cannot be read: ${NOT_FOUND}`);
    });
    secrets.set(arn, secret);
    secret.catch(() => secrets.delete(arn));
  }
  return secret;
}

const secrets = new Map<string, Promise<Record<string, unknown>>>();
/** No such secret, or no version of it with such a label. */
const NOT_FOUND = 'ResourceNotFoundException';

/**
 * The version of a secret that has this label; null when there is none.
 *
 * @param stage `AWSCURRENT` unless said.
 * @throws {UpstreamError} `SECRET_UNAVAILABLE`, `SECRET_MALFORMED`; neither holds any of the secret.
 */
export async function fetchSecret(arn: string, stage?: string): Promise<Record<string, unknown> | null> {
  const { GetSecretValueCommand, SecretsManagerClient } = await import('@aws-sdk/client-secrets-manager');
  let text: string | undefined;
  try {
    const command = new GetSecretValueCommand({ SecretId: arn, VersionStage: stage });
    text = (await new SecretsManagerClient({}).send(command)).SecretString;
  } catch (error) {
    // The SDK's error names the cause without the value; only its name is passed on.
    const { name } = error as Error;
    if (name === NOT_FOUND) return null;
    throw new UpstreamError('SECRET_UNAVAILABLE', `secret ${arn} cannot be read: ${name}`);
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

/**
 * Give a secret another version, and the version these labels. Only for an operator: no function of ours may.
 *
 * @param stages `AWSCURRENT` is what `readSecretField` reads from then on.
 * @throws {UpstreamError} `SECRET_UNAVAILABLE`
 */
export async function putSecret(id: string, fields: Record<string, unknown>, stages: string[]): Promise<void> {
  const { PutSecretValueCommand, SecretsManagerClient } = await import('@aws-sdk/client-secrets-manager');
  const command = new PutSecretValueCommand({
    SecretId: id,
    SecretString: JSON.stringify(fields),
    VersionStages: stages,
  });
  await new SecretsManagerClient({}).send(command).catch(refuseToWrite(id));
}

/** Give a secret its first version; one that is not there at all is made, where `id` is a name. */
export async function putFirstSecret(id: string, fields: Record<string, unknown>): Promise<void> {
  const { CreateSecretCommand, PutSecretValueCommand, SecretsManagerClient } = await import(
    '@aws-sdk/client-secrets-manager'
  );
  const client = new SecretsManagerClient({});
  const SecretString = JSON.stringify(fields);
  try {
    await client.send(new PutSecretValueCommand({ SecretId: id, SecretString }));
  } catch (error) {
    if ((error as Error).name !== NOT_FOUND || id.startsWith('arn:')) refuseToWrite(id)(error as Error);
    await client.send(new CreateSecretCommand({ Name: id, SecretString })).catch(refuseToWrite(id));
  }
}

function refuseToWrite(id: string): (error: Error) => never {
  return ({ name }) => {
    throw new UpstreamError('SECRET_UNAVAILABLE', `secret ${id} cannot be written: ${name}`);
  };
}
