/** What becomes of a worker that ended: the restart rule, crashes, quarantine, autostart. */
import { join } from 'node:path';
import { findPackageRoot } from '../src/package-root.ts';
import { expect, test } from './support/controller.ts';
import { onServer, type TestDatabase } from './support/database.ts';
import { until } from './support/until.ts';

const libraries = join(findPackageRoot(), 'test', 'fixtures', 'libraries');
const FAILS = `DO $$ BEGIN RAISE EXCEPTION 'boom' USING DETAIL = 'the detail'; END $$`;

async function row(db: TestDatabase, handle: bigint): Promise<Record<string, unknown>> {
  const { rows } = await db.query('SELECT * FROM bgw_stat_activity WHERE handle = $1', [handle]);
  return (rows[0] ?? {}) as Record<string, unknown>;
}

test('a worker that fails starts again after its restart time, under the same handle', async ({ db, controller }) => {
  await db.query(`SELECT bgw_register('fails', $1, restart_time => '100 ms')`, [FAILS]);
  const handle = await db.value<bigint>(`SELECT bgw_launch('fails')`);
  await until(async () => Number((await row(db, handle))['restarts']) >= 3);
  expect(
    await db.value(`SELECT count(*) > 2 FROM bgw_run_history WHERE handle = $1 AND status = 'failed'`, [handle]),
  ).toBe(true);
  expect(
    await db.value(`
      SELECT min(again.started_at - run.finished_at) BETWEEN '90 ms' AND '2 s'
      FROM bgw_run_history AS run JOIN bgw_run_history AS again ON again.run_id > run.run_id`),
  ).toBe(true);
  expect(controller.observations.some(({ kind }) => kind === 'connection_lost')).toBe(false);
});

test('while it waits the view shows the error, when it starts again and what it waits for', async ({
  db,
  controller,
}) => {
  await db.query(`SELECT bgw_register('fails', $1, restart_time => '1 h')`, [FAILS]);
  const handle = await db.value<bigint>(`SELECT bgw_launch('fails')`);
  await controller.saw('worker_exited', { handle: String(handle) });
  await until(async () => (await row(db, handle))['restarts'] === 1);
  expect(await row(db, handle)).toMatchObject({
    status: 'not_yet_started',
    last_exit_code: 1,
    last_sqlstate: 'P0001',
    last_error: expect.stringMatching(/^ERROR: {2}boom\nDETAIL: {2}the detail\nCONTEXT: /),
    waiting_for: 'restart time',
    next_start: expect.any(Date),
  });
  expect(
    await db.value(`SELECT next_start - now() BETWEEN '59 min' AND '1 h' FROM bgw_stat_activity WHERE handle = $1`, [
      handle,
    ]),
  ).toBe(true);
});

test('bgw_restart starts a waiting worker at once, and a running one again under its handle', async ({
  db,
  controller,
}) => {
  await db.query(`SELECT bgw_register('fails', $1, restart_time => '1 h')`, [FAILS]);
  const waiting = await db.value<bigint>(`SELECT bgw_launch('fails')`);
  await until(async () => (await row(db, waiting))['restarts'] === 1);
  expect(await db.value('SELECT bgw_restart($1::bigint)', [waiting])).toBe(true);
  await until(async () => (await row(db, waiting))['restarts'] === 2);

  const running = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT pg_sleep(600)')`);
  const first = (await db.query('CALL bgw_wait_for_startup($1)', [running])).rows[0].pid;
  await db.query('SELECT bgw_restart($1::bigint)', [running]);
  await until(async () => (await row(db, running))['restarts'] === 1);
  await db.query('CALL bgw_wait_for_startup($1)', [running]);
  expect(first).toBeGreaterThan(0);
  expect(
    controller.observations.filter((seen) => seen.kind === 'worker_started' && seen.handle === String(running)),
  ).toHaveLength(2);
});

test('bgw_restart of a worker that naps and of one in a process keeps their handles, whatever their restart time', async ({
  db,
  controller,
}) => {
  await db.query(`SELECT bgw_register('napper', 'SELECT 1', naptime => '1 h', restart_time => '-1 s')`);
  for (const name of ['napper', 'hello_signal']) {
    const handle = await db.value<bigint>('SELECT bgw_launch($1)', [name]);
    await controller.saw('worker_started', { handle: String(handle) });
    expect(await db.value('SELECT bgw_restart($1::text)', [name])).toBe(true);
    await until(async () => {
      const { restarts, status } = await row(db, handle);
      return restarts === 1 && status === 'started';
    });
    expect(await db.value('SELECT status FROM bgw_run_history WHERE handle = $1', [handle])).toBe('cancelled');
  }
});

test('a worker that is done is unregistered, also if it has a restart time', async ({ db, controller }) => {
  await db.query(`SELECT bgw_register('done', 'SELECT 1', restart_time => '10 ms')`);
  const handle = await db.value<bigint>(`SELECT bgw_launch('done')`);
  await db.query('CALL bgw_wait_for_shutdown($1)', [handle]);
  const next = await db.value<bigint>(`SELECT bgw_launch('done')`);
  await db.query('CALL bgw_wait_for_shutdown($1)', [next]);
  const { rows } = await db.query('SELECT handle, status, exit_code FROM bgw_run_history ORDER BY run_id');
  expect(rows).toEqual([handle, next].map((each) => ({ handle: each, status: 'done', exit_code: 0 })));
  expect(controller.observations.filter(({ kind }) => kind === 'worker_started')).toHaveLength(2);
});

test('a worker that never restarts is unregistered after a failure', async ({ db, controller }) => {
  await db.query(`SELECT bgw_register('once', $1), bgw_register('never', $1, naptime => '1 s', restart_time => '-1')`, [
    FAILS,
  ]);
  for (const name of ['once', 'never']) {
    const handle = await db.value<bigint>('SELECT bgw_launch($1)', [name]);
    await controller.saw('worker_exited', { handle: String(handle) });
    await db.query('CALL bgw_wait_for_shutdown($1)', [handle]);
  }
  const { rows } = await db.query(
    `SELECT status, handle, last_exit_code, last_sqlstate FROM bgw_stat_activity WHERE name IN ('once', 'never')`,
  );
  const stopped = { status: 'stopped', handle: null, last_exit_code: 1, last_sqlstate: 'P0001' };
  expect(rows).toEqual([stopped, stopped]);
});

test('the rule, as a table: exit code, restart time, next start', async ({ db }) => {
  const next = `SELECT bgw.next_start($1, $2::interval, '2026-01-01 00:00+00') = '2026-01-01 00:00:10+00'`;
  expect(await db.value(next, [0, '10 s'])).toBe(null);
  expect(await db.value(next, [1, '10 s'])).toBe(true);
  expect(await db.value(next, [77, '10 s'])).toBe(true);
  expect(await db.value(next, [null, '10 s'])).toBe(true);
  expect(await db.value(next, [1, null])).toBe(null);
  const final = 'SELECT bgw.final_status($1, $2, $3, $4)';
  expect(await db.value(final, [0, null, false, false])).toBe('done');
  expect(await db.value(final, [1, '22012', false, false])).toBe('failed');
  expect(await db.value(final, [null, null, false, false])).toBe('failed');
  expect(await db.value(final, [1, '57014', false, false])).toBe('cancelled');
  expect(await db.value(final, [0, '57P01', true, false])).toBe('cancelled');
  expect(await db.value(final, [1, '57014', false, true])).toBe('expired');
});

test('the rule through the protocol, on a clock moved by hand', async ({ db }) => {
  await db.query(`SET bgw.fake_now = '2026-01-01 00:00+00'`);
  const { rows } = await db.query(`SELECT * FROM bgw.join_node('by hand', '{}', 8)`);
  const { node_id: node, epoch } = rows[0];
  await db.query(`SELECT bgw_register('fails', 'SELECT 1', restart_time => '10 min')`);
  const handle = await db.value<bigint>(`SELECT bgw_launch('fails')`);
  const take = async (): Promise<{ orders: { run_id: string }[][]; wake_ms: number }> =>
    db.value('SELECT bgw.take_orders($1, $2, 8)', [node, epoch]);
  const [order] = (await take()).orders.flat();
  const exited = JSON.stringify({
    exited: [{ handle: String(handle), run_id: order?.run_id, exit_code: 1, age: 0 }],
  });
  await db.query('SELECT bgw.report($1, $2, $3)', [node, epoch, exited]);
  expect(await take()).toMatchObject({ orders: [[], [], [], []], wake_ms: 2000 });
  await db.query(`SET bgw.fake_now = '2026-01-01 00:09:59+00'`);
  expect(await take()).toMatchObject({ orders: [[], [], [], []], wake_ms: 1000 });
  await db.query(`SET bgw.fake_now = '2026-01-01 00:10:00+00'`);
  expect((await take()).orders.flat()).toHaveLength(1);
  // A report about the attempt before changes nothing (I2).
  await db.query('SELECT bgw.report($1, $2, $3)', [node, epoch, exited]);
  expect(await db.value('SELECT restarts FROM bgw.process WHERE id = $1', [handle])).toBe(1);
});

test('a process that is killed is a crash: it has no exit code, and restarts by its rule', async ({
  db,
  controller,
}) => {
  await db.query(`SELECT bgw_launch('hello_world')`);
  const handle = await db.value<bigint>(`SELECT bgw_launch('hello_signal')`);
  const { osPid } = await controller.saw('worker_started', { handle: String(handle) });
  await db.query(`UPDATE bgw.worker SET restart_time = '50 ms' WHERE name = 'hello_signal'`);
  process.kill(osPid ?? 0, 'SIGKILL');
  await until(async () => (await row(db, handle))['restarts'] === 1 && (await row(db, handle))['status'] === 'started');
  expect(
    (await db.query('SELECT status, exit_code, message FROM bgw_run_history WHERE handle = $1', [handle])).rows,
  ).toEqual([
    { status: 'failed', exit_code: null, message: 'background worker "hello_signal" was terminated by signal SIGKILL' },
  ]);
  expect(
    controller.observations.filter((seen) => seen.kind === 'worker_exited' && seen.name === 'hello_world'),
  ).toEqual([]);
});

test('a bad row is not started, says why, and stops nobody', async ({ db, controller }) => {
  const role = `${db.name}_gone`;
  await onServer(`CREATE ROLE ${role}`);
  await db.query(`GRANT ${role} TO CURRENT_USER`);
  await db.query(`SET ROLE ${role}`);
  await db.query(`SELECT bgw_register('of nobody', 'SELECT 1', autostart => true)`);
  await db.query('RESET ROLE');
  await onServer(`DROP ROLE ${role}`);
  await db.query(`SELECT bgw_register('nowhere', 'SELECT 1', database => 'there_is_none'), bgw_launch('nowhere')`);
  await db.query(
    `SELECT bgw_register('no library', library_name => 'there_is_none', function_name => 'main'), bgw_launch('no library')`,
  );
  await db.query(`SELECT bgw_register('no setting', 'SELECT 1', naptime => 'there.is_none'), bgw_launch('no setting')`);
  const good = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await controller.saw('worker_exited', { handle: String(good), exitCode: 0 });
  const { rows } = await db.query(
    `SELECT name, waiting_for FROM bgw_stat_activity WHERE name ~ '^(no|of)' ORDER BY name`,
  );
  expect(rows).toEqual([
    { name: 'no library', waiting_for: 'a controller with the library "there_is_none"' },
    { name: 'no setting', waiting_for: 'configuration parameter "there.is_none" does not exist' },
    { name: 'nowhere', waiting_for: 'database "there_is_none" does not exist or accepts no connections' },
    { name: 'of nobody', waiting_for: expect.stringMatching(/^role with OID \d+ does not exist$/) },
  ]);
});

test('a worker waits while what it needs is missing, and starts when it is there', async ({ db, controller }) => {
  await db.query(`SELECT bgw_register('napper', 'SELECT 1', naptime => 'napper.naptime')`);
  const handle = await db.value<bigint>(`SELECT bgw_launch('napper')`);
  const next = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await controller.saw('worker_exited', { handle: String(next) });
  expect(await row(db, handle)).toMatchObject({
    status: 'not_yet_started',
    waiting_for: 'configuration parameter "napper.naptime" does not exist',
  });
  await db.query(`SELECT bgw_define_setting('napper.naptime', boot_val => '1h', vartype => 'integer', unit => 's')`);
  await controller.saw('worker_started', { handle: String(handle) });
});

test('a worker whose database is dropped ends, waits for the database, and stops nobody', async ({
  db,
  controller,
}) => {
  const other = `${db.name}_other`;
  await db.query(`CREATE DATABASE ${other}`);
  await db.query(`SELECT bgw_register('guest', 'SELECT pg_sleep(600)', database => '${other}', restart_time => '0')`);
  const handle = await db.value<bigint>(`SELECT bgw_launch('guest')`);
  await controller.saw('worker_started', { handle: String(handle) });
  await db.query(`DROP DATABASE ${other} WITH (FORCE)`);
  await until(async () => (await row(db, handle))['waiting_for'], { what: 'the end of the worker' });
  expect(await row(db, handle)).toMatchObject({
    status: 'not_yet_started',
    // Terminated, or by then started again in a database that was just going.
    last_sqlstate: expect.stringMatching(/^(57P01|3D000)$/),
    waiting_for: `database "${other}" does not exist or accepts no connections`,
  });
  const { restarts } = await row(db, handle);
  const next = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await controller.saw('worker_exited', { handle: String(next), exitCode: 0 });
  expect((await row(db, handle))['restarts']).toBe(restarts);
});

test('an autostart worker runs when the first controller comes, once, and again with the next first one (I1)', async ({
  db,
  startController,
}) => {
  await db.query('CREATE TABLE ran (at timestamptz DEFAULT now())');
  await db.query(`SELECT bgw_register('auto', 'INSERT INTO ran DEFAULT VALUES', autostart => true)`);
  const [first, second] = await Promise.all([startController(), startController()]);
  await until(() => db.value(`SELECT count(*) > 0 FROM bgw_run_history WHERE name = 'auto'`));
  expect(await db.value('SELECT count(*)::int FROM ran')).toBe(1);
  await Promise.all([first.stop(), second.stop()]);
  await Promise.all([startController(), startController()]);
  await until(async () => (await db.value('SELECT count(*)::int FROM ran')) === 2);
  const next = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await db.query('CALL bgw_wait_for_shutdown($1)', [next]);
  expect(await db.value('SELECT count(*)::int FROM ran')).toBe(2);
});

test('an autostart worker that is done is not started again by a second controller (I1)', async ({
  db,
  startController,
}) => {
  await db.query(`SELECT bgw_register('auto', 'SELECT 1', autostart => true)`);
  await startController();
  await until(() => db.value(`SELECT count(*) > 0 FROM bgw_run_history WHERE name = 'auto'`));
  await startController();
  const next = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await db.query('CALL bgw_wait_for_shutdown($1)', [next]);
  expect(await db.value(`SELECT count(*)::int FROM bgw_run_history WHERE name = 'auto'`)).toBe(1);
});

test('an exit code of its own is a crash, which the view shows, and restarts by its rule', async ({
  db,
  startController,
}) => {
  await startController({ libraryDirs: [libraries] });
  await db.query(`UPDATE bgw.worker SET restart_time = '1 h' WHERE name = 'probe_crashing'`);
  const handle = await db.value<bigint>(`SELECT bgw_launch('probe_crashing')`);
  await until(async () => (await row(db, handle))['restarts'] === 1);
  expect(await row(db, handle)).toMatchObject({
    status: 'not_yet_started',
    last_exit_code: 77,
    last_error: 'ERROR:  background worker "probe_crashing" exited with exit code 77',
    waiting_for: 'restart time',
  });
});

for (const value of ['soon', '-5 s', '1 us', '']) {
  test(`a nap time that a setting makes ${JSON.stringify(value)} stops nobody, and the view can be read`, async ({
    db,
    controller,
  }) => {
    await db.query(`SELECT bgw_define_setting('bad.naptime', '1 h')`);
    await db.query(`SELECT bgw_register('bad', 'SELECT 1', naptime => 'bad.naptime')`);
    await db.query(`SELECT bgw_set_config('bad.naptime', $1)`, [value]);
    const bad = await db.value<bigint>(`SELECT bgw_launch('bad')`);
    const good = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
    await controller.saw('worker_exited', { handle: String(good), exitCode: 0 }, 4000);
    expect(await row(db, bad)).toMatchObject({ name: 'bad' });
    expect(await db.value('SELECT count(*)::int FROM bgw_run_history WHERE handle = $1', [bad])).toBe(0);
    expect(controller.observations.some(({ kind }) => kind === 'connection_lost')).toBe(false);
  });
}

test('the restart time doubles with each failure in a row, up to restart_time_max, with jitter', async ({ db }) => {
  const delay = `SELECT date_part('epoch', bgw.restart_delay($1::interval, $2::interval, $3, $4))::float8`;
  for (const [restartTime, max, failures, jitter, want] of [
    ['1 s', null, 9, 1, 1],
    ['1 s', '1 min', 1, 1, 1],
    ['1 s', '1 min', 2, 0, 2],
    ['1 s', '1 min', 4, 0, 8],
    ['1 s', '1 min', 4, 1, 4],
    ['1 s', '1 min', 1_000_000, 0, 60],
    ['0', '1 min', 5, 0, 0],
  ] as const) {
    expect(await db.value(delay, [restartTime, max, failures, jitter]), `${restartTime} ${max} ${failures}`).toBe(want);
  }
  expect(await db.value(`SELECT bgw.restart_delay(NULL, '1 min', 5, 0)`)).toBe(null);
});

test('a worker that keeps failing waits longer each time, and is given up after failure_limit failures', async ({
  db,
  controller,
}) => {
  await db.query(
    `SELECT bgw_register('fails', $1, restart_time => '20 ms', restart_time_max => '10 s', failure_limit => 4, failure_window => '1 h')`,
    [FAILS],
  );
  const handle = await db.value<bigint>(`SELECT bgw_launch('fails')`);
  await until(async () => (await db.value('SELECT status FROM bgw_get_pid($1)', [handle])) === 'stopped');
  const { rows } = await db.query(
    `SELECT gave_up, date_part('epoch', started_at - lag(finished_at) OVER (ORDER BY run_id)) AS waited
     FROM bgw_run_history WHERE handle = $1 ORDER BY run_id`,
    [handle],
  );
  expect(rows.map((run) => run.gave_up)).toEqual([null, null, null, '4 failures within 01:00:00']);
  expect(rows[3].waited).toBeGreaterThanOrEqual(0.04);
  expect(
    (await db.query(`SELECT status, gave_up, waiting_for, last_sqlstate FROM bgw_stat_activity WHERE name = 'fails'`))
      .rows,
  ).toEqual([
    {
      status: 'stopped',
      gave_up: '4 failures within 01:00:00',
      waiting_for: 'a launch: it gave up after 4 failures within 01:00:00',
      last_sqlstate: 'P0001',
    },
  ]);
  // A launch begins anew.
  const again = await db.value<bigint>(`SELECT bgw_launch('fails')`);
  await until(async () => (await db.value('SELECT status FROM bgw_get_pid($1)', [again])) === 'stopped');
  expect(await db.value('SELECT count(*)::int FROM bgw_run_history WHERE handle = $1', [again])).toBe(4);
  expect(controller.observations.some(({ kind }) => kind === 'unexpected_error')).toBe(false);
});

test('failures outside the window do not count, and a healthy period begins a new row', async ({ db, controller }) => {
  await db.query(
    `SELECT bgw_register('ages', $1, restart_time => '10 ms', restart_time_max => '20 ms', failure_limit => 3, failure_window => '1 s',
                         healthy_time => '100 ms')`,
    [FAILS.replace('RAISE', `PERFORM pg_sleep(0.6); RAISE`)],
  );
  const handle = await db.value<bigint>(`SELECT bgw_launch('ages')`);
  await until(async () => Number((await row(db, handle))['restarts']) >= 4);
  expect(await row(db, handle)).toMatchObject({ failures: 1, gave_up: null });
  await controller.stop();
});

test('what a restart rule cannot be is refused', async ({ db }) => {
  for (const [argument, detail] of [
    [`restart_time_max => '1 s', restart_time => '2 s'`, 'It lies between restart_time and 1 day.'],
    [`restart_time_max => '1 s'`, 'It lies between restart_time and 1 day.'],
    [`failure_limit => 0`, 'It lies between 1 and 1000.'],
    [`failure_window => '0'`, 'It lies between 1 second and 1000 years.'],
    [`healthy_time => '-1 s'`, 'It lies between 0 and 1000 years.'],
  ] as const) {
    await expect(db.query(`SELECT bgw_register('x', 'SELECT 1', ${argument})`)).rejects.toMatchObject({
      code: '22023',
      detail,
    });
  }
});

test('a nap time that a setting gives is no shorter than one of a definition may be', async ({ db }) => {
  await db.query(`SELECT bgw_define_setting('napper.naptime', boot_val => '-5', vartype => 'integer', unit => 's')`);
  await db.query(`SELECT bgw_register('napper', 'SELECT 1', naptime => 'napper.naptime')`);
  const nap = `SELECT bgw.nap_of(worker, NULL)::text FROM bgw.worker WHERE name = 'napper'`;
  expect(await db.value(nap)).toBe('00:00:00.01');
  await db.query(`SELECT bgw_set_config('napper.naptime', '20 s')`);
  expect(await db.value(nap)).toBe('00:00:20');
});
