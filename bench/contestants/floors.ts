/**
 * What a launcher cannot go below: plain statements of node-postgres, without history, retries or restarts.
 * Notify floor: a NOTIFY to a warm connection that runs one statement, nothing stored.  Durable floor: row and NOTIFY, claim,
 * run; each in a process of its own, as every launcher is (bench/programs/floor.mjs).  Batch floor: eight connections that claim and complete 500 jobs at a time.  Single floor: the same one by one.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import type pg from 'pg';
import { type Database, isEmpty, root, until } from '../support.ts';
import {
  type Caller,
  checkEffects,
  createEffect,
  createSeen,
  type Launcher,
  nextId,
  perSecond,
  type Queue,
  SEE,
  seenAfter,
  serverTime,
  sqlCall,
  type Work,
  WORKS,
} from './contestant.ts';

const CONNECTIONS = 8;
const BATCH = 500;

const CREATE_QUEUE = `CREATE TABLE IF NOT EXISTS bench.queue (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, claimed_at timestamptz)`;
const add = (payload: string): string => `WITH queued AS (INSERT INTO bench.queue DEFAULT VALUES RETURNING id)
  SELECT pg_notify('bench_queue', ${payload}) FROM queued`;
const CLAIM = `UPDATE bench.queue SET claimed_at = clock_timestamp() WHERE id = ANY (ARRAY(
  SELECT id FROM bench.queue WHERE claimed_at IS NULL ORDER BY id FOR UPDATE SKIP LOCKED LIMIT $1)) RETURNING id`;
const COMPLETE = 'DELETE FROM bench.queue WHERE id = ANY ($1)';

export async function floorLaunchers(database: Database): Promise<Launcher[]> {
  await createSeen(database);
  await database.client.query(CREATE_QUEUE);
  return [
    await floorLauncher(database, 'notify floor', `SELECT pg_notify('bench_notify', $1)`, { channel: 'bench_notify' }),
    await floorLauncher(database, 'durable floor', add('$1'), { channel: 'bench_queue', claim: CLAIM }),
  ];
}

/** The process ends with its connection. */
async function floorLauncher({ url, client }: Database, name: string, sql: string, floor: object): Promise<Launcher> {
  const program = join(root, 'bench', 'programs', 'floor.mjs');
  const child = fork(program, [JSON.stringify({ url, see: SEE, ...floor })], { execArgv: [] });
  await once(child, 'message');
  const launch = async (): Promise<number> => {
    const id = nextId();
    const seen = once(child, 'message');
    const from = await serverTime(client);
    await client.query(sql, [String(id)]);
    await seen;
    return seenAfter(client, from, id);
  };
  return { name, launch };
}

/** A process of Node.js for each launch. */
export function bareFork({ url, client }: Database, every: number): Launcher {
  const program = join(root, 'bench', 'programs', 'bare-fork.mjs');
  const launch = async (): Promise<number> => {
    const id = nextId();
    const from = await serverTime(client);
    await once(fork(program, [url, String(id)], { execArgv: [] }), 'exit');
    return seenAfter(client, from, id);
  };
  return { name: 'bare fork of Node.js', every, launch };
}

export async function floorCaller(database: Database): Promise<Caller> {
  const { client, connect } = database;
  await client.query(CREATE_QUEUE);
  const worker = await connect();
  await worker.query('LISTEN bench_queue');
  let isClaiming = false;
  const work = async (): Promise<void> => {
    if (isClaiming) return;
    isClaiming = true;
    while ((await runBatch(worker, 'SELECT 1', BATCH)) > 0);
    isClaiming = false;
  };
  worker.on('notification', () => void work());
  return {
    name: 'row + notify',
    call: sqlCall(database, add(`''`)),
    settle: () =>
      until(async () => {
        // A notification that came while the last batch was claimed has been passed over.
        await work();
        return isEmpty(client, 'SELECT FROM bench.queue LIMIT 1');
      }),
  };
}

export const floorQueues = (database: Database): Queue[] => [
  { name: 'batch floor', works: WORKS, drain: (work, jobs) => drain(database, work, jobs, BATCH) },
  { name: 'single floor', works: WORKS, share: 0.25, drain: (work, jobs) => drain(database, work, jobs, 1) },
];

async function drain(database: Database, work: Work, jobs: number, batch: number): Promise<number> {
  const { client, connect } = database;
  await createEffect(database);
  await client.query(`DROP TABLE IF EXISTS bench.queue; TRUNCATE bench.effect; ${CREATE_QUEUE}`);
  await client.query('INSERT INTO bench.queue (claimed_at) SELECT NULL FROM generate_series(1, $1::int)', [jobs]);
  const workers = await Promise.all(Array.from({ length: CONNECTIONS }, () => connect()));
  const rate = await perSecond(jobs, () =>
    Promise.all(
      workers.map(async (worker) => {
        while ((await runBatch(worker, work, batch)) > 0);
      }),
    ),
  );
  await Promise.all(workers.map((worker) => worker.end()));
  await checkEffects(database, work, jobs);
  return rate;
}

/** How many jobs it found. */
async function runBatch(worker: pg.Client, work: Work, batch: number): Promise<number> {
  const { rows } = await worker.query<{ id: string }>({ name: 'claim', text: CLAIM, values: [batch] });
  for (const { id } of rows)
    await worker.query(work === 'SELECT 1' ? 'SELECT 1' : `INSERT INTO bench.effect VALUES (${id})`);
  if (rows.length > 0) await worker.query(COMPLETE, [rows.map(({ id }) => id)]);
  return rows.length;
}
