/**
 * request_worker_kernel: take due requests from the queue, run their functions as their owners, and say how each ends.
 *
 * Works for as long as its shift lasts. The host leases, runs, signs and fences; what is decided is decided here: how
 * many requests are open at once, what is tried again and when, and what is given up.
 *
 *   scheduled ──▶ complete                     it ran and answered
 *       │  ▲ └──▶ error ──▶ (its time) ──┐     it failed, and is tried again
 *       │  └────────────────────────────┘
 *       └───────▶ dead                         it failed for the last time, or may not run at all
 *
 * @param {Ctx} ctx
 */
export default async function main(ctx) {
  const sum = { claimed: 0, ended: /** @type {Record<string, number>} */ ({}) };
  /** @type {Map<string, any>} */
  const open = new Map();
  let isOver = false;
  let mayClaim = true;
  let lookedAt = 0;
  let slots = SLOTS_MIN;
  // What has ended is closed while the next is claimed and run: one batch is sealed while another is being written.
  /** @type {Promise<void>[]} */
  const closings = [];

  while (!isOver || open.size > 0) {
    const now = Date.parse(ctx.now());
    const free = slots - open.size;
    if (!isOver && mayClaim && free >= (now - lookedAt < LOOK_MS ? CLAIM_MIN : 1)) {
      lookedAt = now;
      const claimed = await ctx.claim('requests', { limit: free, reserve: RESERVE });
      isOver = claimed.is_over;
      sum.claimed += claimed.work.length;
      for (const request of claimed.work) open.set(request.request_id, { ...request, claimed_at: now });
      const refused = claimed.work.filter((request) => request.refusal !== null || request.takeovers > TAKEOVERS_MAX);
      await close(refused.map(refusal));
      await ctx.run(claimed.work.map((request) => request.request_id).filter((id) => open.has(id)));
    }

    const heard = await ctx.outcomes(open.size > 0 ? LOOK_MS : IDLE_MS);
    isOver ||= heard.is_over;
    for (const { request_id } of heard.outcomes) {
      const isSoon = Date.parse(ctx.now()) - open.get(request_id).claimed_at < SOON_MS;
      slots = isSoon ? Math.min(slots + 1, SLOTS_MAX) : Math.max(slots - 1, SLOTS_MIN);
    }
    while (closings.length >= CLOSINGS_MAX) await closings.shift();
    closings.push(close(heard.outcomes.map((outcome) => decide(ctx, outcome, open.get(outcome.request_id)))));
    if (isOver) await Promise.all(closings);
    // A sandbox that takes nothing now will not take more a moment later.
    mayClaim = heard.outcomes.length === 0 || heard.outcomes.some((outcome) => outcome.status !== 'not_run');
  }
  return sum;

  /** @param {Record<string, any>[]} closings */
  async function close(closings) {
    if (closings.length === 0) return;
    const closed = closings.map(({ request_id }) => open.get(request_id));
    const { lost } = await ctx.complete(closings);
    for (const [i, { request_id, status }] of closings.entries()) {
      // What was given back, or is tried again soon, may be claimed anew by now: that claim goes on.
      if (open.get(request_id) === closed[i]) open.delete(request_id);
      const end = lost.includes(request_id) ? 'lost' : status;
      sum.ended[end] = (sum.ended[end] ?? 0) + 1;
    }
  }
}

/**
 * Requests that are open at once: more, as long as they have run this soon after they were claimed. What waits longer
 * here would better wait for another worker.
 */
const SLOTS_MIN = 128;
const SLOTS_MAX = 320;
const SOON_MS = 500;
/** How many of them are kept for tenants of whom nothing is worked on yet. */
const RESERVE = 32;
/** How many must be free for a look at the queue, so that it is worth it; after a while one is enough. */
const CLAIM_MIN = RESERVE + 64;
const LOOK_MS = 200;
/** Batches that are closed at once. */
const CLOSINGS_MAX = 2;
/** How long to wait for an outcome, or a hint of new work, before looking at the queue again. */
const IDLE_MS = 1_000;

/** Times that a request runs, unless it says otherwise. */
const ATTEMPTS_MAX = 3;
/** Wait before the second attempt; doubled for each one after, up to the maximum. */
const BACKOFF_MS = 1_000;
const BACKOFF_MS_MAX = 600_000;
const DOUBLINGS_MAX = 32;
/** The longest wait that a request may ask for: a day. */
const WAIT_MS_MAX = 86_400_000;
/** Workers that may vanish with one attempt, before the request itself is what ends them. */
const TAKEOVERS_MAX = 10;

/**
 * May not run at all: given up at once.
 *
 * @param {Record<string, any>} request
 */
function refusal({ request_id, refusal: refused, takeovers }) {
  const lost = { code: 'LOST', message: `${takeovers} workers vanished while they had this request` };
  const error = refused ?? lost;
  return { request_id, status: 'dead', error, violation: error.code === 'QUOTA_EXCEEDED' };
}

/**
 * @param {Ctx} ctx
 * @param {Record<string, any>} outcome of its run
 * @param {Record<string, any>} request
 */
function decide(ctx, { request_id, status, code, message, line }, { attempt, max_attempts, retry }) {
  if (status === 'complete') return { request_id, status };
  const error = { code, message, line };
  if (status === 'not_run') {
    // No room, or no child: it goes back as if it had never been taken. What no sandbox takes, or no span holds, is given up.
    return code.startsWith('SANDBOX_') ? { request_id, status: 'released' } : { request_id, status: 'dead', error };
  }
  if (attempt >= (max_attempts ?? ATTEMPTS_MAX)) return { request_id, status: 'dead', error };
  const max = duration(retry?.max_ms, BACKOFF_MS_MAX);
  const backoff = Math.min(duration(retry?.backoff_ms, BACKOFF_MS) * 2 ** Math.min(attempt - 1, DOUBLINGS_MAX), max);
  // Half of it is left to chance, so that what failed together does not come back together.
  const wait = Math.round(backoff * (0.5 + Math.random() / 2));
  return { request_id, status: 'error', error, retry_at: new Date(Date.parse(ctx.now()) + wait).toISOString() };
}

/**
 * What a request says, where it is a time.
 *
 * @param {unknown} asked
 * @param {number} otherwise
 */
function duration(asked, otherwise) {
  return typeof asked === 'number' && asked >= 0 ? Math.min(asked, WAIT_MS_MAX) : otherwise;
}
