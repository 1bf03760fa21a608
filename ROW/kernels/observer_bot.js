/**
 * observer_bot_kernel: ask for a run of each function that is due.
 *
 * A function is looked at while its newest version has the status `scheduled`: with `metadata.schedule` (cron, an ISO
 * duration or a repeating interval, by the clock of `metadata.timezone`) again and again, without it once, at its
 * `scheduled_at`. Any number of observers may look at once: for one due time there is one request.
 *
 * @param {Ctx} ctx
 */
export default async function main(ctx) {
  const sum = { requested: 0, missed: 0, refused: 0, lost: 0 };
  for (;;) {
    const { work, is_over, next_at } = await ctx.claim('schedules', { limit: CLAIM_MAX });
    if (is_over) return sum;
    const items = work.map((schedule) => decide(ctx, schedule, sum));
    if (items.length > 0) sum.lost += (await ctx.complete(items)).lost.length;
    const untilNext = next_at ? Date.parse(next_at) - Date.parse(ctx.now()) : IDLE_MS;
    if (untilNext > 0) await ctx.outcomes(Math.min(untilNext, IDLE_MS));
  }
}

const CLAIM_MAX = 100;
/** How long to wait at most before looking again: functions may have been scheduled meanwhile. */
const IDLE_MS = 1_000;
/** A due time that is older than this was missed: nobody was there. */
const MISSED_MS = 10_000;

/**
 * Where something was missed, the last due time stands for all of them: one run catches up, not a thousand.
 *
 * @param {Ctx} ctx
 * @param {Record<string, any>} schedule
 * @param {{ requested: number, missed: number, refused: number }} sum
 */
function decide(ctx, { function_id, due, next_at, error }, sum) {
  if (error !== null) {
    sum.refused += 1;
    return { function_id, due: [], next_at: null, error };
  }
  const isMissed = due.length > 0 && Date.parse(ctx.now()) - Date.parse(due[0]) > MISSED_MS;
  const wanted = isMissed ? due.slice(-1) : due;
  sum.requested += wanted.length;
  sum.missed += due.length - wanted.length;
  return { function_id, due: wanted, next_at, error: null };
}
