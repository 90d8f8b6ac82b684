/** What the functions of schedules leave behind: the workers of users, names that are free again, one error for each mistake. */
import { migrate } from '../src/migrate.ts';
import { expect, test } from './support/controller.ts';
import type { TestDatabase } from './support/database.ts';
import { until } from './support/until.ts';

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

test('a schedule that was removed and made again is a new one: it runs, and counts from nothing', async ({
  db,
  controller,
}) => {
  const schedule = async (): Promise<unknown> =>
    (await db.query(`SELECT ran, failed, last_status, last_run FROM bgw_schedules WHERE name = 'at'`)).rows[0];
  const call = `SELECT bgw_schedule_at('at', '2020-01-01', 'SELECT 1/0')`;
  const handle = `SELECT handle FROM bgw_schedule_history WHERE name = 'at'`;
  await db.query(call);
  const first = await until(() => db.value<bigint>(handle));
  await controller.saw('worker_exited', { handle: String(first) });
  await until(async () => (await db.value(`SELECT failed FROM bgw_schedules`)) === 1n);
  await db.query('BEGIN');
  await db.query(`SELECT bgw_unschedule('at')`);
  await db.query(call);
  expect(await schedule()).toEqual({ ran: 0n, failed: 0n, last_status: null, last_run: null });
  await db.query('COMMIT');
  const second = await until(() => db.value<bigint>(handle));
  expect(second > first).toBe(true);
  await controller.saw('worker_exited', { handle: String(second) });
  await until(async () => (await db.value(`SELECT ran FROM bgw_schedules`)) === 1n);
});

test('what still runs of a removed schedule is not counted for a new one of that name', async ({ db, controller }) => {
  await db.query(`SELECT bgw_schedule('s', '@yearly', 'SELECT pg_sleep(600)', overlap => 'skip')`);
  const old = await db.value<bigint>(`SELECT bgw_run_now('s')`);
  await controller.saw('worker_started', { handle: String(old) });
  await db.query(`SELECT bgw_unschedule('s'), bgw_schedule('s', '@yearly', 'SELECT 1')`);
  const counted = `SELECT running, backlog, ran, last_status FROM bgw_schedules WHERE name = 's'`;
  expect((await db.query(counted)).rows).toEqual([{ running: 0n, backlog: 0n, ran: 0n, last_status: null }]);
  const fresh = await db.value<bigint>(`SELECT bgw_run_now('s')`);
  await db.query('CALL bgw_wait_for_shutdown($1)', [fresh]);
  await db.query('SELECT bgw_terminate($1::bigint)', [old]);
  await db.query('CALL bgw_wait_for_shutdown($1)', [old]);
  expect((await db.query(counted)).rows).toEqual([{ running: 0n, backlog: 0n, ran: 1n, last_status: 'done' }]);
  // keep_house takes the old one away, and nothing of the new one.
  await db.query('SELECT bgw.trim()');
  expect((await db.query(counted)).rows).toEqual([{ running: 0n, backlog: 0n, ran: 1n, last_status: 'done' }]);
  expect(await db.value('SELECT count(*) FROM bgw.schedule')).toBe(1n);
});

test('two sessions that make the same schedule at once make one, also after it was removed', async ({ db }) => {
  const other = await db.client();
  const define = (command: string): string => `SELECT bgw_schedule('s', '@daily', '${command}')`;
  await db.query(`${define('SELECT 1')}, bgw_unschedule('s')`);
  await db.query('BEGIN');
  await db.query(define('SELECT 2'));
  const second = other.query(define('SELECT 3'));
  await until(() => db.value('SELECT count(*) > 0 FROM pg_locks WHERE NOT granted'));
  await db.query('COMMIT');
  await second;
  expect((await db.query('SELECT command FROM bgw_schedules')).rows).toEqual([{ command: 'SELECT 3' }]);
});

test('a worker that runs in every database is not scheduled, however the schedule arrives', async ({ db }) => {
  const everywhere = `SELECT bgw_register('everywhere', 'SELECT 1', naptime => '1 h', autostart => true, scope => 'every_database')`;
  await db.query(everywhere);
  await db.query(`SELECT bgw_register('one', 'SELECT 1'), bgw_schedule('s', '@daily', worker => 'one')`);
  const id = `(SELECT id FROM bgw.worker WHERE name = 'everywhere')`;
  const refusal = { code: '55000', message: 'worker "everywhere" runs in every database' };
  for (const statement of [
    `SELECT bgw_schedule('x', '@daily', worker => 'everywhere')`,
    `SELECT bgw_schedule('x', '@daily', worker => 'everywhere', active => false)`,
    `SELECT bgw_schedule('s', '@daily', worker => 'everywhere')`,
    `SELECT bgw_schedule_at('x', '2030-01-01', worker => 'everywhere')`,
    `INSERT INTO bgw.schedule (name, worker_id, schedule) VALUES ('x', ${id}, '@daily')`,
    `UPDATE bgw.schedule SET worker_id = ${id}`,
    `UPDATE bgw.schedule SET worker_id = ${id}, active = false`,
  ])
    await expect(db.query(statement), statement).rejects.toMatchObject(refusal);
  // One that has become so since.
  await db.query(everywhere.replace('everywhere', 'one'));
  expect(await db.value(`SELECT bgw_pause('s')`)).toBe(true);
  await expect(db.query(`SELECT bgw_resume('s')`)).rejects.toMatchObject({ code: '55000' });
  expect(await db.value(`SELECT bgw_unschedule('s')`)).toBe(true);
});

test('an argument that must not be null is named in the error, however the schedule arrives', async ({ db }) => {
  const each = (call: string, names: string[]): [string, string][] =>
    names.map((name) => [`SELECT ${call}, ${name} => NULL)`, name]);
  const shared = ['missed', 'priority', 'mode', 'retries', 'retry_time'];
  await db.query(`SELECT bgw_register('mine', 'SELECT 1')`);
  const mine = `(SELECT id FROM bgw.worker WHERE name = 'mine')`;
  for (const [statement, argument] of [
    ...each(`bgw_schedule('x', '@daily', 'SELECT 1'`, [...shared, 'overlap', 'jitter', 'active']),
    ...each(`bgw_schedule('x', '@daily', worker => 'mine'`, [...shared, 'overlap', 'jitter', 'active']),
    ...each(`bgw_schedule_at('x', '2030-01-01', 'SELECT 1'`, shared),
    ...each(`bgw_schedule('x', '@daily', 'SELECT 1', retries => 3`, ['retry_time']),
    [
      `INSERT INTO bgw.schedule (name, worker_id, schedule, on_overlap) VALUES ('x', ${mine}, '@daily', NULL)`,
      'overlap',
    ],
  ] as const)
    await expect(db.query(statement), statement).rejects.toMatchObject({
      code: '22023',
      message: `schedule "x": ${argument} must not be null`,
      detail: undefined,
    });
  await db.query(`SELECT bgw_schedule('x', '@daily', 'SELECT 1')`);
  await expect(db.query('UPDATE bgw.schedule SET on_missed = NULL')).rejects.toMatchObject({
    code: '22023',
    message: 'schedule "x": missed must not be null',
  });
});

test('a removed schedule is seen by its runs only', async ({ db, controller }) => {
  await db.query(`SELECT bgw_schedule_at('at', '2020-01-01', 'SELECT 1')`);
  const handle = await until(() => db.value<bigint>('SELECT handle FROM bgw_schedule_history'));
  await controller.saw('worker_exited', { handle: String(handle) });
  await until(async () => (await db.value(`SELECT ran FROM bgw_schedules`)) === 1n);
  await db.query(`SELECT bgw_unschedule('at')`);
  for (const view of ['bgw_schedules', 'bgw_schedule_history'])
    expect(await db.value(`SELECT count(*) FROM ${view}`), view).toBe(0n);
  expect((await db.query('SELECT handle, name, status FROM bgw_run_history')).rows).toEqual([
    { handle, name: 'at', status: 'done' },
  ]);
});

test('a time that passed while its schedule was paused is due when it is resumed', async ({ db, controller }) => {
  const column = (name: string): Promise<bigint> =>
    db.value(`SELECT ${name} FROM bgw_schedules WHERE name = '${name}'`);
  await db.query(
    `SELECT bgw_schedule_at('ran', now() + interval '1 h', 'SELECT 1'),
            bgw_schedule_at('missed', now() + interval '1 h', 'SELECT 1', missed => 'skip')`,
  );
  await db.query(`SELECT bgw_pause('ran'), bgw_pause('missed')`);
  await db.query(`UPDATE bgw.schedule SET at = now() - interval '2 min'`);
  await until(async () => (await db.value('SELECT count(*) FROM bgw.schedule_change')) === 0n);
  expect([await column('ran'), await column('missed')]).toEqual([0n, 0n]);
  await db.query(`SELECT bgw_resume('ran'), bgw_resume('missed')`);
  await until(async () => (await column('ran')) === 1n && (await column('missed')) === 1n);
  expect(controller.observations.filter(({ kind }) => kind === 'worker_exited')).toHaveLength(1);
});

test('the worker of a job of schema cron goes with the job, and bgw_schedule changes it', async ({ db }) => {
  await migrate(await db.client(), { withCron: true });
  const name = 'cron 1: nightly';
  await db.query(`SELECT cron.schedule('nightly', '0 3 * * *', 'SELECT 1')`);
  await db.query(`SELECT bgw_schedule('${name}', '@daily', 'SELECT 2')`);
  expect(await worker(db, name)).toMatchObject({ command: 'SELECT 2' });
  await db.query(`SELECT cron.unschedule('nightly')`);
  expect(await worker(db, name)).toBeUndefined();
});

test('an ordinary role has the rights that its schedules need', async ({ ordinary: { db } }) => {
  await db.query(`SELECT bgw_schedule('made', '@daily', 'SELECT 1')`);
  await db.query(`SELECT bgw_schedule('made', '@hourly', 'SELECT 2')`);
  await db.query(`SELECT bgw_register('other', 'SELECT 0'), bgw_schedule('made', '@daily', worker => 'other')`);
  expect(await worker(db, 'made')).toBeUndefined();
  await db.query(`SELECT bgw_schedule('made', '@daily', 'SELECT 3')`);
  await db.query(`SELECT bgw_unschedule('made'), bgw_schedule('made', '@daily', 'SELECT 3')`);
  expect(await db.value('SELECT command FROM bgw_schedules')).toBe('SELECT 3');
  await db.query(`SELECT bgw_unschedule('made')`);
  expect(await worker(db, 'made')).toBeUndefined();
});
