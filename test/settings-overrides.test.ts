/** Settings of one worker or process, check hooks in SQL, reserved prefixes, and what a definition may be. */
import { join } from 'node:path';
import type pg from 'pg';
import { migrate } from '../src/migrate.ts';
import { findPackageRoot } from '../src/package-root.ts';
import { expect, test as controllerTest } from './support/controller.ts';
import { onServer, SPARED, type TestDatabase } from './support/database.ts';
import { until } from './support/until.ts';

interface Role {
  name: string;
  /** A session that the role has opened itself. */
  client: pg.Client;
}

/** A role without any rights of its own that may create functions. */
const test = controllerTest.extend<{ alice: Role }>({
  alice: async ({ db }, use) => {
    const name = `${db.name}_alice`;
    await onServer(`CREATE ROLE ${name}`);
    await db.query(`CREATE SCHEMA alice AUTHORIZATION ${name}`);
    const client = await db.client({ application_name: SPARED });
    await client.query(`SET SESSION AUTHORIZATION ${name}`);
    await use({ name, client });
    await client.end();
    await db.query(`DROP OWNED BY ${name} CASCADE`);
    await onServer(`DROP ROLE ${name}`);
  },
});

const SEE = `INSERT INTO seen VALUES (current_setting('bgw.handle')::bigint, current_setting('teller.word'), current_setting('teller.other'))`;

/** A worker that writes down its two settings whenever it is woken. */
async function defineTeller(db: TestDatabase, settings: object | null): Promise<void> {
  await db.query('CREATE TABLE seen (handle bigint, word text, other text)');
  await db.query(`SELECT bgw_define_setting('teller.word', 'boot'), bgw_define_setting('teller.other', 'boot')`);
  await register(db, settings);
}

async function register(db: TestDatabase, settings: object | null): Promise<void> {
  await db.query(`SELECT bgw_register('teller', $1, naptime => '1 h', max_instances => 9, settings => $2)`, [
    SEE,
    settings,
  ]);
}

/** What the process wrote, one text for each run. */
async function written(db: TestDatabase, handle: bigint, runs: number): Promise<string[]> {
  const read = async (): Promise<string[]> =>
    (
      await db.query<{ line: string }>(
        `SELECT word || ' ' || other AS line FROM seen WHERE handle = $1 ORDER BY ctid`,
        [handle],
      )
    ).rows.map(({ line }) => line);
  await until(async () => (await read()).length >= runs, { what: `${runs} runs` });
  return read();
}

test('what a launch gives wins over the registration, and that over bgw_set_config; a reload changes the rest', async ({
  db,
  controller,
}) => {
  await defineTeller(db, { 'Teller.WORD': 'registered' });
  await db.query(`SELECT bgw_set_config('teller.word', 'set')`);
  const plain = await db.value<bigint>(`SELECT bgw_launch('teller')`);
  const special = await db.value<bigint>(
    `SELECT bgw_launch('teller', settings => '{"teller.word": "launched", "kill_idle.max_idle_time": 90}')`,
  );
  expect(await written(db, plain, 1)).toEqual(['registered boot']);
  expect(await written(db, special, 1)).toEqual(['launched boot']);

  await db.query(`SELECT bgw_set_config('teller.word', 'again'), bgw_set_config('teller.other', 'changed')`);
  expect((await written(db, plain, 2)).at(-1)).toBe('registered changed');
  expect((await written(db, special, 2)).at(-1)).toBe('launched changed');
  const { rows } = await db.query('SELECT settings FROM bgw_stat_activity WHERE handle IN ($1, $2) ORDER BY handle', [
    plain,
    special,
  ]);
  expect(rows.map(({ settings }) => settings)).toEqual([
    { 'teller.word': 'registered', 'teller.other': 'changed' },
    { 'teller.word': 'launched', 'teller.other': 'changed', 'kill_idle.max_idle_time': '90s' },
  ]);

  const before = await written(db, plain, 2);
  await register(db, null);
  expect((await written(db, plain, before.length + 1)).at(-1)).toBe('again changed');
  expect(controller.observations.some(({ kind }) => kind === 'worker_exited')).toBe(false);
});

test('a TypeScript worker reads what it was given for itself, also after a reload', async ({ db, startController }) => {
  await startController({ libraryDirs: [join(findPackageRoot(), 'test', 'fixtures', 'libraries')] });
  const said = async (): Promise<Record<string, unknown>[]> =>
    (
      await db.query<{ message: string }>(
        `SELECT message FROM bgw_log WHERE name = 'probe_settings' AND message ~ '^{' ORDER BY id`,
      )
    ).rows.map(({ message }) => JSON.parse(message) as Record<string, unknown>);
  await db.query(
    `SELECT bgw_launch('probe_settings', settings => '{"probe.count": "0x10", "probe.flag": false, "probe.naptime": "1h"}')`,
  );
  await until(async () => (await said()).length === 2);
  expect((await said())[1]).toMatchObject({ count: 16, flag: false, naptime: 3600, word: 'hello' });
  await db.query(`SELECT bgw_set_config('probe.count', '5'), bgw_set_config('probe.word', 'new')`);
  await until(async () => (await said()).at(-1)?.['word'] === 'new');
  expect((await said()).at(-1)).toMatchObject({ count: 16, flag: false });
});

test('a value for one worker is checked as bgw_set_config checks it, however it arrives', async ({ db }) => {
  await db.query(`SELECT bgw_define_setting('w.fixed', '1', context => 'internal'), bgw_register('w', 'SELECT 1')`);
  for (const [settings, refusal] of [
    ['{"w.nothing": 1}', { code: '42704', message: 'unrecognized configuration parameter "w.nothing"' }],
    ['{"w.fixed": 1}', { code: '55P02', message: 'parameter "w.fixed" cannot be changed' }],
    ['{"kill_idle.max_idle_time": "2h"}', { code: '22023', message: expect.stringMatching(/^7200 s is outside/) }],
    ['{"kill_idle.max_idle_time": [1]}', { code: '22023', hint: 'A value is a string, a number or a Boolean.' }],
    ['{"kill_idle.max_idle_time": null}', { code: '22004' }],
    ['["kill_idle.max_idle_time"]', { code: '22023', message: 'settings must be a JSON object' }],
  ] as const) {
    for (const statement of [
      `SELECT bgw_register('x', 'SELECT 1', settings => $1)`,
      `SELECT bgw_launch('w', settings => $1)`,
      `INSERT INTO bgw.worker (name, command, settings) VALUES ('x', 'SELECT 1', $1)`,
      `UPDATE bgw.worker SET settings = $1 WHERE name = 'w'`,
    ])
      await expect(db.query(statement, [settings]), `${statement} ${settings}`).rejects.toMatchObject(refusal);
  }
  expect(await db.value(`SELECT count(*)::int FROM bgw.process WHERE name IN ('w', 'x')`)).toBe(0);
});

test('registering twice with settings changes nothing', async ({ db }) => {
  const registration = `SELECT bgw_register('w', 'SELECT 1', settings => '{"kill_idle.max_idle_time": "0.5min"}')`;
  await db.query(registration);
  const before = (await db.query(`SELECT xmin, settings FROM bgw.worker WHERE name = 'w'`)).rows;
  expect(before[0].settings).toEqual({ 'kill_idle.max_idle_time': '30s' });
  await db.query(registration);
  expect((await db.query(`SELECT xmin, settings FROM bgw.worker WHERE name = 'w'`)).rows).toEqual(before);
});

test('a nap time and a database that name a setting follow the value for one process', async ({ db, controller }) => {
  await db.query('CREATE TABLE tick (handle bigint)');
  await db.query(`SELECT bgw_define_setting('ticker.naptime', '1h', vartype => 'integer', unit => 'ms'),
    bgw_define_setting('ticker.database', 'no_such_database')`);
  await db.query(`SELECT bgw_register('ticker', $$INSERT INTO tick VALUES (current_setting('bgw.handle')::bigint)$$,
    naptime => 'ticker.naptime', database => 'ticker.database', max_instances => 2)`);
  const waiting = await db.value<bigint>(`SELECT bgw_launch('ticker')`);
  const ticking = await db.value<bigint>(
    `SELECT bgw_launch('ticker', settings => '{"ticker.naptime": "20ms", "ticker.database": ""}')`,
  );
  await until(() => db.value('SELECT count(*) > 3 FROM tick WHERE handle = $1', [ticking]));
  expect(await db.value('SELECT waiting_for FROM bgw_stat_activity WHERE handle = $1', [waiting])).toBe(
    'database "no_such_database" does not exist or accepts no connections',
  );
  // A reload brings the nap time of the process again, not that of everybody.
  await db.query('SELECT bgw_reload_conf()');
  await controller.saw('worker_signalled', { handle: String(ticking) });
  const before = await db.value<bigint>('SELECT count(*) FROM tick');
  await until(() => db.value('SELECT count(*) > $1::bigint + 3 FROM tick', [before]));
});

test('a value for one worker that a new definition forbids is not used, and stops nobody', async ({
  db,
  controller,
}) => {
  const define = (vartype: string, boot: string, unit: string | null): Promise<unknown> =>
    db.query(`SELECT bgw_define_setting('teller.word', $1, vartype => $2, unit => $3)`, [boot, vartype, unit]);
  await define('string', 'boot', null);
  await db.query('CREATE TABLE seen (word text)');
  await db.query(`SELECT bgw_register('teller', $$INSERT INTO seen VALUES (current_setting('teller.word'))$$,
    naptime => '1 h', settings => '{"teller.word": "own"}'), bgw_launch('teller')`);
  await until(() => db.value(`SELECT count(*) = 1 FROM seen WHERE word = 'own'`));
  await define('integer', '5', 's');
  await until(() => db.value(`SELECT count(*) = 1 FROM seen WHERE word = '5s'`));
  expect(await db.value(`SELECT settings FROM bgw_stat_activity WHERE name = 'teller'`)).toEqual({
    'teller.word': '5s',
  });
  const other = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await controller.saw('worker_exited', { handle: String(other) });
});

test('an upgraded database has one function of each name', async ({ db }) => {
  await db.query(`
    CREATE FUNCTION public.bgw_launch(worker_name text, main_arg jsonb DEFAULT NULL) RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint';
    CREATE FUNCTION public.bgw_define_setting(text, text, text DEFAULT 'string', text DEFAULT NULL, numeric DEFAULT NULL, numeric DEFAULT NULL,
      text[] DEFAULT NULL, text DEFAULT 'sighup', text DEFAULT '') RETURNS void LANGUAGE sql AS '';
    CREATE FUNCTION public.bgw_register(text, text DEFAULT NULL, text DEFAULT NULL, interval DEFAULT NULL, boolean DEFAULT false, text DEFAULT NULL,
      text DEFAULT NULL, jsonb DEFAULT NULL, text DEFAULT NULL, text DEFAULT 'session', interval DEFAULT NULL, integer DEFAULT NULL,
      text DEFAULT '', text[] DEFAULT '{}', text DEFAULT NULL, boolean DEFAULT true) RETURNS void LANGUAGE sql AS '';
    CREATE FUNCTION bgw.define_library(jsonb, jsonb) RETURNS void LANGUAGE sql AS '';
    CREATE FUNCTION bgw.nap_of(bgw.worker) RETURNS interval LANGUAGE sql AS 'SELECT NULL::interval';
    CREATE FUNCTION bgw.database_of(text, oid) RETURNS text LANGUAGE sql AS 'SELECT NULL';
    CREATE FUNCTION bgw.own_settings(oid, text, text) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb';
    UPDATE bgw.sql_layer SET hash = 'older'`);
  expect(await migrate(await db.client())).toMatchObject({ sqlLayer: 'applied' });
  const { rows } = await db.query(
    `SELECT proname FROM pg_proc WHERE proname IN ('bgw_launch', 'bgw_define_setting', 'bgw_register', 'define_library', 'nap_of', 'database_of', 'own_settings')
     AND pronamespace IN ('bgw'::regnamespace, 'public'::regnamespace) GROUP BY proname HAVING count(*) > 1`,
  );
  expect(rows).toEqual([]);
  expect(await db.value(`SELECT bgw_launch('hello_world') > 0`)).toBe(true);
});

test('a check hook gets the value in the base unit, and normalises, refuses or raises', async ({ db }) => {
  await db.query(`CREATE SCHEMA "Hooks";
    CREATE FUNCTION "Hooks".even(newval text) RETURNS text LANGUAGE plpgsql AS $$
    BEGIN
      IF newval::int > 1000 THEN
        RAISE EXCEPTION 'too much' USING ERRCODE = 'program_limit_exceeded', DETAIL = newval, HINT = 'Take less.';
      END IF;
      RETURN CASE WHEN newval::int % 7 <> 0 THEN (newval::int / 2 * 2) || 's' END;
    END $$`);
  const define = (name: string, boot: string): Promise<unknown> =>
    db.query(
      `SELECT bgw_define_setting($1, $2, vartype => 'integer', unit => 's', max_val => 5000, check_hook => '"Hooks".even')`,
      [name, boot],
    );
  const set = (value: string): Promise<unknown> => db.value(`SELECT bgw_set_config('h.n', $1)`, [value]);
  await define('h.n', '5');
  expect((await db.query(`SELECT boot_val, check_hook FROM bgw_settings WHERE name = 'h.n'`)).rows).toEqual([
    { boot_val: '4', check_hook: '"Hooks".even' },
  ]);
  expect(await set('1.5min')).toBe('90s');
  expect(await set('11')).toBe('10s');
  await expect(set('14s')).rejects.toMatchObject({
    code: '22023',
    message: 'invalid value for parameter "h.n": 14',
  });
  await expect(set('20min')).rejects.toMatchObject({
    code: '54000',
    message: 'too much',
    detail: '1200',
    hint: 'Take less.',
  });
  await expect(set('2h')).rejects.toMatchObject({ message: expect.stringMatching(/^7200 s is outside/) });
  expect(await db.value(`SELECT setting FROM bgw_settings WHERE name = 'h.n'`)).toBe('10');
  await expect(define('h.m', '14')).rejects.toMatchObject({ code: '22023' });
  await db.query(`SELECT bgw_register('w', 'SELECT 1', settings => '{"h.n": "0.5min"}')`);
  expect(await db.value(`SELECT settings FROM bgw.worker WHERE name = 'w'`)).toEqual({ 'h.n': '30s' });
  await expect(db.query(`SELECT bgw_launch('w', settings => '{"h.n": "14"}')`)).rejects.toMatchObject({
    code: '22023',
  });
  await db.query(`DROP FUNCTION "Hooks".even`);
  await expect(set('10')).rejects.toMatchObject({
    code: '42883',
    message: 'function "Hooks".even(text) does not exist',
  });
});

test('what a check hook may be; a value that a new hook refuses is reset', async ({ db }) => {
  const define = (hook: string): Promise<unknown> =>
    db.query(`SELECT bgw_define_setting('h.word', 'ok', check_hook => $1)`, [hook]);
  await expect(define('nothing')).rejects.toMatchObject({
    code: '42883',
    message: 'function nothing(text) does not exist',
  });
  await expect(define('upper(text)')).rejects.toMatchObject({
    code: '42883',
    hint: 'A check hook is given by its name, without parentheses: a function (text) RETURNS text.',
  });
  await expect(define('pg_catalog.length')).rejects.toMatchObject({
    code: '42P17',
    message: 'function pg_catalog.length must return type text',
  });
  await define('upper');
  expect(await db.value(`SELECT bgw_set_config('h.word', 'bad')`)).toBe('BAD');
  await db.query(
    `CREATE FUNCTION not_bad(newval text) RETURNS text LANGUAGE sql AS $$ SELECT nullif(newval, 'BAD') $$`,
  );
  const session = await db.client();
  const said: unknown[] = [];
  session.on('notice', ({ severity, message }) => said.push(`${severity}: ${message}`));
  await session.query(`SELECT bgw_define_setting('h.word', 'ok', check_hook => 'not_bad')`);
  expect(said).toEqual(['WARNING: invalid value for parameter "h.word": "BAD"; it was reset to its boot value']);
  expect((await db.query(`SELECT setting, check_hook FROM bgw_settings WHERE name = 'h.word'`)).rows).toEqual([
    { setting: 'ok', check_hook: 'public.not_bad' },
  ]);
});

test('a check hook never runs with the rights of anybody but its owner', async ({ db, alice }) => {
  await alice.client.query(`CREATE FUNCTION alice.trap(newval text) RETURNS text LANGUAGE plpgsql AS $$
    BEGIN
      PERFORM set_config('role', 'none', false);
      RAISE WARNING 'ran as %', current_user;
      RETURN newval;
    END $$`);
  await alice.client.query(`SELECT bgw_define_setting('hers.word', 'boot', check_hook => 'alice.trap'),
    bgw_register('hers', 'SELECT 1')`);
  expect(await alice.client.query(`SELECT bgw_set_config('hers.word', 'hers')`)).toMatchObject({ rowCount: 1 });

  const superuser = await db.client();
  const said: unknown[] = [];
  superuser.on('notice', ({ message }) => said.push(message));
  const refused = {
    code: '42501',
    message: 'permission denied to set parameter "hers.word"',
    detail: expect.stringContaining(`belongs to role "${alice.name}"`),
  };
  const attempts = [
    `SELECT bgw_set_config('hers.word', 'x')`,
    `UPDATE bgw.worker SET settings = '{"hers.word": "x"}' WHERE name = 'hers'`,
  ];
  for (const attempt of attempts) await expect(superuser.query(attempt), attempt).rejects.toMatchObject(refused);
  await superuser.query(`SET ROLE ${alice.name}`);
  attempts.push(`SELECT bgw_define_setting('hers.word', 'other', check_hook => 'alice.trap')`);
  for (const attempt of attempts) await expect(superuser.query(attempt), attempt).rejects.toMatchObject(refused);
  await superuser.query('RESET ROLE');
  // A member of the owner has rights of its own to lose.
  const bob = `${db.name}_bob`;
  await onServer(`CREATE ROLE ${bob} IN ROLE ${alice.name}`);
  await superuser.query(`SET SESSION AUTHORIZATION ${bob}`);
  for (const attempt of attempts.slice(0, 2))
    await expect(superuser.query(attempt), attempt).rejects.toMatchObject(refused);
  await superuser.query('RESET SESSION AUTHORIZATION');
  await onServer(`DROP ROLE ${bob}`);
  // What needs no hook goes on.
  expect(await superuser.query(`SELECT bgw_reset_config('hers.word') AS shown`)).toMatchObject({
    rows: [{ shown: 'boot' }],
  });
  await superuser.query(`UPDATE bgw.worker SET enabled = false WHERE name = 'hers'`);
  expect(said).toEqual([]);
});

test('no check hook runs on the session of a node', async ({ db, startController }) => {
  await db.query(`CREATE TABLE ran (application_name text);
    CREATE FUNCTION recording(newval text) RETURNS text LANGUAGE plpgsql AS
      $$ BEGIN INSERT INTO ran VALUES (current_setting('application_name')); RETURN newval; END $$`);
  // The library worker_spi defines this one as well.
  await db.query(
    `SELECT bgw_define_setting('worker_spi.naptime', '7', vartype => 'integer', check_hook => 'recording')`,
  );
  await db.query(`SELECT bgw_define_setting('late.word', 'boot', context => 'postmaster', check_hook => 'recording')`);
  await db.query(`SELECT bgw_set_config('late.word', 'new')`);
  await db.query('TRUNCATE ran');
  await startController();
  expect(await db.value(`SELECT setting FROM bgw_settings WHERE name = 'late.word'`)).toBe('new');
  expect((await db.query('SELECT * FROM ran')).rows).toEqual([]);
});

test('below a reserved prefix nobody else defines or sets what is not there', async ({ db, alice }) => {
  await alice.client.query(`SELECT bgw_define_setting('Taken.old', '1'), bgw_define_setting('hers.word', '1')`);
  const owner = await db.client();
  const said: unknown[] = [];
  owner.on('notice', ({ severity, code, message, detail }) => said.push({ severity, code, message, detail }));
  for (const prefix of ['taken', 'TAKEN']) await owner.query('SELECT bgw_mark_guc_prefix_reserved($1)', [prefix]);
  expect(said).toEqual([
    {
      severity: 'WARNING',
      code: '42602',
      message: 'invalid configuration parameter name "Taken.old"',
      detail: `"taken" is now a reserved prefix.  The parameter belongs to role "${alice.name}" and is kept.`,
    },
  ]);
  for (const statement of [
    `SELECT bgw_define_setting('TAKEN.new', '1')`,
    `SELECT bgw_set_config('TAKEN.new', '1')`,
    `SELECT bgw_reset_config('TAKEN.new')`,
    `SELECT bgw_register('w', 'SELECT 1', settings => '{"TAKEN.new": 1}')`,
  ])
    await expect(alice.client.query(statement), statement).rejects.toMatchObject({
      code: '42602',
      message: 'invalid configuration parameter name "TAKEN.new"',
      detail: '"TAKEN" is a reserved prefix.',
    });
  await alice.client.query(`SELECT bgw_set_config('taken.old', '2'), bgw_define_setting('taken.old', '3')`);
  await alice.client.query(`SELECT bgw_define_setting('taken2.word', '1')`);
  await expect(owner.query(`SELECT bgw_set_config('taken.new', '1')`)).rejects.toMatchObject({ code: '42704' });
  await owner.query(`SELECT bgw_define_setting('taken.new', '1'), bgw_set_config('taken.new', '2')`);

  // It binds everybody, so not everybody may.
  await expect(alice.client.query(`SELECT bgw_mark_guc_prefix_reserved('kill_idle')`)).rejects.toMatchObject({
    code: '42501',
  });
  for (const prefix of ['bgw', 'a.b', '', null])
    await expect(owner.query('SELECT bgw_mark_guc_prefix_reserved($1)', [prefix])).rejects.toMatchObject({
      code: '42602',
    });
  await db.query(`GRANT INSERT ON bgw.reserved_prefix TO ${alice.name}`);
  await alice.client.query(`SELECT bgw_mark_guc_prefix_reserved('taken'), bgw_define_setting('taken.too', '1')`);
});

test('a library reserves its prefix, for every login that loads it', async ({ db, alice }) => {
  const define = `SELECT bgw.define_library($1, '[]', '["probe"]')`;
  const settings = (...names: string[]): string =>
    JSON.stringify(names.map((name) => ({ name, vartype: 'bool', boot_val: 'on', context: 'sighup', short_desc: '' })));
  await db.query(define, [settings('probe.a')]);
  await expect(alice.client.query(`SELECT bgw_define_setting('probe.a', 'on')`)).rejects.toMatchObject({
    code: '42602',
  });
  await db.query(`GRANT INSERT ON bgw.reserved_prefix TO ${alice.name}`);
  await alice.client.query(define, [settings('probe.a', 'probe.b')]);
  await db.query(define, [settings('probe.a', 'probe.b')]);
  expect(await db.value(`SELECT count(*)::int FROM bgw_settings WHERE name ~ '^probe'`)).toBe(4);
});

test('bgw_reset_all_config sets back what is the caller’s, and nothing that is internal', async ({ db, alice }) => {
  await alice.client.query(`SELECT bgw_define_setting('hers.word', 'boot'), bgw_set_config('hers.word', 'set')`);
  await db.query(`SELECT bgw_define_setting('r.sighup', 'boot'), bgw_define_setting('r.fixed', 'boot', context => 'internal'),
    bgw_define_setting('r.late', 'boot', context => 'postmaster'), bgw_define_setting('r.same', 'boot')`);
  await db.query(`UPDATE bgw.setting SET setting = 'set' WHERE name ~ '^r[.](sighup|fixed|late)'`);
  expect(await db.value('SELECT bgw_reset_all_config()')).toBe(2n);
  const { rows } = await db.query(
    `SELECT name, setting, source, pending_restart AS pending FROM bgw_settings WHERE name ~ '^(r|hers)[.]' ORDER BY name`,
  );
  expect(rows).toEqual([
    { name: 'hers.word', setting: 'set', source: 'catalog', pending: false },
    { name: 'r.fixed', setting: 'set', source: 'catalog', pending: false },
    { name: 'r.late', setting: 'set', source: 'catalog', pending: true },
    { name: 'r.same', setting: 'boot', source: 'default', pending: false },
    { name: 'r.sighup', setting: 'boot', source: 'default', pending: false },
  ]);
  await expect(db.query(`SELECT bgw_reset_config('r.fixed')`)).rejects.toMatchObject({
    code: '55P02',
    message: 'parameter "r.fixed" cannot be changed',
  });
  await expect(db.query(`SELECT bgw_reset_config('r.nothing')`)).rejects.toMatchObject({
    code: '42704',
    message: 'unrecognized configuration parameter "r.nothing"',
  });
});

test('a definition that cannot be is refused in words', async ({ db }) => {
  for (const [args, detail] of [
    [`vartype => 'integer', unit => 'parsec'`, 'Unrecognized unit "parsec".'],
    [`vartype => 'bool', unit => 's'`, 'Type bool has no unit and no range.'],
    [`min_val => 1`, 'Type string has no unit and no range.'],
    [`vartype => 'enum'`, 'Type enum, and no other, has a list of enumvals.'],
    [`enumvals => '{1,2}'`, 'Type enum, and no other, has a list of enumvals.'],
    [`vartype => 'real', min_val => 'NaN'`, 'A limit must not be NaN.'],
    [`context => 'user'`, 'Unrecognized context "user".'],
    [`vartype => 'integer', max_val => 1.5`, 'The limits  and 1.5 are not integers of 4 bytes.'],
    [`vartype => 'integer', min_val => 0, max_val => 3e9`, 'The limits 0 and 3000000000 are not integers of 4 bytes.'],
  ])
    await expect(db.query(`SELECT bgw_define_setting('d.n', '1', ${args})`), args).rejects.toMatchObject({
      code: '22023',
      message: 'invalid definition of parameter "d.n"',
      detail,
    });
  await db.query(`SELECT bgw_define_setting('d.n', '1', vartype => 'integer', max_val => 2.0, extra_desc => 'More.')`);
  expect((await db.query(`SELECT max_val, extra_desc FROM bgw_settings WHERE name = 'd.n'`)).rows).toEqual([
    { max_val: '2', extra_desc: 'More.' },
  ]);
});

test('a setting that is no longer of context postmaster forgets the value that waited', async ({
  db,
  startController,
}) => {
  await db.query(
    `SELECT bgw_define_setting('late.value', 'boot', context => 'postmaster'), bgw_set_config('late.value', 'old')`,
  );
  await db.query(`SELECT bgw_define_setting('late.value', 'boot'), bgw_set_config('late.value', 'new')`);
  await startController();
  expect(await db.value(`SELECT setting FROM bgw_settings WHERE name = 'late.value'`)).toBe('new');
});

test('plain INSERT and UPDATE of a setting obey the rules, so that no row of a user stops a node', async ({
  db,
  alice,
}) => {
  await db.query(`SELECT bgw_mark_guc_prefix_reserved('taken')`);
  for (const [statement, refusal] of [
    [`UPDATE bgw.setting SET setting = 'abc' WHERE name = 'hers.n'`, { code: '22023' }],
    [`UPDATE bgw.setting SET pending = '-1' WHERE name = 'hers.n'`, { code: '22023' }],
    [`UPDATE bgw.setting SET vartype = 'bool' WHERE name = 'hers.n'`, { code: '22023' }],
    [`INSERT INTO bgw.setting (name, vartype, boot_val) VALUES ('hers.m', 'real', 'x')`, { code: '22023' }],
    [`INSERT INTO bgw.setting (name, vartype, boot_val) VALUES ('hers.m', 'money', '1')`, { code: '22023' }],
    [`INSERT INTO bgw.setting (name, boot_val) VALUES ('hers', 'x')`, { code: '42602' }],
    [`INSERT INTO bgw.setting (name, boot_val) VALUES ('taken.x', 'x')`, { code: '42602' }],
  ] as const) {
    await alice.client.query(
      `SELECT bgw_define_setting('hers.n', '1', vartype => 'integer', unit => 's', min_val => 0)`,
    );
    await expect(alice.client.query(statement), statement).rejects.toMatchObject(refusal);
  }
  await alice.client.query(`UPDATE bgw.setting SET setting = '1min' WHERE name = 'hers.n'`);
  expect(await db.value(`SELECT setting FROM bgw_settings WHERE name = 'hers.n'`)).toBe('60');
});
