/**
 * Workers and the other databases of the server: one worker per database, and making room for DROP DATABASE.
 * On a server of its own: a worker of every database would visit those of other tests.
 */
import type pg from 'pg';
import { afterAll, beforeAll } from 'vitest';
import { startController, type TestController } from './support/controller.ts';
import { expect, test } from './support/database.ts';
import { type OwnServer, startOwnServer } from './support/own-server.ts';
import { until } from './support/until.ts';

let server: OwnServer;
let client: pg.Client;
let controller: TestController;

beforeAll(async () => {
  server = await startOwnServer();
  ({ client } = server);
  controller = await startController({ url: server.url });
});

afterAll(async () => {
  await controller.stop();
  await server.stop();
});

async function value<Value>(sql: string, params: unknown[] = []): Promise<Value> {
  const { rows } = await client.query({ text: sql, values: params, rowMode: 'array' });
  return rows[0]?.[0] as Value;
}

const runsIn = `SELECT string_agg(DISTINCT process.database, ' ' ORDER BY process.database) FROM bgw.process WHERE name = $1`;

test('scope every_database: one process in each database, a new one is picked up, a dropped one is left', async () => {
  await client.query('CREATE DATABASE shop');
  await client.query(
    `SELECT bgw_register('visitor', 'SELECT 1', naptime => '50 ms', scope => 'every_database', autostart => true)`,
  );
  const all = await value<string>(
    `SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE datallowconn`,
  );
  expect(all).toContain('template1');
  await until(async () => (await value(runsIn, ['visitor'])) === all);
  // It really works there, and template1 can be copied meanwhile.
  await client.query('CREATE DATABASE garden');
  await until(async () =>
    value(`SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = 'garden' AND application_name LIKE 'bgw%')`),
  );
  await client.query('DROP DATABASE garden WITH (FORCE)');
  await until(async () => (await value(runsIn, ['visitor'])) === all, { what: 'the end in the dropped database' });
  expect(
    await value(`SELECT count(*)::int - count(DISTINCT database)::int FROM bgw.process WHERE name = 'visitor'`),
  ).toBe(0);

  // What was terminated stays so.
  await client.query(`SELECT bgw_terminate(id) FROM bgw.process WHERE name = 'visitor' AND database = 'shop'`);
  await until(async () => (await value(runsIn, ['visitor'])) === all.replace('shop ', ''));
  await expect(client.query(`SELECT bgw_launch('visitor')`)).rejects.toMatchObject({ code: '55000' });
  await client.query(`SELECT bgw_unregister('visitor')`);
  await until(async () => (await value(runsIn, ['visitor'])) === null);
  // Registered again it starts anew, in every database.
  await client.query(
    `SELECT bgw_register('visitor', 'SELECT 1', naptime => '50 ms', scope => 'every_database', autostart => true)`,
  );
  await until(async () => (await value(runsIn, ['visitor'])) === all);
  await client.query(`SELECT bgw_unregister('visitor')`);
  await until(async () => (await value(runsIn, ['visitor'])) === null);
});

test('a worker of every database that is unregistered and registered in one transaction starts anew everywhere', async () => {
  const register = `SELECT bgw_register('visitor', 'SELECT 1', naptime => '50 ms', scope => 'every_database', autostart => true)`;
  await client.query(register);
  const all = await value<number>(`SELECT count(*)::int FROM pg_database WHERE datallowconn`);
  const started = `SELECT count(*)::int FROM bgw.process WHERE name = 'visitor' AND status = 'started' AND id > $1`;
  await until(async () => (await value(started, [0])) === all);
  for (const apart of ['', '; COMMIT; BEGIN']) {
    const newest = await value<string>('SELECT max(id) FROM bgw.process');
    await client.query(`BEGIN; SELECT bgw_unregister('visitor')${apart}; ${register}; COMMIT`);
    await until(async () => (await value(started, [newest])) === all, { what: 'a new process in each database' });
    await until(async () => (await value(started, [0])) === all, { what: 'the end of those of before' });
  }
  await client.query(`SELECT bgw_unregister('visitor')`);
  await until(async () => (await value(runsIn, ['visitor'])) === null);
});

test('scope every_database needs autostart, and excludes a database of its own', async () => {
  for (const rest of ['', `, autostart => true, database => 'postgres'`, `, autostart => true, mode => 'atomic'`]) {
    await expect(
      client.query(`SELECT bgw_register('x', 'SELECT 1', scope => 'every_database'${rest})`),
    ).rejects.toMatchObject({ code: '22023' });
  }
  await expect(client.query(`SELECT bgw_register('x', 'SELECT 1', scope => 'some')`)).rejects.toMatchObject({
    code: '22023',
    hint: 'Available scopes: one, every_database.',
  });
});

test('bgw_interrupt_database: idle sessions and interruptible workers make room for DROP and RENAME', async () => {
  await client.query('CREATE DATABASE old');
  await client.query(
    `SELECT bgw_register('stays', 'SELECT pg_sleep(600)', database => 'old', restart_time => '0', flags => '{backend_database_connection,interruptible}')`,
  );
  const handle = await value<string>(`SELECT bgw_launch('stays')`);
  await controller.saw('worker_started', { handle });
  const quick = await value<string>(`SELECT bgw_launch_sql('SELECT 1', database => 'old')`);
  await controller.saw('worker_exited', { handle: quick });
  expect(await value(`SELECT count(*)::int FROM pg_stat_activity WHERE datname = 'old'`)).toBeGreaterThan(0);

  await client.query(`SELECT bgw_interrupt_database('old')`);
  await client.query('ALTER DATABASE old RENAME TO older');
  await client.query('ALTER DATABASE older RENAME TO old');
  expect(await value(`SELECT waiting_for FROM bgw_stat_activity WHERE name = 'stays'`)).toBe(
    'the end of the interruption of database "old"',
  );
  // Ten seconds later it comes back, under its handle.
  await client.query(`UPDATE bgw.interruption SET requested_at = requested_at - interval '10 s'`);
  await until(async () => (await value(`SELECT status FROM bgw_get_pid($1)`, [handle])) === 'started');
  expect(await value(`SELECT failures FROM bgw_stat_activity WHERE handle = $1`, [handle])).toBe(0);
  await client.query(`SELECT bgw_interrupt_database('old')`);
  await client.query('DROP DATABASE old');
  await client.query(`SELECT bgw_unregister('stays')`);
});

test('a worker that never restarts is unregistered by an interruption; one without the flag goes on', async () => {
  await client.query('CREATE DATABASE busy');
  await client.query(
    `SELECT bgw_register('yields', 'SELECT pg_sleep(600)', database => 'busy', flags => '{backend_database_connection,interruptible}')`,
  );
  await client.query(`SELECT bgw_register('insists', 'SELECT pg_sleep(600)', database => 'busy')`);
  const yields = await value<string>(`SELECT bgw_launch('yields')`);
  const insists = await value<string>(`SELECT bgw_launch('insists')`);
  await controller.saw('worker_started', { handle: yields });
  await controller.saw('worker_started', { handle: insists });
  await client.query(`SELECT bgw_interrupt_database('busy')`);
  await until(async () => (await value(`SELECT status FROM bgw_get_pid($1)`, [yields])) === 'stopped');
  expect(await value(`SELECT status FROM bgw_get_pid($1)`, [insists])).toBe('started');
  await expect(client.query('DROP DATABASE busy')).rejects.toMatchObject({ code: '55006' });
  await client.query(`SELECT bgw_terminate('insists')`);
  await client.query(`CALL bgw_wait_for_shutdown($1)`, [insists]);
  await client.query(`SELECT bgw_interrupt_database('busy')`);
  await client.query('DROP DATABASE busy');
});

test('only the owner of a database interrupts it, and never the one of this catalog', async () => {
  await client.query('CREATE ROLE stranger');
  await client.query('CREATE DATABASE private');
  await expect(client.query(`SELECT bgw_interrupt_database('nowhere')`)).rejects.toMatchObject({ code: '3D000' });
  await expect(client.query(`SELECT bgw_interrupt_database(current_database()::text)`)).rejects.toMatchObject({
    code: '55006',
  });
  await client.query('SET ROLE stranger');
  await expect(client.query(`SELECT bgw_interrupt_database('private')`)).rejects.toMatchObject({ code: '42501' });
  await expect(client.query(`INSERT INTO bgw.interruption (database) VALUES ('private')`)).rejects.toMatchObject({
    code: '42501',
  });
  await client.query('RESET ROLE');
});

test('wraparound_watch keeps one child per database, warns, and lets databases be dropped', async () => {
  const watched = `SELECT string_agg(key, ' ' ORDER BY key) FROM bgw.process WHERE worker_set = 'wraparound_watch' AND database = key`;
  const warnings = `SELECT string_agg(substring(message FROM '"(.*)"'), ' ' ORDER BY id) FROM bgw_log WHERE severity = 'WARNING' AND name = 'wraparound_watch_database'`;
  const databases = `SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE datallowconn`;
  await client.query('CREATE DATABASE shop_two');
  await client.query(`SELECT bgw_set_config('wraparound_watch.naptime', '1s')`);
  const handle = await value<string>(`SELECT bgw_launch('wraparound_watch')`);
  await until(async () => (await value(watched)) === (await value(databases)));
  await until(() =>
    value(`SELECT bool_and(status = 'started') FROM bgw_stat_activity WHERE worker_set = 'wraparound_watch'`),
  );
  expect(await value(warnings)).toBe(null);
  await client.query(`SELECT bgw_set_config('wraparound_watch.max_age', '1')`);
  await until(async () => (await value<string | null>(warnings))?.includes('shop_two'));

  await client.query('CREATE DATABASE garden_two');
  await until(async () => (await value<string | null>(warnings))?.includes('garden_two'));
  // Its sessions are short: they keep neither from being dropped.
  await client.query('DROP DATABASE shop_two');
  await client.query('DROP DATABASE garden_two WITH (FORCE)');
  await until(async () => (await value(watched)) === (await value(databases)), {
    what: 'the end in dropped databases',
  });
  const ended = `SELECT array_agg(DISTINCT status)::text FROM bgw_run_history WHERE worker_set = 'wraparound_watch'`;
  expect(await value(ended)).toMatch(/^[{](done|cancelled|cancelled,done)[}]$/);

  await client.query('SELECT bgw_terminate($1::bigint)', [handle]);
  await until(async () => (await value(watched)) === null, { what: 'the end of the children' });
});
