/** Stop that stops: cancel, terminate and signals, and that nothing runs on when they say so (I11). */
import { expect, test } from './support/controller.ts';
import type { TestDatabase } from './support/database.ts';
import { until } from './support/until.ts';

async function launch(db: TestDatabase, command: string): Promise<{ handle: bigint; pid: number }> {
  const handle = await db.value<bigint>('SELECT bgw_launch_sql($1, name => $2)', [command, 'victim']);
  const { rows } = await db.query<{ pid: number }>('CALL bgw_wait_for_startup($1)', [handle]);
  return { handle, pid: rows[0]?.pid ?? 0 };
}

async function lastRun(db: TestDatabase, handle: bigint): Promise<unknown> {
  const { rows } = await db.query('SELECT status, sqlstate FROM bgw_run_history WHERE handle = $1', [handle]);
  return rows.at(-1);
}

/** Asked once, without waiting: when the process is said to have stopped, its statement is gone. */
async function stillRuns(db: TestDatabase, command: string): Promise<boolean> {
  return db.value(
    `SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND query = $1`,
    [command],
  );
}

const SLEEP = 'SELECT pg_sleep(600)';

for (const [name, stop, outcome] of [
  ['bgw_cancel of the handle', 'SELECT bgw_cancel($1::bigint)', { status: 'cancelled', sqlstate: '57014' }],
  ['bgw_terminate of the handle', 'SELECT bgw_terminate($1::bigint)', { status: 'cancelled', sqlstate: '57P01' }],
  ['bgw_signal SIGINT', `SELECT bgw_signal($1::bigint, 'SIGINT')`, { status: 'cancelled', sqlstate: '57014' }],
  ['bgw_signal SIGTERM', `SELECT bgw_signal($1::bigint, 'SIGTERM')`, { status: 'cancelled', sqlstate: '57P01' }],
  [
    'bgw_cancel of the name',
    `SELECT bgw_cancel('victim') WHERE $1::bigint > 0`,
    { status: 'cancelled', sqlstate: '57014' },
  ],
  [
    'bgw_terminate of the name',
    `SELECT bgw_terminate('victim') WHERE $1::bigint > 0`,
    { status: 'cancelled', sqlstate: '57P01' },
  ],
] as const) {
  test(`${name} ends the statement, and it is gone when the process has stopped (I11)`, async ({ db, controller }) => {
    const { handle } = await launch(db, SLEEP);
    expect(await stillRuns(db, SLEEP)).toBe(true);
    expect(await db.value(stop, [handle])).toBe(true);
    const { rows } = await db.query(`CALL bgw_wait_for_shutdown($1, '10 s')`, [handle]);
    expect(await stillRuns(db, SLEEP)).toBe(false);
    expect(rows).toEqual([{ status: 'stopped' }]);
    expect(await lastRun(db, handle)).toEqual(outcome);
    expect(controller.observations.some(({ kind }) => kind === 'connection_lost')).toBe(false);
  });
}

for (const [name, outcome] of [
  ['pg_cancel_backend', { status: 'cancelled', sqlstate: '57014' }],
  ['pg_terminate_backend', { status: 'failed', sqlstate: '57P01' }],
] as const) {
  test(`${name} of the worker's pid does what it does to a native worker`, async ({ db, controller }) => {
    const { handle, pid } = await launch(db, SLEEP);
    expect(await db.value(`SELECT ${name}(pid) FROM bgw_stat_activity WHERE handle = $1`, [handle])).toBe(true);
    await db.query(`CALL bgw_wait_for_shutdown($1, '10 s')`, [handle]);
    expect(await lastRun(db, handle)).toEqual(outcome);
    expect(pid).toBeGreaterThan(0);
    const next = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
    await controller.saw('worker_exited', { handle: String(next), exitCode: 0 });
  });
}

test('a command that traps the cancel is ended by force after the grace (I11)', async ({ db, controller }) => {
  expect(controller.observations.length).toBeGreaterThan(0);
  const command = `DO $$ BEGIN LOOP BEGIN PERFORM pg_sleep(600); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$`;
  const { handle } = await launch(db, command);
  await db.query('SELECT bgw_terminate($1::bigint)', [handle]);
  await db.query(`CALL bgw_wait_for_shutdown($1, '20 s')`, [handle]);
  expect(await stillRuns(db, command)).toBe(false);
  expect(await lastRun(db, handle)).toEqual({ status: 'cancelled', sqlstate: '57P01' });
});

test('SIGUSR1 and bgw_set_latch wake a worker that naps, SIGHUP reloads it', async ({ db, controller }) => {
  await db.query('CREATE TABLE tick (n int GENERATED ALWAYS AS IDENTITY)');
  await db.query(`SELECT bgw_register('napper', 'INSERT INTO tick DEFAULT VALUES', naptime => '1 h')`);
  const handle = await db.value<bigint>(`SELECT bgw_launch('napper')`);
  const ticks = async (): Promise<number> => db.value('SELECT count(*)::int FROM tick');
  await until(async () => (await ticks()) === 1);
  for (const [count, wake] of [
    [2, `bgw_signal($1::bigint, 'SIGUSR1')`],
    [3, 'bgw_set_latch($1)'],
    [4, `bgw_signal($1::bigint, 'SIGHUP')`],
  ] as const) {
    expect(await db.value(`SELECT ${wake}`, [handle])).toBe(true);
    await until(async () => (await ticks()) === count, { what: wake });
  }
  expect(controller.observations.filter(({ kind }) => kind === 'worker_signalled')).toHaveLength(3);
});

test('an unrecognized signal is an error', async ({ db }) => {
  await expect(db.query(`SELECT bgw_signal(1::bigint, 'SIGKILL')`)).rejects.toMatchObject({
    code: '22023',
    message: 'unrecognized signal "SIGKILL"',
  });
});

test('a handle that does not run is a warning and false; a name that nobody has is an error', async ({ db }) => {
  const client = await db.client();
  const notices: (string | undefined)[] = [];
  client.on('notice', ({ message }) => notices.push(message));
  expect((await client.query('SELECT bgw_terminate(4711::bigint) AS sent')).rows).toEqual([{ sent: false }]);
  expect((await client.query(`SELECT bgw_cancel('hello_world') AS sent`)).rows).toEqual([{ sent: false }]);
  expect(notices).toEqual(['handle 4711 is not a running background worker', 'worker "hello_world" is not running']);
  await expect(client.query(`SELECT bgw_terminate('nobody')`)).rejects.toMatchObject({ code: '42704' });
});

test('a process that was terminated before a controller came is recorded as cancelled', async ({
  db,
  startController,
}) => {
  const handle = await db.value<bigint>(`SELECT bgw_launch('hello_world')`);
  await db.query('SELECT bgw_terminate($1::bigint)', [handle]);
  await startController();
  await db.query('CALL bgw_wait_for_shutdown($1)', [handle]);
  expect(await lastRun(db, handle)).toEqual({ status: 'cancelled', sqlstate: '57P01' });
});

test('who asked for the end is kept', async ({ db, controller }) => {
  const { handle } = await launch(db, SLEEP);
  await db.query('SELECT bgw_terminate($1::bigint)', [handle]);
  await controller.saw('worker_exited', { handle: String(handle) });
  const row = 'SELECT stop_requested_by, stop_requested_at IS NOT NULL AS timed FROM bgw.run WHERE process_id = $1';
  await until(async () => (await db.query(row, [handle])).rowCount);
  expect((await db.query(row, [handle])).rows).toEqual([
    { stop_requested_by: await db.value('SELECT current_user::text'), timed: true },
  ]);
});

test('a terminate that is rolled back ends nothing', async ({ db, controller }) => {
  const { handle } = await launch(db, SLEEP);
  await db.query('BEGIN');
  await db.query('SELECT bgw_terminate($1::bigint)', [handle]);
  await db.query('ROLLBACK');
  const next = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await controller.saw('worker_exited', { handle: String(next) });
  expect(await stillRuns(db, SLEEP)).toBe(true);
});

test('a transaction that somebody leaves open does not stop a node', async ({ db, controller }) => {
  await db.query(`SELECT bgw_register('napper', 'SELECT 1', naptime => '20 ms')`);
  const handle = await db.value<bigint>(`SELECT bgw_launch('napper')`);
  await controller.saw('worker_started', { handle: String(handle) });
  const open = await db.client();
  await open.query('BEGIN');
  await open.query('SELECT bgw_terminate($1::bigint)', [handle]);
  await open.query(`SELECT bgw_set_config('kill_idle.dry_run', 'on')`);
  await open.query(`SELECT bgw_unregister('napper')`);
  await open.query(`SELECT * FROM bgw.worker FOR UPDATE`);
  await open.query(`SELECT bgw_launch('hello_world')`);
  const next = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await controller.saw('worker_exited', { handle: String(next) }, 4000);
  await open.query('COMMIT');
  await db.query('CALL bgw_wait_for_shutdown($1)', [handle]);
});

test('bgw_unregister ends what runs and forgets the definition, not the history', async ({ db, controller }) => {
  await db.query(`SELECT bgw_register('gone', '${SLEEP}')`);
  const handle = await db.value<bigint>(`SELECT bgw_launch('gone')`);
  await controller.saw('worker_started', { handle: String(handle) });
  expect(await db.value(`SELECT bgw_unregister('gone')`)).toBe(true);
  await db.query('CALL bgw_wait_for_shutdown($1)', [handle]);
  expect(await stillRuns(db, SLEEP)).toBe(false);
  await expect(db.query(`SELECT bgw_launch('gone')`)).rejects.toMatchObject({ code: '42704' });
  expect(await db.value(`SELECT count(*)::int FROM bgw_run_history WHERE name = 'gone'`)).toBe(1);
});
