/**
 * A kernel for tests: does what its input asks with `ctx`, and answers what came of it. Signed by the tests' root key.
 *
 * @param {Ctx} ctx
 */
export default async function main(ctx) {
  const { probe, ...args } = ctx.input ?? {};
  const run = probes[probe];
  if (run === undefined) throw new Error(`no probe ${probe}`);
  return run(ctx, args);
}

/** @type {Record<string, (ctx: Ctx, args: any) => unknown>} */
const probes = {
  env: (ctx) => ({ env: ctx.env, now: ctx.now(), uuid: ctx.randomUUID() }),
  answer: (_ctx, { value }) => value,
  undefined: () => undefined,
  nul: () => 'before\0after',
  surrogate: () => '\ud800',
  beyondSafe: () => 2 ** 60,
  deep: () => {
    /** @type {any} */
    let nested = 1;
    for (let i = 0; i < 80; i++) nested = [nested];
    return nested;
  },
  large: (_ctx, { length }) => 'x'.repeat(length),
  spin: () => {
    for (;;);
  },
  throwsHere: () => {
    throw Object.assign(new Error('the probe failed on purpose'), { code: 'ON_PURPOSE' });
  },
  /** What this boot looks like to another transaction while it runs. */
  myself: (ctx) => ctx.sql`
    select entity_type, status from ledger.universal_registry
     where id = ${ctx.env.boot_event_id} or caused_by = ${ctx.env.boot_event_id} order by entity_type`,
  select: (ctx, { ids }) => ctx.sql`select id from ledger.universal_registry where id = any(${ids})`,
  sql: (ctx, { text }) => ctx.sql(template(text)),
  /** Answers that come while others are still out, again and again. */
  overlap: (ctx) => {
    /** @param {number} rows */
    const chain = async (rows) => {
      for (let i = 0; i < 20; i++) await ctx.sql`select count(*) from generate_series(1, ${rows}::int)`;
      return rows;
    };
    return Promise.all([1, 100, 2_000].map(chain));
  },
  fetch: (ctx, { id }) => ctx.fetchSpan(id),
  append: (ctx, { span }) => ctx.append(span),
  log: (ctx, { message }) => ctx.log('info', message, { of: 'a probe' }),
  invoke: (ctx, { kernel, input }) => ctx.invoke(kernel, input),
  /** Invokes itself until it is told no. */
  dive: async (ctx, { depth = 0 }) => {
    try {
      return await ctx.invoke(ctx.env.kernel_id, { probe: 'dive', depth: depth + 1 });
    } catch (error) {
      const { code, message } = /** @type {{ code?: string, message: string }} */ (error);
      return { depth, error: { code, message } };
    }
  },
  lockAppend: (ctx, { key, span, fails = false, busy = 0 }) =>
    ctx.lock(key, async () => {
      const startedAt = ctx.now();
      const appended = await ctx.append(span);
      const visible = await ctx.sql`select id from ledger.universal_registry where id = ${appended.id}`;
      wait(busy);
      if (fails) throw new Error('let go without committing');
      return { ...appended, visible: visible.length, startedAt, finishedAt: ctx.now() };
    }),
  lockSql: (ctx, { statements }) =>
    ctx.lock('sql', async () => {
      let rows = null;
      for (const text of statements) rows = await ctx.sql(template(text));
      return rows;
    }),
  lockInvoke: (ctx, { kernel, input }) => ctx.lock('outer', () => ctx.invoke(kernel, input)),
  lockTwice: (ctx) => ctx.lock('one', () => ctx.lock('two', () => 'both')),
  lockTogether: async (ctx) => {
    const outcomes = await Promise.allSettled([ctx.lock('one', () => 'one'), ctx.lock('two', () => 'two')]);
    return outcomes.map((outcome) => (outcome.status === 'fulfilled' ? outcome.value : outcome.reason.code));
  },
  lockThenSpin: (ctx, { key, span }) =>
    ctx.lock(key, async () => {
      await ctx.append(span);
      for (;;);
    }),
  /** Dies at its deadline while the database works, with an append still waiting for its turn. */
  lockSleepAppend: (ctx, { key, span }) =>
    ctx.lock(key, async () => {
      // The lock's own bound on a statement was set when it began, so this one ends after the kernel does.
      wait(250);
      const long = ctx.sql`select count(*) from generate_series(1, 2000000000) waits_for_its_turn`;
      return Promise.all([long, ctx.append(span), ctx.append(span)]);
    }),
  crypto: async (ctx, { text }) => ({
    blake3: await ctx.crypto.blake3(text),
    hex: await ctx.crypto.hex(text),
    canonical: await ctx.crypto.canonicalize({ b: [1, 'é'], a: null }),
  }),
  encrypt: (ctx, { text }) => ctx.crypto.encrypt(text),
  decrypt: (ctx, { text }) => ctx.crypto.decrypt(text),
  runSandboxed: (ctx, { run }) => ctx.runSandboxed(run),
};

/**
 * A template without parameters out of text that a test gives.
 *
 * @param {string} text
 * @returns {TemplateStringsArray}
 */
function template(text) {
  return Object.assign([text], { raw: [text] });
}

/**
 * Keep the processor busy: a kernel has no timer.
 *
 * @param {number} ms
 */
function wait(ms) {
  for (const end = Date.now() + ms; Date.now() < end; );
}
