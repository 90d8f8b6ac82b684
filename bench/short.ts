/**
 * npm run bench: launch latency and one-shot jobs per second, beside the raw floors of the same run, in less than a minute.
 * Options: --quick (a few seconds), --url URL (a server of yours).  Numbers move with the machine; the ratios count.
 */
import { parseArgs } from 'node:util';
import { floorLaunchers, floorQueues } from './contestants/floors.ts';
import { ourLaunchers, ourProcessLaunchers, ourQueues } from './contestants/ours.ts';
import { measureLatency } from './latency.ts';
import { machine } from './report.ts';
import { latencyTable, rateTable } from './result.ts';
import { startBench, value } from './support.ts';
import { measureThroughput } from './throughput.ts';

const { values: options } = parseArgs({
  options: { quick: { type: 'boolean', default: false }, url: { type: 'string' } },
});
const size = options.quick ? { turns: 40, rounds: 1, jobs: 1000 } : { turns: 300, rounds: 2, jobs: 4000 };
/** A process each time would measure the machine's cores. */
const EVERY = 20;

const bench = await startBench(options.url);
try {
  const launchers = [
    ...(await floorLaunchers(bench)),
    ...(await ourLaunchers(bench)),
    ...ourProcessLaunchers(bench, EVERY),
  ];
  const latency = await measureLatency(launchers, size.turns, size.rounds);
  const drains = await measureThroughput([...floorQueues(bench), ...ourQueues(bench)], { ...size, warmUp: 0 });
  const report = [
    latencyTable('launch to first own statement, ms', latency, 'durable floor'),
    rateTable(`SELECT 1, jobs per second of ${size.jobs} queued`, drains['SELECT 1'], 'batch floor'),
    rateTable(`INSERT, jobs per second of ${size.jobs} queued`, drains.INSERT, 'batch floor'),
    machine(await value<string>(bench.client, 'SHOW server_version')),
  ];
  process.stdout.write(`${report.join('\n\n')}\n`);
} finally {
  await bench.stop();
}
