import { ROLES } from '../worker/index.ts';
import { shiftHandler } from './shift.ts';

/** `loglineos-request-worker`: work on the queue of requests, until the time is up. */
export const handler = shiftHandler(ROLES['request-worker']);
