/**
 * Thin clients of AWS services: the only room with the SDK. It translates; it decides nothing, and must never log what
 * it carries.
 */
export { putMetrics } from './cloudwatch.ts';
export { readSecretField } from './secrets.ts';
