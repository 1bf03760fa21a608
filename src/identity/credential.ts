import { AccessError } from '../errors.ts';
import type { Authenticator, Caller } from './caller.ts';
import type { Tickets } from './ticket.ts';

/**
 * Whom a request speaks for: by its header, or by a ticket where there is no header and the route takes one.
 *
 * @param authorization the header of that name.
 * @throws {AccessError} `TOKEN_MISSING`, or whatever is wrong with what was shown.
 */
export async function readCaller(
  authenticator: Authenticator,
  { openTicket }: Tickets,
  authorization: string | undefined,
  ticket: string | undefined,
): Promise<Caller> {
  if (authorization === undefined && ticket !== undefined) return openTicket(ticket);
  const token = /^Bearer ([\x21-\x7e]+)$/.exec(authorization ?? '')?.[1];
  if (token !== undefined) return authenticator.authenticate(token);
  throw new AccessError('TOKEN_MISSING', 'expected the header Authorization: Bearer <token>');
}
