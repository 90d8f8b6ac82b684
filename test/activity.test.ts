/** bgw_stat_activity: the server's own columns, live, and what core lacks. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { findPackageRoot } from '../src/package-root.ts';
import { expect, spawnController, startController, test } from './support/controller.ts';
import { onServer } from './support/database.ts';
import { until } from './support/until.ts';

const LIBRARIES = join(findPackageRoot(), 'test', 'fixtures', 'libraries');

test('it has the columns of pg_stat_activity, in their order and with their types, then its own', async ({ db }) => {
  const own = await db.query('SELECT * FROM bgw_stat_activity');
  const server = await db.query('SELECT * FROM pg_stat_activity');
  const described = ({ fields }: typeof own): string[] => fields.map(({ name, dataTypeID }) => `${name} ${dataTypeID}`);
  expect(described(own).slice(0, server.fields.length)).toEqual(described(server));
  expect(
    own.fields
      .slice(server.fields.length)
      .map(({ name }) => name)
      .join(', '),
  ).toBe(
    'handle, name, status, node, os_pid, restarts, last_exit_code, last_sqlstate, last_error, next_start, waiting_for, settings, ' +
      'worker_set, key, failures, gave_up',
  );
});

test('it lists every registered worker, running or not', async ({ db, controller }) => {
  await db.query(`SELECT bgw_launch('hello_world')`);
  await controller.saw('worker_started', { name: 'hello_world' });
  await until(() => db.value(`SELECT bool_or(status = 'started') FROM bgw_stat_activity`));
  const { rows } = await db.query('SELECT name, status, waiting_for FROM bgw_stat_activity ORDER BY name');
  expect(rows).toEqual([
    { name: 'auth_counter', status: 'stopped', waiting_for: 'a launch' },
    { name: 'count_relations', status: 'stopped', waiting_for: 'a launch' },
    { name: 'disk_guard', status: 'stopped', waiting_for: 'a launch' },
    { name: 'hello_notify', status: 'stopped', waiting_for: 'a launch' },
    { name: 'hello_signal', status: 'stopped', waiting_for: 'a launch' },
    { name: 'hello_world', status: 'started', waiting_for: null },
    { name: 'kill_idle', status: 'stopped', waiting_for: 'a launch' },
    { name: 'reindex_invalid', status: 'stopped', waiting_for: 'a launch' },
    { name: 'standby_watch', status: 'stopped', waiting_for: 'a launch' },
    { name: 'table_stats', status: 'stopped', waiting_for: 'a launch' },
    { name: 'worker_spi', status: 'stopped', waiting_for: 'a launch' },
    { name: 'wraparound_watch', status: 'stopped', waiting_for: 'a launch' },
    { name: 'wraparound_watch_database', status: 'stopped', waiting_for: 'a launch' },
  ]);
});

test('a launch waits for the commit of its transaction, also one in a savepoint', async ({ db }) => {
  const waits = `SELECT waiting_for FROM bgw_stat_activity WHERE handle IS NOT NULL ORDER BY handle`;
  const of = async (): Promise<string[]> =>
    (await db.query(waits)).rows.map((row: { waiting_for: string }) => row.waiting_for);
  await db.query(`SELECT bgw_launch_sql('SELECT 1')`);
  await db.query('BEGIN');
  await db.query(`SELECT bgw_launch_sql('SELECT 1')`);
  await db.query('SAVEPOINT a');
  await db.query(`SELECT bgw_launch_sql('SELECT 1')`);
  await db.query('RELEASE a');
  const none = 'a controller: none is running';
  expect(await of()).toEqual([none, 'the commit of this transaction', 'the commit of this transaction']);
  await db.query('COMMIT');
  expect(await of()).toEqual([none, none, none]);
});

test('what ran on a node that is gone waits for another one', async ({ db }) => {
  const node = await spawnController(db);
  const handle = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT pg_sleep(600)')`);
  await db.query('CALL bgw_wait_for_startup($1)', [handle]);
  const waits = `SELECT status || ': ' || waiting_for FROM bgw_stat_activity WHERE handle = $1`;
  expect(await db.value(waits, [handle])).toBe(null);
  await node.end('SIGKILL');
  await db.query('UPDATE bgw.node SET lease_until = clock_timestamp()');
  const name = await db.value<string>('SELECT name FROM bgw.node');
  expect(await db.value(waits, [handle])).toBe(`started: another controller: node "${name}" is gone`);
});

test('its values are live while the worker holds a session, and NULL between two runs', async ({ db, controller }) => {
  const command = `SELECT pg_sleep(CASE WHEN current_setting('bgw.main_arg') = '1' THEN 600 ELSE 0 END)`;
  await db.query(`SELECT bgw_register('w', $1, naptime => '1 h', max_instances => 2)`, [command]);
  const busy = await db.value<bigint>(`SELECT bgw_launch('w', '1')`);
  const napping = await db.value<bigint>(`SELECT bgw_launch('w', '0')`);
  const { rows: started } = await db.query('CALL bgw_wait_for_startup($1)', [busy]);
  await until(() => db.value('SELECT pid IS NOT NULL FROM bgw_stat_activity WHERE handle = $1', [busy]));
  await until(() =>
    db.value(`SELECT pid IS NULL AND status = 'started' FROM bgw_stat_activity WHERE handle = $1`, [napping]),
  );
  expect(started[0].status).toBe('started');
  const { rows } = await db.query(
    `SELECT datname, usename, application_name, state, wait_event, query = $2 AS same_query, backend_type, pid = (
       SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query = $2) AS same_pid
     FROM bgw_stat_activity WHERE handle = $1`,
    [busy, command],
  );
  expect(rows).toEqual([
    {
      datname: db.name,
      usename: await db.value('SELECT current_user::text'),
      application_name: 'bgworker: w',
      state: 'active',
      wait_event: 'PgSleep',
      same_query: true,
      backend_type: 'client backend',
      same_pid: true,
    },
  ]);
  expect(controller.observations.some(({ kind }) => kind === 'connection_lost')).toBe(false);
});

test('a TypeScript worker shows its process and what it says it is doing', async ({ db, controller }) => {
  const handle = await db.value<bigint>(`SELECT bgw_launch('hello_signal')`);
  const { osPid } = await controller.saw('worker_started', { handle: String(handle) });
  await until(() => db.value(`SELECT state = 'idle' FROM bgw_stat_activity WHERE handle = $1`, [handle]));
  expect(
    (await db.query('SELECT os_pid, pid, status FROM bgw_stat_activity WHERE handle = $1', [handle])).rows,
  ).toEqual([{ os_pid: osPid, pid: null, status: 'started' }]);
});

test('bgw status prints it', async ({ db }) => {
  await db.query(`SELECT bgw_launch('hello_world')`);
  const { stdout, status } = spawnSync(
    process.execPath,
    [join(findPackageRoot(), 'dist', 'cli.js'), 'status', '--url', db.url],
    { encoding: 'utf8' },
  );
  expect(status).toBe(0);
  expect(stdout).toMatch(/^ +1 \| hello_world +\| not_yet_started .* a controller: none is running/m);
});

test('a worker that has failed shows its last error, as psql prints it, and when it starts again', async ({
  db,
  controller,
}) => {
  const fail = `DO $$ BEGIN RAISE EXCEPTION 'broken' USING ERRCODE = 'P0002', DETAIL = 'in two', HINT = 'glue it'; END $$`;
  await db.query(`SELECT bgw_register('stops', $1), bgw_register('again', $1, restart_time => '1 h')`, [fail]);
  await db.query(`SELECT bgw_launch('stops'), bgw_launch('again')`);
  for (const name of ['stops', 'again']) await controller.saw('worker_exited', { name });
  await until(() => db.value(`SELECT count(*) = 2 FROM bgw_stat_activity WHERE last_error IS NOT NULL`));
  const { rows } = await db.query(
    `SELECT name, status, handle IS NULL AS gone, pid, restarts, last_exit_code, last_sqlstate, last_error, waiting_for,
            next_start BETWEEN now() + interval '50 min' AND now() + interval '61 min' AS in_an_hour
     FROM bgw_stat_activity WHERE last_error IS NOT NULL ORDER BY name`,
  );
  const failed = {
    pid: null,
    last_exit_code: 1,
    last_sqlstate: 'P0002',
    last_error: expect.stringMatching(/^ERROR: {2}broken\nDETAIL: {2}in two\nHINT: {2}glue it\nCONTEXT: {2}PL\/pgSQL/),
  };
  expect(rows).toEqual([
    {
      name: 'again',
      status: 'not_yet_started',
      gone: false,
      restarts: 1,
      waiting_for: 'restart time',
      in_an_hour: true,
      ...failed,
    },
    { name: 'stops', status: 'stopped', gone: true, restarts: 0, waiting_for: 'a launch', in_an_hour: null, ...failed },
  ]);
});

test('a TypeScript worker that holds a session shows that, live, beside its process', async ({
  db,
  startController,
}) => {
  const controller = await startController({ libraryDirs: [LIBRARIES] });
  const handle = await db.value<bigint>(`SELECT bgw_launch('probe_stuck')`);
  const { osPid } = await controller.saw('worker_started', { handle: String(handle) });
  await until(() => db.value('SELECT pid IS NOT NULL FROM bgw_stat_activity WHERE handle = $1', [handle]));
  const { rows } = await db.query(
    `SELECT worker.os_pid, worker.state, worker.query, worker.application_name, worker.pid = server.pid AS same
     FROM bgw_stat_activity AS worker LEFT JOIN pg_stat_activity AS server ON server.datname = current_database() AND server.query = 'SELECT pg_sleep(600)'
     WHERE worker.handle = $1`,
    [handle],
  );
  expect(rows).toEqual([
    {
      os_pid: osPid,
      state: 'active',
      query: 'SELECT pg_sleep(600)',
      application_name: 'bgworker: probe_stuck',
      same: true,
    },
  ]);
  // Its statement is deaf to SIGTERM for five seconds.
  await db.query('SELECT pg_terminate_backend(pid) FROM bgw_stat_activity WHERE handle = $1', [handle]);
  await controller.saw('worker_exited', { handle: String(handle) });
});

test('what a worker has reported is gone with it', async ({ db, controller }) => {
  const handle = await db.value<bigint>(`SELECT bgw_launch('hello_signal')`);
  await controller.saw('worker_started', { handle: String(handle) });
  await until(() => db.value('SELECT state IS NOT NULL FROM bgw_stat_activity WHERE handle = $1', [handle]));
  await db.query('SELECT bgw_terminate($1::bigint)', [handle]);
  await db.query('CALL bgw_wait_for_shutdown($1)', [handle]);
  expect(await db.value(`SELECT state FROM bgw_stat_activity WHERE name = 'hello_signal'`)).toBeNull();
  expect(await db.value('SELECT count(*)::int FROM bgw.activity')).toBe(0);
});

test('bgw status prints no control character that a worker has put into its error', async ({ db, controller }) => {
  await db.query(`SELECT bgw_register('hostile', $1), bgw_launch('hostile')`, [
    `DO $$ BEGIN RAISE EXCEPTION E'\\u001B[2Jcleared\\rhidden'; END $$`,
  ]);
  await controller.saw('worker_exited', { name: 'hostile' });
  await until(() => db.value(`SELECT last_error IS NOT NULL FROM bgw_stat_activity WHERE name = 'hostile'`));
  const { stdout, status } = spawnSync(
    process.execPath,
    [join(findPackageRoot(), 'dist', 'cli.js'), 'status', '--url', db.url],
    { encoding: 'utf8' },
  );
  expect(status).toBe(0);
  expect(stdout).toMatch(/hostile.*cleared/);
  // oxlint-disable-next-line no-control-regex -- these are what must not be there
  expect(stdout).not.toMatch(/[\u0000-\u0009\u000B-\u001F\u007F-\u009F]/);
});

test('a worker whose session the server refuses says what it waits for, and starts when it can', async ({
  ordinary,
}) => {
  const { db } = ordinary;
  const node = await startController(db);
  const limit = (connections: number): Promise<void> =>
    onServer(`ALTER DATABASE ${db.name} CONNECTION LIMIT ${connections}`);
  await limit(1);
  const handle = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1', name => 'turned away')`);
  await node.saw('session_awaited', { name: 'turned away' });
  const { rows } = await db.query('SELECT node, status, waiting_for FROM bgw_stat_activity WHERE handle = $1', [
    handle,
  ]);
  expect(rows).toEqual([{ node: expect.any(String), status: 'not_yet_started', waiting_for: 'the start on its node' }]);
  const said = 'SELECT severity, sqlstate, message FROM bgw_log WHERE handle = $1';
  await until(async () => (await db.query(said, [handle])).rows.length > 0);
  expect((await db.query(said, [handle])).rows).toEqual([
    {
      severity: 'WARNING',
      sqlstate: '53300',
      message: `background worker "turned away" waits for a session: too many connections for database "${db.name}"`,
    },
  ]);
  await limit(-1);
  await db.query('CALL bgw_wait_for_shutdown($1)', [handle]);
  expect(await db.value('SELECT status FROM bgw_run_history WHERE handle = $1', [handle])).toBe('done');
  await node.stop();
});
