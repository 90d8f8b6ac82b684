/** What grows with the catalog, measured in a database of its own that no controller looks at: times are the server's alone. */
import pg from 'pg';
import { migrate } from '../src/migrate.ts';
import { type Bench, value } from './support.ts';

const CRON = `CASE n % 5 WHEN 0 THEN format('%s %s * * *', n % 60, n % 24) WHEN 1 THEN format('%s 3 %s * mon-fri', n % 60, 1 + n % 28)
  WHEN 2 THEN format('*/15 %s-17 * * *', n % 12) WHEN 3 THEN 'every 90 minutes' ELSE format('%s * * * *', n % 60) END`;
const ZONE = `(ARRAY['UTC', 'Europe/Berlin', 'America/New_York'])[1 + n % 3]`;
/** Those of src/catalog.ts that decide about plans. */
const AS_CONTROL = `SET search_path = ''; SET jit = off; SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
  SET plan_cache_mode = force_generic_plan`;
const ROUNDS = 5;

export async function withCatalog<T>(bench: Bench, measure: (client: pg.Client) => Promise<T>): Promise<T> {
  await bench.client.query('DROP DATABASE IF EXISTS bench_growth WITH (FORCE)');
  await bench.client.query('CREATE DATABASE bench_growth');
  const url = new URL(bench.url);
  url.pathname = '/bench_growth';
  const client = new pg.Client({ connectionString: url.href, application_name: 'bench' });
  await client.connect();
  try {
    await migrate(client);
    return await measure(client);
  } finally {
    await client.end();
    await bench.client.query('DROP DATABASE bench_growth WITH (FORCE)');
  }
}

/** Rows per second of one statement that launches `rows` one-shots: the best of the rounds. Nothing is left. */
export async function measureBulk(client: pg.Client, rows: number, rounds: number): Promise<number> {
  let best = 0;
  for (let round = 0; round < rounds; round += 1) {
    await client.query('BEGIN');
    const from = performance.now();
    await client.query(`SELECT count(bgw_launch_sql('SELECT 1')) FROM generate_series(1, $1)`, [rows]);
    best = Math.max(best, rows / ((performance.now() - from) / 1000));
    await client.query('ROLLBACK');
    await client.query('VACUUM bgw.process');
  }
  return best;
}

/** Milliseconds of `SELECT * FROM bgw_stat_activity` on the server, planned and run, by the state that all `workers` are in. */
export async function measureActivity(client: pg.Client, workers: number): Promise<Record<string, number>> {
  await client.query(
    `SELECT count(bgw_register('w' || n, 'SELECT 1', naptime => '1 min')) FROM generate_series(1, $1) AS n`,
    [workers],
  );
  const registered = await activity(client);
  await client.query(`SELECT count(bgw_launch('w' || n)) FROM generate_series(1, $1) AS n`, [workers]);
  const waiting = await activity(client);
  await client.query(`INSERT INTO bgw.node (name, login, control_pid, control_backend_start, lease_until, max_worker_processes)
    VALUES ('bench', bgw.current_owner(), 0, now(), 'infinity', 8)`);
  await client.query(`UPDATE bgw.process SET status = 'started', run_id = nextval('bgw.run_id'), epoch = 1, started_at = now(),
    node_id = (SELECT id FROM bgw.node)`);
  const napping = await activity(client);
  await client.query('DELETE FROM bgw.process');
  await client.query('DELETE FROM bgw.node');
  return { registered, 'launched, waiting': waiting, 'launched, napping': napping };
}

async function activity(client: pg.Client): Promise<number> {
  await client.query('VACUUM ANALYZE bgw.worker, bgw.process');
  return best(ROUNDS, async () => {
    const [plan] = await value<{ 'Planning Time': number; 'Execution Time': number }[]>(
      client,
      'EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) SELECT * FROM bgw_stat_activity',
    );
    return plan === undefined ? Number.NaN : plan['Planning Time'] + plan['Execution Time'];
  });
}

/** Milliseconds of bgw.take_orders with that many schedules: none due, and 500 due at once. */
export async function measureSchedules(client: pg.Client, schedules: number): Promise<{ idle: number; due: number }> {
  await client.query(
    `SELECT count(bgw_schedule('s' || n, ${CRON}, 'SELECT 1', timezone => ${ZONE})) FROM generate_series(1, $1) AS n`,
    [schedules],
  );
  await client.query(AS_CONTROL);
  const { rows } = await client.query<{ node_id: string; epoch: number }>(
    `SELECT node_id, epoch FROM bgw.join_node('bench', '{}', 8)`,
  );
  const takeOrders = async (): Promise<number> => {
    const from = performance.now();
    await client.query({
      name: 'take_orders',
      text: 'SELECT bgw.take_orders($1, $2, 0)',
      values: [rows[0]?.node_id, rows[0]?.epoch],
    });
    return performance.now() - from;
  };
  while (await value<boolean>(client, 'SELECT EXISTS (SELECT FROM bgw.schedule_change)')) await takeOrders();
  await client.query('VACUUM ANALYZE bgw.schedule, bgw.schedule_state, bgw.schedule_change');
  await client.query(
    `UPDATE bgw.schedule_state SET due_at = now() + interval '1 h', starts_at = now() + interval '1 h'`,
  );
  const idle = await best(20, takeOrders);
  const due = await best(ROUNDS, async () => {
    await client.query('DELETE FROM bgw.process');
    await client.query(`UPDATE bgw.schedule_state SET due_at = now(), starts_at = now()
      WHERE schedule_id IN (SELECT schedule_id FROM bgw.schedule_state ORDER BY random() LIMIT 500)`);
    return takeOrders();
  });
  await client.query('RESET ALL');
  return { idle, due };
}

async function best(rounds: number, measure: () => Promise<number>): Promise<number> {
  let least = Number.POSITIVE_INFINITY;
  for (let round = 0; round < rounds; round += 1) least = Math.min(least, await measure());
  return least;
}
