const ROUNDS = 5;

export interface Figure {
  name: string;
  value: number;
  unit: string;
  /** What the limit of the same run was, in the same unit. */
  limit: number;
  /** value / limit. For import times smaller is better, for the rest larger. */
  ratio: number;
}

/** How often a second something ends, with `parallel` of it under way for `ms`. */
export async function repeat(run: () => Promise<unknown>, parallel: number, ms: number): Promise<number> {
  let ended = 0;
  const started = performance.now();
  const loop = async () => {
    while (performance.now() - started < ms) {
      await run();
      ended++;
    }
  };
  await Promise.all(Array.from({ length: parallel }, loop));
  return ended / ((performance.now() - started) / 1000);
}

/** Medians of two measurements made in turns. */
export async function inTurns(
  ours: () => Promise<number>,
  theirs: () => Promise<number>,
  rounds = ROUNDS,
): Promise<[number, number]> {
  const measured: [number[], number[]] = [[], []];
  for (let round = 0; round < rounds; round++) {
    measured[0].push(await ours());
    measured[1].push(await theirs());
  }
  return [median(measured[0]), median(measured[1])];
}

export const HEADINGS = row('figure', 'value', 'limit', 'unit', 'ratio');

export function line({ name, value, limit, unit, ratio }: Figure): string {
  const number = (value: number) => value.toFixed(value < 1000 ? 1 : 0);
  return row(name, number(value), number(limit), unit, ratio.toFixed(2));
}

function row(name: string, value: string, limit: string, unit: string, ratio: string): string {
  return `${name.padEnd(32)}${value.padStart(10)}${limit.padStart(10)}  ${unit.padEnd(9)}${ratio.padStart(6)}\n`;
}

export function median(numbers: number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] as number;
}
