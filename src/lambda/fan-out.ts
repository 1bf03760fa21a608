import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import type { Posted, Sockets } from '../aws/gateway.ts';
import { frames } from '../timeline/index.ts';
import type { CallerFields } from './caller-fields.ts';
import type { Connection, Connections, Subscription } from './connections.ts';
import {
  GROUPS_MAX,
  type TimelineAnswer,
  type TimelineGroup,
  type TimelinePage,
  type TimelineQuestion,
} from './timeline-pages.ts';

/** Who sends holds it so long, and holds it anew at each look; killed, the next one goes on after that. */
const LEASE_MS = 10_000;
/** How often to look who is there, and who is to send. */
const LOOK_MS = 1_000;
/** How long a round waits for news; where there are several questions, their answers wait for each other. */
const WAIT_MS = 1_000;
const WAIT_SEVERAL_MS = 250;
/** A round waits so long for its frames to be taken; a connection that needs longer misses rounds, and only it. */
const ROUND_MS = 250;
/**
 * A connection gets as much of a page as it takes in this time; the rest comes with its next round, which asks again
 * whether its credential still holds.
 */
const DELIVERY_MS = 400;
/** Before another try after the reader, or API Gateway, failed. */
const FAILED_MS = 1_000;
/** Callers of a question; with those of all its groups it stays far below Lambda's limit. */
const CALLERS_MAX = 500;

export interface FanOutOptions {
  connections: Connections;
  sockets: Sockets;
  read: (question: TimelineQuestion) => Promise<TimelineAnswer>;
  /** No round begins after this. */
  endOfTime: Date;
  log: (entry: Record<string, unknown>) => void;
}

/** What one shift of sending came to. */
export interface FanOutCounts {
  rounds: number;
  frames: number;
  /** Connections that were ended, by why. */
  ended: Record<string, number>;
  /** The most connections that were open in a round. */
  connections: number;
}

/**
 * Send what is new to all connections until the time is up. One sender at a time: another one waits, and goes on when
 * this one ends, so that shifts that overlap leave no gap.
 *
 * Each subscription gets every span once and in order, with one exception: what a sender posted of a page, and was
 * killed before it noted, its successor posts again. Positions tell.
 */
export async function fanOut(options: FanOutOptions): Promise<FanOutCounts> {
  const sender = new Sender(options);
  await sender.run();
  return sender.counts;
}

class Sender {
  readonly counts: FanOutCounts = { rounds: 0, frames: 0, ended: {}, connections: 0 };
  readonly #options: FanOutOptions;
  readonly #holder = randomUUID();
  #heldUntil = 0;
  #lookAt = 0;
  /** As they are in the table, or will be when what is being sent is noted there. */
  #connections = new Map<string, Connection>();
  /** What is being sent, by connection. */
  readonly #deliveries = new Map<string, Promise<void>>();

  constructor(options: FanOutOptions) {
    this.#options = options;
  }

  async run(): Promise<void> {
    const { endOfTime, connections, log } = this.#options;
    try {
      while (Date.now() < endOfTime.getTime()) {
        try {
          if (performance.now() >= this.#lookAt) await this.#look();
          const free = this.#free();
          if (free.length > 0) await this.#round(free);
          else await Promise.race([pause(this.#lookAt - performance.now()), ...this.#deliveries.values()]);
        } catch (error) {
          log({ level: 'warn', message: 'a round failed', error: String(error) });
          await pause(FAILED_MS);
        }
      }
      await Promise.all(this.#deliveries.values());
    } finally {
      // Not told, the lease runs out by itself.
      await connections.endSending(this.#holder).catch(() => {});
    }
  }

  /** See who is there, if we are the one to send. */
  async #look(): Promise<void> {
    const { connections } = this.#options;
    const now = Date.now();
    this.#lookAt = performance.now() + LOOK_MS;
    if (!(await connections.holdSending(this.#holder, new Date(now), new Date(now + LEASE_MS)))) {
      this.#connections.clear();
      return;
    }
    this.#heldUntil = now + LEASE_MS;
    // Before the list: where something is being sent meanwhile, it may say what was before.
    const busy = new Set(this.#deliveries.keys());
    const listed = await connections.list(new Date(now));
    const known = this.#connections;
    this.#connections = new Map(
      listed
        .map((connection) => (busy.has(connection.id) ? known.get(connection.id) : connection))
        .filter((connection) => connection !== undefined)
        .map((connection) => [connection.id, connection]),
    );
    this.counts.connections = Math.max(this.counts.connections, listed.length);
  }

  /** Those that something new may be sent to; nobody, when it is not known that we are the one to send. */
  #free(): Connection[] {
    if (Date.now() >= this.#heldUntil) return [];
    return [...this.#connections.values()].filter(({ id }) => !this.#deliveries.has(id));
  }

  async #round(free: Connection[]): Promise<void> {
    this.counts.rounds++;
    const asked = questionsFor(free);
    const isCatchingUp = free.some(({ subscriptions }) => subscriptions.some(({ caughtUp }) => !caughtUp));
    const wait_ms = isCatchingUp ? 0 : asked.length > 1 ? WAIT_SEVERAL_MS : WAIT_MS;
    const results = await Promise.allSettled(asked.map((each) => this.#ask(each, wait_ms)));
    const failed = results.find((result) => result.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
  }

  async #ask({ connections, groups, callers }: Asked, wait_ms: number): Promise<void> {
    const { pages, ended } = await this.#options.read({ groups, callers, wait_ms });
    // The lease may have run out while we waited: somebody else may be reading the same.
    if (Date.now() >= this.#heldUntil) return;
    const pageOf = new Map(groups.map((group, i) => [groupKey(group), pages[i] as TimelinePage]));
    const endedCallers = new Set(ended.map((i) => callerKey(callers[i] as CallerFields)));
    const deliveries = connections.map((connection) => {
      const isOver = endedCallers.has(callerKey(connection.caller));
      return this.#track(connection.id, isOver ? this.#end(connection) : this.#deliver(connection, pageOf));
    });
    await Promise.race([Promise.all(deliveries), pause(ROUND_MS, undefined, { ref: false })]);
  }

  /** A failure is the connection's alone, which rests for a while; it goes on where it was. */
  #track(id: string, work: Promise<void>): Promise<void> {
    const delivery = work
      .catch((error) => {
        this.#options.log({ level: 'warn', message: 'a delivery failed', connection_id: id, error: String(error) });
        return pause(FAILED_MS);
      })
      .finally(() => this.#deliveries.delete(id));
    this.#deliveries.set(id, delivery);
    return delivery;
  }

  async #deliver(connection: Connection, pageOf: Map<string, TimelinePage>): Promise<void> {
    const endOfDelivery = performance.now() + DELIVERY_MS;
    for (const subscription of connection.subscriptions) {
      const page = pageOf.get(groupKey(groupOf(connection, subscription))) as TimelinePage;
      const { id } = subscription;
      let { position, caughtUp } = subscription;
      let posted: Posted | 'failed' = 'sent';
      let left = page.spans.length;
      for (const { position: at, ...entry } of page.spans) {
        if (performance.now() > endOfDelivery) break;
        posted = await this.#post(connection, JSON.stringify({ type: 'span', id, position: at, ...entry }));
        if (posted !== 'sent') break;
        position = at;
        left--;
      }
      if (left === 0) {
        position = page.position;
        if (page.caught_up && !caughtUp) {
          posted = await this.#post(connection, frames.caughtUp(id, position));
          caughtUp = posted === 'sent';
        }
      }
      if (posted === 'gone') return this.#remove(connection, 'GONE');
      if (posted === 'slow') return this.#remove(connection, 'SLOW_CLIENT');
      await this.#move(connection, subscription, position, caughtUp);
      if (posted === 'failed') return pause(FAILED_MS);
    }
  }

  async #move(connection: Connection, subscription: Subscription, position: string, caughtUp: boolean): Promise<void> {
    if (position === subscription.position && caughtUp === subscription.caughtUp) return;
    if (await this.#options.connections.move(connection.id, subscription, position, caughtUp))
      Object.assign(subscription, { position, caughtUp });
    else this.#connections.delete(connection.id); // it changed what it wants: seen at the next look
  }

  async #post({ id }: Connection, frame: string): Promise<Posted | 'failed'> {
    try {
      const posted = await this.#options.sockets.post(id, frame);
      if (posted === 'sent') this.counts.frames++;
      return posted;
    } catch (error) {
      this.#options.log({ level: 'warn', message: 'a frame was not sent', connection_id: id, error: String(error) });
      return 'failed';
    }
  }

  /** The credential holds no more: said, then closed. */
  async #end(connection: Connection): Promise<void> {
    const { expires_at } = connection.caller;
    const isExpired = expires_at !== '' && Date.parse(expires_at) <= Date.now();
    const code = isExpired ? 'TOKEN_EXPIRED' : 'TOKEN_REVOKED';
    await this.#post(connection, frames.end(code));
    await this.#remove(connection, code);
  }

  async #remove({ id }: Connection, why: string): Promise<void> {
    this.counts.ended[why] = (this.counts.ended[why] ?? 0) + 1;
    if (why !== 'GONE') await this.#options.sockets.close(id);
    await this.#options.connections.remove(id);
    this.#connections.delete(id);
  }
}

interface Asked extends Omit<TimelineQuestion, 'wait_ms'> {
  connections: Connection[];
}

/** Each connection in one question, those of the same identity side by side: so that a span is read once for all of them. */
function questionsFor(connections: Connection[]): Asked[] {
  const asked: Asked[] = [];
  let groups = new Map<string, TimelineGroup>();
  let callers = new Map<string, CallerFields>();
  let members: Connection[] = [];
  const close = () => {
    if (members.length === 0) return;
    asked.push({ connections: members, groups: [...groups.values()], callers: [...callers.values()] });
    [groups, callers, members] = [new Map(), new Map(), []];
  };
  const byIdentity = Map.groupBy(connections, ({ caller }) => JSON.stringify([caller.tenant_id, caller.user_id]));
  for (const connection of [...byIdentity.values()].flat()) {
    const own = connection.subscriptions.map((subscription) => groupOf(connection, subscription));
    const added = own.filter((group) => !groups.has(groupKey(group)));
    if (groups.size + added.length > GROUPS_MAX || callers.size >= CALLERS_MAX) close();
    for (const group of own) groups.set(groupKey(group), group);
    callers.set(callerKey(connection.caller), connection.caller);
    members.push(connection);
  }
  close();
  return asked;
}

function groupOf({ caller }: Connection, { filter, position, caughtUp }: Subscription): TimelineGroup {
  const { user_id, tenant_id } = caller;
  return { user_id, tenant_id, filter: JSON.parse(filter), after: position, caught_up: caughtUp };
}

function groupKey(group: TimelineGroup): string {
  return JSON.stringify(group);
}

function callerKey(caller: CallerFields): string {
  return JSON.stringify(caller);
}
