import type { Row } from '../kernel/index.ts';
import type { StoredSpan } from '../span/index.ts';

/**
 * What a policy sees and may say. It is a file with `export default function on(span, context)` that returns a list of
 * actions, run in the untrusted sandbox: no clock but `now`, no network, nothing kept from one span to the next.
 *
 * Its row's `content` is `{ trigger, match, params }`. `trigger`: `span` (each new version), `expiry` (a newest version
 * whose `expires_at` has passed) or `day` (the summary of a tenant's day that has ended, as a span of type `day`).
 * `match`: columns and the values that each may have, null for none; what does not match is never shown. `params`: the
 * policy's numbers. A policy is not shown what it brought about itself.
 *
 * The types are global, because a policy file may not hold the word of loading, not even in a comment.
 */

type JsonColumn = 'input' | 'output' | 'error' | 'content' | 'metadata';

export interface Context {
  /** `content.params` of the policy's row, or nothing. */
  params: Row;
  /** The instant at which the policy is asked, ISO 8601 in UTC. */
  now: string;
}

export type ActionDraft = {
  /** An action with a key happens once for ever, for this policy and tenant. Without one: once for each span version. */
  key?: string;
} & (
  | {
      /**
       * Columns of a span to append, in the name of the owner of the span that was seen (system policies) or of the
       * policy. With the `id` of the span that was seen it becomes that span's next version. `who`, `at`, owner,
       * tenant, cause and trace are the host's to say, and some types of spans only the system's.
       */
      emit_span: Row;
    }
  | {
      /** Asks for a run of a function. */
      run: 'run_code';
      span_id: string;
      input?: unknown;
    }
);

declare global {
  /** A span version as it is stored; columns without a value are not there. */
  // biome-ignore lint/suspicious/noExplicitAny: what JSON columns hold is for the policy to find out
  type PolicySpan = Omit<StoredSpan, JsonColumn> & { [C in JsonColumn]?: any };
  type PolicyContext = Context;
  type PolicyActions = ActionDraft[];
}
