/** retries of a schedule: each attempt that ends with an error counts, however it ended and however long it took. */
import { expect, test } from './support/controller.ts';
import type { TestDatabase } from './support/database.ts';
import { until } from './support/until.ts';

const YEARLY = '0 0 1 1 *';

async function schedule(db: TestDatabase, name: string): Promise<Record<string, unknown>> {
  const { rows } = await db.query('SELECT * FROM bgw_schedules WHERE name = $1', [name]);
  return (rows[0] ?? {}) as Record<string, unknown>;
}

async function attempts(db: TestDatabase, name: string): Promise<string> {
  return db.value(`SELECT string_agg(status, ' ' ORDER BY run_id) FROM bgw_run_history WHERE name = $1`, [name]);
}

test('a run that a timeout of its own ends is retried as often as said, and counts as failed', async ({
  db,
  controller,
}) => {
  await db.query(`SELECT bgw_schedule('hurried', $1, $2, retries => 2, retry_time => '20 ms')`, [
    YEARLY,
    `SET statement_timeout = '20 ms'; SELECT pg_sleep(60)`,
  ]);
  await db.query(`SELECT bgw_run_now('hurried')`);
  await until(async () => (await schedule(db, 'hurried'))['ran'] === 1n);
  expect(await attempts(db, 'hurried')).toBe('cancelled cancelled cancelled');
  expect(await schedule(db, 'hurried')).toMatchObject({ last_status: 'cancelled', failed: 1n, backlog: 0n });
  expect(await db.value(`SELECT gave_up FROM bgw_stat_activity WHERE name = 'hurried'`)).toBe('3 failures');
  expect(controller.observations.some(({ kind }) => kind === 'unexpected_error')).toBe(false);
});

test('bgw_cancel is a failure to the restart rule, bgw_restart is none', async ({ db, controller }) => {
  await db.query(
    `SELECT bgw_register('sleeps', 'SELECT pg_sleep(600)', restart_time => '20 ms', failure_limit => 2, failure_window => '1 h')`,
  );
  const handle = await db.value<bigint>(`SELECT bgw_launch('sleeps')`);
  const begins = async (attempt: number): Promise<void> => {
    await until(async () => (await db.value('SELECT count(*)::int FROM bgw_run_history')) === attempt);
    await until(() =>
      db.value(`SELECT state = 'active' AND query LIKE '%pg_sleep%' FROM bgw_stat_activity WHERE handle = $1`, [
        handle,
      ]),
    );
  };
  for (const [attempt, call] of ['bgw_restart', 'bgw_restart', 'bgw_cancel', 'bgw_restart'].entries()) {
    await begins(attempt);
    await db.query(`SELECT ${call}($1::bigint)`, [handle]);
  }
  await begins(4);
  expect(await db.value('SELECT failures FROM bgw_stat_activity WHERE handle = $1', [handle])).toBe(1);
  await db.query('SELECT bgw_cancel($1::bigint)', [handle]);
  await until(async () => (await db.value('SELECT status FROM bgw_get_pid($1)', [handle])) === 'stopped');
  expect(await attempts(db, 'sleeps')).toBe('cancelled cancelled cancelled cancelled cancelled');
  expect(await db.value(`SELECT gave_up FROM bgw_stat_activity WHERE name = 'sleeps'`)).toBe(
    '2 failures within 01:00:00',
  );
  await controller.stop();
});

test('retries end however long the attempts take, and without the history of the first', async ({ db, controller }) => {
  await db.query(`SELECT bgw_schedule('long', $1, 'SELECT 1/0', retries => 2, retry_time => '10 min')`, [YEARLY]);
  const handle = await db.value<bigint>(`SELECT bgw_run_now('long')`);
  for (const attempt of [1, 2]) {
    await until(async () => (await db.value('SELECT count(*)::int FROM bgw_run_history')) === attempt);
    // As if each had taken nine hours, two weeks ago.
    await db.query(`UPDATE bgw.run SET finished_at = finished_at - interval '14 days'`);
    await db.query(
      `UPDATE bgw.process SET failed_at = (SELECT array_agg(at - interval '14 days') FROM unnest(failed_at) AS at)`,
    );
    await db.query('SELECT bgw_restart($1::bigint)', [handle]);
  }
  await until(async () => (await schedule(db, 'long'))['ran'] === 1n);
  expect(await attempts(db, 'long')).toBe('failed failed failed');
  expect(controller.observations.some(({ kind }) => kind === 'unexpected_error')).toBe(false);
});
