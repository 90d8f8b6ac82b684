/** Settings of workers: PostgreSQL's values, units and messages, taken over while the workers run. */
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { migrationHash } from '../src/migration-files.ts';
import { connectionConfig } from '../src/connection.ts';
import { Session } from '../src/sessions/session.ts';
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
  await expect(db.query(`SELECT bgw_define_setting('plain', '1')`)).rejects.toMatchObject({
    code: '42602',
    message: 'invalid configuration parameter name "plain"',
    detail: 'Custom parameter names must be two or more simple identifiers separated by dots.',
  });
  for (const name of ['bgw.notify', 'BGW.notify']) {
    await expect(db.query(`SELECT bgw_define_setting('${name}', 'on')`)).rejects.toMatchObject({
      code: '42602',
      message: `invalid configuration parameter name "${name}"`,
      detail: `"${name.slice(0, 3)}" is a reserved prefix.`,
    });
  }
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
  const other = await db.client();
  const said: string[] = [];
  other.on('notice', ({ severity, message }) => said.push(`${severity}: ${message}`));
  await other.query(
    `SELECT bgw_define_setting('rollup.keep', '30', vartype => 'integer', unit => 'd', min_val => 1, max_val => 50)`,
  );
  expect(await setting(db, 'rollup.keep')).toMatchObject({ setting: '30', source: 'default' });
  expect(said).toEqual([
    'WARNING: 60 d is outside the valid range for parameter "rollup.keep" (1 d .. 50 d); it was reset to its boot value',
  ]);
});

test('a value that was set means the same when the definition gets another unit', async ({ db }) => {
  const define = `SELECT bgw_define_setting('rollup.' || $1, $2, vartype => 'integer', unit => $3, context => $4)`;
  const shown = (name: string): Promise<string> =>
    db.value(`SELECT coalesce(pending, setting) || ' ' || unit FROM bgw.setting WHERE name = 'rollup.' || $1`, [name]);
  await db.query(define, ['keep', '30', 'd', 'sighup']);
  await db.query(define, ['size', '-1', 'MB', 'postmaster']);
  await db.query(`SELECT bgw_set_config('rollup.keep', '7d'), bgw_set_config('rollup.size', '12MB')`);
  await db.query(define, ['keep', '30', 'h', 'sighup']);
  await db.query(define, ['size', '-1', 'kB', 'postmaster']);
  expect(await shown('keep')).toBe('168 h');
  expect(await shown('size')).toBe('12288 kB');
  // A negative number stands for something else than an amount.
  await db.query(`SELECT bgw_set_config('rollup.keep', '-1')`);
  await db.query(define, ['keep', '30', 'min', 'sighup']);
  expect(await shown('keep')).toBe('-1 min');
});

test('a value that was set is kept when the boot value changes, also one that equals the old boot value', async ({
  db,
}) => {
  await db.query(`SELECT bgw_define_setting('rollup.keep', '30', vartype => 'integer')`);
  await db.query(`SELECT bgw_set_config('rollup.keep', '30')`);
  await db.query(`SELECT bgw_define_setting('rollup.keep', '45', vartype => 'integer')`);
  expect(await setting(db, 'rollup.keep')).toMatchObject({ setting: '30' });
});

test('defining a setting again with other capitals is the same setting', async ({ db }) => {
  await db.query(`SELECT bgw_define_setting('rollup.keep', '30')`);
  await db.query(`SELECT bgw_define_setting('Rollup.KEEP', '30')`);
  expect(await db.value(`SELECT count(*)::int FROM bgw_settings WHERE lower(name) = 'rollup.keep'`)).toBe(1);
});

test('bgw_settings has the columns of pg_settings, by their names and types', async ({ db }) => {
  const columns = async (view: string): Promise<Map<string, string>> => {
    const { rows } = await db.query(
      `SELECT attname, atttypid::regtype::text AS type FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 ORDER BY attnum`,
      [view],
    );
    return new Map(rows.map(({ attname, type }) => [attname, type]));
  };
  const [own, server] = [await columns('public.bgw_settings'), await columns('pg_settings')];
  // Those that make no sense outside of a server are left out; what we have more comes last.
  const absent = ['sourcefile', 'sourceline'];
  expect([...server.keys()].filter((name) => !own.has(name))).toEqual(absent);
  const common = [...server.keys()].filter((name) => own.has(name));
  expect([...own.keys()]).toEqual([...common, 'check_hook', 'owner']);
  for (const [name, type] of own) if (server.has(name)) expect(`${name} ${type}`).toBe(`${name} ${server.get(name)}`);
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

test('a session that is used again has the settings of now, whatever it was opened with', async ({
  db,
  controller,
}) => {
  expect(controller.observations.length).toBeGreaterThan(0);
  await db.query('CREATE TABLE seen (n serial, word text, odd text, gone text, pid int DEFAULT pg_backend_pid())');
  // A space, a backslash, quotes, an option of the server's command line, and what startup options cannot have.
  const odd = String.raw`a\ b\' "c" -c work_mem=1MB`;
  await db.query(`SELECT bgw_define_setting('teller.word', 'über'), bgw_define_setting('teller.gone', 'here')`);
  await db.query(`SELECT bgw_define_setting('teller.odd', $1)`, [odd]);
  const see = `INSERT INTO seen (word, odd, gone)
    VALUES (current_setting('teller.word', true), current_setting('teller.odd', true), current_setting('teller.gone', true))`;
  const run = async (): Promise<void> => {
    const handle = await db.value<bigint>('SELECT bgw_launch_sql($1)', [see]);
    await db.query(`CALL bgw_wait_for_shutdown($1, '20 s')`, [handle]);
  };
  await run();
  await db.query(`SELECT bgw_set_config('teller.odd', 'plain')`);
  await db.query(`DELETE FROM bgw.setting WHERE name = 'teller.gone'`);
  await run();
  expect(await db.value('SELECT count(DISTINCT pid)::int FROM seen'), 'one session').toBe(1);
  const { rows } = await db.query('SELECT word, odd, gone FROM seen ORDER BY n');
  expect(rows).toEqual([
    { word: 'über', odd, gone: 'here' },
    { word: 'über', odd: 'plain', gone: '' },
  ]);
});

test('a session opens although the server refuses a setting of its worker; the run says so', async ({ db }) => {
  // Of an extension that the server has loaded, say.
  const settings = [{ name: 'work_mem', vartype: 'string', unit: null, setting: 'much', shown: 'much' } as const];
  const registry = { registerSession: async (): Promise<string> => 'now' };
  const session = await Session.open(connectionConfig({ url: db.url, env: {} }), { settings, names: {} }, registry);
  const run = { before: [], names: {}, command: { text: 'CREATE TABLE ran ()' }, after: [], isOneOfMany: false };
  expect((await session.run({ ...run, settings })).error).toMatchObject({ code: '22023' });
  expect(await db.value(`SELECT to_regclass('ran')`)).toBe(null);
  expect(await session.reset()).toBe(true);
  expect(await session.run({ ...run, settings: [] })).toMatchObject({ commandTag: 'CREATE TABLE' });
  await session.close();
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

test('bgw_reset_config, and a definition that comes later, reach a running worker', async ({ db, controller }) => {
  await db.query('CREATE TABLE seen (value text, late text)');
  await db.query(`SELECT bgw_define_setting('teller.word', 'boot'), bgw_set_config('teller.word', 'set')`);
  await db.query(`SELECT bgw_register('teller', naptime => '1 h',
    command => $$INSERT INTO seen VALUES (current_setting('teller.word'), current_setting('teller.late', true))$$)`);
  const handle = await db.value<bigint>(`SELECT bgw_launch('teller')`);
  await until(() => db.value('SELECT count(*) = 1 FROM seen'));
  await db.query(`SELECT bgw_reset_config('teller.word')`);
  await until(() => db.value('SELECT count(*) = 2 FROM seen'));
  await db.query(`SELECT bgw_define_setting('teller.late', 'there')`);
  await until(() => db.value('SELECT count(*) = 3 FROM seen'));
  expect((await db.query(`SELECT value, coalesce(late, '') AS late FROM seen`)).rows).toEqual([
    { value: 'set', late: '' },
    { value: 'boot', late: '' },
    { value: 'boot', late: 'there' },
  ]);
  expect(await db.value('SELECT settings FROM bgw_stat_activity WHERE handle = $1', [handle])).toEqual({
    'teller.word': 'boot',
    'teller.late': 'there',
  });
  expect(controller.observations.filter(({ kind }) => kind === 'worker_started')).toHaveLength(1);
});

test('the settings that name a nap time or a database are compared without case', async ({ db, controller }) => {
  await db.query('CREATE TABLE tick (n int)');
  await db.query(
    `SELECT bgw_define_setting('ticker.naptime', '20ms', vartype => 'integer', unit => 'ms'), bgw_define_setting('ticker.database', '')`,
  );
  await db.query(`SELECT bgw_register('ticker', 'INSERT INTO tick VALUES (1)', naptime => 'Ticker.NapTime')`);
  await db.query(`SELECT bgw_register('placed', 'INSERT INTO tick VALUES (2)', database => 'Ticker.Database')`);
  const handle = await db.value<bigint>(`SELECT bgw_launch('ticker')`);
  await controller.saw('worker_started', { handle: String(handle) });
  await until(() => db.value('SELECT count(*) > 2 FROM tick'));
  const placed = await db.value<bigint>(`SELECT bgw_launch('placed')`);
  await controller.saw('worker_exited', { handle: String(placed) }, 3000);
});

test('a nap time whose setting is no interval stops nobody else', async ({ db, controller }) => {
  await db.query(`SELECT bgw_define_setting('ticker.naptime', '1 h')`);
  await db.query(`SELECT bgw_register('ticker', 'SELECT 1', naptime => 'ticker.naptime')`);
  const handle = await db.value<bigint>(`SELECT bgw_launch('ticker')`);
  await controller.saw('worker_started', { handle: String(handle) });
  await db.query(`SELECT bgw_set_config('ticker.naptime', 'whenever')`);
  const other = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await controller.saw('worker_exited', { handle: String(other) }, 3000);
});

test('a worker whose nap time names a setting that is no interval waits alone', async ({ db, controller }) => {
  await db.query(`SELECT bgw_define_setting('ticker.naptime', 'whenever')`);
  await db.query(`SELECT bgw_register('ticker', 'SELECT 1', naptime => 'ticker.naptime'), bgw_launch('ticker')`);
  const other = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await controller.saw('worker_exited', { handle: String(other) }, 3000);
  expect((await db.query(`SELECT name FROM bgw_stat_activity WHERE name = 'ticker'`)).rows).toHaveLength(1);
});

test('an open transaction that sets a setting of a library does not keep a controller from joining', async ({
  db,
  startController,
}) => {
  const first = await startController();
  await first.stop();
  const user = await db.client();
  await user.query('BEGIN');
  await user.query(`SELECT bgw_set_config('worker_spi.naptime', '1s')`);
  let joined = false;
  const joining = startController().then(() => (joined = true));
  try {
    await until(() => joined, { deadline: 4000, what: 'the join' });
  } finally {
    await user.query('ROLLBACK');
    await joining;
  }
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

test('context postmaster: set back to its value, it waits for nothing', async ({ db }) => {
  await db.query(`SELECT bgw_define_setting('late.value', 'old', context => 'postmaster')`);
  await db.query(`SELECT bgw_set_config('late.value', 'new')`);
  await db.query(`SELECT bgw_set_config('late.value', 'old')`);
  expect(await setting(db, 'late.value')).toEqual({ setting: 'old', source: 'default', pending_restart: false });
});

test('context postmaster: a second controller does not take the change over, a first one does', async ({
  db,
  startController,
}) => {
  const first = await startController();
  await db.query(`SELECT bgw_define_setting('late.value', 'old', context => 'postmaster')`);
  await db.query(`SELECT bgw_set_config('late.value', 'new')`);
  const second = await startController({ nodeName: 'second' });
  expect(await setting(db, 'late.value')).toEqual({ setting: 'old', source: 'default', pending_restart: true });
  await Promise.all([first.stop(), second.stop()]);
  await startController();
  expect(await setting(db, 'late.value')).toEqual({ setting: 'new', source: 'catalog', pending_restart: false });
});

test('context postmaster: a waiting value that a new definition forbids is not taken over', async ({
  db,
  startController,
}) => {
  const define = (max: number): Promise<unknown> =>
    db.query(
      `SELECT bgw_define_setting('late.value', '30', vartype => 'integer', max_val => $1, context => 'postmaster')`,
      [max],
    );
  await define(100);
  await db.query(`SELECT bgw_set_config('late.value', '60')`);
  await define(50);
  await startController();
  expect(await setting(db, 'late.value')).toMatchObject({ setting: '30' });
});

test('plain INSERT is refused with the words of bgw_register', async ({ db }) => {
  const refusal = (sql: string): Promise<unknown> =>
    db.query(sql).then(
      () => 'accepted',
      ({ code, message, detail, hint }) => ({ code, message, detail, hint }),
    );
  for (const [column, value] of [
    ['naptime', `'3 parsecs'`],
    ['naptime', `'0'`],
    ['restart_time', `'2 days'`],
    ['timeout', `'0'`],
    ['timeout', `'-1 s'`],
    ['mode', `'both'`],
    ['start_time', `'postmaster_start'`],
    ['flags', `'{shmem_access,backend_database_connection}'`],
    ['flags', `'{}'`],
    ['library_name', `'x'`],
  ] as const) {
    const inserted = await refusal(
      `INSERT INTO bgw.worker (name, command, ${column}) VALUES ('w', 'SELECT 1', ${value})`,
    );
    const registered = await refusal(`SELECT bgw_register('w', 'SELECT 1', ${column} => ${value})`);
    expect(inserted, `${column} ${value}`).not.toBe('accepted');
    expect(inserted, `${column} ${value}`).toEqual(registered);
  }
});

test('an unknown start time or flag, or no instances at all, is 22023 as well', async ({ db }) => {
  for (const [column, value] of [
    ['start_time', `'whenever'`],
    ['flags', `'{no_such_flag,backend_database_connection}'`],
    ['max_instances', '0'],
  ] as const) {
    await expect(db.query(`SELECT bgw_register('w', 'SELECT 1', ${column} => ${value})`), column).rejects.toMatchObject(
      { code: '22023' },
    );
  }
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
      category: 'Customized Options',
      extra_desc: null,
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
      check_hook: null,
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

test("a worker that a user's own graphile-migrate migration registers runs", async ({ db, controller }) => {
  const body = `CREATE TABLE rolled_up (keep text);
CREATE PROCEDURE rollup() LANGUAGE sql AS $$ INSERT INTO rolled_up VALUES (current_setting('rollup.keep')) $$;
SELECT bgw_define_setting('rollup.keep', boot_val => '30d', vartype => 'integer', unit => 'd');
SELECT bgw_register(name => 'rollup', command => $$CALL rollup()$$, naptime => '10 s', restart_time => '5 s', autostart => true);`;
  const root = mkdtempSync(join(tmpdir(), 'bgw-settings-'));
  try {
    mkdirSync(join(root, 'migrations', 'committed'), { recursive: true });
    writeFileSync(join(root, '.gmrc'), '{}');
    writeFileSync(
      join(root, 'migrations', 'committed', '000001-rollup.sql'),
      `--! Previous: -\n--! Hash: ${migrationHash(body, undefined)}\n\n${body}\n`,
    );
    const program = createRequire(import.meta.url).resolve('graphile-migrate/dist/cli.js');
    const env = { ...process.env, DATABASE_URL: db.url };
    const graphileMigrate = (): Promise<unknown> =>
      promisify(execFile)(process.execPath, [program, 'migrate'], { cwd: root, env });
    await graphileMigrate();
    await controller.saw('worker_started', { name: 'rollup' });
    await until(() => db.value(`SELECT count(*) = 1 FROM rolled_up WHERE keep = '30d'`));
    await graphileMigrate();
    await db.query(`SELECT bgw_set_config('rollup.keep', '7d')`);
    await until(() => db.value(`SELECT count(*) = 1 FROM rolled_up WHERE keep = '7d'`));
    expect(controller.observations.filter(({ kind }) => kind === 'worker_started')).toHaveLength(1);
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
});
