/**
 * One-shot SQL jobs per second, all queued beforehand, with their full history, which is checked.
 * Floor: a pool of eight connections that claims and completes batches of 500 and keeps no history.
 */
import { type Bench, pause, value } from './support.ts';

export const DRAINS = ['batch floor', 'SELECT 1', 'INSERT', 'INSERT, atomic'] as const;
export type Drain = (typeof DRAINS)[number];

/** Jobs per second. Throws if a job has not run exactly once. */
export async function measureThroughput(bench: Bench, jobs: number): Promise<Record<Drain, number>> {
  await bench.client.query('CREATE TABLE IF NOT EXISTS bench.effect (n int)');
  return {
    'batch floor': await drainFloor(bench, jobs),
    'SELECT 1': await drain(bench, jobs, `'SELECT 1'`, 'session'),
    INSERT: await drain(bench, jobs, `format('INSERT INTO bench.effect VALUES (%s)', n)`, 'session'),
    'INSERT, atomic': await drain(bench, jobs, `format('INSERT INTO bench.effect VALUES (%s)', n)`, 'atomic'),
  };
}

async function drain({ client }: Bench, jobs: number, command: string, mode: string): Promise<number> {
  await client.query('TRUNCATE bench.effect');
  const before = await value<string>(client, 'SELECT coalesce(max(run_id), 0) FROM bgw_run_history');
  const from = performance.now();
  await client.query(`SELECT count(bgw_launch_sql(${command}, mode => $2)) FROM generate_series(1, $1) AS n`, [
    jobs,
    mode,
  ]);
  while ((await value<string>(client, 'SELECT count(*) FROM bgw.process')) !== '0') await pause(10);
  const seconds = (performance.now() - from) / 1000;
  const runs = await value<string>(
    client,
    `SELECT count(DISTINCT handle) FROM bgw_run_history WHERE run_id > $1 AND status = 'done'`,
    [before],
  );
  const effects = await value<string>(client, 'SELECT count(DISTINCT n) FROM bench.effect');
  if (Number(runs) !== jobs) throw new Error(`${runs} of ${jobs} jobs have a run`);
  if (command !== `'SELECT 1'` && Number(effects) !== jobs)
    throw new Error(`${effects} of ${jobs} jobs had their effect`);
  return jobs / seconds;
}

async function drainFloor(bench: Bench, jobs: number): Promise<number> {
  const { client } = bench;
  await client.query('DROP TABLE IF EXISTS bench.jobs');
  await client.query(
    'CREATE TABLE bench.jobs (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, claimed boolean NOT NULL DEFAULT false)',
  );
  const workers = await Promise.all(Array.from({ length: 8 }, () => bench.connect()));
  const from = performance.now();
  await client.query('INSERT INTO bench.jobs (claimed) SELECT false FROM generate_series(1, $1)', [jobs]);
  await Promise.all(
    workers.map(async (worker) => {
      for (;;) {
        const { rows } = await worker.query<{ id: string }>(
          `UPDATE bench.jobs SET claimed = true WHERE id = ANY (ARRAY(
             SELECT id FROM bench.jobs WHERE NOT claimed ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 500)) RETURNING id`,
        );
        if (rows.length === 0) return;
        for (const _job of rows) await worker.query('SELECT 1');
        await worker.query('DELETE FROM bench.jobs WHERE id = ANY ($1)', [rows.map((row) => row.id)]);
      }
    }),
  );
  const seconds = (performance.now() - from) / 1000;
  await Promise.all(workers.map((worker) => worker.end()));
  return jobs / seconds;
}
