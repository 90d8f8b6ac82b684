/**
 * npm run bench:peers: everything we promise about speed, beside the peers, on one PostgreSQL, in turns; and bench/RESULTS.md, the
 * plots and the README written anew.
 * Options: --quick (everything, shorter; shows its results and writes nothing), --only latency,calls,throughput,schedules,idle
 * (the same), --write (write them all the same), --native-url URL (a server with pg_background and bench/native).
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type Calls, measureCalls } from './calls.ts';
import { type Comparison, plots, scheduleTable, tables } from './comparison.ts';
import { createSeen } from './contestants/contestant.ts';
import { bareFork, floorCaller, floorLaunchers, floorQueues } from './contestants/floors.ts';
import { graphileCaller, graphileLauncher, graphileQueue, SETTINGS } from './contestants/graphile-worker.ts';
import { findNative, type Native, nativeCallers, nativeLaunchers, nativeQueues } from './contestants/native.ts';
import {
  measureSlowJob,
  ourCallers,
  ourLaunchers,
  ourProcessLaunchers,
  ourQueues,
  type SlowJob,
} from './contestants/ours.ts';
import { bossCaller, bossLaunchers, bossQueue } from './contestants/pg-boss.ts';
import { graphileScheduler, ourScheduler, pgCronScheduler } from './contestants/schedulers.ts';
import { type Idle, measureIdle } from './idle.ts';
import { measureLatency } from './latency.ts';
import { machine, peerVersions, writeBetween } from './report.ts';
import type { Sample } from './result.ts';
import { eachSecond, type Lateness, oneMinute } from './schedules.ts';
import { Stage, startServer } from './server.ts';
import { root } from './support.ts';
import { targetTable } from './targets.ts';
import { measureThroughput } from './throughput.ts';

const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    only: { type: 'string' },
    write: { type: 'boolean' },
    'native-url': { type: 'string' },
  },
});
const FULL = {
  turns: 500,
  rounds: 5,
  /** Launches of a process, and of pg-boss's polling: each so many-th turn. */
  processEvery: 12,
  pollingEvery: 50,
  calls: { rounds: 3, seconds: 1.5 },
  throughput: { warmUp: 1, rounds: 5, jobs: 20_000 },
  slow: { jobs: 2000, seconds: 5 },
  schedules: { seconds: 20, eachSecond: [1, 100, 500], oneMinute: 500 },
  idle: { windows: 3, seconds: 7, quietSeconds: 20, many: 10_000, watched: 65, warmUp: 60_000 },
};
const QUICK: typeof FULL = {
  turns: 30,
  rounds: 1,
  processEvery: 15,
  pollingEvery: 15,
  calls: { rounds: 1, seconds: 0.3 },
  throughput: { warmUp: 0, rounds: 1, jobs: 1000 },
  slow: { jobs: 500, seconds: 3 },
  schedules: { seconds: 5, eachSecond: [20], oneMinute: 20 },
  idle: { windows: 1, seconds: 3, quietSeconds: 3, many: 1000, watched: 3, warmUp: 2000 },
};
const size = options.quick ? QUICK : FULL;
const wanted = (part: keyof Comparison): boolean => options.only?.split(',').includes(part) ?? true;

const skipped: string[] = [];
function skip(what: string, why: string): void {
  skipped.push(`${what}: skipped, ${why}`);
  process.stdout.write(`${skipped.at(-1)}\n`);
}

const began = performance.now();
const server = await startServer();
try {
  await using stage = await Stage.open(server);
  const native = await findNative(stage, options['native-url'], skip);
  const comparison: Comparison = {};
  if (wanted('latency')) comparison.latency = await told('latency', () => latency(native));
  if (wanted('calls')) comparison.calls = await told('calls', () => calls(native));
  if (wanted('throughput')) {
    comparison.throughput = await told('throughput', () => throughput(native));
    comparison.slowJob = await told('a slow job', slowJob);
  }
  if (wanted('schedules')) comparison.schedules = await told('schedules', schedules);
  if (wanted('idle')) comparison.idle = await told('idle', () => idle(native));
  show(comparison);
} finally {
  await server.stop();
}

async function told<Result>(part: string, measure: () => Promise<Result>): Promise<Result> {
  const from = performance.now();
  const result = await measure();
  process.stdout.write(`${part}: measured in ${Math.round((performance.now() - from) / 1000)} s\n`);
  return result;
}

async function latency(native: Native): Promise<Sample[]> {
  await using stage = await Stage.open(server);
  const ours = await stage.ours();
  const forks = await stage.database('forks');
  await createSeen(forks);
  const launchers = [
    ...(await floorLaunchers(await stage.database('floors'))),
    ...(await ourLaunchers(ours)),
    ...(await nativeLaunchers(await stage.open(native.url), native.kinds)),
    await graphileLauncher(stage, 'default'),
    await graphileLauncher(stage, 'best'),
    ...(await bossLaunchers(stage, size.pollingEvery)),
    ...ourProcessLaunchers(ours, size.processEvery),
    bareFork(forks, size.processEvery),
  ];
  return await measureLatency(launchers, size.turns, size.rounds);
}

async function calls(native: Native): Promise<Calls> {
  await using stage = await Stage.open(server);
  const callers = [
    await floorCaller(await stage.database('floors')),
    ...(await ourCallers(await stage.ours())),
    await graphileCaller(stage),
    await bossCaller(stage),
    ...nativeCallers(await stage.open(native.url), native.kinds),
  ];
  return await measureCalls(callers, size.calls.rounds, size.calls.seconds);
}

async function throughput(native: Native): Promise<NonNullable<Comparison['throughput']>> {
  await using stage = await Stage.open(server);
  const queues = [
    ...floorQueues(await stage.database('floors')),
    ...ourQueues(await stage.ours()),
    await graphileQueue(stage, 'default'),
    await graphileQueue(stage, 'best'),
    await bossQueue(stage, 1),
    await bossQueue(stage, 4),
    ...nativeQueues(await stage.open(native.url), native.kinds),
  ];
  return await measureThroughput(queues, size.throughput);
}

async function slowJob(): Promise<SlowJob> {
  await using stage = await Stage.open(server);
  return await measureSlowJob(await stage.ours(), size.slow.jobs, size.slow.seconds);
}

async function schedules(): Promise<Lateness[]> {
  await using stage = await Stage.open(server);
  if (!server.hasPgCron) skip('pg_cron', 'postgresql-15-cron is not installed');
  const pgCron = server.hasPgCron ? [await pgCronScheduler(stage)] : [];
  const schedulers = [await ourScheduler(stage), ...pgCron, await graphileScheduler(stage)];
  const results: Lateness[] = [];
  for (const { name, knowsSeconds } of schedulers)
    if (!knowsSeconds) skip(`${name}, each second`, 'its schedules have no seconds');
  for (const count of size.schedules.eachSecond)
    for (const scheduler of schedulers)
      if (scheduler.knowsSeconds) results.push(await eachSecond(scheduler, count, size.schedules.seconds));
  // A short run has them all in the same minute.
  const turns = options.quick ? [schedulers] : schedulers.map((scheduler) => [scheduler]);
  for (const each of turns) results.push(...(await oneMinute(each, size.schedules.oneMinute)));
  return results;
}

async function idle(native: Native): Promise<Idle[]> {
  if (!native.isBesideUs) skip('napping native workers', 'they are not in the server that the others use');
  return measureIdle(server, native, size.idle);
}

function show(comparison: Comparison): void {
  const minutes = ((performance.now() - began) / 60_000).toFixed(1);
  const targets = targetTable(comparison);
  const report = [
    settings(),
    ...(skipped.length > 0 ? [skipped.map((line) => `- ${line}`).join('\n')] : []),
    '## Targets',
    targets,
    ...tables(comparison, size.throughput.jobs),
    `The run took ${minutes} minutes.`,
  ].join('\n\n');
  process.stdout.write(`\n${report}\n`);
  if (options.write ?? !(options.quick || options.only)) write(report, comparison);
}

function settings(): string {
  return [
    `${machine(server.version)}; ${peerVersions()}.`,
    `Ours: one node with its defaults.  graphile-worker, best: ${JSON.stringify(SETTINGS.best)}, its documentation's.`,
    'pg-boss: batches of 500 without a pause while they are full; for latency its notify mode, and its default polling.',
    'pg_cron: background workers, cron.max_running_jobs 32.  Latency: medians of all turns; spread: medians of the rounds.',
  ].join('\n');
}

function write(report: string, comparison: Comparison): void {
  const directory = join(root, 'bench', 'plots');
  mkdirSync(directory, { recursive: true });
  const drawn = plots(comparison);
  for (const [name, svg] of Object.entries(drawn)) writeFileSync(join(directory, name), svg);
  writeBetween('bench/RESULTS.md', 'peers', report);
  const pictures = Object.keys(drawn).map((name) => `![${name.replace('.svg', '')}](bench/plots/${name})`);
  writeBetween('README.md', 'bench', `${pictures.join('\n\n')}\n`);
  if (comparison.schedules) writeBetween('README.md', 'bench-schedule', `${scheduleTable(comparison.schedules)}\n`);
}
