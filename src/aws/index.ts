/**
 * Thin clients of AWS services: the only room with the SDK. It translates; it decides nothing, and must never log what
 * it carries.
 *
 * The clients of the WebSocket's functions (`dynamodb.ts`, `gateway.ts`, `lambda.ts`) are imported by name: what is exported
 * here is packed with every function that imports anything of it.
 */
export { putMetrics } from './cloudwatch.ts';
export { readSecretField } from './secrets.ts';
