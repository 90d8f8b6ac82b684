/** Settings of workers: PostgreSQL's values, units and messages, taken over while the workers run. */
import { expect, test } from './support/controller.ts';
import type { TestDatabase } from './support/database.ts';
import { until } from './support/until.ts';

function setting(db: TestDatabase, name: string): Promise<unknown> {
  return db
    .query('SELECT setting, source, pending_restart FROM bgw_settings WHERE name = $1', [name])
    .then(({ rows }) => rows[0]);
}

test('a value is checked as PostgreSQL checks it, with its own message', async ({ db }) => {
  const name = 'kill_idle.max_idle_time';
  expect(await db.value(`SELECT bgw_set_config($1, '10s')`, [name])).toBe('10s');
  expect(await setting(db, name)).toEqual({ setting: '10', source: 'catalog', pending_restart: false });
  await expect(db.query(`SELECT bgw_set_config($1, '2h')`, [name])).rejects.toMatchObject({
    code: '22023',
    message: '7200 s is outside the valid range for parameter "kill_idle.max_idle_time" (1 s .. 3600 s)',
  });
  await expect(db.query(`SELECT bgw_set_config($1, 'abc')`, [name])).rejects.toMatchObject({
    code: '22023',
    message: 'invalid value for parameter "kill_idle.max_idle_time": "abc"',
  });
  await expect(db.query(`SELECT bgw_set_config($1, '5 parsecs')`, [name])).rejects.toMatchObject({
    hint: 'Valid units for this parameter are "us", "ms", "s", "min", "h", and "d".',
  });
  expect(await setting(db, name)).toMatchObject({ setting: '10' });
  expect(await db.value('SELECT bgw_reset_config($1)', [name])).toBe('5s');
  expect(await setting(db, name)).toMatchObject({ setting: '5', source: 'default' });
});

test('a name is compared without case; one that nobody defined is an error', async ({ db }) => {
  expect(await db.value(`SELECT bgw_set_config('Kill_Idle.MAX_idle_time', '7')`)).toBe('7s');
  await expect(db.query(`SELECT bgw_set_config('kill_idle.nothing', '1')`)).rejects.toMatchObject({
    code: '42704',
    message: 'unrecognized configuration parameter "kill_idle.nothing"',
  });
});

test('a name needs a prefix, which is not "bgw"', async ({ db }) => {
  await expect(db.query(`SELECT bgw_define_setting('plain', '1')`)).rejects.toMatchObject({ code: '22023' });
  await expect(db.query(`SELECT bgw_define_setting('bgw.notify', 'on')`)).rejects.toMatchObject({ code: '42939' });
});

test('defining a setting again keeps its value, unless that is no longer valid', async ({ db }) => {
  const define = (max: number): Promise<unknown> =>
    db.query(
      `SELECT bgw_define_setting('rollup.keep', '30', vartype => 'integer', unit => 'd', min_val => 1, max_val => $1)`,
      [max],
    );
  await define(100);
  await db.query(`SELECT bgw_set_config('rollup.keep', '60d')`);
  await define(100);
  await define(90);
  expect(await setting(db, 'rollup.keep')).toMatchObject({ setting: '60' });
  await define(50);
  expect(await setting(db, 'rollup.keep')).toMatchObject({ setting: '30', source: 'default' });
});

test('a running worker takes a change over without a restart', async ({ db, controller }) => {
  await db.query('CREATE TABLE seen (value text, run_id text)');
  await db.query(`SELECT bgw_define_setting('teller.word', 'before')`);
  await db.query(`SELECT bgw_register('teller', naptime => '1 h',
    command => $$INSERT INTO seen VALUES (current_setting('teller.word'), current_setting('bgw.run_id'))$$)`);
  const handle = await db.value<bigint>(`SELECT bgw_launch('teller')`);
  await until(() => db.value('SELECT count(*) = 1 FROM seen'));
  await db.query(`SELECT bgw_set_config('teller.word', 'after')`);
  await until(() => db.value('SELECT count(*) = 2 FROM seen'));
  const { rows } = await db.query('SELECT value, run_id FROM seen');
  expect(rows.map(({ value }) => value)).toEqual(['before', 'after']);
  expect(new Set(rows.map((row) => row.run_id)).size).toBe(1);
  expect(await db.value(`SELECT settings ->> 'teller.word' FROM bgw_stat_activity WHERE handle = $1`, [handle])).toBe(
    'after',
  );
  expect(controller.observations.some(({ kind }) => kind === 'worker_exited')).toBe(false);
});

test('a nap time that names a setting follows it', async ({ db, controller }) => {
  await db.query('CREATE TABLE tick (n int)');
  await db.query(`SELECT bgw_define_setting('ticker.naptime', '1h', vartype => 'integer', unit => 'ms')`);
  await db.query(`SELECT bgw_register('ticker', 'INSERT INTO tick VALUES (1)', naptime => 'ticker.naptime')`);
  const handle = await db.value<bigint>(`SELECT bgw_launch('ticker')`);
  await controller.saw('worker_started', { handle: String(handle) });
  await until(() => db.value('SELECT count(*) = 1 FROM tick'));
  await db.query(`SELECT bgw_set_config('ticker.naptime', '20ms')`);
  await until(() => db.value('SELECT count(*) > 5 FROM tick'));
});

test('bgw_reload_conf wakes every worker of the caller', async ({ db, controller }) => {
  await db.query('CREATE TABLE tick (n int)');
  await db.query(
    `SELECT bgw_register('ticker', 'INSERT INTO tick VALUES (1)', naptime => '1 h'), bgw_launch('ticker')`,
  );
  await until(() => db.value('SELECT count(*) = 1 FROM tick'));
  expect(await db.value('SELECT bgw_reload_conf()')).toBe(true);
  await until(() => db.value('SELECT count(*) = 2 FROM tick'));
  expect(controller.observations.filter(({ kind }) => kind === 'worker_signalled')).toHaveLength(1);
});

test('context postmaster waits for the next first controller, and says so', async ({ db, startController }) => {
  await db.query(`SELECT bgw_define_setting('late.value', 'old', context => 'postmaster')`);
  await db.query(`SELECT bgw_set_config('late.value', 'new')`);
  expect(await setting(db, 'late.value')).toEqual({ setting: 'old', source: 'default', pending_restart: true });
  await startController();
  expect(await setting(db, 'late.value')).toEqual({ setting: 'new', source: 'catalog', pending_restart: false });
});

test('plain INSERT and UPDATE obey the rules of bgw_register', async ({ db }) => {
  await expect(
    db.query(`INSERT INTO bgw.worker (name, command, naptime) VALUES ('w', 'SELECT 1', 'soon')`),
  ).resolves.toBeDefined();
  for (const [columns, values] of [
    ['name, command', `'', 'SELECT 1'`],
    ['name, command, naptime', `'x', 'SELECT 1', '3 parsecs'`],
    ['name, command, naptime', `'x', 'SELECT 1', '1 us'`],
    ['name', `'x'`],
    ['name, library_name, function_name', `'x', '../../etc/passwd', 'main'`],
    ['name, command, restart_time', `'x', 'SELECT 1', '2 days'`],
    ['name, command, start_time', `'x', 'SELECT 1', 'postmaster_start'`],
  ]) {
    await expect(db.query(`INSERT INTO bgw.worker (${columns}) VALUES (${values})`), values).rejects.toMatchObject({
      code: '22023',
    });
  }
  await expect(db.query(`UPDATE bgw.worker SET command = NULL WHERE name = 'hello_world'`)).rejects.toMatchObject({
    code: '22023',
  });
});

test('registering twice changes nothing', async ({ db }) => {
  const register = `SELECT bgw_register(name => 'rollup', command => $$CALL rollup()$$, naptime => '10 s', restart_time => '5 s', autostart => true)`;
  await db.query(register);
  const before = await db.query('SELECT xmin, * FROM bgw.worker');
  await db.query(register);
  expect((await db.query('SELECT xmin, * FROM bgw.worker')).rows).toEqual(before.rows);
  expect(await db.value(`SELECT count(*)::int FROM bgw.process WHERE name = 'rollup'`)).toBe(1);
});

test('a nap of months is not over at once', async ({ db, controller }) => {
  await db.query('CREATE TABLE tick (n int)');
  await db.query(
    `SELECT bgw_register('rare', 'INSERT INTO tick VALUES (1)', naptime => '60 days'), bgw_launch('rare')`,
  );
  await until(() => db.value('SELECT count(*) > 0 FROM tick'));
  const other = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT pg_sleep(0.2)')`);
  await controller.saw('worker_exited', { handle: String(other) });
  expect(await db.value('SELECT count(*)::int FROM tick')).toBe(1);
});

test('bgw_settings has the columns of pg_settings that a worker can have', async ({ db }) => {
  const { rows } = await db.query(`SELECT * FROM bgw_settings WHERE name = 'kill_idle.max_idle_time'`);
  expect(rows).toEqual([
    {
      name: 'kill_idle.max_idle_time',
      setting: '5',
      unit: 's',
      short_desc: 'Maximum time allowed for sessions to be idle.',
      context: 'sighup',
      vartype: 'integer',
      source: 'default',
      min_val: '1',
      max_val: '3600',
      enumvals: null,
      boot_val: '5',
      reset_val: '5',
      pending_restart: false,
      owner: await db.value('SELECT current_user::text'),
    },
  ]);
});

test('every type takes what PostgreSQL takes and says what PostgreSQL says', async ({ db }) => {
  await db.query(`SELECT bgw_define_setting('t.flag', 'off', vartype => 'bool'),
    bgw_define_setting('t.ratio', '0.5', vartype => 'real', min_val => 0, max_val => 1),
    bgw_define_setting('t.memory', '1MB', vartype => 'integer', unit => 'kB'),
    bgw_define_setting('t.colour', 'red', vartype => 'enum', enumvals => '{red,green}'),
    bgw_define_setting('t.fixed', '1', context => 'internal')`);
  const set = (name: string, value: string): Promise<unknown> =>
    db.value('SELECT bgw_set_config($1, $2)', [name, value]);
  expect(await set('t.flag', 'yes')).toBe('on');
  expect(await set('t.ratio', '2.5e-1')).toBe('0.25');
  expect(await set('t.memory', '1GB')).toBe('1GB');
  expect(await setting(db, 't.memory')).toMatchObject({ setting: '1048576' });
  expect(await set('t.colour', 'GREEN')).toBe('green');
  await expect(set('t.flag', 'maybe')).rejects.toMatchObject({
    code: '22023',
    message: 'parameter "t.flag" requires a Boolean value',
  });
  await expect(set('t.ratio', '1.5')).rejects.toMatchObject({
    message: '1.5 is outside the valid range for parameter "t.ratio" (0 .. 1)',
  });
  await expect(set('t.colour', 'blue')).rejects.toMatchObject({
    message: 'invalid value for parameter "t.colour": "blue"',
    hint: 'Available values: red, green.',
  });
  await expect(set('t.fixed', '2')).rejects.toMatchObject({ code: '55P02' });
});

test('a change that is rolled back reaches nobody', async ({ db, controller }) => {
  await db.query('CREATE TABLE tick (n int)');
  await db.query(
    `SELECT bgw_register('ticker', 'INSERT INTO tick VALUES (1)', naptime => '1 h'), bgw_launch('ticker')`,
  );
  await until(() => db.value('SELECT count(*) = 1 FROM tick'));
  await db.query('BEGIN');
  await db.query(`SELECT bgw_set_config('kill_idle.dry_run', 'on'), bgw_reload_conf()`);
  await db.query('ROLLBACK');
  const next = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await controller.saw('worker_exited', { handle: String(next) });
  expect(await setting(db, 'kill_idle.dry_run')).toMatchObject({ setting: 'off' });
  expect(controller.observations.some(({ kind }) => kind === 'worker_signalled')).toBe(false);
});
