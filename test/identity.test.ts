/** Whose rows and whose SQL: a second role sees and changes its own, and runs nothing in identity mode self (HARDENING A). */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type pg from 'pg';
import { findPackageRoot } from '../src/package-root.ts';
import { expect, nothingLeft, spawnController, startController, test as controllerTest } from './support/controller.ts';
import { onServer, SPARED, type TestDatabase } from './support/database.ts';
import { until } from './support/until.ts';

interface Role {
  name: string;
  client: pg.Client;
}

/** A role without any rights of its own, connected. */
const test = controllerTest.extend<{ alice: Role }>({
  alice: async ({ db }, use) => {
    const name = `${db.name}_alice`;
    await onServer(`CREATE ROLE ${name} LOGIN PASSWORD 'alice'`);
    const url = new URL(db.url);
    const client = await db.client({
      host: url.hostname,
      port: Number(url.port),
      user: name,
      password: 'alice',
      database: db.name,
      connectionString: '',
      application_name: SPARED,
    });
    await use({ name, client });
    await client.end();
    await db.query(`DROP OWNED BY ${name} CASCADE`);
    await onServer(`DROP ROLE ${name}`);
  },
});

const RELATIONS = [
  'worker',
  'process',
  'signal',
  'activity',
  'run',
  'log',
  'setting',
  'node',
  'session',
  'login',
  'duty',
  'migration',
  'sql_layer',
];

/** A controller has logged in as it, and is gone: otherwise it can have no process. */
async function giveLogin(db: TestDatabase, { name }: Role): Promise<void> {
  await db.query('INSERT INTO bgw.login (owner) VALUES ($1::regrole)', [name]);
}

async function countOf(client: pg.Client, relation: string): Promise<number> {
  const { rows } = await client.query(`SELECT count(*)::int AS n FROM ${relation}`);
  return rows[0].n;
}

test('a role registers workers and sees its own rows only', async ({ db, alice, controller }) => {
  const handle = await db.value<bigint>(`SELECT bgw_launch_sql($$DO 'BEGIN RAISE LOG ''secret''; END'$$)`);
  await controller.saw('worker_exited', { handle: String(handle) });
  await db.query(`SELECT bgw_launch('hello_signal')`);
  await until(() => db.value('SELECT count(*) > 0 FROM bgw.activity'));
  await alice.client.query(`SELECT bgw_register('mine', 'SELECT 1'), bgw_define_setting('mine.setting', '1')`);
  const seen = (await alice.client.query('SELECT name FROM bgw_stat_activity UNION ALL SELECT name FROM bgw_settings'))
    .rows;
  expect(seen).toEqual([{ name: 'mine' }, { name: 'mine.setting' }]);
  for (const view of [
    'bgw_run_history',
    'bgw_log',
    'bgw.process',
    'bgw.signal',
    'bgw.activity',
    'bgw.run',
    'bgw.log',
  ]) {
    expect(await countOf(alice.client, view), view).toBe(0);
  }
  expect(await db.value(`SELECT count(*)::int FROM bgw_log WHERE message = 'secret'`)).toBe(1);
});

test('a launch by a role that no node logs in as is an error that names those whom they run', async ({ db, alice }) => {
  const owner = await db.value<string>('SELECT current_user');
  await alice.client.query(`SELECT bgw_register('mine', 'SELECT 1')`);
  for (const call of [`bgw_launch('mine')`, `bgw_launch_sql('SELECT 1')`]) {
    await expect(alice.client.query(`SELECT ${call}`)).rejects.toMatchObject({
      code: 'WK201',
      message: expect.stringContaining(`there is no login for role "${alice.name}"`),
      detail: `The nodes of this database run the workers of the roles that they log in as: "${owner}".`,
    });
  }
  expect(await db.value('SELECT count(*)::int FROM bgw.process')).toBe(0);
});

test('rows that such a role inserts by hand are refused, or not run, and stop nobody', async ({
  db,
  alice,
  controller,
}) => {
  await alice.client.query('CREATE TEMPORARY TABLE x (n int)');
  await alice.client.query(`INSERT INTO bgw.worker (name, command, autostart) VALUES ('mine', 'SELECT 1', true)`);
  await expect(
    alice.client.query(`INSERT INTO bgw.process (name, command, mode) VALUES ('by hand', 'SELECT 1', 'session')`),
  ).rejects.toMatchObject({ code: '42501' });
  const good = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await controller.saw('worker_exited', { handle: String(good) });
  const { rows } = await alice.client.query('SELECT name, status, waiting_for FROM bgw_stat_activity ORDER BY name');
  expect(rows).toEqual([
    { name: 'mine', status: 'stopped', waiting_for: `there is no login for role "${alice.name}"` },
  ]);
});

test('a role cannot write rows of others, columns of nodes, or another owner', async ({ db, alice }) => {
  await db.query(`SELECT bgw_launch('hello_world')`);
  const denied = [
    `INSERT INTO bgw.worker (name, command, owner) VALUES ('x', 'SELECT 1', 10)`,
    `INSERT INTO bgw.process (name, command, mode, owner) VALUES ('x', 'SELECT 1', 'session', 10)`,
    `INSERT INTO bgw.process (name, command, mode, status) VALUES ('x', 'SELECT 1', 'session', 'started')`,
    `INSERT INTO bgw.process (worker_id) SELECT 1`,
    `INSERT INTO bgw.signal (process_id, signal) SELECT 1, 'SIGTERM'`,
    `INSERT INTO bgw.run (id) VALUES (1)`,
    `INSERT INTO bgw.log (severity, message) VALUES ('LOG', 'forged')`,
    `UPDATE bgw.process SET status = 'started'`,
    `UPDATE bgw.worker SET owner = 10`,
    `UPDATE bgw.node SET fenced = true`,
    `DELETE FROM bgw.worker`,
    `DELETE FROM bgw.process`,
    `INSERT INTO bgw.login (owner) SELECT oid FROM pg_roles WHERE rolname = current_user`,
  ];
  for (const statement of denied)
    await expect(alice.client.query(statement), statement).rejects.toMatchObject({ code: '42501' });
  expect((await alice.client.query(`UPDATE bgw.worker SET enabled = false`)).rowCount).toBe(0);
  expect((await alice.client.query(`UPDATE bgw.setting SET setting = '1'`)).rowCount).toBe(0);
});

test('what bgw_launch refuses is refused by hand too', async ({ db, alice }) => {
  await db.query('INSERT INTO bgw.login (owner) VALUES ($1::regrole)', [alice.name]);
  await alice.client.query(`SELECT bgw_register('mine', 'SELECT 1')`);
  const mine = `SELECT id FROM bgw.worker WHERE name = 'mine'`;
  const refused = [
    `INSERT INTO bgw.process (name, command, mode) VALUES ('x', 'SELECT 1', 'fast')`,
    `INSERT INTO bgw.process (name, command, mode) VALUES (repeat('x', 64), 'SELECT 1', 'session')`,
    `INSERT INTO bgw.process (name, mode) VALUES ('x', 'session')`,
    `INSERT INTO bgw.process (worker_id, command) VALUES ((${mine}), 'SELECT 2')`,
    `INSERT INTO bgw.process (worker_id, mode) VALUES ((${mine}), 'fast')`,
    `INSERT INTO bgw.process (worker_id, worker_set) VALUES ((${mine}), 'set')`,
    `INSERT INTO bgw.process (worker_id, worker_set, key) VALUES ((${mine}), 'set', repeat('x', 64))`,
    `INSERT INTO bgw.process (worker_id, notify) VALUES ((${mine}), '')`,
    `INSERT INTO bgw.process (worker_id, when_parent_ends) VALUES ((${mine}), 'cry')`,
    `INSERT INTO bgw.process (worker_id, when_parent_ends) VALUES ((${mine}), NULL)`,
    `INSERT INTO bgw.process (worker_id, settings) VALUES ((${mine}), '3')`,
  ];
  for (const statement of refused)
    await expect(alice.client.query(statement), statement).rejects.toMatchObject({ code: '22023' });
});

test('a role cannot lock a table that nodes need', async ({ alice }) => {
  for (const relation of RELATIONS) {
    for (const mode of ['ACCESS EXCLUSIVE', 'EXCLUSIVE', 'SHARE ROW EXCLUSIVE', 'SHARE', 'SHARE UPDATE EXCLUSIVE']) {
      await alice.client.query('BEGIN');
      await expect(
        alice.client.query(`LOCK TABLE bgw.${relation} IN ${mode} MODE`),
        `${relation} ${mode}`,
      ).rejects.toMatchObject({ code: '42501' });
      await alice.client.query('ROLLBACK');
    }
  }
});

test('the functions of nodes do nothing for such a role', async ({ db, alice }) => {
  const { rows } = await db.query(`SELECT * FROM bgw.join_node('real', '{}', 8)`);
  const { node_id: node, epoch } = rows[0];
  await db.query(`SELECT bgw_launch('hello_world')`);
  await db.query('SELECT bgw.take_orders($1, $2, 8)', [node, epoch]);
  const state = async (): Promise<unknown> =>
    (
      await db.query(
        'SELECT (SELECT json_agg(p) FROM bgw.process p), (SELECT json_agg(n) FROM bgw.node n), (SELECT json_agg(w) FROM bgw.worker w)',
      )
    ).rows;
  const before = await state();
  for (const call of [
    `bgw.join_node('x', '{}', 8)`,
    `bgw.resume_node(${node}, ${epoch}, '{}')`,
    `bgw.leave_node(${node}, ${epoch})`,
    `bgw.register_session(${node}, ${epoch}, pg_backend_pid(), 'x')`,
    `bgw.report(${node}, ${epoch}, '{"exited":[{"handle":1,"run_id":1,"exit_code":0}]}')`,
    `bgw.report_changes(${node}, '{"returned":[{"handle":1,"run_id":1}]}')`,
    `bgw.take_orders(${node}, ${epoch}, 8)`,
    `bgw.look(${node}, 10)`,
    `bgw.fence_dead_nodes(0)`,
    `bgw.fence_node(${node})`,
    `bgw.complete_run(1, 1)`,
    `bgw.complete_run(1, 1, txid_current(), true, NULL, 1)`,
    `bgw.void_run(1)`,
    `bgw.settle_exits('[{"handle":1,"run_id":1,"exit_code":0}]')`,
    `bgw.judge_exits('[{"handle":1,"run_id":1,"exit_code":0}]')`,
    `bgw.settle_plain_exits('[{"handle":1,"run_id":1,"exit_code":0,"done":true}]')`,
    `bgw.settle_processes_of(${node})`,
    `bgw.deliver_signals(${node})`,
    `bgw.keep_house()`,
    `bgw.trim()`,
    `bgw.partition_by_day('run', 'finished_at', '2030-01-01')`,
    `bgw.tick_schedules()`,
    `bgw.note_schedules()`,
    `bgw.cover_databases()`,
    `bgw.interrupt_databases(${node})`,
  ]) {
    await alice.client
      .query(`SELECT ${call}`)
      .catch((error: unknown) => expect(error, call).toMatchObject({ code: expect.stringMatching(/^(42501|WK002)$/) }));
  }
  expect(await state()).toEqual(before);
});

test('a member of the owner operates its workers; a name that two roles have needs the role', async ({ db, alice }) => {
  const bob = `${db.name}_bob`;
  await onServer(`CREATE ROLE ${bob}`);
  await db.query(`GRANT ${bob} TO ${alice.name}`);
  await alice.client.query(`SET ROLE ${bob}`);
  await alice.client.query(`SELECT bgw_register('shared', 'SELECT 1')`);
  await alice.client.query('RESET ROLE');
  expect((await alice.client.query(`SELECT name FROM bgw_stat_activity`)).rows).toEqual([{ name: 'shared' }]);
  await alice.client.query(`SELECT bgw_unregister('shared')`);
  expect((await alice.client.query(`SELECT name FROM bgw_stat_activity`)).rows).toEqual([]);
  await db.query(`SELECT bgw_register('twice', 'SELECT 1')`);
  for (const role of [alice.name, bob]) {
    await alice.client.query(`SET ROLE ${role}`);
    await alice.client.query(`SELECT bgw_register('hers', 'SELECT 1')`);
  }
  await alice.client.query('RESET ROLE');
  // Her own comes first; for a superuser who owns neither it is ambiguous.
  await alice.client.query(`SELECT bgw_unregister('hers')`);
  await alice.client.query(`SELECT bgw_register('hers', 'SELECT 1')`);
  await expect(db.query(`SELECT bgw_unregister('hers')`)).rejects.toMatchObject({
    code: 'WK101',
    detail: expect.stringContaining(alice.name),
  });
  await alice.client.query(`SET ROLE ${bob}`);
  await alice.client.query(`SELECT bgw_unregister('hers')`);
  await alice.client.query('RESET ROLE');
  await db.query(`DELETE FROM bgw.worker WHERE unregistered`);
  await onServer(`DROP ROLE ${bob}`);
});

test('a member of the owner launches, sees and terminates what runs as the owner (I7)', async ({
  ordinary: { db, role },
}) => {
  const operator = `${db.name}_operator`;
  await onServer(`CREATE ROLE ${operator} IN ROLE ${role}`);
  const controller = await startController(db);
  await db.query('CREATE TABLE ran_as (who text, login text)');
  await db.query(
    `SELECT bgw_register('w', $$INSERT INTO ran_as VALUES (current_user, session_user); SELECT pg_sleep(600)$$)`,
  );
  await db.query('RESET SESSION AUTHORIZATION');
  await db.query(`SET SESSION AUTHORIZATION ${operator}`);

  const handle = await db.value<bigint>(`SELECT bgw_launch('w')`);
  await db.query('CALL bgw_wait_for_startup($1)', [handle]);
  await until(() => db.value(`SELECT pid IS NOT NULL FROM bgw_stat_activity WHERE handle = $1`, [handle]));
  expect(await db.value(`SELECT bgw_terminate('w')`)).toBe(true);
  await db.query('CALL bgw_wait_for_shutdown($1)', [handle]);
  expect((await db.query('SELECT name, owner, status FROM bgw_run_history')).rows).toEqual([
    { name: 'w', owner: role, status: 'cancelled' },
  ]);
  await expect(db.query(`SELECT bgw_launch_sql('SELECT 1')`)).rejects.toMatchObject({ code: 'WK201' });
  await controller.stop();
  await nothingLeft(db);
  await db.query('RESET SESSION AUTHORIZATION');
  await onServer(`DROP ROLE ${operator}`);
});

test('what runs under a controller that is no superuser runs as its role, and so do its TypeScript workers (I7)', async ({
  ordinary: { db, role },
}) => {
  const controller = await startController(db);
  await db.query('CREATE TABLE ran_as (who text, login text)');
  const handle = await db.value<bigint>(
    `SELECT bgw_launch_sql('INSERT INTO ran_as VALUES (current_user, session_user)', mode => 'atomic')`,
  );
  await controller.saw('worker_exited', { handle: String(handle), exitCode: 0 });
  expect((await db.query('SELECT * FROM ran_as')).rows).toEqual([{ who: role, login: role }]);
  await db.query('SELECT worker_spi_launch(1)');
  await until(() => db.value(`SELECT to_regclass('schema1.counted') IS NOT NULL`));
  expect(
    await db.value(`SELECT pg_get_userbyid(relowner)::text FROM pg_class WHERE oid = 'schema1.counted'::regclass`),
  ).toBe(role);
  await controller.stop();
  await nothingLeft(db);
});

test('what defines a library defines it for the caller only', async ({ db, alice }) => {
  const others = async (): Promise<unknown> =>
    (
      await db.query(
        `SELECT (SELECT json_agg(w ORDER BY id) FROM bgw.worker AS w WHERE owner <> $1::regrole::oid),
                (SELECT json_agg(s ORDER BY name) FROM bgw.setting AS s WHERE owner <> $1::regrole::oid)`,
        [alice.name],
      )
    ).rows;
  const before = await others();
  await alice.client.query(`SELECT bgw.define_library(
    '[{"name": "kill_idle.dry_run", "vartype": "bool", "boot_val": "on", "context": "sighup", "short_desc": ""}]',
    '[{"name": "kill_idle", "library_name": "worker_spi", "function_name": "main", "flags": [], "start_time": "recovery_finished", "autostart": false}]', '[]')`);
  expect(await others()).toEqual(before);
  expect((await alice.client.query('SELECT name FROM bgw_stat_activity')).rows).toEqual([{ name: 'kill_idle' }]);
});

test('no table, view or function of ours gives a role more than is meant for it', async ({ db, alice }) => {
  const { rows: relations } = await db.query<{ name: string }>(
    `SELECT oid::regclass::text AS name FROM pg_class WHERE relkind IN ('r', 'p', 'v') AND (relnamespace = 'bgw'::regnamespace OR relname ~ '^bgw_')`,
  );
  expect(relations.length).toBeGreaterThan(15);
  await db.query(`SELECT bgw_launch('hello_world')`);
  for (const { name } of relations) {
    const rows = await alice.client.query(`SELECT * FROM ${name}`).then(
      (result) => result.rows as Record<string, unknown>[],
      (error: unknown) => (expect(error, name).toMatchObject({ code: '42501' }), []),
    );
    // Which roles have a login and which nodes there are is for everybody to see.
    if (!['bgw.login', 'bgw_nodes'].includes(name)) expect(rows, name).toEqual([]);
    for (const statement of [`DELETE FROM ${name}`, `TRUNCATE ${name}`, `ALTER TABLE ${name} RENAME TO x`])
      await expect(alice.client.query(statement), statement).rejects.toMatchObject({ code: /^(42501|55000|42809)$/ });
  }
  const definers = await db.query(
    `SELECT oid::regprocedure::text FROM pg_proc WHERE prosecdef AND (pronamespace = 'bgw'::regnamespace OR proname ~ '^bgw_')`,
  );
  expect(definers.rows).toEqual([]);
});

test('names that are equal in their first 63 bytes are refused, not made one', async ({ db }) => {
  const stem = 'x'.repeat(63);
  await db.query('SELECT bgw_register($1, $2)', [stem, 'SELECT 1']);
  for (const name of [`${stem}a`, `${stem}b`]) {
    await expect(db.query('SELECT bgw_register($1, $2)', [name, 'SELECT 1'])).rejects.toMatchObject({ code: '22023' });
    await expect(db.query('SELECT bgw_launch($1)', [name])).rejects.toMatchObject({ code: '42704' });
    await expect(db.query('SELECT bgw_launch_sql($1, name => $2)', ['SELECT 1', name])).rejects.toMatchObject({
      code: '22023',
    });
  }
});

function titleOf(osPid: number | undefined): string {
  return readFileSync(`/proc/${osPid}/cmdline`, 'utf8').replaceAll('\0', '').trim();
}

const HOSTILE_NAMES = [
  `it's`,
  '"; DROP TABLE bgw.process; --',
  '%s %n \\',
  '$$ $1 :name',
  'naïve ☃ 工作',
  '{"kind":"exited"}',
  'x'.repeat(63),
];

for (const name of HOSTILE_NAMES) {
  test(`a worker may be called ${name}`, async ({ db, startController }) => {
    const controller = await startController({
      libraryDirs: [join(findPackageRoot(), 'test', 'fixtures', 'libraries')],
    });
    await db.query('SELECT bgw_register($1, $2)', [name, 'SELECT pg_sleep(600)']);
    const handle = await db.value<bigint>('SELECT bgw_launch($1)', [name]);
    await db.query('CALL bgw_wait_for_startup($1)', [handle]);
    await until(() =>
      db.value('SELECT count(*) = 1 FROM bgw_stat_activity WHERE name = $1 AND pid IS NOT NULL', [name]),
    );
    expect(await db.value('SELECT bgw_terminate($1::text)', [name])).toBe(true);
    await db.query('CALL bgw_wait_for_shutdown($1)', [handle]);
    expect(await db.value('SELECT name FROM bgw_run_history')).toBe(name);

    const typescript = `${name.slice(0, 50)} ts`;
    await db.query(`SELECT bgw_register($1, library_name => 'waiter', function_name => 'main')`, [typescript]);
    await db.query('SELECT bgw_launch($1)', [typescript]);
    const { osPid } = await controller.saw('worker_started', { name: typescript });
    expect(titleOf(osPid)).toBe(`bgworker: ${typescript}`);
  });
}

test('a name has 1 to 63 bytes and no control characters', async ({ db }) => {
  for (const name of ['', 'x'.repeat(64), 'é'.repeat(32), 'two\nlines', 'tab\there', 'escape\u001B[31m']) {
    await expect(db.query('SELECT bgw_register($1, $2)', [name, 'SELECT 1']), name).rejects.toMatchObject({
      code: '22023',
    });
  }
});

test('what a worker says cannot forge a line of the log (I14)', async ({ db, controller }) => {
  const message = 'first line\nsecond line';
  await db.query(`SELECT bgw_launch_sql($1)`, [`DO $$ BEGIN RAISE LOG E'first line\\nsecond line'; END $$`]);
  await controller.saw('worker_said');
  await until(() => db.value('SELECT count(*) = 1 FROM bgw_log WHERE message = $1', [message]));
});

test('who is not a member of the owner finds nothing to operate', async ({ db, alice, controller }) => {
  await db.query(`SELECT bgw_register('theirs', 'SELECT pg_sleep(600)')`);
  const handle = await db.value<bigint>(`SELECT bgw_launch('theirs')`);
  await controller.saw('worker_started', { handle: String(handle) });
  const warnings: string[] = [];
  alice.client.on('notice', ({ severity, message }) => warnings.push(`${severity}: ${message}`));
  const byHandle = [
    `bgw_signal($1::bigint, 'SIGTERM')`,
    ...['bgw_cancel', 'bgw_terminate', 'bgw_set_latch', 'bgw_restart'].map((name) => `${name}($1::bigint)`),
  ];
  for (const call of byHandle)
    expect((await alice.client.query(`SELECT ${call} AS done`, [handle])).rows, call).toEqual([{ done: false }]);
  expect(warnings).toEqual(byHandle.map(() => `WARNING: handle ${handle} is not a running background worker`));
  for (const call of [
    `bgw_signal('theirs', 'SIGTERM')`,
    ...['bgw_cancel', 'bgw_terminate', 'bgw_restart', 'bgw_launch', 'bgw_unregister'].map(
      (name) => `${name}('theirs')`,
    ),
    `bgw_set_config('kill_idle.dry_run', 'on')`,
    `bgw_reset_config('kill_idle.dry_run')`,
  ])
    await expect(alice.client.query(`SELECT ${call}`), call).rejects.toMatchObject({ code: '42704' });
  expect((await alice.client.query('SELECT * FROM bgw_get_pid($1)', [handle])).rows).toEqual([
    { status: 'stopped', pid: null },
  ]);
  const other = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await controller.saw('worker_exited', { handle: String(other) });
  expect(await db.value('SELECT status FROM bgw_stat_activity WHERE handle = $1', [handle])).toBe('started');
  expect(await db.value('SELECT count(*)::int FROM bgw.signal')).toBe(0);
});

test('a setting name that two roles have needs the role', async ({ db, alice }) => {
  const bob = `${db.name}_bob`;
  await onServer(`CREATE ROLE ${bob}`);
  for (const role of [alice.name, bob]) {
    await db.query(`SET ROLE ${role}`);
    await db.query(`SELECT bgw_define_setting('hers.word', 'boot')`);
  }
  await db.query('RESET ROLE');
  await expect(db.query(`SELECT bgw_set_config('hers.word', 'x')`)).rejects.toMatchObject({ code: 'WK101' });
  await alice.client.query(`SELECT bgw_set_config('hers.word', 'x')`);
  expect(
    (await db.query(`SELECT owner, setting FROM bgw_settings WHERE name = 'hers.word' ORDER BY owner`)).rows,
  ).toEqual([
    { owner: alice.name, setting: 'x' },
    { owner: bob, setting: 'boot' },
  ]);
  await db.query(`DELETE FROM bgw.setting WHERE name = 'hers.word'`);
  await onServer(`DROP ROLE ${bob}`);
});

test('whatever such a role registers by hand is never claimed, and the node goes on', async ({
  db,
  alice,
  controller,
}) => {
  await giveLogin(db, alice);
  await alice.client.query(
    `SELECT bgw_define_setting('mine.nap', 'whenever'), bgw_define_setting('mine.database', 'no such one')`,
  );
  await alice.client.query(
    `INSERT INTO bgw.worker (name, command, naptime, autostart) VALUES ('garbage nap', 'SELECT 1', 'mine.nap', true)`,
  );
  await alice.client.query(
    `INSERT INTO bgw.worker (name, command, database, autostart) VALUES ('nowhere', 'SELECT 1', 'mine.database', true)`,
  );
  await alice.client.query(
    `INSERT INTO bgw.worker (name, command, mode, autostart) VALUES ('atomic', 'SELECT 1', 'atomic', true)`,
  );
  await alice.client.query(
    `INSERT INTO bgw.worker (name, library_name, function_name, flags, autostart) VALUES ('library', 'hello_signal', 'main', '{}', true)`,
  );
  await alice.client.query(`INSERT INTO bgw.process (worker_id) SELECT id FROM bgw.worker`);
  await alice.client.query(
    `INSERT INTO bgw.signal (process_id, signal) SELECT id, s FROM bgw.process, unnest('{SIGHUP,SIGINT,SIGUSR1,RESTART}'::text[]) AS s`,
  );
  for (let i = 0; i < 3; i += 1) {
    const good = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
    await controller.saw('worker_exited', { handle: String(good) });
  }
  const { rows } = await db.query(
    `SELECT count(*)::int AS waiting, count(run_id)::int AS claimed FROM bgw.process WHERE owner = $1::regrole::oid`,
    [alice.name],
  );
  expect(rows).toEqual([{ waiting: 8, claimed: 0 }]);
  expect(await countOf(alice.client, 'bgw_run_history')).toBe(0);
  expect(controller.observations.filter(({ kind }) => kind === 'unexpected_error')).toEqual([]);
});

test('an open transaction of such a role does not keep a node from its chores', async ({ db, alice }) => {
  await giveLogin(db, alice);
  await alice.client.query(
    `SELECT bgw_register('mine', 'SELECT 1'), bgw_define_setting('mine.late', '1', context => 'postmaster')`,
  );
  await alice.client.query(`SELECT bgw_unregister('mine'), bgw_set_config('mine.late', '2')`);
  await alice.client.query('BEGIN');
  await alice.client.query(`UPDATE bgw.worker SET type = 'held'`);
  await alice.client.query(`UPDATE bgw.setting SET short_desc = 'held'`);
  await alice.client.query(`SELECT * FROM bgw.process, bgw.run, bgw.log, bgw.activity, bgw.signal`);
  await alice.client.query(`SELECT bgw_register('other', 'SELECT 1')`);
  await alice.client.query(`INSERT INTO bgw.process (name, command, mode) VALUES ('by hand', 'SELECT 1', 'session')`);
  await db.query(`SET lock_timeout = '500ms'`);
  const { rows } = await db.query(`SELECT * FROM bgw.join_node('real', '{}', 8)`);
  await db.query('SELECT bgw.take_orders($1, $2, 8)', [rows[0].node_id, rows[0].epoch]);
  await db.query(`UPDATE bgw.duty SET due_at = '-infinity'`);
  await db.query('SELECT bgw.take_orders($1, $2, 8)', [rows[0].node_id, rows[0].epoch]);
  await db.query('SELECT bgw.leave_node($1, $2)', [rows[0].node_id, rows[0].epoch]);
  await alice.client.query('ROLLBACK');
});

test('a row that such a role holds locked stops no node', async ({ db, alice, controller }) => {
  await alice.client.query(`SELECT bgw_register('mine', 'SELECT 1')`);
  await alice.client.query(`SELECT bgw_unregister('mine')`);
  await alice.client.query('BEGIN');
  await alice.client.query('SELECT FROM bgw.worker FOR UPDATE');
  await db.query(`UPDATE bgw.duty SET due_at = '-infinity'`);
  try {
    const handle = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
    await controller.saw('worker_exited', { handle: String(handle) }, 4000);
  } finally {
    await alice.client.query('ROLLBACK');
  }
});

test('the functions of nodes, given a forged node, do nothing for such a role', async ({ db, alice }) => {
  await giveLogin(db, alice);
  const { rows } = await db.query(`SELECT * FROM bgw.join_node('real', '{}', 8)`);
  const { node_id: node, epoch } = rows[0];
  const handle = await db.value<bigint>(`SELECT bgw_launch('hello_world')`);
  await db.query('SELECT bgw.take_orders($1, $2, 8)', [node, epoch]);
  await db.query(`SELECT bgw_launch('count_relations'), bgw_terminate($1::bigint)`, [handle]);
  await alice.client.query(`INSERT INTO bgw.process (name, command, mode) VALUES ('by hand', 'SELECT 1', 'session')`);
  const tables = [
    'worker',
    'process',
    'signal',
    'activity',
    'run',
    'log',
    'setting',
    'node',
    'session',
    'login',
    'duty',
  ];
  const state = async (): Promise<unknown> =>
    (
      await db.query(
        `SELECT ${tables.map((name) => `(SELECT json_agg(t) FROM bgw.${name} AS t) AS ${name}`).join(', ')}`,
      )
    ).rows;
  const before = await state();
  const forged = `jsonb_populate_record(NULL::bgw.node, jsonb_build_object('id', ${node}, 'epoch', ${epoch}, 'name', 'real', 'login', LOGIN, 'libraries', '[]'::jsonb, 'fenced', false, 'lease_until', now() - interval '1 h'))`;
  for (const login of ['bgw.current_owner()', '10']) {
    const nodeRow = forged.replace('LOGIN', `${login}::bigint`);
    for (const call of [
      `bgw.claim_startable(${nodeRow}, true, 100, '-infinity')`,
      `bgw.claim_startable(${nodeRow}, false, 100, '-infinity')`,
      `bgw.find_startable(${nodeRow}, true, 100, '-infinity')`,
      `bgw.is_dead(${nodeRow})`,
      `bgw.check_node(${node}, ${epoch})`,
      `bgw.settle_stopped()`,
      `bgw.settle_exits((SELECT jsonb_agg(jsonb_build_object('handle', id, 'run_id', run_id, 'exit_code', 0)) FROM bgw.process))`,
      `bgw.complete_run((SELECT min(id) FROM bgw.process), NULL)`,
      `bgw.decide_runs('[{"run_id":1,"undecided":true}]')`,
      `bgw.log_events('real', '[{"handle":1,"severity":"LOG","message":"forged"}]')`,
      `bgw.deliver_signals(NULL)`,
      `bgw.request(${handle}, 'SIGTERM')`,
      `bgw.store_setting((SELECT s FROM bgw.setting AS s LIMIT 1), 'x')`,
      `bgw.autostart((SELECT min(id) FROM bgw.worker))`,
      `bgw.autostart(1)`,
      `bgw.settings_of(10)`,
    ]) {
      const answer = await alice.client.query(`SELECT ${call} AS answer`).then(
        ({ rows }) => rows.map(({ answer }) => answer),
        ({ code }) => code,
      );
      if (typeof answer === 'string') expect(answer, call).toMatch(/^(42501|WK00[12])$/);
      if (call.startsWith('bgw.settings_of')) expect(answer).toEqual([[]]);
      expect(await state(), call).toEqual(before);
    }
  }
});

test('a node that may not end the session of another one counts it as still there, and goes on', async ({
  ordinary: { db },
}) => {
  const superuser = await db.client();
  const { rows } = await superuser.query('SELECT pg_backend_pid() AS pid');
  const node = await db.value(`SELECT node_id FROM bgw.join_node('stopped', '{}', 8)`);
  await db.query(`SELECT bgw.register_session($1, 1, $2, 'x')`, [node, rows[0].pid]);
  expect(await db.value('SELECT bgw.fence_node($1)', [node])).toBe(false);
  await superuser.end();
  await until(() => db.value('SELECT bgw.fence_node($1)', [node]));
});

test('a SQL worker has no right that its owner has not (I7)', async ({ ordinary: { db, role } }) => {
  const controller = await startController(db);
  const attempts = [
    'SET SESSION AUTHORIZATION DEFAULT; CREATE ROLE bgw_never_made',
    'SET ROLE pg_read_server_files',
    'RESET ROLE; SELECT * FROM pg_authid',
    `ALTER ROLE ${role} SUPERUSER`,
    `COPY (SELECT 1) TO PROGRAM 'true'`,
  ];
  for (const command of attempts) {
    for (const mode of ['session', 'atomic']) {
      const handle = await db.value<bigint>('SELECT bgw_launch_sql($1, mode => $2)', [command, mode]);
      const { exitCode, error } = await controller.saw('worker_exited', { handle: String(handle) });
      expect({ command, mode, exitCode, code: error?.code }).toEqual({ command, mode, exitCode: 1, code: '42501' });
    }
  }
  await controller.stop();
  await nothingLeft(db);
});

test('rows that a superuser inserts are not run by a controller that logs in as another role (I7)', async ({
  ordinary: { db },
}) => {
  const controller = await startController(db);
  await db.query('RESET SESSION AUTHORIZATION');
  await expect(db.query(`SELECT bgw_launch_sql('SELECT 1')`)).rejects.toMatchObject({ code: 'WK201' });
  await db.query(`INSERT INTO bgw.worker (name, command, autostart) VALUES ('root', 'SELECT 1', true)`);
  const byHand = await db.value<bigint>(
    `INSERT INTO bgw.process (name, command, mode) VALUES ('by hand', 'SELECT 1', 'session') RETURNING id`,
  );
  await db.query(`SET SESSION AUTHORIZATION ${db.name}_app`);
  const own = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await controller.saw('worker_exited', { handle: String(own) });
  await db.query('RESET SESSION AUTHORIZATION');
  expect(own > byHand).toBe(true);
  expect(await db.value('SELECT count(*)::int FROM bgw.process WHERE run_id IS NULL')).toBe(1);
  expect(controller.observations.filter(({ kind }) => kind === 'worker_started')).toHaveLength(1);
  await controller.stop();
  await nothingLeft(db);
});

test('names of 63 bytes that differ only in the last are two workers', async ({ db, controller }) => {
  const [a, b] = ['a', 'b'].map((last) => 'x'.repeat(62) + last);
  const handles: bigint[] = [];
  for (const name of [a, b]) {
    await db.query('SELECT bgw_register($1, $2)', [name, 'SELECT pg_sleep(600)']);
    handles.push(await db.value<bigint>('SELECT bgw_launch($1)', [name]));
  }
  for (const handle of handles) await controller.saw('worker_started', { handle: String(handle) });
  await db.query('SELECT bgw_terminate($1::text)', [b]);
  await db.query('CALL bgw_wait_for_shutdown($1)', [handles[1]]);
  expect((await db.query(`SELECT name, status FROM bgw_stat_activity WHERE name ~ '^xxx' ORDER BY name`)).rows).toEqual(
    [
      { name: a, status: 'started' },
      { name: b, status: 'stopped' },
    ],
  );
});

test('hostile names arrive unharmed in application_name, and in the log as one JSON line each (I14)', async ({
  db,
}) => {
  const controller = await spawnController(db);
  for (const name of [...HOSTILE_NAMES, '--help', ' ', '4711']) {
    await db.query('SELECT bgw_register($1, $2)', [
      name,
      `DO $$ BEGIN RAISE LOG E'said\\n{"level":60,"msg":"forged"}\\r\\u001B[31m'; PERFORM pg_sleep(600); END $$`,
    ]);
    const handle = await db.value<bigint>('SELECT bgw_launch($1)', [name]);
    const shown = await until(() =>
      db.value<string>('SELECT application_name FROM bgw_stat_activity WHERE handle = $1 AND state IS NOT NULL', [
        handle,
      ]),
    );
    // The server shows what is not ASCII in its own way, and at most 63 bytes.
    if (/^[ -~]*$/.test(name)) expect(shown).toBe(`bgworker: ${name}`.slice(0, 63));
    else expect(shown).toMatch(/^bgworker: na/);
    await until(() => controller.lines.some((line) => line['handle'] === String(handle) && line['name'] === name), {
      what: `the line of ${name}`,
    });
    expect(await db.value('SELECT bgw_terminate($1::text)', [name])).toBe(true);
    await db.query('CALL bgw_wait_for_shutdown($1)', [handle]);
  }
  expect(await controller.end('SIGTERM')).toBe(0);
  expect(controller.lines.filter((line) => typeof line['level'] !== 'number')).toEqual([]);
  expect(controller.lines.filter((line) => line['msg'] === 'forged')).toEqual([]);
});

test('a name with a control character beyond ASCII is refused as well', async ({ db }) => {
  const accepted: string[] = [];
  for (const name of ['next\u0085line', 'csi\u009B31m', 'rub\u007Fout'])
    await db.query('SELECT bgw_register($1, $2)', [name, 'SELECT 1']).then(
      () => accepted.push(encodeURI(name)),
      (error: unknown) => expect(error, encodeURI(name)).toMatchObject({ code: '22023' }),
    );
  expect(accepted).toEqual([]);
});

test('a node takes no operator from whoever comes first in the search_path of its database', async ({
  db,
  startController: start,
}) => {
  await db.query(`CREATE SCHEMA trap; CREATE TABLE trap.sprung (who text);
    CREATE FUNCTION trap.spring(text, text) RETURNS boolean LANGUAGE plpgsql AS
      $$ BEGIN INSERT INTO trap.sprung VALUES (current_user); RETURN $1 OPERATOR(pg_catalog.=) $2; END $$;
    CREATE OPERATOR trap.= (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.spring);
    ALTER DATABASE ${db.name} SET search_path = trap, pg_catalog, public`);
  const controller = await start();
  const handle = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await controller.saw('worker_exited', { handle: String(handle) });
  expect(await db.value('SELECT count(*)::int FROM trap.sprung')).toBe(0);
});
