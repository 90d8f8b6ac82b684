/**
 * From the launching statement to the worker's first own statement, both times taken on the server's clock.
 * In turns, so that what else the machine does meets all alike.  Two floors: a NOTIFY to a warm connection that runs one
 * statement and stores nothing; and the least that a durable launcher does: row and NOTIFY, claim, run.
 */
import type pg from 'pg';
import { type Bench, pause, value } from './support.ts';

export const LATENCIES = [
  'notify floor',
  'durable floor',
  'bgw_launch',
  'bgw_launch_sql',
  'TypeScript worker',
] as const;
export type Latency = (typeof LATENCIES)[number];
type Sample = () => Promise<number>;

/** Milliseconds per launch. */
export async function measureLatency(bench: Bench, launches: number): Promise<Record<Latency, number[]>> {
  const { client } = bench;
  await client.query('CREATE UNLOGGED TABLE bench.seen (handle bigint PRIMARY KEY, at timestamptz)');
  await client.query(
    'CREATE TABLE bench.queue (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, claimed_at timestamptz)',
  );
  const see = `INSERT INTO bench.seen VALUES (current_setting('bgw.handle')::bigint, clock_timestamp())`;
  await client.query(`SELECT bgw_register('bench_probe', $1)`, [see]);
  const samples: Record<Latency, Sample> = {
    'notify floor': await notifyFloor(bench),
    'durable floor': await durableFloor(bench),
    bgw_launch: () => launch(client, `SELECT bgw_launch('bench_probe')`),
    bgw_launch_sql: () => launch(client, 'SELECT bgw_launch_sql($1)', [see]),
    'TypeScript worker': () => launchProcess(client),
  };
  const result = Object.fromEntries(LATENCIES.map((name) => [name, [] as number[]])) as Record<Latency, number[]>;
  for (let i = -20; i < launches; i += 1) {
    for (const name of LATENCIES) {
      // A process each time would measure the machine's cores: every tenth is enough.
      if (name === 'TypeScript worker' && i % 10 !== 0) continue;
      const sample = await samples[name]();
      if (i >= 0) result[name].push(sample);
    }
  }
  return result;
}

async function launch(client: pg.Client, sql: string, params: unknown[] = []): Promise<number> {
  const from = await value<string>(client, 'SELECT clock_timestamp()::text');
  const handle = await value<string>(client, sql, params);
  await client.query('CALL bgw_wait_for_shutdown($1)', [handle]);
  return elapsed(client, from, 'SELECT at FROM bench.seen WHERE handle = $3', [handle]);
}

/** hello_signal has no session: its start is what the controller saw. */
async function launchProcess(client: pg.Client): Promise<number> {
  await pause(500); // until the node has its spare process again
  const from = await value<string>(client, 'SELECT clock_timestamp()::text');
  const handle = await value<string>(client, `SELECT bgw_launch('hello_signal')`);
  await client.query('CALL bgw_wait_for_startup($1)', [handle]);
  const sample = await elapsed(client, from, 'SELECT started_at FROM bgw.process WHERE id = $3', [handle]);
  await client.query('SELECT bgw_terminate($1::bigint)', [handle]);
  await client.query('CALL bgw_wait_for_shutdown($1)', [handle]);
  return sample;
}

async function notifyFloor(bench: Bench): Promise<Sample> {
  const listener = await bench.connect();
  await listener.query('LISTEN bench_notify');
  return async () => {
    const seen = new Promise<string>((resolve) => {
      listener.once('notification', () => void value<string>(listener, 'SELECT clock_timestamp()::text').then(resolve));
    });
    const from = await value<string>(bench.client, 'SELECT clock_timestamp()::text');
    await bench.client.query('NOTIFY bench_notify');
    return elapsed(bench.client, from, 'SELECT $3::timestamptz', [await seen]);
  };
}

async function durableFloor(bench: Bench): Promise<Sample> {
  const listener = await bench.connect();
  await listener.query('LISTEN bench_queue');
  const claim = `UPDATE bench.queue SET claimed_at = clock_timestamp() WHERE id = (
    SELECT id FROM bench.queue WHERE claimed_at IS NULL ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1) RETURNING id`;
  return async () => {
    const seen = new Promise<string>((resolve) => {
      listener.once('notification', () => {
        void listener
          .query(claim)
          .then(() => value<string>(listener, 'SELECT clock_timestamp()::text'))
          .then(resolve);
      });
    });
    const from = await value<string>(bench.client, 'SELECT clock_timestamp()::text');
    await bench.client.query(
      `WITH queued AS (INSERT INTO bench.queue DEFAULT VALUES RETURNING id) SELECT pg_notify('bench_queue', '') FROM queued`,
    );
    return elapsed(bench.client, from, 'SELECT $3::timestamptz', [await seen]);
  };
}

async function elapsed(client: pg.Client, from: string, to: string, params: unknown[]): Promise<number> {
  const [first] = params;
  return Number(
    await value<string>(client, `SELECT $1::float8 * extract(epoch FROM (${to}) - $2::timestamptz)`, [
      1000,
      from,
      first,
    ]),
  );
}
