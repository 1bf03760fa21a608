/** Who may come in, and who was refused: said by the host itself, not even by kernels. */
export const RESERVED_FOR_KERNELS: ReadonlySet<string> = new Set(['access_denied', 'api_token']);

/** What only the system says: of what ran, of what it refused, of what may run at all, and who may come in. */
const SYSTEM_TYPES = [
  ...RESERVED_FOR_KERNELS,
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
];

/** No client says these. A `status_patch` is what kernels and policies say of another's run. */
export const RESERVED_FOR_CLIENTS: ReadonlySet<string> = new Set([...SYSTEM_TYPES, 'status_patch']);

/** No policy says these. Code comes from people alone, so that no policy makes policies without end. */
export const RESERVED_FOR_POLICIES: ReadonlySet<string> = new Set([...SYSTEM_TYPES, 'function', 'policy']);

/** How the system signs its sentences: nobody else is called so. */
export const RESERVED_WHO = /^(kernel|policy):|^(api|stage0|seed)$/;
