/** Everything that npm run bench:peers has measured, and how it is shown: tables, and plots. */
import type { Calls } from './calls.ts';
import type { Work } from './contestants/contestant.ts';
import type { SlowJob } from './contestants/ours.ts';
import { ALONE, type Idle } from './idle.ts';
import { type Bar, drawBars, type Plot } from './plot.ts';
import { figure, figures, latencyTable, markdownTable, p50, p99, rateTable, type Sample, spread } from './result.ts';
import type { Lateness } from './schedules.ts';
import { median, percentile } from './support.ts';

/** A part is missing where --only left it out. */
export interface Comparison {
  latency?: Sample[];
  calls?: Calls;
  throughput?: Record<Work, Sample[]>;
  slowJob?: SlowJob;
  schedules?: Lateness[];
  idle?: Idle[];
}

export function tables({ latency, calls, throughput, slowJob, schedules, idle }: Comparison, jobs: number): string[] {
  return [
    ...(latency ? ['## Launch', latencyTable('launch to first own statement, ms', latency, 'durable floor')] : []),
    ...(calls ? ['## The call', ...callTables(calls)] : []),
    ...(throughput ? ['## One-shot jobs', ...throughputTables(throughput, jobs)] : []),
    ...(slowJob ? [slowJobText(slowJob)] : []),
    ...(schedules ? ['## Schedules', scheduleTable(schedules)] : []),
    ...(idle ? ['## Idle and napping', idleTable(idle)] : []),
  ];
}

const callTables = ({ one, two }: Calls): string[] => [
  rateTable('one client, ms per call', one, 'row + notify'),
  rateTable('two clients, calls per second', two, 'row + notify'),
];

const throughputTables = (throughput: Record<Work, Sample[]>, jobs: number): string[] =>
  Object.entries(throughput).map(([work, samples]) =>
    rateTable(`${work}, jobs per second of ${jobs.toLocaleString('en')} queued`, samples, 'batch floor'),
  );

const slowJobText = ({ without, withSlow, waited }: SlowJob): string =>
  `Each job of ours ran exactly once and has its row of history: checked in each round.  ` +
  `With a slow job in their middle the others ran at ${figure(withSlow)} jobs per second, without it at ${figure(without)}; ` +
  `${waited} of them ended after it.`;

export function scheduleTable(schedules: readonly Lateness[]): string {
  const rows = schedules.map(({ jobs, name, late, missed, thirds }) => [
    jobs,
    name,
    ...[0.5, 0.99, 1].map((share) => figure(percentile(late, share))),
    `${(100 * missed).toFixed(1)} %`,
    thirds === undefined ? '' : thirds.map(figure).join(', '),
  ]);
  const drift = 'after the due time, p99 of the first and the last third';
  return markdownTable(['jobs', 'scheduler', 'late p50, ms', 'p99', 'max', 'due times missed', drift], rows);
}

function idleTable(idle: readonly Idle[]): string {
  const rows = idle.map(({ name, transactionsPerSecond, connections, memory, program, server }) => [
    name,
    transactionsPerSecond === undefined ? '' : figure(transactionsPerSecond),
    String(connections),
    memory === undefined ? '' : String(memory),
    figure(median(program)),
    figure(median(server)),
    figures(extent(cpuTotals({ program, server }))),
  ]);
  const head = ['', 'transactions/s', 'connections', 'memory, MB', 'program', 'server', 'both, spread'];
  return `CPU in seconds per minute.\n\n${markdownTable(head, rows)}`;
}

const extent = (numbers: readonly number[]): number[] => [Math.min(...numbers), Math.max(...numbers)];

/** CPU of program and server together, of each window. */
export const cpuTotals = ({ program, server }: Pick<Idle, 'program' | 'server'>): number[] =>
  program.map((seconds, i) => seconds + (server[i] ?? Number.NaN));

const isOurs = (name: string): boolean => /bgw|TypeScript worker/.test(name);

/** SVG by file name. */
export function plots({ latency, throughput, schedules, idle }: Comparison): Record<string, string> {
  const drawn: [string, Plot][] = [];
  if (latency) drawn.push(['latency', latencyPlot(latency)]);
  if (throughput) drawn.push(['throughput', throughputPlot(throughput)]);
  if (schedules) drawn.push(['schedules', schedulePlot(schedules)]);
  if (idle) drawn.push(['idle', idlePlot(idle)]);
  return Object.fromEntries(drawn.map(([name, plot]) => [`${name}.svg`, drawBars(plot, figure)]));
}

/** What takes a hundred times as long, polling and processes of Node.js, would leave nothing to see of the others. */
function latencyPlot(latency: readonly Sample[]): Plot {
  const shown = latency.filter((sample) => p50(sample) < 20);
  const bars = shown.map((sample) => ({
    name: sample.name,
    value: p50(sample),
    whisker: p99(sample),
    isOurs: isOurs(sample.name),
  }));
  return {
    title: 'Launch to first own statement: median, and 99th percentile',
    unit: 'ms',
    groups: [{ heading: '', bars }],
  };
}

function throughputPlot(throughput: Record<Work, Sample[]>): Plot {
  const bar = (sample: Sample): Bar => {
    const [, best] = spread(sample);
    return { name: sample.name, value: p50(sample), whisker: best, isOurs: isOurs(sample.name) };
  };
  const groups = Object.entries(throughput).map(([work, samples]) => ({ heading: work, bars: samples.map(bar) }));
  return { title: 'One-shot jobs: median, and best round', unit: 'jobs per second', groups };
}

function schedulePlot(schedules: readonly Lateness[]): Plot {
  const groups = [...new Set(schedules.map(({ jobs }) => jobs))].map((heading) => ({
    heading,
    bars: schedules
      .filter(({ jobs }) => jobs === heading)
      .map(({ name, late }) => ({
        name,
        value: median(late),
        whisker: percentile(late, 0.99),
        isOurs: isOurs(name),
      })),
  }));
  return { title: 'How late scheduled jobs start: median, and 99th percentile', unit: 'ms', groups };
}

function idlePlot(idle: readonly Idle[]): Plot {
  const bars = idle.map((each) => ({
    name: each.name.replace('nothing registered', 'idle'),
    value: median(cpuTotals(each)),
    isOurs: isOurs(each.name),
  }));
  return {
    title: `CPU of program and server; ${ALONE} is part of each`,
    unit: 's per minute',
    groups: [{ heading: '', bars }],
  };
}
