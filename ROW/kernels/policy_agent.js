/**
 * policy_agent_kernel: show new spans to the policies that want them, and do what they say; or answer whether somebody
 * may do something.
 *
 *   (a shift)                        each active policy over what is new to it, for as long as the shift lasts
 *   { action, resource, user_id? }   { decision, policy_id, rule } by the rules of the policies that the caller can see
 *
 * A policy that fails, or meets a limit, is told so by a `policy_error` and does not stop the others; one that keeps
 * meeting a limit is left alone for a while, longer each time.
 *
 * @param {Ctx} ctx
 */
export default async function main(ctx) {
  if (ctx.input !== null && ctx.input !== undefined) return answer(ctx, ctx.input);

  const sum = { batches: 0, spans: 0, failed: 0, paused: 0, lost: 0 };
  /** @type {Map<string, any>} */
  const open = new Map();
  let isOver = false;
  while (!isOver || open.size > 0) {
    if (!isOver) {
      const { work, is_over } = await ctx.claim('policies');
      isOver = is_over;
      for (const batch of work) open.set(batch.policy_id, batch);
      const unasked = work.filter((batch) => batch.refusal !== null || batch.spans === 0);
      await close(unasked.map((batch) => verdict(ctx, batch, NOT_ASKED)));
      await ctx.run(work.filter((batch) => open.has(batch.policy_id)).map((batch) => batch.policy_id));
    }
    const heard = await ctx.outcomes(IDLE_MS);
    isOver ||= heard.is_over;
    await close(heard.outcomes.map((outcome) => verdict(ctx, open.get(outcome.policy_id), outcome)));
  }
  return sum;

  /** @param {Record<string, any>[]} verdicts */
  async function close(verdicts) {
    if (verdicts.length === 0) return;
    sum.lost += (await ctx.complete(verdicts)).lost.length;
    for (const { policy_id, errors, paused_until } of verdicts) {
      sum.batches += 1;
      sum.spans += open.get(policy_id).spans;
      sum.failed += errors.length > 0 ? 1 : 0;
      sum.paused += paused_until === undefined ? 0 : 1;
      open.delete(policy_id);
    }
  }
}

/** How long to wait for new spans before looking again. */
const IDLE_MS = 500;
/** Limits in a row that a policy may meet before it is paused, and for how long the first time and at most. */
const FAILURES_MAX = 3;
const PAUSE_MS = 5_000;
const PAUSE_MS_MAX = 600_000;

const NOT_ASKED = { errors: [], limit: null };

/**
 * How a policy goes on. What cannot be asked at all (it does not prove itself) stays where it is, and is looked at again later.
 *
 * @param {Ctx} ctx
 * @param {Record<string, any>} batch
 * @param {Record<string, any>} outcome
 */
function verdict(ctx, { policy_id, name, refusal, loops, failures: before }, { errors: thrown, limit, answered }) {
  const now = ctx.now();
  const limits = [refusal, limit].filter((error) => error !== null);
  const failures = limits.length === 0 ? 0 : before + 1;
  const pause = Math.min(PAUSE_MS * 2 ** (failures - FAILURES_MAX), PAUSE_MS_MAX);
  const isPaused = refusal !== null || failures >= FAILURES_MAX;
  const loop = { code: 'LOOP', message: `${name ?? policy_id} would be shown what it caused itself; it is not` };
  return {
    policy_id,
    advances: refusal === null && (limit === null || answered > 0),
    failures,
    ...(isPaused ? { paused_until: new Date(Date.parse(now) + Math.max(pause, PAUSE_MS)).toISOString() } : {}),
    errors: [
      // One of a kind for each minute: a policy that fails at every span does not fill the ledger with its failures.
      ...byCode([...limits, ...thrown]).map((error) => ({ ...error, key: now.slice(0, 16) })),
      ...(loops > 0 ? [{ ...loop, count: loops, key: 'loop' }] : []),
    ],
  };
}

/** @param {{ code: string, message: string }[]} errors */
function byCode(errors) {
  /** @type {Map<string, { code: string, message: string, count: number }>} */
  const found = new Map();
  for (const { code, message } of errors) {
    const known = found.get(code);
    if (known === undefined) found.set(code, { code, message, count: 1 });
    else known.count += 1;
  }
  return [...found.values()];
}

const POLICIES_MAX = 200;
/** Of an action, a resource and a user: the time to match a glob grows with its square. */
const TEXT_MAX = 1_000;

/**
 * Deny before allow, and denied where no rule says anything. The answer names the policy and whose it is: who acts on
 * an answer decides whose rules bind him, because everybody may write rules. A rule is
 * `{ effect: 'allow' | 'deny', actions: [globs], resources: [globs], users?: [globs] }` in a policy's `content.rules`.
 *
 * @param {Ctx} ctx
 * @param {Record<string, any>} question
 */
async function answer(ctx, question) {
  const { action, resource, user_id = ctx.env.user_id, ...others } = question;
  for (const [name, value] of Object.entries({ action, resource, user_id })) {
    if (typeof value !== 'string' || value === '' || value.length > TEXT_MAX) {
      throw refused(`input.${name}: expected text of 1 to ${TEXT_MAX} characters`);
    }
  }
  const unknown = Object.keys(others)[0];
  if (unknown !== undefined) throw refused(`input.${unknown}: known are action, resource and user_id`);

  const rows = await ctx.sql`
    select id from ledger.current_span
     where entity_type = 'policy' and status = 'active' and is_deleted is not true and content ? 'rules'
     order by id limit ${POLICIES_MAX + 1}`;
  // Too many to read is too many to be sure of.
  if (rows.length > POLICIES_MAX) throw refused(`more than ${POLICIES_MAX} policies have rules`);
  const policies = await Promise.all(rows.map(({ id }) => ctx.fetchSpan(id)));
  let allowed = null;
  for (const policy of policies) {
    if (policy === null) continue;
    const rules = Array.isArray(policy.content.rules) ? policy.content.rules : [];
    for (const [index, rule] of rules.entries()) {
      if (!applies(rule, action, resource, user_id)) continue;
      const { id, name = null, owner_id, tenant_id } = policy;
      const found = { policy_id: id, policy: name, owner_id, tenant_id, rule: { index, ...rule } };
      if (rule.effect === 'deny') return { decision: 'deny', ...found };
      if (rule.effect === 'allow') allowed ??= { decision: 'allow', ...found };
    }
  }
  return allowed ?? { decision: 'deny', policy_id: null, policy: null, owner_id: null, tenant_id: null, rule: null };
}

/**
 * @param {Record<string, any>} rule
 * @param {string} action
 * @param {string} resource
 * @param {string} user
 */
function applies(rule, action, resource, user) {
  return matches(rule?.actions, action) && matches(rule?.resources, resource) && matches(rule?.users ?? ['**'], user);
}

/**
 * @param {unknown} globs
 * @param {string} text
 */
function matches(globs, text) {
  return Array.isArray(globs) && globs.some((glob) => typeof glob === 'string' && matchesGlob(glob, text));
}

/**
 * `*` is any text without a slash, `**` any text, `?` one character that is no slash. Walked with one place to come back
 * to and not by a regular expression, whose time a rule could make endless.
 *
 * @param {string} glob
 * @param {string} text
 */
function matchesGlob(glob, text) {
  let at = 0;
  let from = 0;
  /** @type {{ glob: number, text: number, crosses: boolean }[]} */
  const stars = [];
  for (;;) {
    if (glob[at] === '*') {
      const crosses = glob[at + 1] === '*';
      at += crosses ? 2 : 1;
      // Coming back to an earlier star is only worth it where the later one may not cross a slash and the earlier may.
      if (crosses) stars.length = 0;
      else if (stars.at(-1)?.crosses === false) stars.pop();
      stars.push({ glob: at, text: from, crosses });
      continue;
    }
    if (
      from < text.length &&
      at < glob.length &&
      (glob[at] === text[from] || (glob[at] === '?' && text[from] !== '/'))
    ) {
      at += 1;
      from += 1;
      continue;
    }
    if (at === glob.length && from === text.length) return true;
    for (;;) {
      const star = stars.at(-1);
      if (star === undefined) return false;
      if (star.text < text.length && (star.crosses || text[star.text] !== '/')) {
        star.text += 1;
        at = star.glob;
        from = star.text;
        break;
      }
      stars.pop();
    }
  }
}

/** @param {string} message */
function refused(message) {
  return Object.assign(new Error(message), { code: 'INPUT_INVALID' });
}
