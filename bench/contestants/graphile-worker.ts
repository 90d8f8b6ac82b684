/** graphile-worker: with its defaults, and as its documentation's page on performance runs it. */
import { PeerProcess } from '../peer-process.ts';
import type { Stage } from '../server.ts';
import { type Database, isEmpty, until } from '../support.ts';
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

/** https://worker.graphile.org/docs/performance */
export const SETTINGS = {
  default: {},
  best: {
    concurrentJobs: 24,
    maxPoolSize: 25,
    localQueue: { size: 500 },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
  },
} as const;
type Mode = keyof typeof SETTINGS;

const JOBS = 'graphile_worker._private_jobs';

/** A worker process on a database of its own. */
export async function startGraphile(stage: Stage, mode: Mode, crontab = ''): Promise<[Database, PeerProcess]> {
  const database = await stage.database(`graphile_${mode}`);
  await createSeen(database);
  await createEffect(database);
  const worker = await startWorker(database, mode, crontab);
  stage.atEnd(() => worker.stop());
  return [database, worker];
}

export const startWorker = ({ url }: Database, mode: Mode, crontab = ''): Promise<PeerProcess> =>
  PeerProcess.start('graphile-worker', { url, settings: SETTINGS[mode], crontab });

export async function graphileLauncher(stage: Stage, mode: Mode): Promise<Launcher> {
  const [{ client }, worker] = await startGraphile(stage, mode);
  const launch = async (): Promise<number> => {
    const id = nextId();
    const ran = worker.ran(id);
    const from = await serverTime(client);
    await client.query(`SELECT graphile_worker.add_job('probe', json_build_object('id', $1::int))`, [id]);
    await ran;
    return seenAfter(client, from, id);
  };
  return { name: `graphile-worker, ${mode}`, launch };
}

export async function graphileCaller(stage: Stage): Promise<Caller> {
  const [database] = await startGraphile(stage, 'best');
  return {
    name: 'graphile-worker add_job',
    call: sqlCall(database, `SELECT graphile_worker.add_job('select', '{}')`),
    settle: () => allDone(database),
  };
}

export async function graphileQueue(stage: Stage, mode: Mode): Promise<Queue> {
  const [database, first] = await startGraphile(stage, mode);
  // It has made its schema; workers are started for each measurement.
  await first.stop();
  const share = mode === 'default' ? 0.1 : 1;
  return {
    name: `graphile-worker, ${mode}`,
    works: WORKS,
    share,
    drain: (work, jobs) => drain(database, mode, work, jobs),
  };
}

async function drain(database: Database, mode: Mode, work: Work, jobs: number): Promise<number> {
  const { client } = database;
  await client.query('TRUNCATE bench.effect');
  const worker = await startWorker(database, mode);
  const task = work === 'SELECT 1' ? 'select' : 'insert';
  const spec = `json_build_object('identifier', $2::text, 'payload', json_build_object('n', n))`;
  await client.query(
    `SELECT count(*) FROM graphile_worker.add_jobs(ARRAY(
       SELECT json_populate_record(NULL::graphile_worker.job_spec, ${spec}) FROM generate_series(1, $1::int) AS n))`,
    [jobs, task],
  );
  const rate = await perSecond(jobs, () => allDone(database));
  await worker.stop();
  await checkEffects(database, work, jobs);
  return rate;
}

const allDone = ({ client }: Database): Promise<void> =>
  until(() => isEmpty(client, `SELECT FROM ${JOBS} ORDER BY id DESC LIMIT 1`), 10);
