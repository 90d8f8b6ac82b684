/** bgw_stat_activity: the server's own columns, live, and what core lacks. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { findPackageRoot } from '../src/package-root.ts';
import { expect, test } from './support/controller.ts';
import { until } from './support/until.ts';

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
    'handle, name, status, node, os_pid, restarts, last_exit_code, last_sqlstate, last_error, next_start, waiting_for, settings',
  );
});

test('it lists every registered worker, running or not', async ({ db, controller }) => {
  await db.query(`SELECT bgw_launch('hello_world')`);
  await controller.saw('worker_started', { name: 'hello_world' });
  await until(() => db.value(`SELECT bool_or(status = 'started') FROM bgw_stat_activity`));
  const { rows } = await db.query('SELECT name, status, waiting_for FROM bgw_stat_activity ORDER BY name');
  expect(rows).toEqual([
    { name: 'count_relations', status: 'stopped', waiting_for: 'a launch' },
    { name: 'hello_notify', status: 'stopped', waiting_for: 'a launch' },
    { name: 'hello_signal', status: 'stopped', waiting_for: 'a launch' },
    { name: 'hello_world', status: 'started', waiting_for: null },
    { name: 'kill_idle', status: 'stopped', waiting_for: 'a launch' },
    { name: 'worker_spi', status: 'stopped', waiting_for: 'a launch' },
  ]);
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
       SELECT pid FROM pg_stat_activity WHERE query = $2) AS same_pid
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
