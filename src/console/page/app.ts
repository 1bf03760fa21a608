import type { Client } from '../../client/index.ts';
import { AccessError, LogLineError } from '../../errors.ts';
import { h } from './dom.ts';

/** What every view is given. */
export interface App {
  client: Client;
  me: { user_id: string; tenant_id: string };
  /** What the address says behind the view's name. */
  path: string[];
  query: URLSearchParams;
  /** Aborted when the view is left. */
  signal: AbortSignal;
  /** Say something to who cannot see it; what comes too fast is left out. */
  announce(text: string): void;
  /** Whether new spans arrive. */
  showConnection(state: 'live' | 'away' | 'paused' | 'idle'): void;
  /** Keep the address true to what is shown, without a step back to each filter. */
  replaceQuery(query: Record<string, string>): void;
  /** Put the focus back on the row that was opened, after a step back. */
  restoreFocus(rows: ParentNode): void;
  /** The credential ended. */
  signOut(why: string): void;
}

/** A view: what stands under an address. */
export type View = (app: App) => HTMLElement;

/** Work of a view that nobody waits for: a failure is shown where it belongs, and none when the view was left. */
export async function attempt(app: App, place: Element, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (app.signal.aborted) return;
    if (error instanceof AccessError && error.code.startsWith('TOKEN_')) app.signOut(friendlyText(error));
    else place.replaceChildren(failure(error, () => void attempt(app, place, work)));
  }
}

function failure(error: unknown, retry: () => void): HTMLElement {
  return h(
    'div',
    { class: 'notice bad', role: 'alert' },
    h('p', {}, friendlyText(error)),
    h('button', { type: 'button', click: retry }, 'Try again'),
  );
}

const FRIENDLY: Record<string, string> = {
  UNREACHABLE: 'LogLineOS does not answer. Is it still running?',
  TOKEN_INVALID: 'This token is not known here. It may belong to another installation.',
  TOKEN_EXPIRED: 'This token has expired. Ask for a new one.',
  TOKEN_REVOKED: 'This token was revoked.',
  SPAN_NOT_FOUND: 'There is no such span, or it is not for you to see.',
  QUOTA_EXCEEDED: "Today's executions of your tenant are used up. They begin again at midnight UTC.",
};

/** What went wrong, in words for a person; the code stays for who looks it up. */
export function friendlyText(error: unknown): string {
  if (!(error instanceof LogLineError)) return `This page failed: ${(error as Error).message}`;
  return `${FRIENDLY[error.code] ?? error.message} (${error.code})`;
}

/** What to do where there is nothing yet. */
export function emptyState(title: string, ...advice: (Node | string)[]): HTMLElement {
  return h('div', { class: 'empty-state' }, h('p', { class: 'empty-title' }, title), h('p', {}, ...advice));
}

export function loading(): HTMLElement {
  return h('p', { class: 'loading' }, 'Loading…');
}

/** A question before something that cannot be taken back. */
export function confirmed(question: string, action: string): Promise<boolean> {
  const dialog = h(
    'dialog',
    { 'aria-label': question },
    h('p', {}, question),
    h(
      'form',
      { method: 'dialog', class: 'actions' },
      h('button', { value: 'no', autofocus: true }, 'Leave it'),
      h('button', { value: 'yes', class: 'primary' }, action),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(dialog.returnValue === 'yes');
    });
  });
}

/** Some time, or until the signal. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener('abort', end);
  });
}
