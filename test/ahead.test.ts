/** What a node claims ahead of its slots (src/hosts/backlog.ts): a long run delays only itself, and nothing runs twice or is lost. */
import { expect, test } from './support/controller.ts';
import type { TestDatabase } from './support/database.ts';
import { until } from './support/until.ts';

/** Many short ones, so that the node claims ahead, with `long` in between, after the first half. */
const queue = (db: TestDatabase, count: number, long: number): Promise<unknown> =>
  db.query(
    `SELECT count(bgw_launch_sql(CASE WHEN n BETWEEN $1 / 2 AND $1 / 2 + $2 - 1 THEN 'SELECT pg_sleep(600)' ELSE 'SELECT 1' END,
                                 name => 'n' || n)) FROM generate_series(1, $1::int) AS n`,
    [count, long],
  );

const count = (db: TestDatabase, condition: string): Promise<number> =>
  db.value(`SELECT count(*)::int FROM bgw.process WHERE ${condition}`);

test('what does not start soon is given back, and runs when there is a slot, once', async ({ db, startController }) => {
  await startController({ maxWorkerProcesses: 2 });
  await queue(db, 600, 2);
  await until(async () => (await count(db, `status = 'started'`)) === 2, { what: 'two long runs' });
  await until(async () => (await count(db, 'run_id IS NOT NULL')) === 2, { what: 'nothing claimed beyond them' });
  expect(await count(db, 'true'), 'some of the short ones wait').toBeGreaterThan(2);

  // One of them is terminated before it has started; then the slots are free again.
  const waiting = await db.value<bigint>('SELECT max(id) FROM bgw.process');
  await db.query('SELECT bgw_terminate($1::bigint)', [waiting]);
  await db.query(`SELECT bgw_terminate(id) FROM bgw.process WHERE command LIKE '%pg_sleep%'`);
  await until(async () => (await count(db, 'true')) === 0, { what: 'the end of all' });
  const { rows } = await db.query(
    `SELECT status, count(*)::int AS runs, count(DISTINCT handle)::int AS handles FROM bgw_run_history GROUP BY status ORDER BY status`,
  );
  expect(rows).toEqual([
    { status: 'cancelled', runs: 3, handles: 3 },
    { status: 'done', runs: 597, handles: 597 },
  ]);
});

test('another node runs what waits behind the long runs of one', async ({ db, startController }) => {
  await startController({ nodeName: 'busy', maxWorkerProcesses: 1 });
  await queue(db, 400, 1);
  await until(async () => (await count(db, `status = 'started'`)) === 1, { what: 'the long run' });
  await startController({ nodeName: 'idle', maxWorkerProcesses: 1 });
  await until(async () => (await count(db, 'true')) === 1, { what: 'the end of all but the long run' });
  expect(await db.value('SELECT count(DISTINCT handle)::int FROM bgw_run_history')).toBe(399);
  await db.query('SELECT bgw_terminate(id) FROM bgw.process');
});

test('a node that stops gives back what it has not started', async ({ db, startController }) => {
  const first = await startController({ nodeName: 'first', maxWorkerProcesses: 4 });
  await queue(db, 3000, 0);
  await until(async () => (await db.value<number>('SELECT count(*)::int FROM bgw_run_history')) > 100);
  await first.stop();
  await startController({ nodeName: 'second', maxWorkerProcesses: 4 });
  await until(async () => (await count(db, 'true')) === 0, { what: 'the end of all' });
  const { rows } = await db.query(
    `SELECT count(*)::int AS runs, count(DISTINCT handle)::int AS handles, count(*) FILTER (WHERE status <> 'done')::int AS others FROM bgw_run_history`,
  );
  expect(rows[0]).toMatchObject({ runs: 3000, handles: 3000 });
  expect(rows[0].others, 'those that ran when the node was stopped').toBeLessThanOrEqual(4);
});
