/**
 * How late scheduled jobs start, and how many due times are missed.  Each second: lateness is the time since the job's last
 * start, less one second, because pg_cron has no due times of seconds.  One minute: the time since the minute began.
 */
import { EACH_MINUTE, EACH_SECOND, type Scheduler } from './contestants/schedulers.ts';
import { isEmpty, pause, percentile, until, value } from './support.ts';

export interface Lateness {
  jobs: string;
  name: string;
  /** Milliseconds. */
  late: number[];
  /** The share of due times at which nothing started. */
  missed: number;
  /** p99 of the time since the due time, of the first and of the last third of the starts: whether lateness accumulates. */
  thirds?: [number, number];
}

/** The first starts come while jobs are still being added. */
const UNTIL_STEADY = 3000;
/** Jobs are not added at the end of a minute, so that all of them are there when the next begins. */
const LATEST_SECOND = 40;
/** How long the jobs of a minute may take to start. */
const LONGEST = 20_000;

export async function eachSecond(scheduler: Scheduler, count: number, seconds: number): Promise<Lateness> {
  const { client } = scheduler.database;
  await scheduler.add(count, EACH_SECOND);
  await pause(UNTIL_STEADY);
  await client.query('TRUNCATE bench.start');
  const from = await value<Date>(client, 'SELECT clock_timestamp()');
  await pause(seconds * 1000);
  const { rows } = await client.query<{ jobs: number; starts: number; gaps: number[] }>(
    `SELECT count(DISTINCT name)::int AS jobs, count(*)::int AS starts, coalesce(array_agg(gap) FILTER (WHERE gap IS NOT NULL), '{}') AS gaps
     FROM (SELECT name, date_part('epoch', at - lag(at) OVER (PARTITION BY name ORDER BY at)) AS gap FROM bench.start) AS started`,
  );
  const { jobs = 0, starts = 0, gaps = [] } = rows[0] ?? {};
  // Between two starts of a job: at the ends of the time that is measured a late one is on the other side.
  const between = gaps.reduce((sum, gap) => sum + Math.max(0, Math.round(gap) - 1), 0);
  const absent = between + (count - jobs) * seconds;
  const missed = absent / (absent + starts);
  const late = gaps.map((gap) => Math.max(0, 1000 * (gap - 1)));
  const thirds = await thirdsSince(scheduler, from);
  await settle(scheduler);
  return { jobs: `${count} each second`, name: scheduler.name, late, missed, ...(thirds && { thirds }) };
}

async function thirdsSince({ database, lateOfDueTimes }: Scheduler, from: Date): Promise<[number, number] | undefined> {
  if (lateOfDueTimes === undefined) return undefined;
  const { rows } = await database.client.query<{ late: number }>(`${lateOfDueTimes} ORDER BY at`, [from]);
  const late = rows.map((row) => row.late);
  const third = Math.floor(late.length / 3);
  return [percentile(late.slice(0, third), 0.99), percentile(late.slice(-third), 0.99)];
}

/** In the same minute, where more than one is given. */
export async function oneMinute(schedulers: readonly Scheduler[], count: number): Promise<Lateness[]> {
  const [first] = schedulers;
  if (first === undefined) return [];
  const { client } = first.database;
  await until(
    async () => (await value<number>(client, `SELECT date_part('second', clock_timestamp())`)) < LATEST_SECOND,
  );
  for (const scheduler of schedulers) await scheduler.add(count, EACH_MINUTE);
  const begin = await value<Date>(client, `SELECT date_trunc('minute', clock_timestamp()) + interval '1 min'`);
  await pause(begin.getTime() - Date.now());
  const results: Lateness[] = [];
  for (const scheduler of schedulers) {
    const late = await startsSince(scheduler, begin, count);
    const missed = Math.max(0, 1 - late.length / count);
    results.push({ jobs: `${count} in one minute`, name: scheduler.name, late, missed });
  }
  for (const scheduler of schedulers) await settle(scheduler);
  return results;
}

/** Watched gently: each job that has not started yet is one that the server has to start. */
async function startsSince({ database: { client } }: Scheduler, begin: Date, count: number): Promise<number[]> {
  const sql = `SELECT 1000 * date_part('epoch', at - $1::timestamptz) AS late FROM bench.start WHERE at >= $1::timestamptz`;
  let late: number[] = [];
  const hasAll = async (): Promise<boolean> => {
    late = (await client.query<{ late: number }>(sql, [begin])).rows.map((row) => row.late);
    return late.length >= count || Date.now() > begin.getTime() + LONGEST;
  };
  await until(hasAll, 500);
  return late;
}

/** Nothing of one measurement is left when the next begins. */
async function settle({ database: { client }, remove }: Scheduler): Promise<void> {
  await remove();
  for (let quiet = 0; quiet < 3;) {
    await client.query('TRUNCATE bench.start');
    await pause(500);
    quiet = (await isEmpty(client, 'SELECT FROM bench.start LIMIT 1')) ? quiet + 1 : 0;
  }
}
