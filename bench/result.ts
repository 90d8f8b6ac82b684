/** What was measured, by contestant and round; and what is said of it. */
import { median, percentile } from './support.ts';

export interface Sample {
  name: string;
  /** The values of each round. */
  rounds: number[][];
}

/** Named figures that the targets of bench/targets.ts look up: "latency p50: bgw_launch". */
export type Figures = Map<string, number>;

export const compared = (contestants: readonly { name: string }[], rounds: number): Sample[] =>
  contestants.map(({ name }) => ({ name, rounds: Array.from({ length: rounds }, () => []) }));

export const all = ({ rounds }: Sample): number[] => rounds.flat();

/** Of all values. */
export const p50 = (sample: Sample): number => median(all(sample));
export const p99 = (sample: Sample): number => percentile(all(sample), 0.99);

/** The lowest and the highest median of a round. */
export function spread(sample: Sample): [number, number] {
  const medians = sample.rounds.filter((values) => values.length > 0).map((values) => median(values));
  return [Math.min(...medians), Math.max(...medians)];
}

/** Three digits that count. */
export function figure(number: number): string {
  if (!Number.isFinite(number)) return '-';
  if (Math.abs(number) >= 100) return Math.round(number).toLocaleString('en');
  return number.toFixed(Math.abs(number) >= 10 ? 1 : 2);
}

export const figures = (numbers: readonly number[]): string => numbers.map(figure).join(' to ');

export function markdownTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

/** One line for each contestant, with the ratio of its p50 to that of the contestant named `base`. */
export function latencyTable(title: string, samples: readonly Sample[], base: string): string {
  const floor = p50OfNamed(samples, base);
  const rows = samples.map((sample) => [
    sample.name,
    ...[0.5, 0.95, 0.99].map((share) => figure(percentile(all(sample), share))),
    figures(spread(sample)),
    figure(p50(sample) / floor),
  ]);
  return markdownTable([title, 'p50', 'p95', 'p99', 'p50 of the rounds', `p50 / ${base}`], rows);
}

export function rateTable(title: string, samples: readonly Sample[], base: string): string {
  const floor = p50OfNamed(samples, base);
  const rows = samples.map((sample) => [
    sample.name,
    figure(p50(sample)),
    figures(spread(sample)),
    figure(p50(sample) / floor),
  ]);
  return markdownTable([title, 'median', 'spread', `/ ${base}`], rows);
}

function p50OfNamed(samples: readonly Sample[], name: string): number {
  const sample = samples.find((each) => each.name === name);
  return sample === undefined ? Number.NaN : p50(sample);
}
