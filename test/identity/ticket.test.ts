import { describe, expect, it } from 'vitest';
import { AccessError } from '../../src/errors.ts';
import { type Authenticator, type Caller, createTickets } from '../../src/identity/index.ts';
import { ALICE } from '../support/spans.ts';
import { callerOf } from './support.ts';

const MASTER_KEY = new Uint8Array(32).fill(5);
let clock = new Date('2026-11-23T10:00:00.000Z');
const now = () => clock;
const ended = new Set<string>();
const authenticator: Authenticator = {
  authenticate: async () => expect.fail('a ticket is no bearer token'),
  ended: async (callers) => callers.filter(({ tokenId }) => ended.has(tokenId ?? '')),
};
const tickets = createTickets(MASTER_KEY, authenticator, now);

const caller: Caller = {
  ...callerOf(ALICE, ['spans:read', 'execute']),
  tokenId: '5a0e4b6d-7d9f-4c52-9a53-0c1f6f0a2b11',
  expiresAt: new Date('2026-11-23T11:00:00.000Z'),
};

async function expectRefused(ticket: string): Promise<void> {
  const error = await tickets.openTicket(ticket).catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(AccessError);
  expect(error).toMatchObject({ code: 'TICKET_INVALID' });
}

describe('a ticket', () => {
  it('carries the caller, for half a minute', async () => {
    const { ticket, expiresAt } = tickets.createTicket(caller);
    expect(expiresAt).toEqual(new Date(clock.getTime() + 30_000));
    expect(await tickets.openTicket(ticket)).toEqual(caller);
    expect(await tickets.openTicket(tickets.createTicket(callerOf(ALICE)).ticket)).toEqual(callerOf(ALICE));
    const before = clock;
    clock = new Date(before.getTime() + 29_999);
    expect(await tickets.openTicket(ticket)).toEqual(caller);
    clock = new Date(before.getTime() + 30_000);
    await expectRefused(ticket);
    clock = before;
  });

  it('is opened by every process that has the key, and by no other', async () => {
    const { ticket } = tickets.createTicket(caller);
    expect(await createTickets(MASTER_KEY, authenticator, now).openTicket(ticket)).toEqual(caller);
    const others = createTickets(new Uint8Array(32).fill(6), authenticator, now);
    await expect(others.openTicket(ticket)).rejects.toMatchObject({ code: 'TICKET_INVALID' });
  });

  it('is worth nothing once it was changed in any place', async () => {
    const { ticket } = tickets.createTicket(caller);
    for (let i = 0; i < ticket.length; i++) {
      const other = ticket[i] === 'A' ? 'Q' : 'A'; // they differ in bits that every digit has
      await expectRefused(`${ticket.slice(0, i)}${other}${ticket.slice(i + 1)}`);
    }
    const [said = '', mac = ''] = ticket.split('.');
    const more = Buffer.from(Buffer.from(said, 'base64url').toString().replace('spans:read', '*')).toString(
      'base64url',
    );
    for (const altered of ['', '.', said, `${said}.`, `.${mac}`, `${ticket}.`, `${ticket}.x`, `${more}.${mac}`]) {
      await expectRefused(altered);
    }
  });

  it('ends with the credential that it was made with', async () => {
    const { ticket } = tickets.createTicket(caller);
    ended.add(caller.tokenId as string);
    await expectRefused(ticket);
    ended.clear();
    expect(await tickets.openTicket(ticket)).toEqual(caller);
  });
});
