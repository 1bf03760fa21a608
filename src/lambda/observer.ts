import { ROLES } from '../worker/index.ts';
import { shiftHandler } from './shift.ts';

/** `loglineos-observer`: ask for a run of each function that is due, until the time is up. */
export const handler = shiftHandler(ROLES.observer);
