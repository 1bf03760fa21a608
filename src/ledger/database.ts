import pg from 'pg';
import { ConflictError, InputError, UpstreamError } from '../errors.ts';
import { wrapPostgresError } from './errors.ts';
import { columnTypes } from './rows.ts';

/** Who acts. Row level security compares these with `owner_id` and `tenant_id`. */
export interface Identity {
  userId: string;
  tenantId: string;
}

/** Where a database is and who logs in. */
export interface ConnectionOptions {
  /** `postgres://user:password@host:port/database`; the password may come from `password` instead. */
  url: string;
  /** Asked for each new connection, so that a rotated secret is picked up. `refresh` is true after a refused login. */
  password?: (refresh: boolean) => Promise<string>;
  /** Certificate authorities (PEM) to trust beside Node's own. */
  certificateAuthorities?: string[];
}

export interface DatabaseOptions extends ConnectionOptions {
  /** Connections held; one unless said. */
  connectionsMax?: number;
  /** Shown in pg_stat_activity. */
  applicationName: string;
}

export type Row = Record<string, unknown>;
export interface Statement {
  text: string;
  values?: unknown[];
  types?: pg.CustomTypesConfig;
  /** `extended` makes Postgres refuse more than one statement even where there are no values. */
  queryMode?: 'extended';
}

export interface TransactionOptions {
  /** Run as this role instead of the login's own, for instance `loglineos_kernel`. */
  role?: 'loglineos_kernel' | 'loglineos_auditor' | 'loglineos_owner';
  readOnly?: boolean;
  /** Bound on each statement and on idling between two of them, in ms. */
  timeoutMs?: number;
}

const CONNECT_TIMEOUT_MS = 5_000;
const TRANSACTION_TIMEOUT_MS = 30_000;
/** A connection unused for longer is tried before it is trusted: a frozen container thaws with dead sockets. */
const TRUSTED_IDLE_MS = 10_000;
const REFUSED_LOGIN = '28P01';

type Client = pg.PoolClient & { usedAt?: number };

/** Whether a host is this machine, the only place plain TCP may go. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '127.0.0.1' || host === '::1' || host === '[::1]';
}

/** What pg needs to connect. TLS is always on and always verified, except to this machine itself. */
export function connectionConfig(
  { url, password, certificateAuthorities = [] }: ConnectionOptions,
  refreshPassword = () => false,
): pg.ClientConfig {
  const { hostname, port, username, password: urlPassword, pathname } = parseUrl(url);
  return {
    host: hostname.replace(/^\[|\]$/g, ''),
    port: Number(port || 5432),
    user: decodeURIComponent(username),
    database: decodeURIComponent(pathname.slice(1)),
    password: password === undefined ? decodeURIComponent(urlPassword) : () => password(refreshPassword()),
    ssl: isLoopback(hostname) ? false : { ca: trustedAuthorities(certificateAuthorities), rejectUnauthorized: true },
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    keepAlive: true,
  };
}

function parseUrl(url: string): URL {
  const parsed = URL.parse(url);
  if (parsed !== null && /^postgres(ql)?:$/.test(parsed.protocol)) return parsed;
  throw new InputError(
    'DATABASE_URL_INVALID',
    'the database URL is not of the form postgres://user:password@host:port/name',
    {
      field: 'DATABASE_URL',
    },
  );
}

/**
 * Setting `ca` replaces Node's own roots, and RDS Proxy is under those: so both. The module is fetched by name, because
 * importing it parses all the roots, 40 ms of every cold start whether they are needed or not.
 */
function trustedAuthorities(additional: string[]): string[] {
  return [...process.getBuiltinModule('node:tls').rootCertificates, ...additional];
}

/** A pool of connections to one database, with one login. Every statement of the house goes through it. */
export class Database {
  readonly #pool: pg.Pool;
  #refreshPassword = false;

  constructor(options: DatabaseOptions) {
    this.#pool = new pg.Pool({
      ...connectionConfig(options, () => this.#refreshPassword),
      max: options.connectionsMax ?? 1,
      application_name: options.applicationName,
      // Timers freeze with a Lambda container; an old connection is tried at its next use instead.
      idleTimeoutMillis: 0,
      types: columnTypes,
    });
    // A connection that dies while idle is dropped by the pool; without a listener the process would die with it.
    this.#pool.on('error', () => {});
    this.#pool.on('connect', (client) => client.on('error', () => {}));
  }

  /** One statement, which is its own transaction. */
  async query<R extends Row = Row>(statement: Statement): Promise<R[]> {
    const client = await this.#connect();
    try {
      const { rows } = await client.query<R>({ values: [], ...statement });
      this.#release(client);
      return rows;
    } catch (error) {
      this.#release(client, error);
      throw wrapPostgresError(error);
    }
  }

  /**
   * Statements of one transaction under one identity. All session state is transaction-scoped, so a connection carries
   * nothing to its next user, and PgBouncer or RDS Proxy may stand between.
   */
  async transaction<T>(
    identity: Identity,
    run: (query: TransactionQuery) => Promise<T>,
    options: TransactionOptions = {},
  ): Promise<T> {
    const client = await this.#connect();
    try {
      await client.query(beginText(identity, options));
      const result = await run(async <R extends Row>(statement: Statement) => {
        try {
          return (await client.query<R>({ values: [], ...statement })).rows;
        } catch (error) {
          throw wrapPostgresError(error);
        }
      });
      // A statement that failed and was caught leaves a transaction that can only roll back: Postgres says so in the tag.
      const { command } = await client.query('commit');
      if (command !== 'COMMIT') {
        throw new ConflictError('ROLLED_BACK', 'a statement of this transaction failed, so nothing of it was written');
      }
      this.#release(client);
      return result;
    } catch (error) {
      const rollback = await client.query('rollback').then(
        () => undefined,
        (failure: unknown) => failure,
      );
      this.#release(client, rollback);
      throw isPostgresError(error) ? wrapPostgresError(error) : error;
    }
  }

  async close(): Promise<void> {
    await this.#pool.end();
  }

  /**
   * A connection that answers. A dead socket and a login refused by a rotated secret are tried once more, because
   * nothing has been sent yet; after that no statement is ever sent twice.
   */
  async #connect(): Promise<Client> {
    const client: Client = await this.#pool.connect().catch((error: { code?: string }) => this.#reconnect(error));
    if (Date.now() - (client.usedAt ?? Date.now()) < TRUSTED_IDLE_MS) return client;
    try {
      await client.query('');
      return client;
    } catch (error) {
      client.release(true);
      return this.#reconnect(error as { code?: string });
    }
  }

  async #reconnect(error: { code?: string }): Promise<Client> {
    this.#refreshPassword = error.code === REFUSED_LOGIN;
    try {
      return await this.#pool.connect();
    } catch (cause) {
      throw new UpstreamError('DATABASE_UNAVAILABLE', 'no connection to the database', { cause });
    } finally {
      this.#refreshPassword = false;
    }
  }

  /** Back to the pool, unless the connection itself broke: then there is an error without an SQLSTATE, or of class 57. */
  #release(client: Client, error?: unknown): void {
    client.usedAt = Date.now();
    client.release(
      error !== undefined && (!isPostgresError(error) || String((error as { code: string }).code).startsWith('57P')),
    );
  }
}

export type TransactionQuery = <R extends Row = Row>(statement: Statement) => Promise<R[]>;

function isPostgresError(error: unknown): boolean {
  return error instanceof pg.DatabaseError;
}

/** One round trip for all that a transaction needs to begin. The values are literals: a simple query has no parameters. */
function beginText(identity: Identity, options: TransactionOptions): string {
  const timeoutMs = options.timeoutMs ?? TRANSACTION_TIMEOUT_MS;
  return [
    options.readOnly === true ? 'begin read only' : 'begin',
    `set local statement_timeout = ${Math.ceil(timeoutMs)}`,
    `set local idle_in_transaction_session_timeout = ${Math.ceil(timeoutMs)}`,
    `select set_config('app.user_id', ${pg.escapeLiteral(identity.userId)}, true),
            set_config('app.tenant_id', ${pg.escapeLiteral(identity.tenantId)}, true)`,
    ...(options.role === undefined ? [] : [`set local role ${options.role}`]),
  ].join('; ');
}
