/**
 * Who works, and for how long: a *shift* is one boot of a kernel that takes work until its time is up.
 *
 * In AWS a schedule starts an invocation each minute, and each is one shift; on a laptop one follows the other. A shift
 * leaves one boot_event and one execution, however much or little it did. Authoritative for when a shift ends: before its
 * time would cut off what is open, when the host stops, and within a second after the manifest or the kernel changed.
 * Must never do the work itself, nor decide what the kernel decides.
 */
export { reapChore } from './chores.ts';
export { ROLES, type Role, type RoleName } from './roles.ts';
export { type Chore, invokeShift, type ShiftAnswer, type ShiftOptions, workShift, workShifts } from './shift.ts';
