/** What we want to reach, as ratios of one run; the numbers of issue 5. */
import { cpuTotals, type Comparison } from './comparison.ts';
import type { Work } from './contestants/contestant.ts';
import { ALONE, type Idle } from './idle.ts';
import { figure, markdownTable, p50, p99, type Sample } from './result.ts';
import type { Lateness } from './schedules.ts';
import { median, percentile } from './support.ts';

interface Target {
  what: string;
  /** undefined: something it needs was not measured. */
  measured: number | undefined;
  atMost?: number;
  atLeast?: number;
}

/** One line for each target. */
export function targetTable(comparison: Comparison): string {
  const rows = targets(comparison).map(({ what, measured, atMost, atLeast }) => [
    what,
    atMost === undefined ? `>= ${atLeast}` : `<= ${atMost}`,
    measured === undefined ? '-' : figure(measured),
    verdict(measured, atMost, atLeast),
  ]);
  return markdownTable(['target', 'wanted', 'measured', ''], rows);
}

function verdict(measured: number | undefined, atMost = Infinity, atLeast = -Infinity): string {
  if (measured === undefined || Number.isNaN(measured)) return 'not measured';
  return measured <= atMost && measured >= atLeast ? 'reached' : '**not reached**';
}

const targets = (comparison: Comparison): Target[] => [
  ...launchTargets(comparison),
  ...throughputTargets(comparison),
  ...scheduleTargets(comparison.schedules ?? []),
  ...idleTargets(comparison.idle ?? []),
];

const NATIVE = 'native background worker';

function launchTargets({ latency = [], calls }: Comparison): Target[] {
  const ours = worst(latency, ['bgw_launch', 'bgw_launch_sql'], p50);
  const native = of(latency, NATIVE, p50);
  const graphile = best(latency, /^graphile-worker/, p50, Math.min);
  const spare = of(latency, 'TypeScript worker, with a spare', p50);
  const without = of(latency, 'TypeScript worker, without', p50);
  const call = worst(calls?.one ?? [], ['bgw_launch', 'bgw_launch_sql'], p50);
  return [
    { what: 'launch of a SQL worker, p50 / native', measured: ratio(ours, native), atMost: 0.6 },
    { what: "p50 / graphile-worker's better", measured: ratio(ours, graphile), atMost: 0.65 },
    { what: 'p50 / durable floor', measured: ratio(ours, of(latency, 'durable floor', p50)), atMost: 0.85 },
    {
      what: 'p99 / native',
      measured: ratio(worst(latency, ['bgw_launch', 'bgw_launch_sql'], p99), of(latency, NATIVE, p99)),
      atMost: 1,
    },
    { what: 'the call / row + notify', measured: ratio(call, of(calls?.one ?? [], 'row + notify', p50)), atMost: 1.2 },
    { what: 'TypeScript worker with a spare, p50 / native', measured: ratio(spare, native), atMost: 3 },
    {
      what: 'without a spare, p50 / bare fork',
      measured: ratio(without, of(latency, 'bare fork of Node.js', p50)),
      atMost: 1,
    },
  ];
}

function throughputTargets({ throughput, slowJob }: Comparison): Target[] {
  const jobs = (work: Work): Sample[] => throughput?.[work] ?? [];
  const per = (work: Work, name: string, base: number | undefined): number | undefined =>
    ratio(of(jobs(work), name, p50), base);
  const floor = (work: Work): number | undefined => of(jobs(work), 'batch floor', p50);
  const graphile = best(jobs('INSERT'), /^graphile-worker/, p50, Math.max);
  return [
    { what: 'SELECT 1 / batch floor', measured: per('SELECT 1', 'pg-bgworker', floor('SELECT 1')), atLeast: 1 },
    { what: 'INSERT / batch floor', measured: per('INSERT', 'pg-bgworker', floor('INSERT')), atLeast: 1 },
    {
      what: "INSERT, atomic / graphile-worker's best INSERT",
      measured: per('INSERT', 'pg-bgworker, atomic', graphile),
      atLeast: 1,
    },
    {
      what: 'SELECT 1 / native',
      measured: per('SELECT 1', 'pg-bgworker', of(jobs('SELECT 1'), NATIVE, p50)),
      atLeast: 30,
    },
    { what: 'INSERT / native', measured: per('INSERT', 'pg-bgworker', of(jobs('INSERT'), NATIVE, p50)), atLeast: 15 },
    { what: 'jobs that ended after the slow one in their middle', measured: slowJob?.waited, atMost: 0 },
  ];
}

function scheduleTargets(schedules: readonly Lateness[]): Target[] {
  const find = (jobs: RegExp, name: RegExp): Lateness | undefined =>
    schedules.find((each) => jobs.test(each.jobs) && name.test(each.name));
  const late = (lateness: Lateness | undefined, share: number): number | undefined =>
    lateness && percentile(lateness.late, share);
  const [second, minute, ours] = [/^500 each second/, /in one minute/, /^pg-bgworker/];
  const mine = find(second, ours);
  return [
    { what: '500 jobs each second: due times missed, %', measured: mine && 100 * mine.missed, atMost: 0 },
    {
      what: '500 jobs each second, p99 late / pg_cron',
      measured: ratio(late(mine, 0.99), late(find(second, /^pg_cron/), 0.99)),
      atMost: 0.2,
    },
    {
      what: '500 in one minute, last start / pg_cron',
      measured: ratio(late(find(minute, ours), 1), late(find(minute, /^pg_cron/), 1)),
      atMost: 0.2,
    },
    {
      what: 'lateness of the last third / of the first',
      measured: mine?.thirds && ratio(mine.thirds[1], mine.thirds[0]),
      atMost: 1.5,
    },
  ];
}

function idleTargets(idle: readonly Idle[]): Target[] {
  const find = (name: RegExp): Idle | undefined => idle.find((each) => name.test(each.name));
  const cpu = (each: Idle | undefined): number | undefined => each && median(cpuTotals(each));
  const [many, napping, nothing] = [/nap 1 min/, /nap 1 s: pg-bgworker/, /nothing registered: pg-bgworker/].map(find);
  const alone = idle.find(({ name }) => name === ALONE);
  return [
    { what: '10,000 napping workers: connections', measured: many?.connections, atMost: 10 },
    { what: '10,000 napping workers: memory, MB', measured: many?.memory, atMost: 200 },
    {
      what: '50 napping workers, CPU / native',
      measured: ratio(cpu(napping), cpu(find(/nap 1 s: native/))),
      atMost: 1,
    },
    { what: '50 napping workers: backends', measured: napping?.connections, atMost: 5 },
    {
      what: 'nothing registered: transactions/s, less those of the server alone',
      measured: nothing?.transactionsPerSecond && nothing.transactionsPerSecond - (alone?.transactionsPerSecond ?? 0),
      atMost: 0.3,
    },
    {
      what: 'nothing registered, CPU / graphile-worker',
      measured: ratio(cpu(nothing), cpu(find(/nothing registered: graphile/))),
      atMost: 1,
    },
  ];
}

type Statistic = (sample: Sample) => number;

function of(samples: readonly Sample[], name: string, statistic: Statistic): number | undefined {
  const sample = samples.find((each) => each.name === name);
  return sample && statistic(sample);
}

const worst = (samples: readonly Sample[], names: readonly string[], statistic: Statistic): number | undefined =>
  extreme(
    samples.filter(({ name }) => names.includes(name)),
    statistic,
    Math.max,
  );

const best = (
  samples: readonly Sample[],
  names: RegExp,
  statistic: Statistic,
  better: typeof Math.max,
): number | undefined =>
  extreme(
    samples.filter(({ name }) => names.test(name)),
    statistic,
    better,
  );

function extreme(samples: readonly Sample[], statistic: Statistic, choose: typeof Math.max): number | undefined {
  return samples.length === 0 ? undefined : choose(...samples.map(statistic));
}

const ratio = (ours: number | undefined, theirs: number | undefined): number | undefined =>
  ours === undefined || !theirs ? undefined : ours / theirs;
