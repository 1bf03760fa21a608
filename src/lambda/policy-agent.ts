import { ROLES } from '../worker/index.ts';
import { shiftHandler } from './shift.ts';

/** `loglineos-policy-agent`: show new spans to the policies, until the time is up. */
export const handler = shiftHandler(ROLES['policy-agent']);
