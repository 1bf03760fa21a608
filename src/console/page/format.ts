import type { StoredSpan } from '../../span/index.ts';
import { h } from './dom.ts';

const UUIDS = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g;

export function shortId(id: string): string {
  return id.slice(0, 8);
}

export function durationText(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1_000).toFixed(ms < 10_000 ? 2 : 1)} s`;
  return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1_000)} s`;
}

export function bytesText(bytes: number): string {
  return bytes < 1_048_576 ? `${Math.ceil(bytes / 1_024)} kB` : `${(bytes / 1_048_576).toFixed(1)} MB`;
}

function relativeText(at: number): string {
  const seconds = Math.round((Date.now() - at) / 1_000);
  const [ahead, away] = [seconds < 0 ? 'in ' : '', Math.abs(seconds)];
  if (away < 5) return 'now';
  if (away < 60) return `${ahead}${away} s`;
  if (away < 3_600) return `${ahead}${Math.floor(away / 60)} min`;
  if (away < 86_400) return `${ahead}${Math.floor(away / 3_600)} h`;
  return `${ahead}${Math.floor(away / 86_400)} d`;
}

/** How long ago, kept true by {@link refreshTimes}; the full time is its title. */
export function timeAgo(at: string): HTMLElement {
  return h('time', { datetime: at, title: at, 'data-ago': true }, relativeText(Date.parse(at)));
}

export function refreshTimes(root: ParentNode): void {
  for (const time of root.querySelectorAll<HTMLTimeElement>('time[data-ago]')) {
    const text = relativeText(Date.parse(time.dateTime));
    if (time.textContent !== text) time.textContent = text;
  }
}

/** A status by what it means to who looks: the colour never stands alone. */
const MEANINGS: Record<string, readonly string[]> = {
  good: ['complete', 'active', 'ok', 'allowed'],
  bad: ['error', 'dead', 'timeout', 'lost', 'refused', 'denied', 'revoked', 'paused'],
  busy: ['scheduled', 'running', 'started', 'leased', 'ready', 'delayed', 'slow', 'near_limit'],
};

export function meaningOf(status: string): string {
  return Object.keys(MEANINGS).find((meaning) => MEANINGS[meaning]?.includes(status)) ?? 'plain';
}

export function statusChip(status: string | null | undefined): HTMLElement {
  return status == null
    ? h('span', { class: 'chip empty' })
    : h('span', { class: `chip ${meaningOf(status)}` }, status);
}

/** Who did this, in words: kernels and functions by their names, ids by their beginnings. */
export function sentence(span: StoredSpan): HTMLElement {
  const who = span.who
    .replace(/^kernel:/, '')
    .replace(':', ' ')
    .replaceAll('_', ' ');
  const said = span.name ?? span.this ?? '';
  return h(
    'span',
    { class: 'sentence' },
    h('b', {}, shorten(who)),
    ` ${(span.did ?? 'said').replaceAll('_', ' ')} `,
    h('b', {}, shorten(said)),
    outcome(span),
  );
}

/** How it went, in a word: why it failed, how long it took, what was measured. */
function outcome({ error, duration_ms, metric_value, metric_unit }: StoredSpan): string {
  const { code } = (error ?? {}) as { code?: unknown };
  if (typeof code === 'string') return ` · ${code}`;
  if (duration_ms != null) return ` · ${durationText(duration_ms)}`;
  if (metric_value != null) return ` · ${metric_value} ${metric_unit ?? ''}`;
  return '';
}

function shorten(text: string): string {
  return text.replace(UUIDS, shortId).slice(0, 120);
}

export function pretty(value: unknown): string {
  return JSON.stringify(value, null, 2);
}
