import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto';
import { AccessError } from '../errors.ts';
import type { Authenticator, Caller } from './caller.ts';

export interface Ticket {
  ticket: string;
  expiresAt: Date;
}

/** Passes for the sockets and streams of clients that can send no header. */
export interface Tickets {
  createTicket(caller: Caller): Ticket;
  /** @throws {AccessError} `TICKET_INVALID`: altered, over, or its caller's credential has ended. */
  openTicket(ticket: string): Promise<Caller>;
}

const TICKET_MS = 30_000;

/**
 * A ticket says whom it is for, and that we said so (HMAC-SHA-256); nobody keeps it. It may end up in the log of a proxy,
 * so it is soon worth nothing, and it is of a form that no bearer token has.
 *
 * @param masterKey 32 bytes; the tickets' key is derived from it by HKDF-SHA-256 (RFC 5869).
 */
export function createTickets(masterKey: Uint8Array, authenticator: Authenticator, now: () => Date): Tickets {
  const key = new Uint8Array(hkdfSync('sha256', masterKey, 'loglineos ticket key', '', 32));
  const macOf = (said: string) => createHmac('sha256', key).update(said).digest();

  return {
    createTicket(caller) {
      const expiresAt = new Date(now().getTime() + TICKET_MS);
      const said = Buffer.from(JSON.stringify({ caller, until: expiresAt })).toString('base64url');
      return { ticket: `${said}.${macOf(said).toString('base64url')}`, expiresAt };
    },

    async openTicket(ticket) {
      const [said = '', mac = '', ...more] = ticket.split('.');
      const given = Buffer.from(mac, 'base64url');
      const expected = macOf(said);
      const isOurs = more.length === 0 && given.length === expected.length && timingSafeEqual(given, expected);
      if (!isOurs) throw new AccessError('TICKET_INVALID', 'this ticket is not one of ours');
      const { caller, until } = JSON.parse(Buffer.from(said, 'base64url').toString());
      const opened: Caller = { ...caller, expiresAt: caller.expiresAt === null ? null : new Date(caller.expiresAt) };
      const isOver = new Date(until) <= now() || (await authenticator.ended([opened])).length > 0;
      if (isOver) throw new AccessError('TICKET_INVALID', 'this ticket is over; ask for another');
      return opened;
    },
  };
}
