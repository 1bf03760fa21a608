export type RoleName = 'observer' | 'request-worker' | 'policy-agent';

export interface Role {
  name: RoleName;
  kernelId: string;
  /** One at a time suffices; the others wait or go. Of the rest, as many as the host likes work side by side. */
  isSingle: boolean;
  /** Whether a hint of new work is for it; the others look by themselves, often enough. */
  isWoken: boolean;
  /** How long something that was taken may still take. No work is taken when less is left of the shift. */
  longestStepMs(policy: { timeout_ms: number }): number;
}

const KERNEL = '00000000-0000-4000-8000-00000000000';

export const ROLES: Record<RoleName, Role> = {
  observer: { name: 'observer', kernelId: `${KERNEL}2`, isSingle: true, isWoken: false, longestStepMs: () => 1_000 },
  'request-worker': {
    name: 'request-worker',
    kernelId: `${KERNEL}3`,
    isSingle: false,
    isWoken: true,
    longestStepMs: ({ timeout_ms }) => timeout_ms,
  },
  'policy-agent': {
    name: 'policy-agent',
    kernelId: `${KERNEL}4`,
    isSingle: true,
    isWoken: false,
    // Three seconds for the spans together, and then one by one up to the one that takes too long.
    longestStepMs: () => 10_000,
  },
};
