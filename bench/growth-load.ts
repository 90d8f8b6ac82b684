/** What a long history, churn and an old snapshot do to a running controller. */
import { type Bench, median, pause, percentile, value } from './support.ts';

export interface Speed {
  /** One-shots per second, queued beforehand. */
  rate: number;
  /** Milliseconds from the launch of a single one to its start. */
  p50: number;
}

export interface Load {
  /** Finished per second. */
  rate: number;
  /** Milliseconds from launch to start, over the last ten seconds. */
  p50: number;
  p99: number;
  /** One-shots per second, queued beforehand, when the time is over: what could have been done. */
  capacity: number;
  /** Rows of bgw.process that no one needs any more, at most; and the size of the table with its indexes, bytes. */
  dead: number;
  bytes: number;
}

/** Rate and latency of a controller that has nothing else to do; the best of the rounds. */
export async function measureSpeed(bench: Bench, jobs: number, rounds: number): Promise<Speed> {
  const rates: number[] = [];
  const latencies: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    rates.push(await drain(bench, jobs));
    for (let i = 0; i < 50; i += 1) latencies.push(await startOne(bench));
  }
  return { rate: Math.max(...rates), p50: median(latencies) };
}

/** WAL in bytes of one one-shot job, from its launch to its row of the history. */
export async function measureWal(bench: Bench, jobs: number): Promise<number> {
  await drain(bench, jobs);
  const from = await value<string>(bench.client, 'SELECT pg_current_wal_insert_lsn()');
  await drain(bench, jobs);
  return Number(await value<string>(bench.client, 'SELECT pg_current_wal_insert_lsn() - $1', [from])) / jobs;
}

async function drain({ client }: Bench, jobs: number): Promise<number> {
  await client.query(`SELECT count(bgw_launch_sql('SELECT 1')) FROM generate_series(1, $1)`, [jobs]);
  const launched = performance.now();
  while ((await backlog(client)) > 0) await pause(5);
  return jobs / ((performance.now() - launched) / 1000);
}

async function startOne({ client }: Bench): Promise<number> {
  const handle = await value<string>(client, `SELECT bgw_launch_sql('SELECT 1')`);
  await client.query('CALL bgw_wait_for_shutdown($1)', [handle]);
  return value<number>(
    client,
    `SELECT 1000 * date_part('epoch', started_at - queued_at) FROM bgw_run_history WHERE handle = $1`,
    [handle],
  );
}

const backlog = async (client: Bench['client']): Promise<number> =>
  value<number>(client, 'SELECT count(*)::int FROM bgw.process WHERE worker_id IS NULL');

/**
 * Adds rows to the history as they would stand there after six days: a tenth of bgw_launch_sql, the others of 900 workers, so that
 * a million is within the bounds of the history, and nothing is deleted while something is measured.
 */
export async function fillHistory({ client }: Bench, rows: number): Promise<void> {
  await client.query(
    `DO $$ BEGIN FOR day IN -6..0 LOOP PERFORM bgw.partition_by_day('run', 'finished_at', current_date + day); END LOOP; END $$`,
  );
  await client.query(
    `INSERT INTO bgw.run (id, process_id, worker_id, name, owner, node, pid, status, exit_code, command_tag, rows, queued_at, started_at, finished_at)
     SELECT nextval('bgw.run_id'), nextval('bgw.process_id_seq'), CASE WHEN n % 10 > 0 THEN 1000000 + n % 1000 END, 'bench', bgw.current_owner(), 'bench', 4711, 'done', 0,
            'SELECT 1', 1, at, at, at
     FROM (SELECT n, now() - interval '6 days' * (1 - n::float / $1) - interval '1 min' AS at FROM generate_series(1, $1::int) AS n) AS history`,
    [rows],
  );
  await client.query('VACUUM ANALYZE bgw.run');
  await client
    .query('CHECKPOINT')
    .catch(() => process.stdout.write('not superuser: a checkpoint may fall into what follows\n'));
}

/** Launches `rate` one-shots per second, one by one, for so long. `holding`: while a session holds a snapshot. */
export async function measureLoad(bench: Bench, rate: number, seconds: number, holding: boolean): Promise<Load> {
  const holder = await bench.connect();
  if (holding) {
    await holder.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
    await holder.query('SELECT count(*) FROM bgw.process');
  }
  let dead = 0;
  const waitingBefore = await backlog(bench.client);
  const clients = await Promise.all(Array.from({ length: 4 }, () => bench.connect()));
  const from = performance.now();
  let launched = 0;
  const launchers = clients.map(async (client) => {
    for (;;) {
      const elapsed = (performance.now() - from) / 1000;
      if (elapsed >= seconds) return;
      if (launched >= elapsed * rate) {
        await pause(1);
        continue;
      }
      launched += 1;
      await client.query(`SELECT bgw_launch_sql('SELECT 1')`);
    }
  });
  const watcher = (async (): Promise<void> => {
    while (performance.now() - from < seconds * 1000) {
      await pause(1000);
      dead = Math.max(
        dead,
        await value<number>(bench.client, `SELECT pg_stat_get_dead_tuples('bgw.process'::regclass)::int`),
      );
    }
  })();
  await Promise.all([...launchers, watcher]);
  const waiting = (await backlog(bench.client)) - waitingBefore;
  const finished = (launched - waiting) / ((performance.now() - from) / 1000);
  const { rows } = await bench.client.query<{ ms: number }>(
    `SELECT 1000 * date_part('epoch', started_at - queued_at) AS ms FROM bgw_run_history WHERE finished_at > now() - interval '10 s'`,
  );
  const waits = rows.map(({ ms }) => ms);
  const capacity = await drain(bench, rate * 5);
  const bytes = Number(await value<string>(bench.client, `SELECT pg_total_relation_size('bgw.process')`));
  await Promise.all([...clients, holder].map((client) => client.end()));
  return { rate: finished, p50: median(waits), p99: percentile(waits, 0.99), capacity, dead, bytes };
}
