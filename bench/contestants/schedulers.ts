/** Who starts jobs by the clock: we, pg_cron in the same server, and the cron items of graphile-worker. */
import type { PeerProcess } from '../peer-process.ts';
import type { Stage } from '../server.ts';
import { type Database, value } from '../support.ts';
import { startGraphile, startWorker } from './graphile-worker.ts';

export const EACH_SECOND = '1 second';
export const EACH_MINUTE = '* * * * *';

export interface Scheduler {
  name: string;
  database: Database;
  knowsSeconds: boolean;
  /** Jobs that each add a row to bench.start; `schedule` is one of the two above. */
  add(count: number, schedule: string): Promise<unknown>;
  remove(): Promise<unknown>;
  /** SQL of how late each start was, as `late` (milliseconds) and `at`, where due times are known. */
  lateOfDueTimes?: string;
}

const JOB = `INSERT INTO bench.start (name) VALUES ('%s')`;

async function createStart({ client }: Database): Promise<void> {
  await client.query('CREATE TABLE bench.start (name text, at timestamptz DEFAULT clock_timestamp())');
}

export async function ourScheduler(stage: Stage): Promise<Scheduler> {
  const database = await stage.ours();
  const { client } = database;
  await createStart(database);
  const add = `SELECT count(bgw_schedule('job_' || n, $2, format($3, n))) FROM generate_series(1, $1::int) AS n`;
  return {
    name: 'pg-bgworker',
    database,
    knowsSeconds: true,
    add: (count, schedule) => client.query(add, [count, schedule, JOB]),
    remove: () => client.query('SELECT count(bgw_unschedule(name, stop => true)) FROM bgw_schedules'),
    lateOfDueTimes: `SELECT 1000 * date_part('epoch', started_at - due_at) AS late, started_at AS at
                     FROM bgw_run_history WHERE due_at IS NOT NULL AND started_at > $1::timestamptz`,
  };
}

export async function pgCronScheduler(stage: Stage): Promise<Scheduler> {
  const database = await stage.open(stage.server.url);
  const { client } = database;
  await createStart(database);
  await client.query('CREATE EXTENSION IF NOT EXISTS pg_cron');
  const version = await value<string>(client, `SELECT extversion FROM pg_extension WHERE extname = 'pg_cron'`);
  const add = `SELECT count(cron.schedule('job_' || n, $2, format($3, n))) FROM generate_series(1, $1::int) AS n`;
  return {
    name: `pg_cron ${version}`,
    database,
    // From version 1.5 on.
    knowsSeconds: await client.query(`SELECT cron.unschedule(cron.schedule('probe', '59 seconds', 'SELECT 1'))`).then(
      () => true,
      () => false,
    ),
    add: (count, schedule) => client.query(add, [count, schedule.replace('second', 'seconds'), JOB]),
    remove: () => client.query('SELECT count(cron.unschedule(jobid)) FROM cron.job'),
  };
}

/** Its cron items are given to a worker at its start. */
export async function graphileScheduler(stage: Stage): Promise<Scheduler> {
  const [database, first] = await startGraphile(stage, 'best');
  await first.stop();
  await createStart(database);
  let worker: PeerProcess | undefined;
  stage.atEnd(async () => worker?.stop());
  const item = (n: number): string => `${EACH_MINUTE} tick ?id=job_${n} {"name":"job_${n}"}`;
  return {
    name: 'graphile-worker, best',
    database,
    knowsSeconds: false,
    add: async (count) => {
      worker = await startWorker(database, 'best', Array.from({ length: count }, (_, n) => item(n)).join('\n'));
    },
    remove: async () => worker?.stop(),
  };
}
