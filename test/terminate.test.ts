/** Stop that stops: cancel, terminate and signals, and that nothing runs on when they say so (I11). */
import { expect, test } from './support/controller.ts';
import { onServer, type TestDatabase } from './support/database.ts';
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
    // It has started when it holds its session; its statement is there a moment later.
    await until(() => stillRuns(db, SLEEP));
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

test('a command that traps the cancel is ended by force after the grace of 5 s (I11)', async ({ db, controller }) => {
  expect(controller.observations.length).toBeGreaterThan(0);
  const command = `DO $$ BEGIN LOOP BEGIN PERFORM pg_sleep(600); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$`;
  const { handle, pid } = await launch(db, command);
  await db.query('SELECT bgw_terminate($1::bigint)', [handle]);
  await db.query(`CALL bgw_wait_for_shutdown($1, '20 s')`, [handle]);
  expect(await stillRuns(db, command)).toBe(false);
  expect(await db.value('SELECT count(*)::int FROM pg_stat_activity WHERE pid = $1', [pid])).toBe(0);
  expect(await lastRun(db, handle)).toEqual({ status: 'cancelled', sqlstate: '57P01' });
  const took = `SELECT finished_at - stop_requested_at BETWEEN '4.9 s' AND '15 s' FROM bgw.run WHERE process_id = $1`;
  expect(await db.value(took, [handle])).toBe(true);
});

test('a cancelled worker restarts by its rule; terminated while it waits for that, it is unregistered', async ({
  db,
  controller,
}) => {
  await db.query(`SELECT bgw_register('victim', '${SLEEP}', restart_time => '1 h')`);
  const handle = await db.value<bigint>(`SELECT bgw_launch('victim')`);
  await controller.saw('worker_started', { handle: String(handle) });
  await db.query(`SELECT bgw_signal('victim', 'SIGINT')`);
  const waiting = 'SELECT waiting_for, last_sqlstate, restarts FROM bgw_stat_activity WHERE handle = $1';
  await until(async () => (await db.query(waiting, [handle])).rows[0]?.restarts === 1);
  expect((await db.query(waiting, [handle])).rows).toEqual([
    { waiting_for: 'restart time', last_sqlstate: '57014', restarts: 1 },
  ]);
  expect(await stillRuns(db, SLEEP)).toBe(false);

  expect(await db.value('SELECT bgw_terminate($1::bigint)', [handle])).toBe(true);
  expect((await db.query('CALL bgw_wait_for_shutdown($1)', [handle])).rows).toEqual([{ status: 'stopped' }]);
  const { rows } = await db.query('SELECT status, sqlstate FROM bgw_run_history WHERE handle = $1 ORDER BY run_id', [
    handle,
  ]);
  expect(rows).toEqual([
    { status: 'cancelled', sqlstate: '57014' },
    { status: 'cancelled', sqlstate: '57P01' },
  ]);
});

test('a command that traps a bgw_cancel goes on, as under pg_cancel_backend', async ({ db, controller }) => {
  await db.query('CREATE TABLE trapped (n int)');
  const command = `DO $$ BEGIN FOR i IN 1..2 LOOP
    BEGIN PERFORM pg_sleep(600); EXCEPTION WHEN query_canceled THEN INSERT INTO trapped VALUES (i); END; END LOOP; END $$`;
  const { handle } = await launch(db, command);
  await db.query('SELECT bgw_cancel($1::bigint)', [handle]);
  await controller.saw('worker_signalled', { handle: String(handle) });
  // Its second sleep has a statement of its own in no view: what shows is that the process is still there after a launch.
  const next = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await controller.saw('worker_exited', { handle: String(next) });
  expect(await db.value('SELECT status FROM bgw_get_pid($1)', [handle])).toBe('started');
  await db.query('SELECT bgw_cancel($1::bigint)', [handle]);
  await db.query('CALL bgw_wait_for_shutdown($1)', [handle]);
  expect(await db.value('SELECT count(*)::int FROM trapped')).toBe(2);
  expect(await lastRun(db, handle)).toEqual({ status: 'done', sqlstate: null });
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
  for (const call of [
    `bgw_terminate('nobody')`,
    `bgw_cancel('nobody')`,
    `bgw_restart('nobody')`,
    `bgw_signal('nobody', 'SIGHUP')`,
    `bgw_unregister('nobody')`,
  ]) {
    await expect(client.query(`SELECT ${call}`), call).rejects.toMatchObject({ code: '42704' });
  }
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

test('who asked for the end is the role that asked, not the owner', async ({ db, controller }) => {
  const operator = `${db.name}_operator`;
  await onServer(`CREATE ROLE ${operator}`);
  try {
    await db.query(`DO $$ BEGIN EXECUTE format('GRANT %I TO ${operator}', current_user); END $$`);
    const { handle } = await launch(db, SLEEP);
    await db.query(`SET ROLE ${operator}`);
    expect(await db.value('SELECT bgw_terminate($1::bigint)', [handle])).toBe(true);
    await db.query('RESET ROLE');
    await db.query('CALL bgw_wait_for_shutdown($1)', [handle]);
    const asked = 'SELECT stop_requested_by FROM bgw.run WHERE process_id = $1';
    expect(await db.value(asked, [handle])).toBe(operator);
    expect(controller.observations.filter(({ kind }) => kind === 'worker_signalled')).toHaveLength(1);
  } finally {
    await onServer(`DROP ROLE ${operator}`);
  }
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

test('a process that is launched and terminated in one transaction never runs', async ({ db, controller }) => {
  await db.query('CREATE TABLE mark (n int)');
  await db.query('BEGIN');
  const handle = await db.value<bigint>(`SELECT bgw_launch_sql('INSERT INTO mark VALUES (1)')`);
  expect(await db.value('SELECT bgw_terminate($1::bigint)', [handle])).toBe(true);
  await db.query('COMMIT');
  await db.query(`CALL bgw_wait_for_shutdown($1, '10 s')`, [handle]);
  expect(await lastRun(db, handle)).toEqual({ status: 'cancelled', sqlstate: '57P01' });
  expect(await db.value('SELECT count(*)::int FROM mark')).toBe(0);
  expect(controller.observations.some(({ kind }) => kind === 'worker_started')).toBe(false);
});

test('bgw_cancel of a worker that naps is registered, and there is nothing to cancel', async ({ db, controller }) => {
  await db.query(`SELECT bgw_register('napper', 'SELECT 1', naptime => '1 h', restart_time => '20 ms')`);
  const handle = await db.value<bigint>(`SELECT bgw_launch('napper')`);
  await controller.saw('worker_started', { handle: String(handle) });
  await until(() =>
    db.value(`SELECT pid IS NULL AND status = 'started' FROM bgw_stat_activity WHERE handle = $1`, [handle]),
  );
  expect(await db.value(`SELECT bgw_cancel('napper')`)).toBe(true);
  await controller.saw('worker_signalled', { handle: String(handle), signal: 'SIGINT' });
  const next = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await controller.saw('worker_exited', { handle: String(next) });
  expect(await db.value('SELECT restarts FROM bgw_stat_activity WHERE handle = $1', [handle])).toBe(0);
});

test('a signal, a restart and a terminate by name reach every process of that name', async ({ db, controller }) => {
  await db.query('CREATE TABLE tick (handle text)');
  await db.query(
    `SELECT bgw_register('w', $$INSERT INTO tick VALUES (current_setting('bgw.handle'))$$, naptime => '1 h', max_instances => 3)`,
  );
  const { rows: launched } = await db.query<{ handle: bigint }>(
    `SELECT bgw_launch('w') AS handle FROM generate_series(1, 3)`,
  );
  const ticks = (): Promise<number> =>
    db.value('SELECT coalesce(min(n), 0)::int FROM (SELECT count(*) FROM tick GROUP BY handle HAVING true) AS t (n)');
  await until(async () => (await db.value('SELECT count(DISTINCT handle)::int FROM tick')) === 3);
  expect(await db.value(`SELECT bgw_signal('w', 'SIGUSR1')`)).toBe(true);
  await until(async () => (await ticks()) === 2);
  expect(await db.value(`SELECT bgw_restart('w')`)).toBe(true);
  await until(async () => (await ticks()) === 3);
  expect(controller.observations.filter(({ kind }) => kind === 'worker_started')).toHaveLength(6);
  await expect(db.query(`SELECT bgw_signal('w', 'SIGSTOP')`)).rejects.toMatchObject({ code: '22023' });
  expect(await db.value(`SELECT bgw_terminate('w')`)).toBe(true);
  for (const { handle } of launched) await db.query('CALL bgw_wait_for_shutdown($1)', [handle]);
});

test('a signal that there is not is refused, by handle and by name, also when nothing runs', async ({ db }) => {
  for (const call of [
    `bgw_signal(1, 'SIGKILL')`,
    `bgw_signal('hello_world', 'SIGKILL')`,
    `bgw_signal('hello_world', NULL)`,
  ])
    await expect(db.query(`SELECT ${call}`), call).rejects.toMatchObject({
      code: '22023',
      hint: 'Available signals: SIGHUP, SIGINT, SIGTERM, SIGUSR1.',
    });
});

test('a name reaches every process that has it, also of a definition that is gone', async ({ db, controller }) => {
  await db.query(`SELECT bgw_register('same', 'SELECT pg_sleep(600)')`);
  const ofWorker = await db.value<bigint>(`SELECT bgw_launch('same')`);
  const ofCommand = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT pg_sleep(600)', name => 'same')`);
  for (const handle of [ofWorker, ofCommand]) await controller.saw('worker_started', { handle: String(handle) });
  await db.query('UPDATE bgw.worker SET unregistered = true');
  expect(await db.value(`SELECT bgw_terminate('same')`)).toBe(true);
  for (const handle of [ofWorker, ofCommand]) await controller.saw('worker_exited', { handle: String(handle) });
});

test('what waits has nothing to cancel', async ({ db }) => {
  const handle = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  expect(await db.value('SELECT bgw_cancel($1::bigint)', [handle])).toBe(false);
  expect(await db.value('SELECT bgw_terminate($1::bigint)', [handle])).toBe(true);
});

test('what waits is terminated in turns that stay short, and none of it is started past its signal', async ({ db }) => {
  const node = await db.value<string>(`SELECT node_id::text FROM bgw.join_node('n', '{}', 8)`);
  await db.query(`SELECT bgw_launch_sql('SELECT 1') FROM generate_series(1, 5000)`);
  await db.query('SELECT bgw_terminate(id) FROM bgw.process');
  const last = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  const started: string[] = [];
  let left = 5001;
  for (let turn = 0; left > 1; turn += 1) {
    const answer = await db.value<{ orders: { kind: string; handle: string }[][]; wake_ms: number }>(
      'SELECT bgw.take_orders($1, 1, 8)',
      [node],
    );
    started.push(...answer.orders.flat().map((order) => `${order.kind} ${order.handle}`));
    const before = left;
    left = await db.value<number>('SELECT count(*)::int FROM bgw.process');
    expect(before - left).toBeLessThanOrEqual(1200);
    if (left > 1) expect(answer.wake_ms).toBe(1);
    expect(turn).toBeLessThan(20);
  }
  expect(started.filter((order) => order !== `start ${last}`)).toEqual([]);
});
