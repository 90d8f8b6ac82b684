/** pg-bgworker: a node of its own, with its defaults. */
import { type Database, isEmpty, pause, until, value } from '../support.ts';
import {
  type Caller,
  checkEffects,
  createEffect,
  createSeen,
  type Launcher,
  nextId,
  perSecond,
  type Queue,
  seenAfter,
  serverTime,
  sqlCall,
  type Work,
  WORKS,
} from './contestant.ts';

/** The spare process is forked a quarter of a second after the last one was taken, and then loads for as long. */
const UNTIL_SPARE = 700;

export async function ourLaunchers(database: Database): Promise<Launcher[]> {
  const { client } = database;
  await createSeen(database);
  const see = `INSERT INTO bench.seen VALUES (current_setting('bgw.handle')::bigint, clock_timestamp())`;
  await client.query(`SELECT bgw_register('bench_probe', $1)`, [see]);
  const launch = async (sql: string, params: unknown[] = []): Promise<number> => {
    const from = await serverTime(client);
    const handle = await value<string>(client, sql, params);
    await client.query('CALL bgw_wait_for_shutdown($1)', [handle]);
    return seenAfter(client, from, handle);
  };
  return [
    { name: 'bgw_launch', launch: () => launch(`SELECT bgw_launch('bench_probe')`) },
    { name: 'bgw_launch_sql', launch: () => launch('SELECT bgw_launch_sql($1)', [see]) },
  ];
}

/** Workers in TypeScript, each in a process of its own: with the spare process of the node, and right after it was taken. */
export function ourProcessLaunchers({ client }: Database, every: number): Launcher[] {
  const launch = async (): Promise<number> => {
    const id = nextId();
    const from = await serverTime(client);
    const handle = await value<string>(
      client,
      `SELECT bgw_launch('first_statement', jsonb_build_object('id', $1::int))`,
      [id],
    );
    await client.query('CALL bgw_wait_for_shutdown($1)', [handle]);
    return seenAfter(client, from, id);
  };
  // Follows the other in each turn.  Then the node gets its next spare before anybody else is measured; the first one comes
  // while all get warm.
  const launchWithout = async (): Promise<number> => {
    const sample = await launch();
    await pause(UNTIL_SPARE);
    return sample;
  };
  return [
    { name: 'TypeScript worker, with a spare', every, launch },
    { name: 'TypeScript worker, without', every, launch: launchWithout },
  ];
}

export async function ourCallers(database: Database): Promise<Caller[]> {
  const { client } = database;
  await client.query(`SELECT bgw_register('bench_call', 'SELECT 1')`);
  const settle = (): Promise<void> => nothingLeft(database);
  const caller = (name: string, sql: string): Caller => ({ name, call: sqlCall(database, sql), settle });
  return [
    caller('bgw_launch', `SELECT bgw_launch('bench_call')`),
    caller('bgw_launch_sql', `SELECT bgw_launch_sql('SELECT 1')`),
  ];
}

export const ourQueues = (database: Database): Queue[] => [
  { name: 'pg-bgworker', works: WORKS, drain: (work, jobs) => drain(database, work, jobs, 'session') },
  {
    name: 'pg-bgworker, atomic',
    works: ['INSERT'],
    drain: (work, jobs) => drain(database, work, jobs, 'atomic'),
  },
];

async function drain(database: Database, work: Work, jobs: number, mode: string): Promise<number> {
  await createEffect(database);
  await database.client.query('TRUNCATE bench.effect');
  const before = await lastRun(database);
  await queue(database, work, jobs, mode);
  const rate = await perSecond(jobs, () => nothingLeft(database));
  await checkRuns(database, jobs, before);
  await checkEffects(database, work, jobs);
  return rate;
}

const lastRun = ({ client }: Database): Promise<string> =>
  value<string>(client, 'SELECT coalesce(max(run_id), 0) FROM bgw_run_history');

async function queue({ client }: Database, work: Work, jobs: number, mode: string): Promise<void> {
  const command = work === 'SELECT 1' ? `'SELECT 1'` : `format('INSERT INTO bench.effect VALUES (%s)', n)`;
  const sql = `SELECT count(bgw_launch_sql(${command}, mode => $2)) FROM generate_series(1, $1::int) AS n`;
  await client.query(sql, [jobs, mode]);
}

const nothingLeft = ({ client }: Database): Promise<void> =>
  until(() => isEmpty(client, 'SELECT FROM bgw.process ORDER BY id DESC LIMIT 1'), 10);

/** Each job ran once and has its row of history; throws if one has none, or two, or has failed. */
async function checkRuns({ client }: Database, jobs: number, before: string): Promise<void> {
  const runs = `SELECT count(*)::int AS runs, count(DISTINCT handle)::int AS jobs,
                  count(*) FILTER (WHERE status = 'done')::int AS done FROM bgw_run_history WHERE run_id > $1`;
  const { rows } = await client.query<{ runs: number; jobs: number; done: number }>(runs, [before]);
  const { runs: all, jobs: distinct, done } = rows[0] ?? { runs: 0, jobs: 0, done: 0 };
  if (all !== jobs || distinct !== jobs || done !== jobs)
    throw new Error(`${jobs} jobs have ${all} runs of ${distinct} jobs, ${done} of them done`);
}

export interface SlowJob {
  /** Jobs per second of the others, from their first start to their last end. */
  without: number;
  withSlow: number;
  /** How many of the others, all queued before or after it, ended later than the slow one. */
  waited: number;
}

/** A job of that many seconds in the middle of the queue delays only itself. */
export async function measureSlowJob(database: Database, jobs: number, seconds: number): Promise<SlowJob> {
  await createEffect(database);
  const { client } = database;
  const rate = async (withSlow: boolean): Promise<[number, number]> => {
    const before = await lastRun(database);
    await client.query('BEGIN');
    await queue(database, 'INSERT', jobs / 2, 'session');
    if (withSlow) await client.query(`SELECT bgw_launch_sql($1, mode => 'session')`, [`SELECT pg_sleep(${seconds})`]);
    await queue(database, 'INSERT', jobs / 2, 'session');
    await client.query('COMMIT');
    await nothingLeft(database);
    await checkRuns(database, jobs + (withSlow ? 1 : 0), before);
    const sql = `
      WITH run AS (SELECT *, command_tag LIKE 'SELECT%' AS is_slow FROM bgw_run_history WHERE run_id > $1),
           other AS (SELECT * FROM run WHERE NOT is_slow)
      SELECT (SELECT count(*) / date_part('epoch', max(finished_at) - min(started_at)) FROM other) AS rate,
             (SELECT count(*)::int FROM other, run WHERE run.is_slow AND other.finished_at > run.finished_at) AS waited`;
    const { rows } = await client.query<{ rate: number; waited: number }>(sql, [before]);
    return [rows[0]?.rate ?? 0, rows[0]?.waited ?? 0];
  };
  const [without] = await rate(false);
  const [withSlow, waited] = await rate(true);
  return { without, withSlow, waited };
}
