/**
 * npm run bench:schedule: how late scheduled jobs start, and how many due times are missed: jobs of each second, and 500 of one
 * minute; beside real pg_cron in the same server where Debian's postgresql-15-cron is installed, in turns.
 * Options: --quick (a few seconds each), --write (the table in the README).
 * Each second: lateness is the time since the job's last start, less one second; pg_cron has no due times of seconds.
 * One minute: lateness is the time since the minute began.
 */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type pg from 'pg';
import { startEmbedded } from '../src/embedded.ts';
import { writeBetween } from './report.ts';
import { pause, percentile, startBench, value } from './support.ts';

const { values: options } = parseArgs({
  options: { quick: { type: 'boolean', default: false }, write: { type: 'boolean', default: false } },
});
const SECONDS = options.quick ? 8 : 30;
const EACH_SECOND = options.quick ? [1, 100] : [1, 100, 500];
const IN_ONE_MINUTE = 500;

const PG_CRON = '/usr/share/postgresql/15/extension/pg_cron.control';
const JOB = (name: string): string => `INSERT INTO bench.start (name) VALUES ('${name}')`;

/** How jobs come and go; `schedule` is cron or '1 second'. */
interface Scheduler {
  name: string;
  add(client: pg.Client, count: number, schedule: string): Promise<unknown>;
  remove(client: pg.Client): Promise<unknown>;
}

const OURS: Scheduler = {
  name: 'pg-bgworker',
  add: (client, count, schedule) =>
    client.query(`SELECT count(bgw_schedule('job_' || n, $2, format($3, n))) FROM generate_series(1, $1) AS n`, [
      count,
      schedule,
      JOB('%s'),
    ]),
  remove: (client) => client.query('SELECT count(bgw_unschedule(name, stop => true)) FROM bgw_schedules'),
};

const THEIRS: Scheduler = {
  name: 'pg_cron',
  add: (client, count, schedule) =>
    client.query(`SELECT count(cron.schedule('job_' || n, $2, format($3, n))) FROM generate_series(1, $1) AS n`, [
      count,
      schedule.replace('1 second', '1 seconds'),
      JOB('%s'),
    ]),
  remove: (client) => client.query('SELECT count(cron.unschedule(jobid)) FROM cron.job'),
};

const hasPeer = existsSync(PG_CRON);
const directory = mkdtempSync(join(tmpdir(), 'bgw-bench-schedule-'));
const server = await startEmbedded({
  dataDir: join(directory, 'data'),
  ...(hasPeer
    ? {
        binDir: '/usr/lib/postgresql/15/bin',
        settings: {
          shared_preload_libraries: 'pg_cron',
          'cron.max_running_jobs': '32',
          'cron.use_background_workers': 'on',
          max_worker_processes: '64',
        },
      }
    : { binDir: undefined, settings: {} }),
});
const bench = await startBench(server.url);
try {
  if (hasPeer) await bench.client.query('CREATE EXTENSION pg_cron');
  else process.stdout.write('pg_cron: skipped, postgresql-15-cron is not installed\n');
  await bench.client.query('CREATE TABLE bench.start (name text, at timestamptz DEFAULT clock_timestamp())');
  const schedulers = hasPeer ? [OURS, THEIRS] : [OURS];
  const rows: string[] = [];
  const withSeconds = hasPeer && (await knowsSeconds(bench.client)) ? schedulers : [OURS];
  if (hasPeer && withSeconds.length === 1)
    process.stdout.write('pg_cron, each second: skipped, this version knows no seconds\n');
  for (const count of EACH_SECOND)
    for (const scheduler of withSeconds) rows.push(await eachSecond(bench.client, scheduler, count));
  if (!options.quick) for (const scheduler of schedulers) rows.push(await oneMinute(bench.client, scheduler));
  const version = await value<string>(bench.client, 'SHOW server_version');
  const table = [
    '| jobs | scheduler | late p50, ms | p99 | max | due times missed |',
    '|---|---|---|---|---|---|',
    ...rows,
    '',
    `PostgreSQL ${version}, Node.js ${process.versions.node}, ${cpus().length} cores; pg_cron with background workers; ${SECONDS} s each.`,
    '',
  ].join('\n');
  process.stdout.write(table);
  if (options.write) writeBetween('README.md', 'bench-schedule', table);
} finally {
  await bench.stop();
  await server.stop();
  rmSync(directory, { recursive: true, force: true });
}

/** From version 1.5 on. */
async function knowsSeconds(client: pg.Client): Promise<boolean> {
  return client.query(`SELECT cron.unschedule(cron.schedule('probe', '59 seconds', 'SELECT 1'))`).then(
    () => true,
    () => false,
  );
}

async function eachSecond(client: pg.Client, scheduler: Scheduler, count: number): Promise<string> {
  await scheduler.add(client, count, '1 second');
  // The first starts come while jobs are still being added.
  await pause(3000);
  await client.query('TRUNCATE bench.start');
  await pause(SECONDS * 1000);
  const { rows } = await client.query<{ late: number }>(
    `SELECT greatest(0, date_part('epoch', at - lag(at) OVER (PARTITION BY name ORDER BY at)) * 1000 - 1000) AS late FROM bench.start`,
  );
  const starts = Number(await value(client, 'SELECT count(*) FROM bench.start'));
  await settle(client, scheduler);
  const late = rows.map((row) => row.late).filter((each) => each !== null);
  return row(`${count} each second`, scheduler, late, 1 - starts / (count * SECONDS));
}

async function oneMinute(client: pg.Client, scheduler: Scheduler): Promise<string> {
  // Not at the end of a minute, so that all of them are there when it begins.
  while (Number(await value(client, `SELECT date_part('second', clock_timestamp())`)) > 40) await pause(500);
  await scheduler.add(client, IN_ONE_MINUTE, '* * * * *');
  await client.query('TRUNCATE bench.start');
  const begin = await value<Date>(client, `SELECT date_trunc('minute', clock_timestamp()) + interval '1 min'`);
  await pause(begin.getTime() - Date.now() + 20_000);
  const { rows } = await client.query<{ late: number }>(
    `SELECT date_part('epoch', at - $1::timestamptz) * 1000 AS late FROM bench.start WHERE at < $1::timestamptz + interval '1 min'`,
    [begin],
  );
  await settle(client, scheduler);
  return row(
    `${IN_ONE_MINUTE} in one minute`,
    scheduler,
    rows.map(({ late }) => late),
    1 - rows.length / IN_ONE_MINUTE,
  );
}

/** Nothing of one measurement is left when the next begins. */
async function settle(client: pg.Client, scheduler: Scheduler): Promise<void> {
  await scheduler.remove(client);
  for (let quiet = 0; quiet < 3;) {
    await client.query('TRUNCATE bench.start');
    await pause(700);
    quiet = Number(await value(client, 'SELECT count(*) FROM bench.start')) === 0 ? quiet + 1 : 0;
  }
}

function row(jobs: string, scheduler: Scheduler, late: readonly number[], missed: number): string {
  const [p50, p99, max] = [0.5, 0.99, 1].map((share) => percentile(late, share).toFixed(1));
  return `| ${jobs} | ${scheduler.name} | ${p50} | ${p99} | ${max} | ${(100 * Math.max(0, missed)).toFixed(1)} % |`;
}
