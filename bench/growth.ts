/**
 * npm run bench:growth: what many launches at once, many workers, many schedules, a long history, churn and an old snapshot cost.
 * Options: --quick (less than a minute in all), --url URL (a server of yours), --churn MINUTES, --held SECONDS.
 * Each table has the ratio of what was measured to its target: below 1 for times and sizes, above 1 for rates.
 */
import { parseArgs } from 'node:util';
import { measureActivity, measureBulk, measureSchedules, withCatalog } from './growth-catalog.ts';
import { fillHistory, type Load, measureLoad, measureSpeed, measureWal, type Speed } from './growth-load.ts';
import { type Bench, startBench } from './support.ts';

const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    url: { type: 'string' },
    churn: { type: 'string' },
    held: { type: 'string' },
  },
});
const size = options.quick
  ? { bulk: 20_000, rounds: 2, workers: 2000, schedules: 2000, jobs: 2000, history: [20_000], churn: 2, held: 3 }
  : {
      bulk: 100_000,
      rounds: 5,
      workers: 10_000,
      schedules: 10_000,
      jobs: 10_000,
      history: [100_000, 1_000_000],
      churn: 60,
      held: 60,
    };
const churnSeconds = options.churn === undefined ? size.churn : Number(options.churn) * 60;
const heldSeconds = options.held === undefined ? size.held : Number(options.held);
const LAUNCHES_PER_SECOND = 800;

const bench = await startBench(options.url);
try {
  await withCatalog(bench, async (client) => {
    const rate = await measureBulk(client, size.bulk, size.rounds);
    table(
      'one statement that launches',
      ['rows', 'rows per second', 'target', 'ratio'],
      [[size.bulk, rate.toFixed(0), 20_000, (rate / 20_000).toFixed(2)]],
    );
    const activity = await measureActivity(client, size.workers);
    table(
      `SELECT * FROM bgw_stat_activity, ${size.workers} workers`,
      ['state', 'ms', 'target', 'ratio'],
      Object.entries(activity).map(([state, ms]) => [state, ms.toFixed(1), 50, (ms / 50).toFixed(2)]),
    );
    const { idle, due } = await measureSchedules(client, size.schedules);
    table(
      `bgw.take_orders, ${size.schedules} schedules`,
      ['due', 'ms', 'target', 'ratio'],
      [
        ['none', idle.toFixed(2), 10, (idle / 10).toFixed(2)],
        ['500', due.toFixed(1), '', ''],
      ],
    );
  });
  const wal = await measureWal(bench, size.jobs);
  table('WAL of a one-shot', ['bytes', 'target', 'ratio'], [[wal.toFixed(0), 2048, (wal / 2048).toFixed(2)]]);
  await growth(bench);
  await heldSnapshot(bench);
} finally {
  await bench.stop();
}

async function growth(bench: Bench): Promise<void> {
  await measureSpeed(bench, size.jobs, size.rounds); // until programs and plans are warm
  const first = await measureSpeed(bench, size.jobs, size.rounds);
  const rows = [speedRow('none', first, first)];
  let filled = 0;
  for (const history of size.history) {
    await fillHistory(bench, history - filled);
    filled = history;
    rows.push(speedRow(`${history} runs`, await measureSpeed(bench, size.jobs, size.rounds), first));
  }
  await measureLoad(bench, LAUNCHES_PER_SECOND, churnSeconds, false);
  rows.push(
    speedRow(
      `and ${churnSeconds} s of ${LAUNCHES_PER_SECOND} launches/s`,
      await measureSpeed(bench, size.jobs, size.rounds),
      first,
    ),
  );
  table('history', ['runs', 'one-shots/s', 'ratio (target 0.9)', 'start of one, ms p50', 'ratio (target 1.1)'], rows);
}

function speedRow(name: string, { rate, p50 }: Speed, first: Speed): string[] {
  return [name, rate.toFixed(0), (rate / first.rate).toFixed(2), p50.toFixed(2), (p50 / first.p50).toFixed(2)];
}

async function heldSnapshot(bench: Bench): Promise<void> {
  const without = await measureLoad(bench, LAUNCHES_PER_SECOND, heldSeconds, false);
  const held = await measureLoad(bench, LAUNCHES_PER_SECOND, heldSeconds, true);
  table(
    `${LAUNCHES_PER_SECOND} launches/s for ${heldSeconds} s`,
    [
      'snapshot',
      'finished/s',
      'ratio (target 0.95)',
      'start, ms p50',
      'p99',
      'could do/s',
      'dead rows of bgw.process',
      'its MB',
    ],
    [loadRow('none', without, without), loadRow('held', held, without)],
  );
}

function loadRow(name: string, load: Load, without: Load): string[] {
  const { rate, p50, p99, capacity, dead, bytes } = load;
  const megabytes = (bytes / 2 ** 20).toFixed(1);
  return [
    name,
    rate.toFixed(0),
    (rate / without.rate).toFixed(2),
    p50.toFixed(1),
    p99.toFixed(1),
    capacity.toFixed(0),
    String(dead),
    megabytes,
  ];
}

function table(title: string, header: readonly string[], rows: readonly (readonly (string | number)[])[]): void {
  const lines = [header, header.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`);
  process.stdout.write(`\n${title}\n\n${lines.join('\n')}\n`);
}
