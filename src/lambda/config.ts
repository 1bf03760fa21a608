import { readFileSync } from 'node:fs';
import { readSecretField } from '../aws/index.ts';
import { Fields } from '../fields.ts';
import { readJwtOptions } from '../identity/jwt-config.ts';
import { readKeyEnds, readTrustedKeys } from '../keys/trusted-keys.ts';
import type { ConnectionOptions } from '../ledger/index.ts';

/** Where the database is and who logs in. The password is in the secret, as its field `password`. */
export interface DatabaseConfig {
  host: string;
  port: string;
  name: string;
  user: string;
  secretArn: string;
  /** Certificate authorities beside Node's own (PEM), for instance those of RDS. */
  caFile: string | undefined;
}

/**
 * A function's configuration: its environment variables, read once. One that is missing or malformed names itself and
 * the function does not start. No secret is among them, only where secrets are.
 */
class Environment extends Fields {
  nonEmpty(name: string): string {
    return this.text(name, /./, 'text');
  }

  secretArn(name: string): string {
    return this.text(name, /^arn:[\w-]+:secretsmanager:/, 'the ARN of a secret');
  }

  /** A dimension of the metrics that are published. */
  environment(): string {
    return this.optionalText('ENVIRONMENT', /^[\w-]{1,40}$/, '1 to 40 letters, digits, _ and -') ?? 'default';
  }

  table(name: string): string {
    return this.text(name, /^[\w.-]{3,255}$/, 'the name of a table');
  }

  database(): DatabaseConfig {
    return {
      host: this.nonEmpty('DATABASE_HOST'),
      port: this.optionalText('DATABASE_PORT', /^\d{1,5}$/, 'a port') ?? '5432',
      name: this.nonEmpty('DATABASE_NAME'),
      user: this.nonEmpty('DATABASE_USER'),
      secretArn: this.secretArn('DATABASE_SECRET_ARN'),
      caFile: this.optionalText('DATABASE_CA_FILE', /./, 'a file'),
    };
  }
}

export function readStage0Config(env: NodeJS.ProcessEnv) {
  const fields = new Environment(env, '');
  return {
    database: fields.database(),
    /** Fields `runtime_key` and `tenant_master_key`, 64 hex digits each. */
    runtimeSecretArn: fields.secretArn('RUNTIME_SECRET_ARN'),
    trustedKeys: readTrustedKeys(env),
    /** Fields by the names that provider rows say; without it, only providers that need no secret can be called. */
    providerSecretArn: fields.has('PROVIDER_SECRET_ARN') ? fields.secretArn('PROVIDER_SECRET_ARN') : undefined,
    /** Name or ARN of `loglineos-sandbox`; without it, untrusted code runs in children of the function itself. */
    sandboxFunction: fields.optionalText('SANDBOX_FUNCTION', /^[\w:-]{1,170}$/, 'the name or ARN of a function'),
    environment: fields.environment(),
  };
}

export type Stage0Config = ReturnType<typeof readStage0Config>;

export function readApiConfig(env: NodeJS.ProcessEnv) {
  const fields = new Environment(env, '');
  const origins = fields.optionalText(
    'CORS_ORIGINS',
    ORIGINS,
    'origins such as https://console.example, separated by commas',
  );
  return {
    ...readStage0Config(env),
    jwt: readJwtOptions(env),
    /** Whose pages may ask the API. */
    corsOrigins: origins?.split(',') ?? [],
  };
}

export type ApiConfig = ReturnType<typeof readApiConfig>;

const ORIGINS = /^https?:\/\/[^/,\s]+(,https?:\/\/[^/,\s]+)*$/;

export function readSeedConfig(env: NodeJS.ProcessEnv) {
  const fields = new Environment(env, '');
  return {
    database: fields.database(),
    /** Field `root_key`, 64 hex digits. */
    rootSecretArn: fields.secretArn('ROOT_SECRET_ARN'),
    /** Whose rows may be followed by ours: ours, and those before it. */
    rootKeys: readKeyEnds(fields, 'TRUSTED_ROOT_KEYS'),
    overridePublicKey:
      fields.optionalText('OVERRIDE_PUBLIC_KEY', /^[0-9a-f]{64}$/, 'a public key of 64 hex digits') ?? null,
  };
}

export function readMigrateConfig(env: NodeJS.ProcessEnv) {
  const fields = new Environment(env, '');
  return {
    database: fields.database(),
    /** Field `password` each: what the logins get. */
    loginSecretArns: {
      loglineos_app: fields.secretArn('APP_LOGIN_SECRET_ARN'),
      loglineos_seeder: fields.secretArn('SEEDER_LOGIN_SECRET_ARN'),
      loglineos_auditor: fields.secretArn('AUDITOR_LOGIN_SECRET_ARN'),
    },
  };
}

export function readTimelineReaderConfig(env: NodeJS.ProcessEnv) {
  const fields = new Environment(env, '');
  return { database: fields.database(), trustedKeys: readTrustedKeys(env) };
}

export function readAuditorConfig(env: NodeJS.ProcessEnv) {
  const fields = new Environment(env, '');
  return {
    database: fields.database(),
    trustedKeys: readTrustedKeys(env),
    /** Of DynamoDB, with the partition key `id`. */
    auditTable: fields.table('AUDIT_TABLE'),
    environment: fields.environment(),
  };
}

export function readTimelineConfig(env: NodeJS.ProcessEnv) {
  return {
    /** Of DynamoDB, with the partition key `connection_id` and the TTL attribute `ends_at`. */
    connectionsTable: new Environment(env, '').table('CONNECTIONS_TABLE'),
  };
}

export function readTimelineSenderConfig(env: NodeJS.ProcessEnv) {
  const fields = new Environment(env, '');
  return {
    ...readTimelineConfig(env),
    /** Name or ARN of `loglineos-timeline-reader`. */
    readerFunction: fields.nonEmpty('READER_FUNCTION'),
    /** The WebSocket API's stage, as https: below it is `@connections`. */
    socketsEndpoint: fields.text('SOCKETS_ENDPOINT', /^https?:\/\//, 'the URL of a stage'),
  };
}

/** How to reach the database, with the password of the moment. */
export function connectionOptions(config: DatabaseConfig): ConnectionOptions {
  const { host, port, name, user, secretArn, caFile } = config;
  return {
    url: `postgres://${encodeURIComponent(user)}@${host}:${port}/${name}`,
    password: (refresh) => readSecretField(secretArn, 'password', refresh),
    certificateAuthorities: caFile === undefined ? [] : [readFileSync(caFile, 'utf8')],
  };
}
