import { randomUUID } from 'node:crypto';
import { appendSpans, type Identity, listenForWork, type SpanDraft } from '../../src/ledger/index.ts';
import type { Stage0 } from '../../src/stage0/index.ts';
import { type RequestOptions, requestDraft } from '../../src/work/index.ts';
import { ROLES, type RoleName, workShift } from '../../src/worker/index.ts';
import { Program } from '../local/stack-process.ts';
import type { AnyJson, Installation } from '../stage0/installation.ts';
import { contextOf } from '../support/spans.ts';

const UNTIL_MS = 60_000;
const LOOK_MS = 25;

/** A role at work in a container of its own, until it is told to stop. */
export interface WorkingRole {
  /** How its boot ended, whoever ended it. */
  ended: Promise<AnyJson>;
  stop(): Promise<AnyJson>;
}

/** `listenUrl`: where it hears of new work at once; without it, it looks each second. */
export function startRole(
  stage0: Stage0,
  name: RoleName,
  endOfTimeMs = 600_000,
  listenUrl: string | null = null,
): WorkingRole {
  const stop = new AbortController();
  const endOfTime = new Date(Date.now() + endOfTimeMs);
  const onWork = (listener: () => void) => {
    const end = listenForWork({ url: listenUrl as string }, listener);
    return () => void end();
  };
  const options = { endOfTime, stop: stop.signal, ...(listenUrl === null ? {} : { onWork }) };
  const answer = workShift(stage0, ROLES[name], options);
  answer.catch(() => {});
  return {
    ended: answer,
    async stop() {
      stop.abort();
      return answer;
    },
  };
}

/** Let a role work until something is so; answers how its boot ended. */
export async function workUntil(stage0: Stage0, name: RoleName, isDone: () => Promise<boolean>): Promise<AnyJson> {
  const role = startRole(stage0, name);
  try {
    await until(isDone);
  } finally {
    await role.stop().catch(() => {});
  }
  return role.stop();
}

/** Wait until something is so. */
export async function until(isDone: () => Promise<boolean>, timeoutMs = UNTIL_MS): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!(await isDone())) {
    if (Date.now() > deadline) throw new Error(`not so after ${timeoutMs} ms: ${isDone}`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}

/** Requests of one owner, appended together; `more` is in all of them. Answers their ids. */
export async function requestRuns(
  installation: Installation,
  functionId: string,
  identity: Identity,
  options: RequestOptions[],
  more: Partial<SpanDraft> = {},
): Promise<string[]> {
  const drafts = options.map((one): SpanDraft => {
    return { ...requestDraft({ id: functionId }, one), ...more, id: randomUUID(), seq: 0 };
  });
  const context = { ...contextOf(identity), now: () => new Date() };
  for (let i = 0; i < drafts.length; i += 500) {
    await appendSpans(installation.stage0.database, drafts.slice(i, i + 500), context);
  }
  return drafts.map(({ id }) => id as string);
}

/** How many requests wait or are worked on. */
export async function openRequests(installation: Installation, where = 'true'): Promise<number> {
  const text = `select count(*)::int as n from ledger.request_queue where state <> 'dead' and ${where}`;
  return (await installation.admin.query(text)).rows[0].n;
}

/** A container of its own, in a process of its own, that works shift after shift. */
export function startWorkerProcess(installation: Installation, name: RoleName): Program {
  return new Program('test/worker/worker-process.ts', [name, installation.ledger.urls.loglineos_app], {});
}
