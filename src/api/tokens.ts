import { OpenAPIHono } from '@hono/zod-openapi';
import { createApiToken, listApiTokens, revokeApiToken, type Tickets } from '../identity/index.ts';
import type { Stage0 } from '../stage0/index.ts';
import type { Variables } from './input.ts';
import { addRoute } from './openapi.ts';
import {
  EXAMPLE_TOKEN_ID,
  NewTokenSchema,
  TicketSchema,
  TokenBody,
  TokenPageSchema,
  TokenParams,
  TokenQuerySchema,
  TokenSchema,
} from './schemas.ts';

const EXAMPLE_TOKEN = {
  id: EXAMPLE_TOKEN_ID,
  name: 'reports',
  scopes: ['spans:read'],
  status: 'active',
  expires_at: '2027-02-23T03:04:09.120Z',
};

/** Credentials for programs: API tokens, and tickets for sockets and streams. */
export function tokenRoutes(stage0: Stage0, { createTicket }: Tickets): OpenAPIHono<Variables> {
  const app = new OpenAPIHono<Variables>();

  addRoute(
    app,
    {
      method: 'post',
      path: '/tokens',
      operationId: 'createToken',
      summary: 'Make an API token that speaks for the caller',
      description:
        'It allows nothing that the caller may not do. The token is in this answer alone: keep it. A token that a token ' +
        'made ends with that one, and can make none itself.',
      tag: 'Tokens',
      body: {
        schema: TokenBody,
        examples: { reports: { name: 'reports', scopes: ['spans:read'], expires_in_s: 7_776_000 } },
      },
      status: 201,
      answer: NewTokenSchema,
      example: { ...EXAMPLE_TOKEN, token: 'llo_Zk3…' },
    },
    ({ body }, c) => createApiToken(stage0, c.get('caller'), body),
  );

  addRoute(
    app,
    {
      method: 'get',
      path: '/tokens',
      operationId: 'listTokens',
      summary: 'The caller’s own API tokens, newest first',
      tag: 'Tokens',
      query: TokenQuerySchema,
      status: 200,
      answer: TokenPageSchema,
      example: { tokens: [EXAMPLE_TOKEN], before: null },
    },
    ({ query: { before, limit } }, c) => listApiTokens(stage0, c.get('caller'), before ?? null, limit),
  );

  addRoute(
    app,
    {
      method: 'post',
      path: '/tokens/{id}/revoke',
      operationId: 'revokeToken',
      summary: 'End one of the caller’s own API tokens, and those it made, at once',
      description: 'Streams and sockets that were opened with it end within a second.',
      tag: 'Tokens',
      params: TokenParams,
      status: 200,
      answer: TokenSchema,
      example: { ...EXAMPLE_TOKEN, status: 'revoked' },
      problems: [404],
    },
    ({ params: { id } }, c) => revokeApiToken(stage0, c.get('caller'), id),
  );

  addRoute(
    app,
    {
      method: 'post',
      path: '/tickets',
      operationId: 'createTicket',
      summary: 'A ticket for a stream or a socket, for clients that can send no header',
      description:
        'It speaks for the caller for half a minute, as `?ticket=` of `GET /api/timeline/stream` or `GET /ws`.',
      tag: 'Tokens',
      status: 201,
      answer: TicketSchema,
      example: { ticket: 'eyJjYWxsZXIi….K7g…', expires_at: '2026-11-25T03:04:39.120Z' },
    },
    async (_said, c) => {
      const { ticket, expiresAt } = createTicket(c.get('caller'));
      return { ticket, expires_at: expiresAt.toISOString() };
    },
  );

  return app;
}
