/** What the functions of schedules leave behind: the workers of users, names that are free again, one error for each mistake. */
import { expect, test } from './support/controller.ts';
import type { TestDatabase } from './support/database.ts';

async function worker(db: TestDatabase, name: string): Promise<Record<string, unknown> | undefined> {
  const { rows } = await db.query('SELECT * FROM bgw.worker WHERE name = $1 AND NOT unregistered', [name]);
  return rows[0] as Record<string, unknown> | undefined;
}

test('a schedule of the name of a worker that a user registered leaves the worker alone', async ({ db }) => {
  await db.query(`SELECT bgw_register('mine', 'SELECT 1', restart_time => '5 s', max_instances => 2)`);
  const before = await worker(db, 'mine');
  await db.query(`SELECT bgw_schedule('mine', '@daily', worker => 'mine')`);
  await expect(db.query(`SELECT bgw_schedule('mine', '@daily', 'SELECT 42')`)).rejects.toMatchObject({
    code: '42710',
    message: 'worker "mine" already exists',
  });
  await db.query(`SELECT bgw_unschedule('mine')`);
  expect(await worker(db, 'mine')).toEqual(before);
  expect(await db.value(`SELECT bgw_launch('mine')`)).toBeTypeOf('bigint');
});

test('the worker of a command goes with its schedule; registered again it is its user’s', async ({ db }) => {
  for (const remove of [`bgw_unschedule('made')`, `bgw_unregister('made')`]) {
    await db.query(`SELECT bgw_schedule('made', '@daily', 'SELECT 1')`);
    expect(await worker(db, 'made')).toMatchObject({ made_by_schedule: true });
    await db.query(`SELECT ${remove}`);
    expect(await worker(db, 'made')).toBeUndefined();
    await db.query(`SELECT bgw_register('made', 'SELECT 2')`);
    await db.query(`SELECT bgw_schedule('made', '@daily', worker => 'made')`);
    await db.query(`SELECT bgw_unschedule('made')`);
    expect(await worker(db, 'made')).toMatchObject({ command: 'SELECT 2', made_by_schedule: false });
    await db.query(`SELECT bgw_unregister('made')`);
  }
});

test('the worker of a command stays while another schedule launches it, and nobody overwrites it', async ({ db }) => {
  await db.query(`SELECT bgw_schedule('first', '@daily', 'SELECT 1')`);
  await db.query(`SELECT bgw_schedule('second', '@daily', worker => 'first')`);
  await db.query(`SELECT bgw_unschedule('first')`);
  expect(await worker(db, 'first')).toMatchObject({ command: 'SELECT 1' });
  await expect(db.query(`SELECT bgw_schedule('first', '@daily', 'SELECT 2')`)).rejects.toMatchObject({ code: '42710' });
  await db.query(`SELECT bgw_unschedule('second')`);
  expect(await worker(db, 'first')).toBeUndefined();
});

test('the worker of a command is unregistered when its schedule launches another one', async ({ db }) => {
  await db.query(`SELECT bgw_register('other', 'SELECT 0')`);
  for (const change of [
    `SELECT bgw_schedule('made', '@daily', worker => 'other')`,
    `UPDATE bgw.schedule SET worker_id = (SELECT id FROM bgw.worker WHERE name = 'other')`,
    `UPDATE bgw.schedule SET unscheduled = true`,
  ]) {
    await db.query(`SELECT bgw_schedule('made', '@daily', 'SELECT 1')`);
    expect(await worker(db, 'made'), change).toMatchObject({ command: 'SELECT 1' });
    await db.query(change);
    expect(await worker(db, 'made'), change).toBeUndefined();
  }
  expect(await worker(db, 'other')).toBeDefined();
});

test('what waits of the worker that a schedule has left is dropped, what runs goes on', async ({ db, controller }) => {
  await db.query(`SELECT bgw_register('other', 'SELECT 0')`);
  await db.query(`SELECT bgw_schedule('made', '@yearly', 'SELECT pg_sleep(600)')`);
  const running = await db.value<bigint>(`SELECT bgw_run_now('made')`);
  await controller.saw('worker_started', { handle: String(running) });
  const waiting = await db.value<bigint>(`SELECT bgw_run_now('made')`);
  await db.query(`SELECT bgw_schedule('made', '@yearly', worker => 'other')`);
  await db.query('CALL bgw_wait_for_shutdown($1)', [waiting]);
  expect((await db.query('SELECT id FROM bgw.process')).rows).toEqual([{ id: running }]);
  await db.query('SELECT bgw_terminate($1::bigint)', [running]);
  await db.query('CALL bgw_wait_for_shutdown($1)', [running]);
});

test('an ordinary role has the rights that its schedules need', async ({ ordinary: { db } }) => {
  await db.query(`SELECT bgw_schedule('made', '@daily', 'SELECT 1')`);
  await db.query(`SELECT bgw_schedule('made', '@hourly', 'SELECT 2')`);
  await db.query(`SELECT bgw_register('other', 'SELECT 0'), bgw_schedule('made', '@daily', worker => 'other')`);
  expect(await worker(db, 'made')).toBeUndefined();
  await db.query(`SELECT bgw_schedule('made', '@daily', 'SELECT 3')`);
  await db.query(`SELECT bgw_unschedule('made')`);
  expect(await worker(db, 'made')).toBeUndefined();
});
