/**
 * npm run bench: launch latency, one-shots per second and the cost of idleness, each beside a floor in the same run.
 * Options: --quick (seconds instead of minutes), --url URL (a server of yours), --write (bench/RESULTS.md and the README).
 * Numbers move with the machine; the ratios count.
 */
import { writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { findPackageRoot } from '../src/package-root.ts';
import { type Idle, measureIdle } from './idle.ts';
import { LATENCIES, type Latency, measureLatency } from './latency.ts';
import { median, percentile, startBench, value } from './support.ts';
import { writeBetween } from './report.ts';
import { DRAINS, type Drain, measureThroughput } from './throughput.ts';

const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    url: { type: 'string' },
    write: { type: 'boolean', default: false },
  },
});
const size = options.quick
  ? { launches: 50, rounds: 1, jobs: 1000, idle: 5 }
  : { launches: 500, rounds: 3, jobs: 10_000, idle: 30 };

const bench = await startBench(options.url);
try {
  const latency = await measureLatency(bench, size.launches);
  const drains: Record<Drain, number>[] = [];
  for (let round = 0; round < size.rounds; round += 1) drains.push(await measureThroughput(bench, size.jobs));
  const idle = await measureIdle(bench, 1000, size.idle);
  const version = await value<string>(bench.client, 'SHOW server_version');
  const report = [latencyTable(latency), throughputTable(drains), idleTable(idle), machine(version)].join('\n');
  process.stdout.write(`${report}\n`);
  if (options.write) write(report);
} finally {
  await bench.stop();
}

function latencyTable(latency: Record<Latency, number[]>): string {
  const floor = median(latency['durable floor']);
  const rows = LATENCIES.map((name) => {
    const samples = latency[name];
    const [p50, p95, p99] = [0.5, 0.95, 0.99].map((share) => percentile(samples, share).toFixed(2));
    return `| ${name} | ${p50} | ${p95} | ${p99} | ${(median(samples) / floor).toFixed(2)} |`;
  });
  return [
    '| launch to first own statement, ms | p50 | p95 | p99 | p50 / durable floor |',
    '|---|---|---|---|---|',
    ...rows,
    '',
  ].join('\n');
}

function throughputTable(rounds: Record<Drain, number>[]): string {
  const floor = median(rounds.map((round) => round['batch floor']));
  const rows = DRAINS.map((name) => {
    const samples = rounds.map((round) => round[name]);
    const spread = `${Math.round(Math.min(...samples))} to ${Math.round(Math.max(...samples))}`;
    return `| ${name} | ${Math.round(median(samples))} | ${spread} | ${(median(samples) / floor).toFixed(2)} |`;
  });
  return [
    `| one-shot jobs per second (${size.jobs} queued) | median | spread | / batch floor |`,
    '|---|---|---|---|',
    ...rows,
    '',
  ].join('\n');
}

function idleTable({ workers, statementsPerSecond, connections, memory, cpu }: Idle): string {
  return [
    `| ${workers} launched workers, all asleep | |`,
    '|---|---|',
    `| statements per second | ${statementsPerSecond.toFixed(1)} |`,
    `| connections | ${connections} |`,
    `| memory of the controller, MB | ${memory ?? 'not known'} |`,
    `| CPU of the controller, s per minute | ${cpu?.toFixed(2) ?? 'not known'} |`,
    '',
  ].join('\n');
}

function machine(version: string): string {
  const [cpu] = cpus();
  const memory = Math.round(totalmem() / 2 ** 30);
  return `PostgreSQL ${version}, Node.js ${process.versions.node}, ${cpus().length} x ${cpu?.model.trim()}, ${memory} GB; fsync and synchronous_commit on; loopback; ${size.launches} launches each in turns, medians of ${size.rounds} rounds.`;
}

function write(report: string): void {
  writeFileSync(join(findPackageRoot(), 'bench', 'RESULTS.md'), `# Results of npm run bench\n\n${report}\n`);
  writeBetween('README.md', 'bench', `${report}\n`);
}
