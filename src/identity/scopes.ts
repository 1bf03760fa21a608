import { AccessError } from '../errors.ts';

/** What a credential may allow; beside these, `kernel:<name>:invoke` for one kernel of the manifest. */
const SCOPES: ReadonlySet<string> = new Set([
  '*',
  'spans:read',
  'spans:append',
  'execute',
  'requests:read',
  'requests:manage',
  'boot',
  'tokens:manage',
]);
const KERNEL_SCOPE = /^kernel:[^\s:*\0\p{Cs}]{1,100}:invoke$/u;

/** For people who named another one. */
export const SCOPE_EXPECTED = `one of ${[...SCOPES].join(', ')}, or kernel:<name>:invoke`;

export function isScope(text: string): boolean {
  return SCOPES.has(text) || KERNEL_SCOPE.test(text);
}

export function kernelScope(name: string): string {
  return `kernel:${name}:invoke`;
}

/** Whether these scopes allow what that one allows: `*` everything, `boot` every kernel. */
export function allows(scopes: readonly string[], scope: string): boolean {
  return scopes.includes('*') || scopes.includes(scope) || (KERNEL_SCOPE.test(scope) && scopes.includes('boot'));
}

/** @throws {AccessError} `SCOPE_MISSING`, naming it. */
export function requireScope({ scopes }: { scopes: readonly string[] }, scope: string): void {
  if (!allows(scopes, scope)) throw new AccessError('SCOPE_MISSING', `this takes the scope ${scope}`);
}
