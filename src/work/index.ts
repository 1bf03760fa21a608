/**
 * The work behind `ctx.claim`: requests to run a function, functions that run by the clock, policies over new spans.
 *
 * A kernel decides (how many, what is retried, what is given up, who is paused); here is how it is done: the leases, the
 * fences, the runs in the untrusted sandbox, and one statement or transaction for each outcome, so that two workers on
 * one piece of work leave what one would have left. Authoritative for what a claim holds and when it is lost. Must never
 * append in a name other than that of the owner of the work, and never decide what a kernel should.
 *
 * The three kinds of work, and `due-times.ts` with its two libraries, are fetched by name where they are first used: a
 * Stage-0 that only answers callers starts without them.
 */
export { createPublisher, type Metric, WorkCounters } from './metrics.ts';
export {
  type SimulatedAction,
  type SimulatedAnswer,
  type SimulatedPolicy,
  type SimulationCounts,
  simulatePolicy,
} from './policy-simulation.ts';
export { type RequestOptions, requestDraft } from './request-draft.ts';
export type { Tick, Work } from './tick.ts';
