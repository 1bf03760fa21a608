import type { StoredSpan } from '../../span/index.ts';
import { h, put, svg } from './dom.ts';
import { durationText, meaningOf, sentence } from './format.ts';

const HEIGHT = 260;
const MARGIN = { top: 16, right: 16, bottom: 28, left: 56 };
/** What took no measurable time still has a place on a logarithmic scale. */
const SHORTEST_MS = 1;
/** Below this width, in px, there is room for fewer times. */
const NARROW = 480;
const REACH = 28;

interface Dot {
  span: StoredSpan;
  x: number;
  y: number;
}

/** The value that a share of all values does not exceed: nearest rank, of sorted values. */
export function percentile(sorted: number[], share: number): number {
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? 0;
}

/**
 * Durations over time, on a logarithmic scale, with p50 and p95. One stop for the keyboard: arrows walk from dot to dot,
 * Enter opens; what the dot stands for is written below.
 */
export function durationPlot(executions: StoredSpan[], open: (span: StoredSpan) => void, signal: AbortSignal) {
  const readout = h('p', { class: 'readout', 'aria-live': 'polite' }, 'Point at a dot, or walk with the arrow keys.');
  const canvas = h('div', {
    class: 'plot',
    tabindex: 0,
    role: 'group',
    'aria-label': `Durations of ${executions.length} executions over time. Arrow keys walk, Enter opens.`,
  });
  let dots: Dot[] = [];
  let chosen = -1;

  const choose = (index: number) => {
    chosen = Math.max(0, Math.min(dots.length - 1, index));
    const dot = dots[chosen];
    if (dot === undefined) return;
    for (const marked of canvas.querySelectorAll('.chosen')) marked.classList.remove('chosen');
    canvas.querySelectorAll('.dot')[chosen]?.classList.add('chosen');
    const { span } = dot;
    put(
      readout,
      h('b', {}, durationText(span.duration_ms ?? 0)),
      ` ${span.status ?? ''} · `,
      sentence(span),
      ` · ${new Date(span.at).toLocaleString()}`,
    );
  };
  const openChosen = () => {
    const dot = dots[chosen];
    if (dot !== undefined) open(dot.span);
  };
  canvas.addEventListener('keydown', (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step !== undefined) {
      event.preventDefault();
      choose(chosen < 0 ? dots.length - 1 : chosen + step);
    } else if (event.key === 'Enter') openChosen();
  });
  canvas.addEventListener('pointermove', (event) => {
    const pointed = nearest(dots, canvas, event);
    if (pointed !== -1) choose(pointed);
  });
  canvas.addEventListener('click', (event) => {
    if (nearest(dots, canvas, event) !== -1) openChosen(); // the pointer came here, and chose it
  });

  const draw = () => {
    const width = canvas.clientWidth;
    if (width > 0) dots = drawInto(canvas, executions, width);
  };
  const observer = new ResizeObserver(draw);
  observer.observe(canvas);
  signal.addEventListener('abort', () => observer.disconnect());
  return h('figure', {}, canvas, h('figcaption', {}, readout));
}

/** The dot next to the pointer if one is in reach; otherwise -1. */
function nearest(dots: Dot[], canvas: Element, event: PointerEvent | MouseEvent): number {
  const box = canvas.getBoundingClientRect();
  const distances = dots.map(({ x, y }) => Math.hypot(x - (event.clientX - box.left), y - (event.clientY - box.top)));
  const best = Math.min(...distances);
  return best > REACH ? -1 : distances.indexOf(best);
}

function drawInto(canvas: Element, executions: StoredSpan[], width: number): Dot[] {
  const times = executions.map(({ at }) => Date.parse(at));
  const durations = executions.map(({ duration_ms }) => duration_ms ?? 0);
  const sorted = durations.toSorted((a, b) => a - b);
  const [first, last] = [Math.min(...times), Math.max(...times)];
  const decades = Math.max(2, Math.ceil(Math.log10(Math.max(...durations, SHORTEST_MS))));
  const [innerWidth, innerHeight] = [width - MARGIN.left - MARGIN.right, HEIGHT - MARGIN.top - MARGIN.bottom];
  const x = (time: number) => MARGIN.left + (last === first ? 0.5 : (time - first) / (last - first)) * innerWidth;
  const y = (ms: number) => MARGIN.top + (1 - Math.log10(Math.max(ms, SHORTEST_MS)) / decades) * innerHeight;

  const right = width - MARGIN.right;
  const grid = Array.from({ length: decades + 1 }, (_, power) => {
    const [value, at] = [10 ** power, y(10 ** power)];
    return svg(
      'g',
      {},
      svg('line', { class: 'grid', x1: MARGIN.left, x2: right, y1: at, y2: at }),
      svg('text', { class: 'tick', x: MARGIN.left - 8, y: at + 4, 'text-anchor': 'end' }, scaleText(value)),
    );
  });
  const ticks = last === first ? [0.5] : width < NARROW ? [0, 1] : [0, 1 / 3, 2 / 3, 1];
  const hours = ticks.map((share) =>
    svg(
      'text',
      {
        class: 'tick',
        x: MARGIN.left + share * innerWidth,
        y: HEIGHT - 8,
        'text-anchor': share === 0 ? 'start' : share === 1 ? 'end' : 'middle',
      },
      timeText(first + share * (last - first), last - first),
    ),
  );
  const [p50, p95] = [percentile(sorted, 0.5), percentile(sorted, 0.95)];
  const lines = [
    { label: `p50 ${durationText(p50)}`, at: y(p50), above: false },
    { label: `p95 ${durationText(p95)}`, at: y(p95), above: true },
  ].map(({ label, at, above }) =>
    svg(
      'g',
      { class: 'percentile' },
      svg('line', { x1: MARGIN.left, x2: right, y1: at, y2: at }),
      svg('text', { x: MARGIN.left + 8, y: above ? at - 6 : at + 14 }, label),
    ),
  );
  const dots = executions
    .map((span, i) => ({ span, x: x(times[i] as number), y: y(durations[i] as number) }))
    .toSorted((a, b) => a.x - b.x);
  put(
    canvas,
    svg(
      'svg',
      { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, 'aria-hidden': 'true' },
      ...grid,
      ...hours,
      ...dots.map(mark),
      ...lines,
    ),
  );
  return dots;
}

/** A shape for each meaning, so that colour is not alone: a disc for good, a cross for bad, a diamond for the others. */
function mark({ span, x, y }: Dot): SVGElement {
  const meaning = meaningOf(span.status ?? '');
  const shape =
    meaning === 'good'
      ? svg('circle', { r: 4 })
      : meaning === 'bad'
        ? svg('path', { d: 'M-4-4L4 4M-4 4L4-4', class: 'cross' })
        : svg('path', { d: 'M0-5L5 0L0 5L-5 0Z' });
  return svg('g', { class: `dot ${meaning}`, transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})` }, shape);
}

function scaleText(ms: number): string {
  return ms < 1_000 ? `${ms} ms` : `${ms / 1_000} s`;
}

function timeText(time: number, range: number): string {
  const date = new Date(time);
  return range > 86_400_000
    ? date.toLocaleDateString(undefined, { month: 'short', day: 'numeric' })
    : date.toLocaleTimeString(undefined, {
        hour: '2-digit',
        minute: '2-digit',
        ...(range < 600_000 ? { second: '2-digit' } : {}),
      });
}
