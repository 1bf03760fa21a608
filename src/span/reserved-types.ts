/** What only the system says: of what ran, of what it refused, of what may run at all, and who may come in. */
const SYSTEM_TYPES = [
  'api_token',
  'boot_event',
  'execution',
  'loader',
  'manifest',
  'policy_error',
  'policy_violation',
  'provider',
  'provider_execution',
  'request',
  'schedule_error',
] as const;

/** No client says these. A `status_patch` is what kernels and policies say of another's run. */
export const RESERVED_FOR_CLIENTS: ReadonlySet<string> = new Set([...SYSTEM_TYPES, 'status_patch']);

/** No policy says these. Code comes from people alone, so that no policy makes policies without end. */
export const RESERVED_FOR_POLICIES: ReadonlySet<string> = new Set([...SYSTEM_TYPES, 'function', 'policy']);
