import { GovernanceError, UpstreamError } from '../errors.ts';
import type { Authenticator, Caller } from '../identity/caller.ts';
import type { SpanFilter } from '../ledger/index.ts';
import type { Start } from './filter.ts';
import { SUBSCRIPTIONS_MAX, subscriptionsExceeded } from './protocol.ts';
import { type Outlet, type ReaderOptions, type Sink, TimelineReader } from './reader.ts';

/** Why a client is sent away. */
export type EndCode = 'TOKEN_REVOKED' | 'TOKEN_EXPIRED' | 'SLOW_CLIENT' | 'STOPPING';

export interface Limits {
  connectionsMax: number;
  /** Of one tenant: so that it leaves room for others. */
  connectionsPerTenantMax: number;
  /** Of one user of one tenant. */
  connectionsPerIdentityMax: number;
  subscriptionsPerConnectionMax: number;
  /** Bytes that may wait for a client before it gets no more spans, and how long that may last. */
  bufferBytesMax: number;
  drainMs: number;
  /** Bytes that may wait when a client asks for something; more than a page of spans, which may wait as a whole. */
  backlogBytesMax: number;
  /** How often credentials are looked at; if that fails for longer than `uncheckedMs`, everybody is sent away. */
  checkMs: number;
  uncheckedMs: number;
}

const LIMITS: Limits = {
  connectionsMax: 2_000,
  connectionsPerTenantMax: 1_000,
  connectionsPerIdentityMax: 500,
  subscriptionsPerConnectionMax: SUBSCRIPTIONS_MAX,
  bufferBytesMax: 1024 * 1024,
  drainMs: 30_000,
  backlogBytesMax: 16 * 1024 * 1024,
  checkMs: 500,
  uncheckedMs: 5_000,
};

/** How long a stop waits for clients to be told. */
const STOP_GRACE_MS = 1_000;

export interface HubOptions extends Pick<ReaderOptions, 'database' | 'listen' | 'log'> {
  authenticator: Pick<Authenticator, 'ended'>;
  now: () => Date;
  limits?: Partial<Limits>;
}

/** A client's end of a connection, whatever carries it. */
export interface Client extends Outlet {
  /** Tell it why, then close. Called once, and not after `Connection.close`. */
  end(code: EndCode): void;
}

/** All who watch the timeline: who they are, whether they still may, and how many. */
export class TimelineHub {
  readonly #options: HubOptions;
  readonly #limits: Limits;
  readonly #reader: TimelineReader;
  readonly #connections = new Set<Connection>();
  /** How many are open, by tenant, and by user of a tenant. */
  readonly #open = new Map<string, number>();
  #timer: NodeJS.Timeout | undefined;
  #isChecking = false;
  #checkedAt = 0;
  #isStopping = false;
  #onEmpty: () => void = () => {};

  constructor(options: HubOptions) {
    this.#options = options;
    this.#limits = { ...LIMITS, ...options.limits };
    this.#reader = new TimelineReader({ ...options, ...this.#limits });
  }

  /**
   * Whoever shows a connection to be closed must call its `close`.
   *
   * @throws {GovernanceError} `CONNECTIONS_EXCEEDED`
   * @throws {UpstreamError} `STOPPING`
   */
  connect(caller: Caller, client: Client): Connection {
    if (this.#isStopping) throw new UpstreamError('STOPPING', 'this server is being stopped; connect again');
    const { tenantId, userId } = caller.identity;
    const [ofTenant, ofUser] = [JSON.stringify([tenantId]), JSON.stringify([tenantId, userId])];
    const { connectionsMax, connectionsPerTenantMax, connectionsPerIdentityMax } = this.#limits;
    const open = (key: string) => this.#open.get(key) ?? 0;
    if (open(ofUser) >= connectionsPerIdentityMax) throw exceeded('you have');
    if (open(ofTenant) >= connectionsPerTenantMax) throw exceeded('your tenant has');
    if (this.#connections.size >= connectionsMax) throw exceeded('this server has');
    const connection = new Connection(caller, client, this.#reader, this.#limits, () => {
      this.#connections.delete(connection);
      for (const key of [ofTenant, ofUser]) {
        if (open(key) === 1) this.#open.delete(key);
        else this.#open.set(key, open(key) - 1);
      }
      if (this.#connections.size > 0) return;
      clearInterval(this.#timer);
      this.#onEmpty();
    });
    for (const key of [ofTenant, ofUser]) this.#open.set(key, open(key) + 1);
    this.#connections.add(connection);
    if (this.#connections.size === 1) {
      this.#checkedAt = performance.now();
      this.#timer = setInterval(() => void this.#check(), this.#limits.checkMs);
    }
    return connection;
  }

  /** Send everybody away, and let nobody in any more. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    const empty = new Promise<void>((resolve) => {
      this.#onEmpty = resolve;
    });
    for (const connection of this.#connections) connection.end('STOPPING');
    await this.#reader.stop();
    const grace = new Promise((resolve) => setTimeout(resolve, STOP_GRACE_MS).unref());
    if (this.#connections.size > 0) await Promise.race([empty, grace]);
    clearInterval(this.#timer);
  }

  /** Send away whose credential holds no more. Fails closed: whom nobody could check for some time has to come again. */
  async #check(): Promise<void> {
    const open = [...this.#connections];
    for (const connection of open) {
      if (this.#isExpired(connection)) connection.end('TOKEN_EXPIRED');
    }
    if (performance.now() - this.#checkedAt > this.#limits.uncheckedMs) {
      for (const connection of open) connection.end('STOPPING');
    }
    if (this.#isChecking) return;
    this.#isChecking = true;
    const startedAt = performance.now();
    try {
      // Many connections show the same token; it is asked for once.
      const shownBy = Map.groupBy(open, ({ caller }) => caller.tokenId ?? caller);
      const callers = [...shownBy.values()].map(([first]) => (first as Connection).caller);
      const ended = new Set(await this.#options.authenticator.ended(callers));
      this.#checkedAt = startedAt;
      for (const connections of shownBy.values()) {
        if (!ended.has((connections[0] as Connection).caller)) continue;
        for (const each of connections) each.end(this.#isExpired(each) ? 'TOKEN_EXPIRED' : 'TOKEN_REVOKED');
      }
    } catch (error) {
      this.#options.log({ level: 'warn', message: 'credentials could not be checked', error: String(error) });
    } finally {
      this.#isChecking = false;
    }
  }

  #isExpired({ caller: { expiresAt } }: Connection): boolean {
    return expiresAt !== null && expiresAt <= this.#options.now();
  }
}

function exceeded(whose: string): GovernanceError {
  return new GovernanceError('CONNECTIONS_EXCEEDED', `${whose} as many open streams and sockets as there may be`);
}

/** One client, with what it subscribes to. */
export class Connection {
  readonly caller: Caller;
  readonly client: Client;
  readonly #reader: TimelineReader;
  readonly #limits: Limits;
  readonly #onClose: () => void;
  readonly #endings = new Set<() => void>();
  #state: 'open' | 'ending' | 'closed' = 'open';

  constructor(caller: Caller, client: Client, reader: TimelineReader, limits: Limits, onClose: () => void) {
    this.caller = caller;
    this.client = client;
    this.#reader = reader;
    this.#limits = limits;
    this.#onClose = onClose;
  }

  /**
   * @returns how to end the subscription.
   * @throws {GovernanceError} `SUBSCRIPTIONS_EXCEEDED`
   */
  subscribe(filter: SpanFilter, after: Start, sink: Sink): () => void {
    if (this.#state !== 'open') return () => {};
    const max = this.#limits.subscriptionsPerConnectionMax;
    if (this.#endings.size >= max) throw subscriptionsExceeded(max);
    const { identity } = this.caller;
    const onStuck = () => this.end('SLOW_CLIENT');
    const end = this.#reader.subscribe({ identity, filter, after, outlet: this.client, sink, onStuck });
    this.#endings.add(end);
    return () => {
      this.#endings.delete(end);
      end();
    };
  }

  /** A client that asks for more than it takes is sent away. */
  checkBacklog(): void {
    if (this.client.bufferedBytes() > this.#limits.backlogBytesMax) this.end('SLOW_CLIENT');
  }

  /** Nothing more is sent but why. */
  end(code: EndCode): void {
    if (this.#state !== 'open') return;
    this.#state = 'ending';
    this.#endSubscriptions();
    this.client.end(code);
  }

  /** The client is gone. */
  close(): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    this.#endSubscriptions();
    this.#onClose();
  }

  #endSubscriptions(): void {
    for (const end of this.#endings) end();
    this.#endings.clear();
  }
}
